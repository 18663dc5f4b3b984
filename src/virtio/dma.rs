//! Memory that a device reads and writes, behind checked accesses.
//!
//! The only code that touches it. No reference to it ever exists: the device may write at any
//! time, so every read is volatile and gives a copy (virtio-iommu rule 11.5: copy once, then
//! decide). No lock: an owner of a [`DmaBuffer`] guards it with its own.
#![expect(unsafe_code, reason = "reads and writes memory that a device shares, by raw pointer")]

use core::num::NonZeroUsize;
use core::ptr::NonNull;

use super::Quiet;
use crate::addr::PhysAddr;
use crate::error::OutOfMemory;
use crate::platform::{DmaPages, PAGE_SIZE, Platform};

/// Some zeroed pages that a device may use.
///
/// An access that is misaligned or not wholly inside reads zeros and writes nothing, so no index,
/// whoever computed it, reaches other memory. Dropping it leaks the pages: only
/// [`release`](Self::release) gives them back, and asks for the proof that the device was reset.
#[derive(Debug)]
pub(crate) struct DmaBuffer {
    base: NonNull<u8>,
    device: PhysAddr,
    /// In bytes, a multiple of the page size; 0 once the pages were given back.
    len: usize,
}

// SAFETY: a `DmaBuffer` is the only handle on its pages, which aren't tied to a thread.
unsafe impl Send for DmaBuffer {}

impl DmaBuffer {
    /// Takes zeroed memory for at least `bytes` bytes.
    pub(crate) fn new<P: Platform>(platform: &P, bytes: usize) -> Result<Self, OutOfMemory> {
        let pages = NonZeroUsize::new(bytes.div_ceil(PAGE_SIZE)).unwrap_or(NonZeroUsize::MIN);
        let DmaPages { cpu, device, pages } = platform.alloc_dma(pages)?;
        debug_assert!(cpu.addr().get().is_multiple_of(PAGE_SIZE), "the platform promised");
        let len = pages.get().checked_mul(PAGE_SIZE).ok_or(OutOfMemory)?;
        Ok(Self { base: cpu, device, len })
    }

    /// Gives the pages back; `_quiet` says that the device no longer reaches them.
    pub(crate) fn release<P: Platform>(&mut self, platform: &P, _quiet: &Quiet) {
        let Some(pages) = NonZeroUsize::new(self.len / PAGE_SIZE) else { return };
        self.len = 0;
        let memory = DmaPages { cpu: self.base, device: self.device, pages };
        // SAFETY: `new` got the pages from the platform of this driver; the device was reset, and
        // with `len` 0 no method reaches them any more.
        unsafe { platform.free_dma(memory) };
    }

    /// Where the device finds the byte at `offset`.
    #[inline]
    pub(crate) fn device(&self, offset: usize) -> PhysAddr {
        PhysAddr(self.device.0.wrapping_add(offset as u64))
    }

    /// Reads a byte.
    #[inline]
    pub(crate) fn read_u8(&self, offset: usize) -> u8 {
        let Some(place) = self.place::<u8>(offset) else { return 0 };
        // SAFETY: `place` checked bounds and alignment; the memory is live while `len` is not 0.
        unsafe { place.read_volatile() }
    }

    /// Reads a little-endian `u16`.
    #[inline]
    pub(crate) fn read_u16(&self, offset: usize) -> u16 {
        let Some(place) = self.place::<u16>(offset) else { return 0 };
        // SAFETY: `place` checked bounds and alignment; the memory is live while `len` is not 0.
        u16::from_le(unsafe { place.read_volatile() })
    }

    /// Reads a little-endian `u64`.
    #[inline]
    pub(crate) fn read_u64(&self, offset: usize) -> u64 {
        let Some(place) = self.place::<u64>(offset) else { return 0 };
        // SAFETY: `place` checked bounds and alignment; the memory is live while `len` is not 0.
        u64::from_le(unsafe { place.read_volatile() })
    }

    /// Writes a byte.
    #[inline]
    pub(crate) fn write_u8(&mut self, offset: usize, value: u8) {
        let Some(place) = self.place::<u8>(offset) else { return };
        // SAFETY: `place` checked bounds and alignment; the memory is live while `len` is not 0.
        unsafe { place.write_volatile(value) };
    }

    /// Writes a little-endian `u16`.
    #[inline]
    pub(crate) fn write_u16(&mut self, offset: usize, value: u16) {
        let Some(place) = self.place::<u16>(offset) else { return };
        // SAFETY: `place` checked bounds and alignment; the memory is live while `len` is not 0.
        unsafe { place.write_volatile(value.to_le()) };
    }

    /// Writes a little-endian `u64`.
    #[inline]
    pub(crate) fn write_u64(&mut self, offset: usize, value: u64) {
        let Some(place) = self.place::<u64>(offset) else { return };
        // SAFETY: `place` checked bounds and alignment; the memory is live while `len` is not 0.
        unsafe { place.write_volatile(value.to_le()) };
    }

    /// Writes `bytes` from `offset` on.
    ///
    /// A plain copy: the caller has not given this part to the device yet, and publishes it behind
    /// a release fence.
    #[inline]
    pub(crate) fn write_bytes(&mut self, offset: usize, bytes: &[u8]) {
        let Some(place) = self.span(offset, bytes.len()) else { return };
        // SAFETY: `span` checked the bounds; a borrowed slice never overlaps memory that no
        // reference exists to.
        unsafe { place.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    }

    /// As [`write_bytes`](Self::write_bytes), whole words of 8 bytes at a multiple of 8; nothing else is
    /// written. What a target without unaligned accesses would copy byte by byte is stored by words.
    #[inline]
    pub(crate) fn write_words(&mut self, offset: usize, bytes: &[u8]) {
        let Some(place) = self.span(offset, bytes.len()) else { return };
        if !offset.is_multiple_of(size_of::<u64>()) {
            return;
        }
        let (words, _) = bytes.as_chunks();
        for (index, word) in words.iter().enumerate() {
            // SAFETY: `span` checked the bounds.
            let place = unsafe { place.cast::<u64>().add(index) };
            // SAFETY: the pages begin at a multiple of 8, and so does `offset`.
            unsafe { place.write(u64::from_ne_bytes(*word)) };
        }
    }

    /// Fills `out` from `offset` on, one volatile byte at a time.
    pub(crate) fn read_bytes(&self, offset: usize, out: &mut [u8]) {
        for (index, byte) in out.iter_mut().enumerate() {
            *byte = self.read_u8(offset.saturating_add(index));
        }
    }

    /// The place of an integer. The pages begin and end at multiples of its size (a promise of
    /// [`Platform::alloc_dma`]), so an aligned offset below `len` is wholly inside. Two comparisons:
    /// every request makes a dozen of these.
    #[inline]
    fn place<V>(&self, offset: usize) -> Option<NonNull<V>> {
        const { assert!(size_of::<V>().is_power_of_two() && size_of::<V>() <= PAGE_SIZE) };
        if !offset.is_multiple_of(size_of::<V>()) || offset >= self.len {
            return None;
        }
        // SAFETY: `offset < len`, and the pages are one allocation of `len` bytes.
        Some(unsafe { self.base.add(offset) }.cast())
    }

    #[inline]
    fn span(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        if end > self.len {
            return None;
        }
        // SAFETY: `offset <= len`, and the pages are one allocation of `len` bytes.
        Some(unsafe { self.base.add(offset) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::reset;
    use super::*;
    use crate::virtio::transport::fake::{FakeConfig, FakeMachine};

    #[test]
    fn accesses_outside_or_misaligned_reach_nothing() {
        let machine = FakeMachine::new(FakeConfig::default());
        let mut buffer = DmaBuffer::new(&machine, 1).unwrap();
        for offset in [PAGE_SIZE - 7, PAGE_SIZE, usize::MAX - 3, usize::MAX, 4] {
            buffer.write_u64(offset, u64::MAX); // 4: inside, but not a multiple of 8
        }
        buffer.write_bytes(PAGE_SIZE - 1, &[1, 2]);
        for offset in [PAGE_SIZE - 8, 4, usize::MAX - 7] {
            buffer.write_words(offset, &[1; 16]);
        }
        buffer.write_words(0, &[1; 7]); // no whole word
        let mut all = [0xaa; PAGE_SIZE];
        buffer.read_bytes(0, &mut all);
        assert!(all.iter().all(|byte| *byte == 0));
        buffer.write_u64(PAGE_SIZE - 8, 0x0102_0304_0506_0708);
        assert_eq!(buffer.read_u16(PAGE_SIZE - 2), 0x0102, "little endian");
        assert_eq!((buffer.read_u16(PAGE_SIZE - 1), buffer.read_u64(PAGE_SIZE - 4)), (0, 0));
        let bytes: [u8; 20] = core::array::from_fn(|index| index as u8 + 1);
        buffer.write_words(8, &bytes);
        let mut seen = [0; 36];
        buffer.read_bytes(0, &mut seen);
        assert_eq!((&seen[..8], &seen[24..]), (&[0; 8][..], &[0; 12][..]), "two words and no more");
        assert_eq!(seen[8..24], bytes[..16]);
    }

    #[test]
    fn pages_that_went_back_are_out_of_reach() {
        let machine = FakeMachine::new(FakeConfig::default());
        let mut buffer = DmaBuffer::new(&machine, PAGE_SIZE + 1).unwrap();
        assert_eq!(machine.pages(), 2);
        let quiet = reset(&machine, &machine.transport(), 0).unwrap();
        buffer.release(&machine, &quiet);
        buffer.release(&machine, &quiet);
        assert_eq!(machine.pages(), 0);
        buffer.write_u8(0, 1);
        assert_eq!(buffer.read_u8(0), 0);
    }
}
