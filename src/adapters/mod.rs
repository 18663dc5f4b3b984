//! Adapters for other crates, so that what is written for them works behind an IOMMU.

pub mod virtio_drivers;
