//! IOMMU domains, groups, attach and detach, and the VFIO type1 container, for kernels and
//! hypervisors: a device reaches the memory it was given, and no other.
//!
//! Three things, each usable without the next:
//!
//! 1. **drivers** that talk to an IOMMU: [`drivers::virtio_iommu`], over PCI and MMIO;
//! 2. the **IOMMU API**: a [`Registry`](registry::Registry) of instances and devices, their
//!    [`Group`](group::Group)s, [`PagingDomain`](domain::PagingDomain)s; attach, detach, map, unmap,
//!    [faults](fault::Fault);
//! 3. the **type1 [`Container`](container::Container)**: one user's memory for several groups, with
//!    the attach routine that tries the existing domains first and allocates last.
//!
//! Port [`platform::Platform`] (three methods) and bring a [`pool::Pool`]; then:
//!
#![cfg_attr(feature = "sim", doc = "```")]
#![cfg_attr(not(feature = "sim"), doc = "```ignore")] // it runs against the software IOMMU
//! use iommu::{addr::*, device::DeviceId, domain::PagingDomain, driver::EndpointId, group::*};
//! use iommu::{pool::Pool, prot::Prot, registry::*};
//!
//! # let sim = iommu::sim::Sim::new();
//! # let driver = sim.driver(); // on a real machine: VirtioIommu::new(...)
//! static POOL: Pool = Pool::heap();
//! let registry = Registry::new(&POOL);
//! let iommu = registry.add_instance(driver)?;
//! let info = DeviceInfo { id: DeviceId(0x10), endpoints: &[EndpointId(0x10)], with: None };
//! let group = registry.add_device(&iommu, &info)?; // the device is blocked from here on
//!
//! let domain = PagingDomain::new(&iommu, &POOL)?;
//! let page = IovaRange::from_len(Iova(0x1000), 0x1000).unwrap();
//! domain.map(page, PhysAddr(0x8000_0000), Prot::RW)?;
//! let attached = Group::claim(&group, OwnerId(1))?.attach(&domain).unwrap();
//! // The device reaches the page and nothing else, until:
//! domain.unmap(page)?;
//! drop(attached); // blocked again
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What holds everywhere
//!
//! - **Fail closed.** A group is always on a domain: its user's or the one that blocks, never on none.
//! - **Strong guarantee.** A call that returns an error leaves everything as it was. Where the unit
//!   refuses the undo, the group or the instance ends poisoned, and DMA blocked.
//! - **Out of memory is an ordinary error.** Undo, detach and teardown allocate nothing.
//! - **Devices are not believed**, and every wait on one ends.
//!
//! The locks and their order are in `docs/locking.md`.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(test, feature = "alloc"))]
extern crate alloc;
#[cfg(any(test, feature = "sim"))]
extern crate std;

#[cfg(all(iommu_sabotage, not(all(target_os = "none", debug_assertions))))]
compile_error!("iommu_sabotage is for the boot tests alone: see src/sabotage.rs");

#[cfg(feature = "virtio-drivers")]
pub mod adapters;
pub mod addr;
#[cfg(feature = "container")]
pub mod container;
pub mod device;
#[cfg(feature = "dma")]
pub mod dma;
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
mod mark;
pub mod pci;
pub mod plan;
pub mod platform;
pub mod pool;
pub mod prot;
pub mod rangemap;
pub mod registry;
pub mod reserved;
#[cfg(iommu_sabotage)]
#[doc(hidden)]
pub mod sabotage;
pub mod selftest;
#[cfg(feature = "sim")]
pub mod sim;
pub mod sync;
pub mod topology;
mod trace;
#[cfg(feature = "virtio-iommu")]
pub mod virtio;
