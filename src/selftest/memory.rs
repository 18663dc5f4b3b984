//! Three granules of memory that a device may write to, looked at byte by byte.
#![expect(unsafe_code, reason = "a device writes to the memory, so it is read by raw pointer")]

use core::num::NonZeroUsize;
use core::ptr::NonNull;

use super::{LEN, PhysAddr};
use crate::platform::{DmaPages, PAGE_SIZE, Platform};

/// Memory of the platform, given back on drop. No reference to it ever exists.
pub(super) struct Memory<'p, P: Platform + ?Sized> {
    platform: &'p P,
    pages: Option<DmaPages>,
    start: NonNull<u8>,
    phys: PhysAddr,
    len: usize,
}

impl<'p, P: Platform + ?Sized> Memory<'p, P> {
    /// Three granules, aligned to a granule; `None` if there is no such memory.
    pub(super) fn new(platform: &'p P, granule: u64) -> Option<Self> {
        let granule = usize::try_from(granule).ok()?.max(PAGE_SIZE);
        let len = granule.checked_mul(3)?;
        // Pages are aligned to less than a granule, so one more finds the aligned ones.
        let spare = if granule > PAGE_SIZE { granule } else { 0 };
        let count = NonZeroUsize::new(len.checked_add(spare)?.div_ceil(PAGE_SIZE))?;
        let pages = platform.alloc_dma(count).ok()?;
        let (first, start) = (pages.device.0, pages.cpu);
        let mut this = Self { platform, pages: Some(pages), start, phys: PhysAddr(first), len };
        let aligned = first.checked_next_multiple_of(granule as u64)?;
        let skipped = usize::try_from(aligned - first).ok().filter(|skipped| *skipped <= spare)?;
        // SAFETY: `skipped + len` bytes are at most those of the pages.
        this.start = unsafe { this.start.add(skipped) };
        this.phys = PhysAddr(aligned);
        Some(this)
    }

    /// The physical address of the byte at `offset`.
    pub(super) fn phys(&self, offset: u64) -> PhysAddr {
        PhysAddr(self.phys.0.wrapping_add(offset))
    }

    /// Never gives the memory back: a device may still be at work on it.
    pub(super) fn leak(&mut self) {
        self.pages = None;
    }

    pub(super) fn fill(&mut self, value: u8) {
        for offset in 0..self.len {
            self.set(offset, value);
        }
        self.platform.release_to_device();
    }

    /// Writes the first bytes.
    pub(super) fn write(&mut self, bytes: [u8; LEN]) {
        for (offset, byte) in bytes.into_iter().enumerate() {
            self.set(offset, byte);
        }
        self.platform.release_to_device();
    }

    /// The first bytes.
    pub(super) fn read(&self) -> [u8; LEN] {
        self.platform.acquire_from_device();
        core::array::from_fn(|offset| self.at(offset))
    }

    pub(super) fn is_filled(&self, value: u8) -> bool {
        self.is_filled_from(0, value)
    }

    /// Whether every byte from `offset` on is `value`.
    pub(super) fn is_filled_from(&self, offset: usize, value: u8) -> bool {
        self.platform.acquire_from_device();
        (offset..self.len).all(|offset| self.at(offset) == value)
    }

    fn set(&mut self, offset: usize, value: u8) {
        assert!(offset < self.len, "the callers count to the length");
        // SAFETY: inside the memory, checked above.
        let place = unsafe { self.start.add(offset) };
        // SAFETY: the platform's promise: mapped, and no reference to it exists.
        unsafe { place.write_volatile(value) };
    }

    fn at(&self, offset: usize) -> u8 {
        assert!(offset < self.len, "the callers count to the length");
        // SAFETY: inside the memory, checked above.
        let place = unsafe { self.start.add(offset) };
        // SAFETY: as in `set`.
        unsafe { place.read_volatile() }
    }
}

impl<P: Platform + ?Sized> Drop for Memory<'_, P> {
    fn drop(&mut self) {
        if let Some(pages) = self.pages.take() {
            // SAFETY: the pages came from this platform; the probe does no DMA any more and its group is
            // blocked, or `leak` was called.
            unsafe { self.platform.free_dma(pages) };
        }
    }
}
