//! `map` and `unmap`: checks, the record, and what the driver is told. Under the domain's lock.

use heapless::Vec;

use super::{DomainState, PagingDomain};
use crate::addr::{Iova, IovaRange, PhysAddr};
use crate::driver::{Geometry, Run, Target};
use crate::error::{MapError, UnmapError};
use crate::mark::sabotage;
use crate::prot::Prot;
use crate::sync::RawLock;

/// How many runs or ranges go to the driver in one batch.
///
/// The ring of a virtio-iommu holds as many requests.
pub(super) const BATCH: usize = 128;

/// When the invalidation of an unmap ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// Before the call returns.
    Now,
    /// With [`DeferredUnmaps::sync`](super::DeferredUnmaps::sync).
    Later,
}

impl<R: RawLock> PagingDomain<R> {
    /// Maps `range` to the physical memory from `phys` on.
    ///
    /// Addresses and length are multiples of the granule. The memory is not touched and no
    /// reference to it is taken: keeping it alive and pinned is the caller's duty (rule C-172).
    /// When this returns `Ok` every attached device can use the mapping.
    ///
    /// # Errors
    ///
    /// `InvalidArg`: misaligned, or `prot` allows nothing or mixes `MMIO` with `CACHE`.
    /// `Overflow`: the physical range wraps. `Range`: outside the aperture. `AddrInUse`: an
    /// attached device reserves something in the range, or doorbells are mapped there. `Exists`:
    /// something in the range is mapped. `OutOfMemory`. `Io`: the device refused, or is poisoned.
    /// On all of these the domain is as it was (rule D-21). `Unconfirmed`: the device did not answer, or
    /// did not take back what it had done, and is poisoned; the mapping stays in the record, and the
    /// memory must be kept, as after an [`unmap`](Self::unmap) that failed.
    pub fn map(&self, range: IovaRange, phys: PhysAddr, prot: Prot) -> Result<(), MapError> {
        self.map_runs(&[Run { range, phys, prot }])
    }

    /// Maps several runs in one batch: all of them or none (rule C-174), unless the error is
    /// `Unconfirmed`: then any of them may be mapped.
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map); `InvalidArg` for an empty list, `Exists` also when two runs of the
    /// list overlap.
    pub fn map_runs(&self, runs: &[Run]) -> Result<(), MapError> {
        let hull = check_runs(&self.geometry(), runs)?;
        let mut state = self.state.lock();
        if state.is_taken(hull) && runs.iter().any(|run| state.is_taken(run.range)) {
            return Err(MapError::AddrInUse);
        }
        self.map_checked(&mut state, runs)
    }

    /// Removes every mapping inside `range` and returns their bytes (at most `u64::MAX`).
    ///
    /// Holes are fine, an empty range too: it returns 0. Doorbells stay (rule C-039). When this
    /// returns `Ok` no device reaches the memory any more, so it may be reused at once (rule
    /// C-180). Never allocates.
    ///
    /// # Errors
    ///
    /// `InvalidArg`: misaligned, or a mapping straddles an end of `range`; nothing was removed.
    /// `Io`: the device did not confirm; the mappings of the batch that failed stay in the record,
    /// the instance is poisoned, and the memory must be kept until it was reset.
    pub fn unmap(&self, range: IovaRange) -> Result<u64, UnmapError> {
        self.unmap_ranges(&[range])
    }

    /// Removes every mapping inside any of `ranges`, in as few batches as the ring allows.
    ///
    /// # Errors
    ///
    /// As [`unmap`](Self::unmap); `InvalidArg` for any of the ranges means that none was touched.
    pub fn unmap_ranges(&self, ranges: &[IovaRange]) -> Result<u64, UnmapError> {
        self.remove(ranges, Sync::Now)
    }

    pub(super) fn remove(&self, ranges: &[IovaRange], sync: Sync) -> Result<u64, UnmapError> {
        let geometry = self.geometry();
        if !ranges.iter().all(|range| is_whole(&geometry, *range)) {
            return Err(UnmapError::InvalidArg);
        }
        let mut state = self.state.lock();
        if !state.flights.is_empty() {
            self.land(&mut state, |flight| ranges.iter().any(|range| flight.overlaps(*range)));
        }
        let mut batch: Vec<IovaRange, BATCH> = Vec::new();
        let mut bytes = 0_u64;
        let mut all = state.whole_runs(ranges, &mut batch)?;
        if !all {
            // Nothing goes if something can't, and the batch does not show the rest.
            state.check_cuts(ranges)?;
        }
        while !batch.is_empty() {
            let (view, pending) = state.view_and_pending(self.id);
            let driver = self.instance.driver();
            driver.unmap(&view, &batch, pending)?;
            if sync == Sync::Now {
                driver.sync(&view, pending)?;
            }
            // Between the runs of one range there are but doorbells, so they leave the record at once.
            let span = batch.first().zip(batch.last());
            let span = span.and_then(|(low, high)| IovaRange::new(low.first(), high.last()));
            match span.filter(|_| ranges.len() == 1) {
                Some(span) => bytes = bytes.saturating_add(state.remove_inside(span)),
                None => {
                    for run in &batch {
                        bytes = bytes.saturating_add(state.remove_run(*run));
                    }
                }
            }
            batch.clear();
            if !all {
                all = state.whole_runs(ranges, &mut batch)?;
            }
        }
        Ok(bytes)
    }

    /// Removes the mapping that is exactly `range`, and returns what it was; `Ok(None)`: there is none
    /// such, or it is a doorbell, and nothing was done. The short way of [`unmap`](Self::unmap) for
    /// what the container does most: 250 instructions less.
    ///
    /// # Errors
    ///
    /// `Io`, as of [`unmap`](Self::unmap).
    #[cfg(feature = "container")]
    pub(crate) fn take_exact(&self, range: IovaRange) -> Result<Option<Run>, UnmapError> {
        let mut state = self.state.lock();
        let found = state.mappings.get(range.first()).filter(|(entry, _)| *entry == range);
        let Some((_, &Target { phys, prot })) = found else { return Ok(None) };
        if !state.flights.is_empty() || state.window.is_some_and(|window| window.overlaps(range)) {
            return Ok(None);
        }
        let (view, pending) = state.view_and_pending(self.id);
        let driver = self.instance.driver();
        let sent = crate::mark::sabotaged!(ShortUnmapUnsent, &[range][..], &[]);
        driver.unmap(&view, sent, pending)?;
        driver.sync(&view, pending)?;
        state.mappings.remove(range.first());
        Ok(Some(Run { range, phys, prot }))
    }

    /// Tells the unit to remove ranges of whole mappings, and sees that it did. The record is the caller's.
    pub(super) fn cut_off(
        &self,
        state: &mut DomainState,
        ranges: &[IovaRange],
    ) -> Result<(), UnmapError> {
        let (view, pending) = state.view_and_pending(self.id);
        let driver = self.instance.driver();
        driver.unmap(&view, ranges, pending)?;
        driver.sync(&view, pending)
    }

    /// As [`map_checked`](Self::map_checked), for what is nobody's memory to keep (doorbells, regions of
    /// firmware): it leaves the record on every error, so that no later call finds it mapped.
    pub(super) fn map_fixed(&self, state: &mut DomainState, runs: &[Run]) -> Result<(), MapError> {
        let had_node = state.mappings.has_node();
        let mapped = self.map_checked(state, runs);
        if mapped == Err(MapError::Unconfirmed) {
            state.forget(runs.iter().copied(), had_node);
        }
        mapped
    }

    /// Puts runs that were checked into the record and sends them; on any error neither happened, or
    /// it is `Unconfirmed` and they stay in the record.
    #[inline(always)]
    pub(super) fn map_checked(
        &self,
        state: &mut DomainState,
        runs: &[Run],
    ) -> Result<(), MapError> {
        self.settle(state, runs.iter().map(|run| run.range))?;
        let had_node = state.mappings.has_node();
        state.record(runs.iter().copied())?;
        let sent = self.instance.driver().map(&state.view(self.id), runs);
        if sent.is_err() && sent != Err(MapError::Unconfirmed) {
            state.forget(runs.iter().copied(), had_node);
        }
        sent
    }

    /// Ends deferred unmaps before one of their IOVAs is used again: a device could otherwise use
    /// a stale translation to the memory that was there before (rule C-181).
    #[inline(always)]
    pub(super) fn settle(
        &self,
        state: &mut DomainState,
        ranges: impl Iterator<Item = IovaRange> + Clone,
    ) -> Result<(), MapError> {
        if state.flights.is_empty() && state.pending.range().is_none() {
            return Ok(());
        }
        self.settle_some(state, ranges)
    }

    #[cold]
    fn settle_some(
        &self,
        state: &mut DomainState,
        mut ranges: impl Iterator<Item = IovaRange> + Clone,
    ) -> Result<(), MapError> {
        if !state.flights.is_empty() {
            self.land(state, |flight| ranges.clone().any(|range| flight.overlaps(range)));
        }
        let due = state.pending.range();
        if due.is_some_and(|due| ranges.any(|range| range.overlaps(due))) {
            let (view, pending) = state.view_and_pending(self.id);
            self.instance.driver().sync(&view, pending).map_err(|_| MapError::Io)?;
        }
        Ok(())
    }
}

impl DomainState {
    /// Whether a caller's mapping may not touch `range`.
    #[inline]
    pub(super) fn is_taken(&self, range: IovaRange) -> bool {
        sabotage!(IgnoreReservedAtMap => return false);
        self.reserved.conflicts(range) || self.window.is_some_and(|window| window.overlaps(range))
    }

    /// Whether ranges can be unmapped: no mapping straddles an end of one.
    pub(super) fn check_cuts(&self, ranges: &[IovaRange]) -> Result<(), UnmapError> {
        for range in ranges {
            let cuts = |at| self.mappings.get(at).is_some_and(|(entry, _)| !range.encloses(entry));
            if cuts(range.first()) || cuts(range.last()) {
                return Err(UnmapError::InvalidArg);
            }
        }
        Ok(())
    }

    /// Takes the adjacent mappings of a run out of the record; how many bytes they were.
    fn remove_run(&mut self, run: IovaRange) -> u64 {
        self.mappings.remove_if(run, |_, _| true);
        run.len().unwrap_or(u64::MAX)
    }

    /// Takes every mapping inside a range out of the record, doorbells excepted.
    pub(super) fn remove_inside(&mut self, range: IovaRange) -> u64 {
        let (window, mut bytes) = (self.window, 0_u64);
        self.mappings.remove_if(range, |entry, _| {
            let goes = !window.is_some_and(|window| window.encloses(entry));
            if goes {
                bytes = bytes.saturating_add(entry.len().unwrap_or(u64::MAX));
            }
            goes
        });
        bytes
    }

    /// Puts runs into the record, all or none.
    #[inline]
    pub(super) fn record(
        &mut self,
        runs: impl Iterator<Item = Run> + Clone,
    ) -> Result<(), MapError> {
        let had_node = self.mappings.has_node();
        let target = |run: Run| (run.range, Target { phys: run.phys, prot: run.prot });
        let recorded = self.mappings.insert_each(runs.clone().map(target));
        recorded.map_err(|(done, refused)| {
            sabotage!(NoUndoOfRuns => return refused.into());
            self.forget(runs.take(done), had_node);
            refused.into()
        })
    }

    /// Takes back what was just recorded, and the node if there was none before.
    #[cold]
    pub(super) fn forget(&mut self, runs: impl Iterator<Item = Run>, had_node: bool) {
        for run in runs {
            self.mappings.remove(run.range.first());
        }
        if !had_node {
            self.mappings.shed();
        }
    }

    /// The first mappings inside `ranges`, neighbours joined: one UNMAP removes each (rule C-265).
    /// They are added to `batch`, which is empty; whether that were all.
    ///
    /// # Errors
    ///
    /// `InvalidArg`: one of them straddles an end of its range.
    pub(super) fn whole_runs<const N: usize>(
        &self,
        ranges: &[IovaRange],
        batch: &mut Vec<IovaRange, N>,
    ) -> Result<bool, UnmapError> {
        let ordered = ranges.is_sorted_by(|one, next| one.last() < next.first());
        for range in ranges {
            for (entry, _) in self.mappings.overlapping(*range) {
                if !range.encloses(entry) {
                    return Err(UnmapError::InvalidArg);
                }
                if self.window.is_some_and(|window| window.encloses(entry)) {
                    continue;
                }
                if !ordered && batch.iter().any(|run| run.encloses(entry)) {
                    continue; // the caller named it twice
                }
                if let Some(last) = batch.last_mut()
                    && last.last().checked_add(1) == Some(entry.first())
                {
                    *last = IovaRange::new(last.first(), entry.last()).unwrap_or(*last);
                } else if batch.push(entry).is_err() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// Whether both ends lie on borders of granules.
pub(super) fn is_whole(geometry: &Geometry, range: IovaRange) -> bool {
    let sizes = geometry.page_sizes;
    sizes.is_aligned(range.first().0) && sizes.is_aligned(range.last().0.wrapping_add(1))
}

/// Whether runs can be mapped, as [`check_run`] has it, and the range that encloses them.
#[inline]
fn check_runs(geometry: &Geometry, runs: &[Run]) -> Result<IovaRange, MapError> {
    if let [run] = runs {
        check_run(geometry, run)?;
        return Ok(run.range);
    }
    // What all have in common is looked at once.
    let (mut low, mut high, mut bits) = (Iova(u64::MAX), Iova(0), 0);
    let mut good = true;
    for run in runs {
        let (first, last) = (run.range.first(), run.range.last());
        (low, high) = (low.min(first), high.max(last));
        bits |= first.0 | last.0.wrapping_add(1) | run.phys.0;
        good &= run.prot.is_valid() && run.phys.checked_add(run.range.span()).is_some();
    }
    let hull = IovaRange::new(low, high).ok_or(MapError::InvalidArg)?; // an empty list
    if good && geometry.page_sizes.is_aligned(bits) && geometry.aperture.encloses(hull) {
        return Ok(hull);
    }
    runs.iter().try_for_each(|run| check_run(geometry, run))?;
    Ok(hull)
}

pub(super) fn check_run(geometry: &Geometry, run: &Run) -> Result<(), MapError> {
    if !run.prot.is_valid()
        || !is_whole(geometry, run.range)
        || !geometry.page_sizes.is_aligned(run.phys.0)
    {
        return Err(MapError::InvalidArg);
    }
    if run.phys.checked_add(run.range.span()).is_none() {
        return Err(MapError::Overflow);
    }
    if !geometry.aperture.encloses(run.range) {
        return Err(MapError::Range);
    }
    Ok(())
}
