//! What this crate asks of the machine it runs on. Port it first; see `docs/porting.md`.
//!
//! | what | file |
//! |---|---|
//! | the trait | here |
//! | a ready one for identity-mapped kernels | `identity.rs` |
//! | whether one keeps its word | `check.rs` |
#![expect(unsafe_code, reason = "implementors promise facts about memory the compiler can't see")]

mod check;
mod identity;
#[cfg(test)]
mod tests;

use core::num::NonZeroUsize;
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, fence};

pub use check::{CLOCK_READS, PlatformError, check};
#[cfg(feature = "virtio-iommu")]
pub(crate) use check::{check_clock, check_memory};
pub use identity::IdentityPlatform;

use crate::addr::PhysAddr;
use crate::error::OutOfMemory;

/// The size of the pages that [`Platform::alloc_dma`] counts in, in bytes.
pub const PAGE_SIZE: usize = 4096;

/// Memory that the CPU and a device share.
#[derive(Debug)]
pub struct DmaPages {
    /// Where the CPU finds it: readable and writable, aligned to [`PAGE_SIZE`].
    pub cpu: NonNull<u8>,
    /// Where the IOMMU's own queue accesses find it. Those are never translated.
    pub device: PhysAddr,
    /// How many pages of [`PAGE_SIZE`] bytes, contiguous in both views.
    pub pages: NonZeroUsize,
}

// SAFETY: the value is the only handle on memory that isn't tied to a thread.
unsafe impl Send for DmaPages {}

/// The machine: memory for device queues, ordering, and a clock.
///
/// Three methods are required; an identity-mapped kernel gives three functions to
/// [`IdentityPlatform`] instead. [`check`] finds the usual mistakes. A reference to a `Platform` is one too, so a static works.
///
/// # Safety
///
/// The crate gives the returned memory to a device and reads what the device wrote there, so an
/// implementation must keep the promise stated on each method.
pub unsafe trait Platform: Send + Sync {
    /// Returns `pages` zeroed, contiguous, page-aligned pages that nothing else refers to.
    ///
    /// The memory must be coherent with the device: either the device snoops caches or the CPU
    /// maps it uncached. It stays valid until it is handed to [`free_dma`](Self::free_dma).
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when there is no such memory. An ordinary answer; nothing is retried.
    fn alloc_dma(&self, pages: NonZeroUsize) -> Result<DmaPages, OutOfMemory>;

    /// Takes back what [`alloc_dma`](Self::alloc_dma) gave.
    ///
    /// The crate calls it only when no device can reach the memory any more: after a confirmed
    /// reset of the IOMMU that used it, or, for bounce pages and coherent memory of `iommu::dma`, a
    /// confirmed unmap. Memory of which that is not confirmed is never given back.
    ///
    /// # Safety
    ///
    /// `memory` came from this platform's `alloc_dma`, and nobody uses it any more.
    unsafe fn free_dma(&self, memory: DmaPages);

    /// Nanoseconds since some fixed moment; never goes back. Used for deadlines only.
    ///
    /// A clock that stands still would make waits on a dead device endless, so [`check`] refuses it.
    fn now_ns(&self) -> u64;

    /// The size of the CPU's pages in bytes, a power of two. An IOMMU whose smallest page is larger is
    /// refused, because it could not map a single page of memory (rule C-276). The default is 4096.
    fn page_size(&self) -> u64 {
        PAGE_SIZE as u64
    }

    /// The physical address of the byte that the CPU finds at `cpu`, or `None` if that is not known.
    ///
    /// Asked once per page of a buffer that is mapped for a device (`iommu::dma`); the answer holds to the
    /// end of that page, for as long as the buffer is mapped. A buffer of which a page is not known is
    /// bounced. The default knows none. With physical memory mapped 1:1 it is
    /// `Some(PhysAddr(cpu.addr().get() as u64))`.
    fn phys_of(&self, cpu: NonNull<u8>) -> Option<PhysAddr> {
        let _ = cpu;
        None
    }

    /// Makes earlier CPU writes visible to a device that is notified after this returns.
    ///
    /// The default is a sequentially consistent fence, enough where devices are in the same
    /// shareability domain as the CPU (x86, RISC-V, and Arm under hypervisors). On Arm systems
    /// with outer-shareable devices use `dmb osh`.
    fn release_to_device(&self) {
        fence(Ordering::SeqCst);
    }

    /// Orders later CPU reads after the read that saw the device's progress.
    ///
    /// Same default and same advice as [`release_to_device`](Self::release_to_device).
    fn acquire_from_device(&self) {
        fence(Ordering::SeqCst);
    }
}

// SAFETY: every call goes to `P`, which keeps the promises.
unsafe impl<P: Platform + ?Sized> Platform for &P {
    fn alloc_dma(&self, pages: NonZeroUsize) -> Result<DmaPages, OutOfMemory> {
        (**self).alloc_dma(pages)
    }

    unsafe fn free_dma(&self, memory: DmaPages) {
        // SAFETY: the caller's promise is the one that `P` asks for.
        unsafe { (**self).free_dma(memory) }
    }

    fn now_ns(&self) -> u64 {
        (**self).now_ns()
    }

    fn page_size(&self) -> u64 {
        (**self).page_size()
    }

    fn phys_of(&self, cpu: NonNull<u8>) -> Option<PhysAddr> {
        (**self).phys_of(cpu)
    }

    fn release_to_device(&self) {
        (**self).release_to_device();
    }

    fn acquire_from_device(&self) {
        (**self).acquire_from_device();
    }
}

const _: Option<&dyn Platform> = None; // the trait stays object safe
