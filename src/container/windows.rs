//! The usable IOVAs of a container: apertures of its domains minus reserved regions.
//!
//! Rules T1-042, T1-190 to T1-201. All arithmetic is on inclusive ends, and changes are made on a
//! copy that replaces the live list when nothing can fail any more (rule T1-196).

use super::state::State;
use super::{Container, Memory};
use crate::addr::{Iova, IovaRange};
use crate::error::OutOfMemory;
use crate::mark::sabotage;
use crate::pool::{Pool, PoolVec};
use crate::reserved::{ReservedKind, ReservedRegions};
use crate::sync::RawLock;

/// Disjoint ranges in ascending order. Empty: no constraint, no domain has been seen yet.
#[derive(Debug)]
pub(super) struct Windows {
    ranges: PoolVec<IovaRange>,
    pool: &'static Pool,
}

impl Windows {
    pub(super) const fn new(pool: &'static Pool) -> Self {
        Self { ranges: PoolVec::new(pool), pool }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(super) fn as_slice(&self) -> &[IovaRange] {
        &self.ranges
    }

    /// Whether `range` may be mapped: inside one single window (rule T1-197).
    pub(super) fn allow(&self, range: IovaRange) -> bool {
        self.ranges.is_empty() || self.ranges.iter().any(|window| window.encloses(range))
    }

    /// A copy clipped to `aperture`; everything inside it if there was no constraint.
    pub(super) fn clipped(&self, aperture: IovaRange) -> Result<Self, OutOfMemory> {
        let all = [IovaRange::ALL];
        let old = if self.ranges.is_empty() { all.as_slice() } else { &*self.ranges };
        let mut ranges = PoolVec::new(self.pool);
        ranges.reserve(old.len())?;
        for window in old.iter().filter_map(|window| window.intersection(aperture)) {
            ranges.push(window)?;
        }
        Ok(Self { ranges, pool: self.pool })
    }

    /// Takes every region out that is not relaxable (rules T1-193, T1-194).
    pub(super) fn subtract(&mut self, reserved: &ReservedRegions) -> Result<(), OutOfMemory> {
        sabotage!(WindowsWithRegions => return Ok(()));
        for hole in holes(reserved) {
            self.subtract_one(hole)?;
        }
        Ok(())
    }

    /// Whether [`subtract`](Self::subtract) would change something. Mostly all devices reserve the
    /// same.
    pub(super) fn miss(&self, reserved: &ReservedRegions) -> bool {
        holes(reserved).any(|hole| self.ranges.iter().any(|window| window.overlaps(hole)))
    }

    fn subtract_one(&mut self, hole: IovaRange) -> Result<(), OutOfMemory> {
        let mut index = 0;
        while let Some(window) = self.ranges.get(index).copied() {
            if !window.overlaps(hole) {
                index += 1;
                continue;
            }
            self.ranges.remove(index);
            // `below` and `above` exist only where the hole does not reach the end of the space.
            let below = hole.first().0.checked_sub(1).map(Iova);
            let above = hole.last().checked_add(1);
            let below = below.and_then(|last| IovaRange::new(window.first(), last));
            let above = above.and_then(|first| IovaRange::new(first, window.last()));
            for part in [below, above].into_iter().flatten() {
                self.ranges.insert(index, part)?;
                index += 1;
            }
        }
        Ok(())
    }
}

/// What no mapping may touch (rules T1-193, T1-194).
fn holes(reserved: &ReservedRegions) -> impl Iterator<Item = IovaRange> {
    let real = |kind| kind != ReservedKind::DirectRelaxable;
    let regions = reserved.as_slice().iter().filter(move |region| real(region.kind));
    regions.map(|region| region.range)
}

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Puts the list made from scratch in place of the old one, if it can differ.
    pub(super) fn refresh(&self, state: &mut State<R>) -> Result<(), OutOfMemory> {
        if state.windows_narrow {
            state.windows_at = None;
        }
        self.refresh_if_wide(state)
    }

    /// As [`refresh`](Self::refresh), unless the list does no harm: it leaves out all that it must,
    /// and perhaps more.
    #[inline(always)]
    pub(super) fn refresh_if_wide(&self, state: &mut State<R>) -> Result<(), OutOfMemory> {
        let before = state.member_changes();
        if state.windows_at == Some(before) {
            return Ok(());
        }
        self.refresh_now(state, before)
    }

    #[cold]
    fn refresh_now(&self, state: &mut State<R>, before: usize) -> Result<(), OutOfMemory> {
        let windows = self.rebuild(state)?;
        if windows.as_slice() != state.windows.as_slice() {
            state.windows = windows;
        }
        state.windows_at = Some(before);
        state.windows_narrow = false;
        Ok(())
    }

    /// The usable IOVAs from scratch (rules T1-198, T1-199, T1-201).
    pub(super) fn rebuild(&self, state: &State<R>) -> Result<Windows, OutOfMemory> {
        let mut windows = Windows::new(self.pool);
        for entry in state.domains.iter() {
            windows = windows.clipped(entry.domain.geometry().aperture)?;
            for group in entry.groups.lock().iter() {
                let attachment = group.attachment.lock();
                if let Some(held) = &*attachment {
                    held.group().with_reserved(|reserved| windows.subtract(reserved))?;
                }
            }
        }
        if windows.is_empty() && !state.domains.is_empty() {
            return Err(OutOfMemory); // rule T1-200: an empty result leaves the old list
        }
        Ok(windows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reserved::ReservedRegion;

    static POOL: Pool = Pool::heap();

    fn range(first: u64, last: u64) -> IovaRange {
        IovaRange::new(Iova(first), Iova(last)).unwrap()
    }

    fn minus(windows: &Windows, holes: &[IovaRange]) -> Windows {
        let mut reserved = ReservedRegions::new();
        for hole in holes {
            reserved.add(ReservedRegion { range: *hole, kind: ReservedKind::Reserved }).unwrap();
        }
        let mut copy = windows.clipped(IovaRange::ALL).unwrap();
        copy.subtract(&reserved).unwrap();
        copy
    }

    #[test]
    fn the_first_domain_gives_its_aperture_minus_regions() {
        // T1-190, T1-193
        let windows = Windows::new(&POOL).clipped(range(0, 0xffff)).unwrap();
        let holes = [range(0x1000, 0x1fff), range(0xf000, 0x1_0000)];
        let left = minus(&windows, &holes);
        assert_eq!(left.as_slice(), [range(0, 0xfff), range(0x2000, 0xefff)]);
        assert!(left.allow(range(0x2000, 0xefff)) && !left.allow(range(0xfff, 0x2000)));
    }

    #[test]
    fn a_range_of_one_address_at_the_edge_of_a_clip_stays() {
        // W-07
        let windows = minus(&Windows::new(&POOL), &[range(0x1001, u64::MAX)]);
        let clipped = windows.clipped(range(0x1000, 0x2000)).unwrap();
        assert_eq!(clipped.as_slice(), [range(0x1000, 0x1000)]);
    }

    #[test]
    fn holes_at_both_ends_of_the_space_do_not_wrap() {
        let left = minus(&Windows::new(&POOL), &[range(0, 0), range(u64::MAX, u64::MAX)]);
        assert_eq!(left.as_slice(), [range(1, u64::MAX - 1)]);
        assert!(minus(&Windows::new(&POOL), &[IovaRange::ALL]).is_empty());
    }
}
