//! IOMMU drivers, one module each, behind one feature each.

pub mod virtio_iommu;
