//! A `Platform` made of a `Hal` and a clock: for the driver of the IOMMU itself, untranslated.
#![expect(unsafe_code, reason = "passes the promises of a `Hal` on as those of a `Platform`")]

use core::fmt;
use core::marker::PhantomData;
use core::num::NonZeroUsize;
use core::ptr::NonNull;

use ::virtio_drivers::{BufferDirection, Hal, PAGE_SIZE as HAL_PAGE_SIZE};

use crate::addr::PhysAddr;
use crate::error::OutOfMemory;
use crate::platform::{DmaPages, PAGE_SIZE, Platform};

const _: () = assert!(HAL_PAGE_SIZE == PAGE_SIZE);

/// The [`Platform`] of a kernel that has a `Hal` already: what else it takes is a clock.
///
/// `H::share` is asked where buffers are, one byte at a time; see the [module](super).
pub struct HalPlatform<H: Hal> {
    clock_ns: fn() -> u64,
    hal: PhantomData<fn() -> H>,
}

impl<H: Hal> HalPlatform<H> {
    /// A platform with this clock: nanoseconds since some fixed moment.
    #[must_use]
    pub const fn new(clock_ns: fn() -> u64) -> Self {
        Self { clock_ns, hal: PhantomData }
    }
}

// SAFETY: the memory is that of `H`, zeroed, aligned and nobody else's, as `Hal` promises; coherent,
// because drivers over `H` use it without any maintenance.
unsafe impl<H: Hal> Platform for HalPlatform<H> {
    fn alloc_dma(&self, pages: NonZeroUsize) -> Result<DmaPages, OutOfMemory> {
        match H::dma_alloc(pages.get(), BufferDirection::Both) {
            (0, _) => Err(OutOfMemory),
            (phys, cpu) => Ok(DmaPages { cpu, device: PhysAddr(phys), pages }),
        }
    }

    unsafe fn free_dma(&self, memory: DmaPages) {
        let DmaPages { cpu, device, pages } = memory;
        // SAFETY: the caller's promise: `alloc_dma` got it from `H` with these values.
        let _ = unsafe { H::dma_dealloc(device.0, cpu, pages.get()) };
    }

    fn now_ns(&self) -> u64 {
        (self.clock_ns)()
    }

    fn phys_of(&self, cpu: NonNull<u8>) -> Option<PhysAddr> {
        let byte = NonNull::slice_from_raw_parts(cpu, 1);
        let direction = BufferDirection::DriverToDevice;
        // SAFETY: the byte is of a buffer that is being mapped, which nobody else uses meanwhile.
        let phys = unsafe { H::share(byte, direction) };
        // SAFETY: as above, with what `share` returned.
        unsafe { H::unshare(phys, byte, direction) };
        Some(PhysAddr(phys))
    }
}

impl<H: Hal> fmt::Debug for HalPlatform<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HalPlatform")
    }
}
