//! The adapter for the crate `virtio-drivers`, against the software IOMMU: what a driver shares is what
//! its device reaches, whatever fails.

mod hal;
mod transport;
