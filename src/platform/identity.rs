//! A ready [`Platform`] for kernels that see physical memory at its own addresses.
#![expect(unsafe_code, reason = "passes on what the kernel promised when it made the platform")]

use core::fmt;
use core::num::NonZeroUsize;
use core::ptr::NonNull;

use super::{DmaPages, PAGE_SIZE, Platform};
use crate::addr::PhysAddr;
use crate::error::OutOfMemory;

/// The [`Platform`] of an identity-mapped kernel: two functions over its page allocator, and a clock.
///
/// The pages are zeroed here, so any allocator will do. Buffers for `iommu::dma` are found where the
/// CPU finds them, so nothing but their edges is bounced. Page size and fences are the defaults of
/// [`Platform`]; a kernel that needs others implements the trait itself.
///
/// ```
/// # #![allow(unsafe_code)]
/// # use core::ptr::NonNull;
/// # mod clock {
/// #     pub fn nanoseconds() -> u64 { std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 }
/// # }
/// # mod frames {
/// #     use std::alloc::{Layout, alloc, dealloc};
/// #     fn layout(pages: usize) -> Layout { Layout::from_size_align(pages * 4096, 4096).unwrap() }
/// #     pub fn alloc_run(pages: usize) -> *mut u8 { unsafe { alloc(layout(pages)) } }
/// #     pub unsafe fn free_run(at: *mut u8, pages: usize) { unsafe { dealloc(at, layout(pages)) } }
/// # }
/// use iommu::platform::{IdentityPlatform, check};
///
/// // SAFETY: memory is mapped one to one, cached and coherent; `frames` hands a page out once.
/// static PLATFORM: IdentityPlatform = unsafe {
///     IdentityPlatform::new(
///         |pages| NonNull::new(frames::alloc_run(pages.get())),
///         |start, pages| frames::free_run(start.as_ptr(), pages.get()),
///         clock::nanoseconds,
///     )
/// };
/// check(&PLATFORM)?;
/// # Ok::<(), iommu::platform::PlatformError>(())
/// ```
#[derive(Clone, Copy)]
pub struct IdentityPlatform {
    alloc: fn(NonZeroUsize) -> Option<NonNull<u8>>,
    free: unsafe fn(NonNull<u8>, NonZeroUsize),
    now_ns: fn() -> u64,
}

impl IdentityPlatform {
    /// A platform over the kernel's own functions.
    ///
    /// - `alloc` gives that many contiguous pages of [`PAGE_SIZE`] bytes, or `None`;
    /// - `free` takes them back;
    /// - `now_ns` is [`Platform::now_ns`].
    ///
    /// # Safety
    ///
    /// What `alloc` gives is aligned to [`PAGE_SIZE`], is mapped at its physical address, readable and
    /// writable, coherent with devices, and nothing else uses it until it is passed to `free`. `free`
    /// may be called with what `alloc` gave, once. Buffers that the kernel gives to devices through
    /// `iommu::dma` are mapped at their physical addresses too.
    #[must_use]
    pub const unsafe fn new(
        alloc: fn(NonZeroUsize) -> Option<NonNull<u8>>,
        free: unsafe fn(NonNull<u8>, NonZeroUsize),
        now_ns: fn() -> u64,
    ) -> Self {
        Self { alloc, free, now_ns }
    }
}

// SAFETY: the promise that `new` asks for, and the pages are zeroed before they are handed on.
unsafe impl Platform for IdentityPlatform {
    fn alloc_dma(&self, pages: NonZeroUsize) -> Result<DmaPages, OutOfMemory> {
        let bytes = pages.get().checked_mul(PAGE_SIZE).ok_or(OutOfMemory)?;
        let cpu = (self.alloc)(pages).ok_or(OutOfMemory)?;
        // SAFETY: `alloc` gave so many pages, which nothing else uses.
        unsafe { cpu.write_bytes(0, bytes) };
        Ok(DmaPages { cpu, device: PhysAddr(cpu.addr().get() as u64), pages })
    }

    unsafe fn free_dma(&self, memory: DmaPages) {
        // SAFETY: the pages are those of `alloc`, and by the caller's promise nobody uses them.
        unsafe { (self.free)(memory.cpu, memory.pages) }
    }

    fn now_ns(&self) -> u64 {
        (self.now_ns)()
    }

    fn phys_of(&self, cpu: NonNull<u8>) -> Option<PhysAddr> {
        Some(PhysAddr(cpu.addr().get() as u64))
    }
}

impl fmt::Debug for IdentityPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityPlatform").finish_non_exhaustive()
    }
}
