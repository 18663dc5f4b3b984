//! The memory provider: what the host tells a container about its owner's memory.

use crate::addr::PhysAddr;
use crate::error::errors;
use crate::prot::Prot;

errors! {
    /// Why memory could not be pinned.
    PinError {
        /// There is no memory at the address, or not with this permission. `EFAULT`.
        Fault = EFAULT, "no memory at the address, or not with this permission";
        /// The owner's limit of locked pages is reached, or memory is short. `ENOMEM`.
        OutOfMemory = ENOMEM, "the limit of locked memory is reached";
        /// The owner's address space is gone. `ENODEV`.
        NoOwner = ENODEV, "the owner of the memory is gone";
    }
}

/// A run of physically contiguous pages, pinned: they stay where they are until they are unpinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pinned {
    /// The physical address of the first page.
    pub phys: PhysAddr,
    /// How many pages of [`Memory::page_size`] the run has; at least 1.
    pub pages: u64,
}

/// Pins and unpins the memory that a container maps (rules T1-310 to T1-327).
///
/// The container calls it without holding any lock, so it may block, and it may call back into
/// the container (rules T1-582, T1-583).
pub trait Memory: Send + Sync {
    /// The page size that addresses and counts are in, in bytes; a power of two.
    fn page_size(&self) -> u64;

    /// Pins a run of physically contiguous pages from `vaddr` on, at most `pages`, as long as is
    /// convenient: answers that continue each other are joined (rule T1-311).
    ///
    /// `prot` says how devices will use them. The run must not be empty; an empty one is taken as
    /// `Fault` (rule T1-326), and of one longer than asked for the surplus is unpinned at once.
    /// A unit whose granule is larger than a page needs memory that is contiguous, and aligned, in
    /// pieces of its granule (rule T1-044).
    ///
    /// # Errors
    ///
    /// As [`PinError`]; nothing is pinned.
    fn pin(&self, vaddr: u64, pages: u64, prot: Prot) -> Result<Pinned, PinError>;

    /// Takes back a run that [`pin`](Self::pin) gave, a part of it, or several that continue each
    /// other, once no device reaches it.
    ///
    /// `prot` is what it was pinned with: pages that devices could write count as dirty.
    fn unpin(&self, run: Pinned, prot: Prot);
}

impl<M: Memory + ?Sized> Memory for &M {
    fn page_size(&self) -> u64 {
        (**self).page_size()
    }

    fn pin(&self, vaddr: u64, pages: u64, prot: Prot) -> Result<Pinned, PinError> {
        (**self).pin(vaddr, pages, prot)
    }

    fn unpin(&self, run: Pinned, prot: Prot) {
        (**self).unpin(run, prot);
    }
}

/// The provider of a kernel whose memory is mapped one to one and never moves: nothing to pin,
/// and every range is one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdentityMemory;

impl Memory for IdentityMemory {
    fn page_size(&self) -> u64 {
        4096
    }

    fn pin(&self, vaddr: u64, pages: u64, _prot: Prot) -> Result<Pinned, PinError> {
        Ok(Pinned { phys: PhysAddr(vaddr), pages })
    }

    fn unpin(&self, _run: Pinned, _prot: Prot) {}
}
