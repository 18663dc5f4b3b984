//! The memory provider: what the host tells a container about its owners' memory.

use crate::addr::PhysAddr;
use crate::error::errors;
use crate::prot::Prot;

errors! {
    /// Why memory could not be pinned, charged or copied.
    PinError {
        /// There is no memory at the address, or not with this permission. `EFAULT`.
        Fault = EFAULT, "no memory at the address, or not with this permission";
        /// The owner's limit of locked pages is reached, or memory is short. `ENOMEM`.
        OutOfMemory = ENOMEM, "the limit of locked memory is reached";
        /// The owner's address space is gone. `ENODEV`.
        NoOwner = ENODEV, "the owner of the memory is gone";
    }
}

/// Whose memory a mapping is: the provider's own number for an address space together with what
/// it may lock (Linux: the task, its address space and `lock_cap`; rule T1-272).
///
/// Recorded when a mapping is made; everything later is done with the recorded owner, whoever calls
/// (rule T1-215). A host with one owner never looks at it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MemoryOwner(pub u32);

/// What kind of memory a frame is (rule T1-315).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Frame {
    /// Ordinary memory: charged while it is pinned, and unpinned.
    Ordinary,
    /// Memory that never moves: the zero page, a reserved range. Not charged, not unpinned.
    Reserved,
    /// Device memory, without a page behind it. As `Reserved`, and no emulated device can pin it
    /// (rule T1-473).
    Device,
}

/// A run of physically contiguous pages, pinned: they stay where they are until they are unpinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pinned {
    /// The physical address of the first page.
    pub phys: PhysAddr,
    /// How many pages of [`Memory::page_size`] the run has; at least 1.
    pub pages: u64,
}

/// Pins, unpins, charges and copies the memory that a container maps (rules T1-310 to T1-327).
///
/// The container calls it without its state locked, so it may block, and it may call back into
/// the container (rules T1-582, T1-583), but for attach and detach of groups: one of these may be
/// what it is called by. The exception is [`frame`](Self::frame), a mere look-up.
pub trait Memory: Send + Sync {
    /// The page size that addresses and counts are in, in bytes; a power of two.
    fn page_size(&self) -> u64;

    /// Pins a run of physically contiguous pages from `vaddr` on, at most `pages`, as long as is
    /// convenient: answers that continue each other are joined (rule T1-311). All frames of a run
    /// are of one kind (rule T1-310).
    ///
    /// `prot` says how devices will use them. The run must not be empty; an empty one is taken as
    /// `Fault` (rule T1-326), and of one longer than asked for the surplus is unpinned at once.
    /// A unit whose granule is larger than a page needs memory that is contiguous, and aligned, in
    /// pieces of its granule (rule T1-044).
    ///
    /// # Errors
    ///
    /// As [`PinError`]; nothing is pinned.
    fn pin(
        &self,
        owner: MemoryOwner,
        vaddr: u64,
        pages: u64,
        prot: Prot,
    ) -> Result<Pinned, PinError>;

    /// Takes back a run that [`pin`](Self::pin) gave, a part of it, or several that continue each
    /// other, once no device reaches it. Called for ordinary frames only.
    ///
    /// `prot` is what it was pinned with: pages that devices could write count as dirty.
    fn unpin(&self, run: Pinned, prot: Prot);

    /// Whose memory a request of the caller is about. Default: there is one owner.
    fn caller(&self) -> MemoryOwner {
        MemoryOwner::default()
    }

    /// What kind of frame is at `phys`. Default: ordinary memory.
    ///
    /// Must not block and must not call back: the container may be locked.
    fn frame(&self, phys: PhysAddr) -> Frame {
        let _ = phys;
        Frame::Ordinary
    }

    /// Charges pages to the owner's limit of locked memory. Default: there is no limit.
    ///
    /// A page counts once per mapping, however often it is pinned (rules T1-045, T1-319). Exactly
    /// the limit is allowed (rule T1-320).
    ///
    /// # Errors
    ///
    /// As [`PinError`], `OutOfMemory` for the limit; nothing is charged.
    fn charge(&self, owner: MemoryOwner, pages: u64) -> Result<(), PinError> {
        let _ = (owner, pages);
        Ok(())
    }

    /// Takes back a charge, or a part of it. If the owner is gone this does nothing (rule T1-325).
    fn uncharge(&self, owner: MemoryOwner, pages: u64) {
        let _ = (owner, pages);
    }

    /// Copies memory of the owner to `into`, for an emulated device. Default: `Fault`.
    ///
    /// # Errors
    ///
    /// As [`PinError`]; what `into` holds then does not count.
    fn read(&self, owner: MemoryOwner, vaddr: u64, into: &mut [u8]) -> Result<(), PinError> {
        let _ = (owner, vaddr, into);
        Err(PinError::Fault)
    }

    /// Copies `from` to memory of the owner, for an emulated device. Default: `Fault`.
    ///
    /// # Errors
    ///
    /// As [`PinError`]; nothing of it counts as written.
    fn write(&self, owner: MemoryOwner, vaddr: u64, from: &[u8]) -> Result<(), PinError> {
        let _ = (owner, vaddr, from);
        Err(PinError::Fault)
    }
}

impl<M: Memory + ?Sized> Memory for &M {
    fn page_size(&self) -> u64 {
        (**self).page_size()
    }

    fn pin(
        &self,
        owner: MemoryOwner,
        vaddr: u64,
        pages: u64,
        prot: Prot,
    ) -> Result<Pinned, PinError> {
        (**self).pin(owner, vaddr, pages, prot)
    }

    fn unpin(&self, run: Pinned, prot: Prot) {
        (**self).unpin(run, prot);
    }

    fn caller(&self) -> MemoryOwner {
        (**self).caller()
    }

    fn frame(&self, phys: PhysAddr) -> Frame {
        (**self).frame(phys)
    }

    fn charge(&self, owner: MemoryOwner, pages: u64) -> Result<(), PinError> {
        (**self).charge(owner, pages)
    }

    fn uncharge(&self, owner: MemoryOwner, pages: u64) {
        (**self).uncharge(owner, pages);
    }

    fn read(&self, owner: MemoryOwner, vaddr: u64, into: &mut [u8]) -> Result<(), PinError> {
        (**self).read(owner, vaddr, into)
    }

    fn write(&self, owner: MemoryOwner, vaddr: u64, from: &[u8]) -> Result<(), PinError> {
        (**self).write(owner, vaddr, from)
    }
}

/// The provider of a kernel whose memory is mapped one to one and never moves: nothing to pin,
/// every range is one run, and there is no limit. It copies nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdentityMemory;

impl Memory for IdentityMemory {
    fn page_size(&self) -> u64 {
        4096
    }

    fn pin(
        &self,
        _owner: MemoryOwner,
        vaddr: u64,
        pages: u64,
        _prot: Prot,
    ) -> Result<Pinned, PinError> {
        Ok(Pinned { phys: PhysAddr(vaddr), pages })
    }

    fn unpin(&self, _run: Pinned, _prot: Prot) {}
}
