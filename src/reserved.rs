//! Reserved regions: IOVAs that mean something to the hardware and can't be mapped freely.

use heapless::Vec;

use crate::addr::IovaRange;

/// How many reserved regions one endpoint, or the union of one group, may have.
///
/// A PROBE answer of the usual 512 bytes holds 21. A full table is an ordinary error.
pub const MAX_RESERVED: usize = 32;

/// Why a region is reserved (rules C-032 ff.).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ReservedKind {
    /// Must stay mapped 1:1 at all times (firmware uses it).
    Direct,
    /// Must be mapped 1:1 until a driver takes over; free to use after that.
    DirectRelaxable,
    /// Never usable.
    Reserved,
    /// Writes here are interrupts and are not translated.
    Msi,
    /// A window in which software maps interrupt doorbells.
    SoftwareMsi,
}

/// One reserved region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReservedRegion {
    /// The addresses.
    pub range: IovaRange,
    /// What they mean.
    pub kind: ReservedKind,
}

/// The table of regions is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// A table of reserved regions, sorted by start and kind; equal kinds that overlap or touch are
/// one entry (rule C-033).
///
/// ```
/// use iommu::{addr::*, reserved::*};
///
/// let at = |first, len| IovaRange::from_len(Iova(first), len).unwrap();
/// let mut regions = ReservedRegions::new();
/// for range in [at(0xfee0_0000, 0x8_0000), at(0xfee8_0000, 0x8_0000)] {
///     regions.add(ReservedRegion { range, kind: ReservedKind::Msi }).unwrap();
/// }
/// assert_eq!(regions.as_slice().len(), 1, "they touch");
/// assert!(regions.conflicts(at(0xfeef_f000, 0x2000)));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReservedRegions {
    regions: Vec<ReservedRegion, MAX_RESERVED>,
}

impl ReservedRegions {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self { regions: Vec::new() }
    }

    /// The regions in order.
    #[must_use]
    pub fn as_slice(&self) -> &[ReservedRegion] {
        &self.regions
    }

    /// Adds a region, merging it with those of the same kind that it overlaps or touches.
    ///
    /// # Errors
    ///
    /// [`Full`] when [`MAX_RESERVED`] separate regions are there already; the table is unchanged.
    pub fn add(&mut self, mut region: ReservedRegion) -> Result<(), Full> {
        let touches = |old: &ReservedRegion, new: &ReservedRegion| {
            old.kind == new.kind
                && old.range.first() <= new.range.last().checked_add(1).unwrap_or(new.range.last())
                && new.range.first() <= old.range.last().checked_add(1).unwrap_or(old.range.last())
        };
        if self.regions.is_full() && !self.regions.iter().any(|old| touches(old, &region)) {
            return Err(Full);
        }
        let mut index = 0;
        while let Some(old) = self.regions.get(index).copied() {
            if !touches(&old, &region) {
                index += 1;
                continue;
            }
            let first = old.range.first().min(region.range.first());
            let last = old.range.last().max(region.range.last());
            region.range = IovaRange::new(first, last).unwrap_or(region.range);
            self.regions.remove(index);
        }
        let key = |r: &ReservedRegion| (r.range.first(), r.kind);
        let place = self.regions.iter().take_while(|old| key(old) < key(&region)).count();
        self.regions.insert(place, region).map_err(|_| Full)
    }

    /// Adds every region of `other`.
    ///
    /// # Errors
    ///
    /// [`Full`]; the table is unchanged.
    pub fn merge(&mut self, other: &Self) -> Result<(), Full> {
        let mut union = self.clone();
        for region in &other.regions {
            union.add(*region)?;
        }
        *self = union;
        Ok(())
    }

    /// Whether adding `region` would change nothing.
    pub(crate) fn covers(&self, region: &ReservedRegion) -> bool {
        self.regions.iter().any(|r| r.kind == region.kind && r.range.encloses(region.range))
    }

    /// Whether a mapping may not touch `range`: a region other than a relaxable one overlaps it
    /// (rule T1-194).
    #[must_use]
    pub fn conflicts(&self, range: IovaRange) -> bool {
        self.regions
            .iter()
            .any(|r| r.kind != ReservedKind::DirectRelaxable && r.range.overlaps(range))
    }

    /// The start and length of the window in which doorbells must be mapped by software, if the
    /// group has one and no hardware window (rule T1-195: the last one in order counts).
    #[must_use]
    pub fn software_msi(&self) -> Option<IovaRange> {
        if self.regions.iter().any(|r| r.kind == ReservedKind::Msi) {
            return None;
        }
        let mut last_first = self.regions.iter().rev();
        last_first.find(|r| r.kind == ReservedKind::SoftwareMsi).map(|r| r.range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Iova;

    fn region(first: u64, last: u64, kind: ReservedKind) -> ReservedRegion {
        ReservedRegion { range: IovaRange::new(Iova(first), Iova(last)).unwrap(), kind }
    }

    #[test]
    fn same_kinds_that_touch_merge_and_kinds_never_mix() {
        // C-033
        let mut table = ReservedRegions::new();
        table.add(region(0x3000, 0x3fff, ReservedKind::Reserved)).unwrap();
        table.add(region(0x1000, 0x1fff, ReservedKind::Reserved)).unwrap();
        table.add(region(0x2000, 0x2fff, ReservedKind::Msi)).unwrap();
        assert_eq!(table.as_slice().len(), 3);
        table.add(region(0x2000, 0x2fff, ReservedKind::Reserved)).unwrap();
        assert_eq!(
            table.as_slice(),
            [
                region(0x1000, 0x3fff, ReservedKind::Reserved),
                region(0x2000, 0x2fff, ReservedKind::Msi)
            ]
        );
    }

    #[test]
    fn a_region_at_the_end_of_the_space_merges_without_wrapping() {
        let mut table = ReservedRegions::new();
        table.add(region(u64::MAX - 1, u64::MAX, ReservedKind::Reserved)).unwrap();
        table.add(region(0, 0, ReservedKind::Reserved)).unwrap();
        assert_eq!(table.as_slice().len(), 2);
        table.add(region(0, u64::MAX, ReservedKind::Reserved)).unwrap();
        assert_eq!(table.as_slice(), [region(0, u64::MAX, ReservedKind::Reserved)]);
    }

    #[test]
    fn a_full_table_says_so_and_is_unchanged() {
        let mut table = ReservedRegions::new();
        for n in 0..MAX_RESERVED as u64 {
            table.add(region(n * 16, n * 16, ReservedKind::Reserved)).unwrap();
        }
        let before = table.clone();
        assert_eq!(table.add(region(9999, 9999, ReservedKind::Reserved)), Err(Full));
        assert_eq!(table, before);
        table.add(region(1, 1, ReservedKind::Reserved)).expect("merging needs no place");
    }

    #[test]
    fn relaxable_regions_conflict_with_nothing_and_a_hardware_msi_window_wins() {
        // T1-194, T1-195
        let mut table = ReservedRegions::new();
        table.add(region(0x1000, 0x1fff, ReservedKind::DirectRelaxable)).unwrap();
        let page = IovaRange::from_len(Iova(0x1000), 0x1000).unwrap();
        assert!(!table.conflicts(page));
        let window = region(0x8000, 0x8fff, ReservedKind::SoftwareMsi);
        table.add(window).unwrap();
        assert_eq!(table.software_msi(), Some(window.range));
        table.add(region(0xf000, 0xffff, ReservedKind::Msi)).unwrap();
        assert_eq!(table.software_msi(), None);
    }
}
