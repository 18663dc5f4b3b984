//! What the examples need beside the library.
//!
//! - `guest`: the parts of the example `vmm` that are not about the IOMMU: a guest's memory, and
//!   the guest itself.
#![no_std]

pub mod guest;
