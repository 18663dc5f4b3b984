//! Addresses and ranges: the only place where address arithmetic lives, and it is checked.
//!
//! Two address spaces must never be mixed up, so each has its type: [`Iova`] is what a device
//! emits, [`PhysAddr`] what memory answers to. Ranges are closed at both ends, as on the wire.

use core::fmt;

/// An address as a device emits it (I/O virtual address), in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Iova(pub u64);

/// A physical address, in bytes. Address 0 is an ordinary address (rule D-20).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PhysAddr(pub u64);

impl fmt::Debug for Iova {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Iova({:#x})", self.0)
    }
}

impl fmt::Debug for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhysAddr({:#x})", self.0)
    }
}

impl Iova {
    /// Returns the address `len` bytes further on, or `None` past the end of the space.
    #[must_use]
    pub const fn checked_add(self, len: u64) -> Option<Self> {
        match self.0.checked_add(len) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
}

impl PhysAddr {
    /// Returns the address `len` bytes further on, or `None` past the end of the space.
    #[must_use]
    pub const fn checked_add(self, len: u64) -> Option<Self> {
        match self.0.checked_add(len) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
}

/// A non-empty run of IOVAs, closed at both ends: `first..=last`.
///
/// The closed form is what MAP and UNMAP carry on the wire, and the only one that can name the
/// last byte of a 64-bit space: there `last + 1` does not exist (rule D-27).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IovaRange {
    first: Iova,
    last: Iova,
}

#[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
impl IovaRange {
    /// The whole 64-bit space.
    pub const ALL: Self = Self { first: Iova(0), last: Iova(u64::MAX) };

    /// Returns `first..=last`, or `None` if `last` is below `first`.
    #[must_use]
    pub const fn new(first: Iova, last: Iova) -> Option<Self> {
        if first.0 <= last.0 { Some(Self { first, last }) } else { None }
    }

    /// `first..=last`, where it is known that `last` is not below `first`.
    #[inline]
    pub(crate) const fn ordered(first: Iova, last: Iova) -> Self {
        debug_assert!(first.0 <= last.0, "a range is ordered");
        Self { first, last }
    }

    /// Returns the `len` bytes from `first`, or `None` if `len` is 0 or the run would wrap.
    #[must_use]
    pub const fn from_len(first: Iova, len: u64) -> Option<Self> {
        let Some(span) = len.checked_sub(1) else { return None };
        let Some(last) = first.0.checked_add(span) else { return None };
        Some(Self { first, last: Iova(last) })
    }

    /// The lowest address of the run.
    #[must_use]
    pub const fn first(self) -> Iova {
        self.first
    }

    /// The highest address of the run, inclusive.
    #[must_use]
    pub const fn last(self) -> Iova {
        self.last
    }

    /// The length in bytes, or `None` for the whole 64-bit space, whose length has no `u64`.
    #[must_use]
    pub const fn len(self) -> Option<u64> {
        (self.last.0 - self.first.0).checked_add(1)
    }

    /// `last - first`: the length in bytes less one, which always fits.
    #[must_use]
    pub const fn span(self) -> u64 {
        self.last.0 - self.first.0
    }

    /// Whether `address` lies in the run.
    #[must_use]
    pub const fn contains(self, address: Iova) -> bool {
        self.first.0 <= address.0 && address.0 <= self.last.0
    }

    /// Whether every address of `other` lies in the run.
    #[must_use]
    pub const fn encloses(self, other: Self) -> bool {
        self.first.0 <= other.first.0 && other.last.0 <= self.last.0
    }

    /// Whether the two runs share an address.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.first.0 <= other.last.0 && other.first.0 <= self.last.0
    }

    /// The addresses that both runs share, if any.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }
}

impl fmt::Debug for IovaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..={:#x}", self.first.0, self.last.0)
    }
}

/// The page sizes that an IOMMU supports: bit n set means pages of 2^n bytes.
///
/// Never empty: a unit without a page size is refused when it is described (rule C-012).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageSizes(u64);

impl PageSizes {
    /// Returns the set with these bits, or `None` if it is empty.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        if bits == 0 { None } else { Some(Self(bits)) }
    }

    /// The set as a bitmap.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The smallest page size in bytes: every address and length of a mapping is a multiple of it.
    #[must_use]
    pub const fn granule(self) -> u64 {
        1 << self.0.trailing_zeros()
    }

    /// Whether `value` is a multiple of the granule.
    #[must_use]
    pub const fn is_aligned(self, value: u64) -> bool {
        value & (self.granule() - 1) == 0
    }
}

impl fmt::Debug for PageSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageSizes({:#x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_reach_the_last_byte_and_never_wrap() {
        assert_eq!(
            IovaRange::from_len(Iova(u64::MAX), 1).map(IovaRange::last),
            Some(Iova(u64::MAX))
        );
        assert_eq!(IovaRange::from_len(Iova(u64::MAX), 2), None);
        assert_eq!(IovaRange::from_len(Iova(5), 0), None);
        assert_eq!(IovaRange::ALL.len(), None);
        assert_eq!(IovaRange::ALL.span(), u64::MAX);
        assert_eq!(IovaRange::new(Iova(2), Iova(1)), None);
    }

    #[test]
    fn ranges_that_touch_do_not_overlap() {
        let low = IovaRange::from_len(Iova(0x1000), 0x1000).unwrap();
        let high = IovaRange::from_len(Iova(0x2000), 0x1000).unwrap();
        assert!(!low.overlaps(high));
        assert_eq!(low.intersection(high), None);
        assert!(low.overlaps(IovaRange::from_len(Iova(0x1fff), 1).unwrap()));
        assert!(IovaRange::ALL.encloses(high) && !high.encloses(IovaRange::ALL));
    }

    #[test]
    fn the_granule_is_the_lowest_bit() {
        let sizes = PageSizes::from_bits(0x4020_1000).unwrap();
        assert_eq!(sizes.granule(), 0x1000);
        assert!(sizes.is_aligned(0x3000) && !sizes.is_aligned(0x3800));
        assert_eq!(PageSizes::from_bits(0), None);
    }
}
