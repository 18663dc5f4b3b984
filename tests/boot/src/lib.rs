//! What the boot images share: the machine brought up, and the cases that run on it.
//!
//! - `machine`: the firmware's description, memory, PCI, the test devices;
//! - `world`: the IOMMUs started, every test device in its group;
//! - `probe`: one DMA, and what must have come of it;
//! - `tally`: how many there were, for the host's report;
//! - `bench`: real devices and memory for the table of cases in `iommu-cases`;
//! - `engines`: other devices, each with a small driver, for the matrix of refused DMA;
//! - `stand`: the bench of that matrix;
//! - `muffled`: a transport that can be told to keep a unit from hearing;
//! - `story`: the steps of the demo;
//! - `measure`: the work of the benchmark image;
//! - `reserving`: a unit with one more reserved region;
//! - `lsi`: a DMA engine for machines that can't have the usual test device;
//! - `hal`: the glue for drivers of the crate `virtio-drivers`;
//! - `harness`: what the test images share;
//! - `cases`: the cases of this machine alone, plain functions, the same on every architecture.
#![no_std]

extern crate alloc;

pub mod bench;
pub mod cases;
pub mod engines;
pub mod hal;
pub mod harness;
pub mod lsi;
pub mod machine;
pub mod measure;
pub mod muffled;
pub mod probe;
pub mod reserving;
pub mod stand;
pub mod story;
pub mod tally;
pub mod world;

#[cfg(target_arch = "aarch64")]
pub use iommu_aarch64 as arch;
#[cfg(target_arch = "riscv64")]
pub use iommu_riscv64 as arch;
#[cfg(target_arch = "x86_64")]
pub use iommu_x86_64 as arch;
