//! DMA for kernel drivers, against the software IOMMU, with a device that really reads and writes.

mod buffers;
mod coherent;
mod deferred;
mod fixture;
mod lists;
mod locks;
mod random;
mod raw;
mod spaces;
mod spare;
mod sweep;
mod unconfirmed;
