//! A [`Platform`] over the program's own memory, and a device's accesses to it. Feature `sim`.
#![expect(unsafe_code, reason = "hands out memory, and reads it as a device does")]

use core::num::NonZeroUsize;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::alloc::Layout;

use super::Sim;
use crate::addr::{Iova, PhysAddr};
use crate::driver::EndpointId;
use crate::error::OutOfMemory;
use crate::fault::{Access, DriverFault};
use crate::platform::{DmaPages, PAGE_SIZE, Platform};

/// Pages from the global allocator, at physical addresses that are those of the program: what
/// `iommu::dma` needs in a test. Counts what is in use, and can refuse.
#[derive(Debug)]
pub struct SimPlatform {
    pages: AtomicUsize,
    clock: AtomicU64,
    knows: AtomicBool,
    /// How many allocations are left before one is refused.
    left: AtomicU64,
    refused: AtomicU64,
}

impl Default for SimPlatform {
    fn default() -> Self {
        Self::new()
    }
}

impl SimPlatform {
    /// A machine with no page in use.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            pages: AtomicUsize::new(0),
            clock: AtomicU64::new(0),
            knows: AtomicBool::new(true),
            left: AtomicU64::new(u64::MAX),
            refused: AtomicU64::new(0),
        }
    }

    /// How many pages are in use.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages.load(Ordering::Relaxed)
    }

    /// Refuses the `n`-th allocation of pages from now (0 is the next one) and all later ones.
    pub fn refuse_nth(&self, n: u64) {
        self.refused.store(0, Ordering::Relaxed);
        self.left.store(n, Ordering::Relaxed);
    }

    /// Ends [`refuse_nth`](Self::refuse_nth) and returns how many allocations were refused.
    pub fn refuse_none(&self) -> u64 {
        self.left.store(u64::MAX, Ordering::Relaxed);
        self.refused.swap(0, Ordering::Relaxed)
    }

    /// Whether [`Platform::phys_of`] answers; it does until this is called with `false`.
    pub fn know_addresses(&self, knows: bool) {
        self.knows.store(knows, Ordering::Relaxed);
    }
}

// SAFETY: the global allocator hands memory out once, aligned as asked; the device of the tests is
// a thread, so the memory is coherent; the clock goes up. Addresses are the program's own.
unsafe impl Platform for SimPlatform {
    fn alloc_dma(&self, pages: NonZeroUsize) -> Result<DmaPages, OutOfMemory> {
        let step = |left: u64| if left == u64::MAX { None } else { Some(left.saturating_sub(1)) };
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step) == Ok(0) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(OutOfMemory);
        }
        let layout = layout(pages)?;
        // SAFETY: the layout has a size.
        let cpu = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).ok_or(OutOfMemory)?;
        self.pages.fetch_add(pages.get(), Ordering::Relaxed);
        Ok(DmaPages { cpu, device: PhysAddr(cpu.as_ptr().expose_provenance() as u64), pages })
    }

    unsafe fn free_dma(&self, memory: DmaPages) {
        self.pages.fetch_sub(memory.pages.get(), Ordering::Relaxed);
        let Ok(layout) = layout(memory.pages) else { return };
        // SAFETY: `alloc_dma` took it with this layout; the caller gives it back once.
        unsafe { std::alloc::dealloc(memory.cpu.as_ptr(), layout) };
    }

    fn now_ns(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn phys_of(&self, cpu: NonNull<u8>) -> Option<PhysAddr> {
        let address = cpu.as_ptr().expose_provenance() as u64;
        self.knows.load(Ordering::Relaxed).then_some(PhysAddr(address))
    }
}

fn layout(pages: NonZeroUsize) -> Result<Layout, OutOfMemory> {
    let len = pages.get().checked_mul(PAGE_SIZE).ok_or(OutOfMemory)?;
    Layout::from_size_align(len, PAGE_SIZE).map_err(|_| OutOfMemory)
}

impl Sim {
    /// Lets a device read memory, byte by byte, through the unit.
    ///
    /// # Errors
    ///
    /// The fault of the first byte that is refused; those before it were read.
    ///
    /// # Safety
    ///
    /// Everything that the device reaches is memory of this program whose addresses were told by a
    /// [`SimPlatform`], and nobody writes to it meanwhile.
    pub unsafe fn read(
        &self,
        endpoint: EndpointId,
        iova: Iova,
        out: &mut [u8],
    ) -> Result<(), DriverFault> {
        for (at, byte) in out.iter_mut().enumerate() {
            let phys = self.reach(endpoint, Iova(iova.0 + at as u64), Access::READ)?;
            let place = core::ptr::with_exposed_provenance::<u8>(phys.0 as usize);
            // SAFETY: the caller's promise.
            *byte = unsafe { place.read_volatile() };
        }
        Ok(())
    }

    /// Lets a device write memory, byte by byte, through the unit.
    ///
    /// # Errors
    ///
    /// The fault of the first byte that is refused; those before it were written.
    ///
    /// # Safety
    ///
    /// As [`read`](Self::read), and nobody reads it meanwhile.
    pub unsafe fn write(
        &self,
        endpoint: EndpointId,
        iova: Iova,
        bytes: &[u8],
    ) -> Result<(), DriverFault> {
        for (at, byte) in bytes.iter().enumerate() {
            let phys = self.reach(endpoint, Iova(iova.0 + at as u64), Access::WRITE)?;
            let place = core::ptr::with_exposed_provenance_mut::<u8>(phys.0 as usize);
            // SAFETY: the caller's promise.
            unsafe { place.write_volatile(*byte) };
        }
        Ok(())
    }
}
