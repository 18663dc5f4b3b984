//! Page-size plans: which pages a page-table driver uses for a range (rule C-164).
//!
//! A unit with page tables maps pages of a few sizes, not ranges. The plan takes the biggest page
//! that is aligned in both spaces and still fits, and stops early only where a whole page of the
//! next size begins. A unit that takes ranges, as virtio-iommu, needs no plan (rule C-165).
//!
//! Pure arithmetic: no lock, no allocation. With n page sizes a plan has at most 2n - 1 steps,
//! because the sizes first rise and then fall.
//!
//! ```
//! use iommu::addr::*;
//!
//! let sizes = PageSizes::from_bits(0x1000 | 0x20_0000).unwrap(); // 4 KiB and 2 MiB
//! let range = IovaRange::from_len(Iova(0x1f_f000), 0x20_2000).unwrap();
//! let mut plan = sizes.plan(range, PhysAddr(0x801f_f000))?;
//! let pages = |step: iommu::plan::Step| (step.iova.0, step.count, step.page_size);
//! assert_eq!(plan.next().map(pages), Some((0x1f_f000, 1, 0x1000)));
//! assert_eq!(plan.next().map(pages), Some((0x20_0000, 1, 0x20_0000)));
//! assert_eq!(plan.next().map(pages), Some((0x40_0000, 1, 0x1000)));
//! assert_eq!(plan.next(), None);
//! # Ok::<(), iommu::error::MapError>(())
//! ```

use core::iter::FusedIterator;

use crate::addr::{Iova, IovaRange, PageSizes, PhysAddr};
use crate::error::{MapError, UnmapError};

/// One step of a plan: adjacent pages of one size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The first address that a device sees; a multiple of [`page_size`](Self::page_size).
    pub iova: Iova,
    /// Where it is; a multiple of the page size too. In an unmap plan the IOVA again.
    pub phys: PhysAddr,
    /// The size of each page in bytes: one of the unit's.
    pub page_size: u64,
    /// How many pages, at least one.
    pub count: u64,
}

impl Step {
    /// `last - first` of the step's addresses: its bytes less one, which always fits.
    const fn span(&self) -> u64 {
        (self.count - 1) * self.page_size + (self.page_size - 1)
    }
}

/// The steps for one range, from its lowest address up. Made by [`PageSizes::plan`] and
/// [`PageSizes::plan_unmap`].
#[derive(Clone, Debug)]
pub struct Plan {
    sizes: PageSizes,
    rest: Option<(IovaRange, PhysAddr)>,
}

impl PageSizes {
    /// Plans how `range` is mapped to the physical memory from `phys` on (rule C-164).
    ///
    /// All units are bytes. The steps adjoin, in both spaces, and cover the range exactly.
    ///
    /// # Errors
    ///
    /// `InvalidArg`: an address or the length is no multiple of the granule (rule C-161).
    /// `Overflow`: the physical range wraps (rule C-163).
    pub fn plan(self, range: IovaRange, phys: PhysAddr) -> Result<Plan, MapError> {
        if !self.are_whole_pages(range) || !self.is_aligned(phys.0) {
            return Err(MapError::InvalidArg);
        }
        if phys.checked_add(range.span()).is_none() {
            return Err(MapError::Overflow);
        }
        Ok(Plan { sizes: self, rest: Some((range, phys)) })
    }

    /// Plans how `range` is unmapped: as [`plan`](Self::plan), the physical address being the IOVA
    /// (rule C-176).
    ///
    /// The pages may be larger than those that the range was mapped with, since no physical
    /// address limits them, and one step may meet several map calls: a driver that finds a lower
    /// table where a page was named removes the table whole (rule C-177).
    ///
    /// # Errors
    ///
    /// `InvalidArg`: the first address or the length is no multiple of the granule.
    pub fn plan_unmap(self, range: IovaRange) -> Result<Plan, UnmapError> {
        if !self.are_whole_pages(range) {
            return Err(UnmapError::InvalidArg);
        }
        Ok(Plan { sizes: self, rest: Some((range, PhysAddr(range.first().0))) })
    }

    fn are_whole_pages(self, range: IovaRange) -> bool {
        // The end after the last address of the space is 0, which every page size divides.
        self.is_aligned(range.first().0) && self.is_aligned(range.last().0.wrapping_add(1))
    }

    /// The pages for the start of what is left: their size, and how many.
    fn pages_for(self, range: IovaRange, phys: PhysAddr) -> (u64, u64) {
        // One less than every length, so that the whole 64-bit space needs no exception.
        let (iova, span) = (range.first().0, range.span());
        let fits = |size: u64| size - 1 <= span && (iova | phys.0) & (size - 1) == 0;
        let sizes = || (0..u64::BITS).map(|bit| 1_u64 << bit).filter(|size| self.bits() & size > 0);
        let page = sizes().rfind(|size| fits(*size)).unwrap_or(self.granule());
        // Only a unit with pages of one byte has more pages than a `u64` counts; the one that is
        // too many makes a step of its own.
        let whole = ((span - (page - 1)) >> page.trailing_zeros()).saturating_add(1);
        let Some(next) = sizes().find(|size| *size > page) else { return (page, whole) };
        if (iova ^ phys.0) & (next - 1) != 0 {
            return (page, whole); // the two never reach a boundary of `next` together
        }
        let to_next = next - (iova & (next - 1)); // both at most 2^63: their sum less one fits
        let room = to_next + (next - 1) <= span;
        (page, if room { to_next >> page.trailing_zeros() } else { whole })
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let (range, phys) = self.rest.take()?;
        let (page_size, count) = self.sizes.pages_for(range, phys);
        let step = Step { iova: range.first(), phys, page_size, count };
        // `None` for any of these: the step reaches the last address of the range.
        self.rest = step.span().checked_add(1).and_then(|bytes| {
            let rest = IovaRange::new(step.iova.checked_add(bytes)?, range.last())?;
            Some((rest, phys.checked_add(bytes)?))
        });
        Some(step)
    }
}

impl FusedIterator for Plan {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    const KB: u64 = 1 << 10;
    const MB: u64 = 1 << 20;
    const GB: u64 = 1 << 30;
    const A: u64 = (4 * KB) | (2 * MB) | GB;
    const B: u64 = !0xfff;
    const C: u64 = (16 * KB) | (32 * MB);

    fn sizes(bits: u64) -> PageSizes {
        PageSizes::from_bits(bits).unwrap()
    }

    /// First address, count, page size; and checks that the physical addresses keep pace.
    fn steps(plan: Plan) -> Vec<(u64, u64, u64)> {
        let all: Vec<Step> = plan.collect();
        for step in &all {
            let offset = step.iova.0 - all[0].iova.0;
            assert_eq!(step.phys, all[0].phys.checked_add(offset).unwrap());
        }
        all.iter().map(|step| (step.iova.0, step.count, step.page_size)).collect()
    }

    /// Bitmap, IOVA, physical address, length; the map plan; the unmap plan if it differs.
    type Row = (u64, u64, u64, u64, &'static [(u64, u64, u64)], Option<&'static [(u64, u64, u64)]>);

    #[rustfmt::skip]
    const ROWS: &[Row] = &[
        (A, 0x1ff000, 0x801ff000, 0x402000,
            &[(0x1ff000, 1, 4 * KB), (0x200000, 2, 2 * MB), (0x600000, 1, 4 * KB)], None),
        (A, 0, 0x40000000, 0x40000000, &[(0, 1, GB)], None),
        (A, 0x200000, 0x40201000, 0x400000,
            &[(0x200000, 1024, 4 * KB)], Some(&[(0x200000, 2, 2 * MB)])),
        (A, 0x200000, 0x40200000, 0x3ff000,
            &[(0x200000, 1, 2 * MB), (0x400000, 511, 4 * KB)], None),
        (A, 0x3fe00000, 0x13fe00000, 0x40400000,
            &[(0x3fe00000, 1, 2 * MB), (0x40000000, 1, GB), (0x80000000, 1, 2 * MB)], None),
        (A, 0x1000, 0x1000, 0x1000, &[(0x1000, 1, 4 * KB)], None),
        (B, 0, 0x40000000, 0x3000, &[(0, 1, 8 * KB), (0x2000, 1, 4 * KB)], None),
        (B, 0x1000, 0x2000, 0x4000, &[(0x1000, 4, 4 * KB)],
            Some(&[(0x1000, 1, 4 * KB), (0x2000, 1, 8 * KB), (0x4000, 1, 4 * KB)])),
        (B, 0x1000, 0x40001000, 0x7000,
            &[(0x1000, 1, 4 * KB), (0x2000, 1, 8 * KB), (0x4000, 1, 16 * KB)], None),
        (B, 0x80000000, 0x40000000, 0x10000, &[(0x80000000, 1, 64 * KB)], None),
        (C, 0x4000, 0x40004000, 0x2004000, &[(0x4000, 2049, 16 * KB)], None),
    ];

    #[test]
    fn every_row_of_appendix_b() {
        // C-164, C-176, C-177
        for (row, (bits, iova, phys, len, map, unmap)) in ROWS.iter().enumerate() {
            let range = IovaRange::from_len(Iova(*iova), *len).unwrap();
            let plan = sizes(*bits).plan(range, PhysAddr(*phys)).unwrap();
            assert_eq!(steps(plan), *map, "map, row {row}");
            let plan = sizes(*bits).plan_unmap(range).unwrap();
            assert_eq!(steps(plan), unmap.unwrap_or(map), "unmap, row {row}");
        }
    }

    #[test]
    fn what_is_no_multiple_of_the_granule_has_no_plan() {
        // C-161, C-163
        let range = |first, len| IovaRange::from_len(Iova(first), len).unwrap();
        for (iova, phys, len) in [(1, 0, 4 * KB), (0, 1, 4 * KB), (0, 0, 4 * KB - 1)] {
            let plan = sizes(A).plan(range(iova, len), PhysAddr(phys));
            assert_eq!(plan.err(), Some(MapError::InvalidArg));
        }
        for (iova, len) in [(1, 4 * KB), (0, 4 * KB + 1)] {
            assert_eq!(sizes(A).plan_unmap(range(iova, len)).err(), Some(UnmapError::InvalidArg));
        }
        let top = PhysAddr(u64::MAX - 0xfff);
        assert!(sizes(A).plan(range(0, 4 * KB), top).is_ok());
        assert_eq!(sizes(A).plan(range(0, 8 * KB), top).err(), Some(MapError::Overflow));
    }

    #[test]
    fn the_whole_space_has_a_plan() {
        assert_eq!(steps(sizes(B).plan_unmap(IovaRange::ALL).unwrap()), [(0, 2, 1 << 63)]);
        assert_eq!(steps(sizes(A).plan_unmap(IovaRange::ALL).unwrap()), [(0, 1 << 34, GB)]);
        let bytes = steps(sizes(1).plan_unmap(IovaRange::ALL).unwrap());
        assert_eq!(bytes, [(0, u64::MAX, 1), (u64::MAX, 1, 1)]);
    }

    /// One page at a time, the biggest that is aligned and fits; equal neighbours joined.
    fn greedy(bits: u64, mut iova: u64, mut phys: u64, mut len: u64) -> Vec<(u64, u64, u64)> {
        let mut steps: Vec<(u64, u64, u64)> = Vec::new();
        while len > 0 {
            let usable = |size: &u64| *size <= len && (iova | phys) & (size - 1) == 0;
            let page = (0..64).map(|bit| 1 << bit).filter(|size| bits & size != 0);
            let page = page.filter(usable).max().unwrap();
            match steps.last_mut() {
                Some((_, count, size)) if *size == page => *count += 1,
                _ => steps.push((iova, 1, page)),
            }
            (iova, phys, len) = (iova + page, phys + page, len - page);
        }
        steps
    }

    /// Page sizes of 2^8 to 2^19, and a range of up to a few hundred granules.
    fn requests() -> impl Strategy<Value = (u64, u64, u64, u64)> {
        let bits = (1_u64..1 << 12).prop_map(|bits| bits << 8);
        let offset = prop_oneof![Just(0_u64), 0_u64..600, (0_u64..9).prop_map(|bit| 1 << bit)];
        (bits, 0_u64..600, offset, 1_u64..1500).prop_map(|(bits, first, offset, len)| {
            let granule = 1 << bits.trailing_zeros();
            (bits, first * granule, (first + offset) * granule, len * granule)
        })
    }

    proptest! {
        /// Two properties of the rule at once: the same steps as page by page, so never more; and
        /// sizes that rise, then fall, which bounds their number.
        #[test]
        fn a_plan_is_the_greedy_choice_in_the_fewest_steps((bits, iova, phys, len) in requests()) {
            let range = IovaRange::from_len(Iova(iova), len).unwrap();
            let plan = steps(sizes(bits).plan(range, PhysAddr(phys)).unwrap());
            prop_assert_eq!(&plan, &greedy(bits, iova, phys, len));
            let rising = plan.windows(2).take_while(|pair| pair[0].2 < pair[1].2).count();
            prop_assert!(plan.windows(2).skip(rising).all(|pair| pair[0].2 > pair[1].2));
            prop_assert!(plan.len() < 2 * bits.count_ones() as usize);
        }

        #[test]
        fn steps_are_aligned_adjoin_and_cover_exactly(
            bits in 1_u64..,
            (first, last, phys) in (any::<u64>(), any::<u64>(), any::<u64>()),
        ) {
            let granule = sizes(bits).granule();
            let (first, last) = (first.min(last) & !(granule - 1), first.max(last) | (granule - 1));
            let range = IovaRange::new(Iova(first), Iova(last)).unwrap();
            let phys = (phys & !(granule - 1)).min((u64::MAX - range.span()) & !(granule - 1));
            let map = sizes(bits).plan(range, PhysAddr(phys)).unwrap();
            for (plan, phys) in [(map, phys), (sizes(bits).plan_unmap(range).unwrap(), first)] {
                // In 128 bits, so that the end of the space is an address like another.
                let mut at = u128::from(first);
                for step in plan {
                    prop_assert_eq!(u128::from(step.iova.0), at);
                    prop_assert_eq!(step.phys.0 - phys, step.iova.0 - first);
                    prop_assert!(step.page_size.is_power_of_two() && bits & step.page_size != 0);
                    prop_assert!((step.iova.0 | step.phys.0) & (step.page_size - 1) == 0);
                    prop_assert!(step.count > 0);
                    at += u128::from(step.count) * u128::from(step.page_size);
                }
                prop_assert_eq!(at, u128::from(last) + 1);
            }
        }
    }
}
