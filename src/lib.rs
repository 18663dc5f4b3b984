//! IOMMU domains, groups, attach and detach, and the VFIO type1 container, without std.
#![no_std]
#![warn(missing_docs)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(test, feature = "sim"))]
extern crate std;

pub mod addr;
#[cfg(feature = "container")]
pub mod container;
pub mod device;
pub mod domain;
pub mod driver;
#[cfg(feature = "virtio-iommu")]
pub mod drivers;
pub mod error;
pub mod fault;
pub mod firmware;
pub mod group;
pub mod instance;
mod list;
pub mod pci;
pub mod platform;
pub mod pool;
pub mod prot;
pub mod rangemap;
pub mod registry;
pub mod reserved;
#[cfg(feature = "sim")]
pub mod sim;
pub mod sync;
mod trace;
#[cfg(feature = "virtio-iommu")]
pub mod virtio;
