//! The IOMMU API against the software IOMMU. Every claim about reach is asked of the unit.

mod attach;
mod chunks;
mod deferred;
mod direct;
mod dirty;
mod doorbells;
mod faults;
#[cfg(feature = "virtio-iommu")]
mod fixed;
mod fixture;
mod flights;
mod groups;
mod identity;
mod map;
mod model;
mod options;
mod selftest;
mod sweep;
mod unconfirmed;
