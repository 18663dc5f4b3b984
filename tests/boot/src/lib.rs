//! What the boot images share: the machine brought up, and the cases that run on it.
//!
//! - `machine`: device tree, memory, PCI, the test devices;
//! - `world`: the IOMMUs started, every test device in its group;
//! - `probe`: one DMA, and what must have come of it;
//! - `story`: the steps of the demo;
//! - `cases`: the cases, plain functions by topic, the same on every architecture.
#![no_std]

pub mod cases;
pub mod machine;
pub mod probe;
pub mod story;
pub mod world;

#[cfg(target_arch = "aarch64")]
pub use iommu_aarch64 as arch;
