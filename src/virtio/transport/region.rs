//! Device registers behind checked accesses. The only code that touches them; no lock.
#![expect(unsafe_code, reason = "reads and writes device registers by raw pointer")]

use core::ptr::NonNull;

/// Some mapped device registers, little endian.
///
/// An access that is misaligned or not wholly inside reads all ones, as an absent register does,
/// and writes nothing. Copies name the same registers.
#[derive(Clone, Copy, Debug)]
pub struct MmioRegion {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: registers aren't tied to a thread; the constructor's caller promises that any CPU may
// access them.
unsafe impl Send for MmioRegion {}
// SAFETY: as above; every access is one instruction on one register, so accesses of several threads
// don't tear, and what their order means to the device is the transport's affair.
unsafe impl Sync for MmioRegion {}

impl MmioRegion {
    /// Registers at `base`, `len` bytes.
    ///
    /// # Safety
    ///
    /// From `base` on, `len` bytes of device registers are mapped for reading and writing, as
    /// device memory (uncached, in order), on every CPU that will use the value, and stay so for as
    /// long as it or a copy of it is used. They are no memory that Rust knows of.
    #[must_use]
    pub const unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len }
    }

    /// The length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no register.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The part of `len` bytes from `offset` on, or `None` if it is not wholly inside.
    #[must_use]
    pub fn part(&self, offset: usize, len: usize) -> Option<Self> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: `offset <= self.len`, so the result is inside the mapping, or one past it.
        let base = unsafe { self.base.add(offset) };
        Some(Self { base, len })
    }

    /// Reads an 8-bit register.
    #[must_use]
    pub fn read_u8(&self, offset: usize) -> u8 {
        let Some(place) = self.place::<u8>(offset) else { return u8::MAX };
        // SAFETY: `place` checked bounds and alignment; the constructor's caller mapped it.
        unsafe { place.read_volatile() }
    }

    /// Reads a 16-bit register.
    #[must_use]
    pub fn read_u16(&self, offset: usize) -> u16 {
        let Some(place) = self.place::<u16>(offset) else { return u16::MAX };
        // SAFETY: `place` checked bounds and alignment; the constructor's caller mapped it.
        u16::from_le(unsafe { place.read_volatile() })
    }

    /// Reads a 32-bit register.
    #[must_use]
    pub fn read_u32(&self, offset: usize) -> u32 {
        let Some(place) = self.place::<u32>(offset) else { return u32::MAX };
        // SAFETY: `place` checked bounds and alignment; the constructor's caller mapped it.
        u32::from_le(unsafe { place.read_volatile() })
    }

    /// Writes an 8-bit register.
    pub fn write_u8(&self, offset: usize, value: u8) {
        let Some(place) = self.place::<u8>(offset) else { return };
        // SAFETY: `place` checked bounds and alignment; the constructor's caller mapped it.
        unsafe { place.write_volatile(value) };
    }

    /// Writes a 16-bit register.
    pub fn write_u16(&self, offset: usize, value: u16) {
        let Some(place) = self.place::<u16>(offset) else { return };
        // SAFETY: `place` checked bounds and alignment; the constructor's caller mapped it.
        unsafe { place.write_volatile(value.to_le()) };
    }

    /// Writes a 32-bit register.
    pub fn write_u32(&self, offset: usize, value: u32) {
        let Some(place) = self.place::<u32>(offset) else { return };
        // SAFETY: `place` checked bounds and alignment; the constructor's caller mapped it.
        unsafe { place.write_volatile(value.to_le()) };
    }

    /// Writes a 64-bit register as two halves, the low one first.
    pub fn write_u64(&self, offset: usize, value: u64) {
        self.write_u32(offset, value as u32);
        self.write_u32(offset.saturating_add(4), (value >> 32) as u32);
    }

    fn place<V>(&self, offset: usize) -> Option<NonNull<V>> {
        if offset.checked_add(size_of::<V>())? > self.len {
            return None;
        }
        // SAFETY: `offset` is inside the mapping, checked above.
        let place = unsafe { self.base.add(offset) }.cast::<V>();
        place.is_aligned().then_some(place)
    }
}

/// Registers that are plain memory, zeroed and leaked: what was written is read again.
#[cfg(test)]
pub(super) fn plain_registers(len: usize) -> MmioRegion {
    let words = std::vec![0_u64; len.div_ceil(8)];
    let base = NonNull::from(std::vec::Vec::leak(words)).cast();
    // SAFETY: the memory is aligned, as long as asked for, never freed, and no reference to it is
    // left, so nobody else knows of it.
    unsafe { MmioRegion::new(base, len) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_outside_or_misaligned_reach_nothing() {
        let registers = plain_registers(16);
        registers.write_u64(8, 0x1122_3344_5566_7788);
        assert_eq!(registers.read_u32(8), 0x5566_7788, "little endian, low half first");
        assert_eq!(registers.read_u8(15), 0x11);
        for offset in [13, 14, 16, usize::MAX - 1, usize::MAX] {
            registers.write_u32(offset, 0);
            assert_eq!(registers.read_u32(offset), u32::MAX, "{offset}");
        }
        registers.write_u16(9, 0);
        registers.write_u8(16, 0);
        assert_eq!(registers.read_u16(15), u16::MAX);
        assert_eq!(registers.read_u32(12), 0x1122_3344);
    }

    #[test]
    fn a_part_lies_inside() {
        let registers = plain_registers(16);
        registers.write_u8(9, 7);
        let part = registers.part(8, 8).unwrap();
        assert_eq!((part.read_u8(1), part.read_u8(8)), (7, u8::MAX));
        assert!(registers.part(16, 0).is_some());
        assert!(registers.part(8, 9).is_none());
        assert!(registers.part(usize::MAX, 2).is_none());
    }
}
