//! Providers of memory for the container: numbers, because no device touches what is mapped here.
//!
//! [`IdentityMemory`](iommu::container::IdentityMemory) knows every range as one run. These two hand
//! out one page at a time.

use iommu::addr::PhysAddr;
use iommu::container::{Memory, MemoryOwner, PinError, Pinned};
use iommu::prot::Prot;

const PAGE: u64 = 0x1000;

/// Contiguous memory, pinned page by page.
#[derive(Clone, Copy)]
pub struct Pages;

/// No page continues the one before.
#[derive(Clone, Copy)]
pub struct Scattered;

impl Memory for Pages {
    fn page_size(&self) -> u64 {
        PAGE
    }

    fn pin(&self, _: MemoryOwner, vaddr: u64, _: u64, _: Prot) -> Result<Pinned, PinError> {
        Ok(Pinned { phys: PhysAddr(vaddr), pages: 1 })
    }

    fn unpin(&self, _: Pinned, _: Prot) {}
}

impl Memory for Scattered {
    fn page_size(&self) -> u64 {
        PAGE
    }

    fn pin(&self, _: MemoryOwner, vaddr: u64, _: u64, _: Prot) -> Result<Pinned, PinError> {
        Ok(Pinned { phys: PhysAddr(vaddr * 2), pages: 1 })
    }

    fn unpin(&self, _: Pinned, _: Prot) {}
}
