//! Dirty tracking: start, stop, and what marks a page dirty (section 12). Reading is in `report.rs`.
//!
//! Everything here is under `Container::state`. A mapping has a bitmap if tracking is on, but for
//! the time in which `map_dma` builds it (rule T1-040).

use super::bitmap::{Bitmap, MAX_BITS};
use super::state::State;
use super::{Container, DirtyError, Kind, Memory};
use crate::addr::{Iova, IovaRange};
use crate::error::OutOfMemory;
use crate::pool::Pool;
use crate::rangemap::{InsertError, RangeMap};
use crate::sync::RawLock;

/// The bitmaps of all mappings, each under the range of its mapping, and what a bit stands for.
pub(super) struct Tracking {
    /// The tracking granule (T): the granule when tracking began (rule T1-440, W-10).
    pub(super) granule: u64,
    pub(super) bitmaps: RangeMap<Bitmap>,
}

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Begins to track dirty pages; on already: nothing happens (rule T1-433).
    ///
    /// Until [`stop`](Self::stop_dirty_tracking) a bit stands for the granule of this moment, and
    /// maps and unmaps must be aligned to it (rule T1-440).
    ///
    /// # Errors
    ///
    /// `Denied`: the container is of the first kind (rule T1-416). `InvalidArg`: a mapping has more
    /// than 2^31 - 1 pages. `OutOfMemory`. Tracking stays off.
    pub fn start_dirty_tracking(&self) -> Result<(), DirtyError> {
        self.only_v2()?;
        let mut state = self.state.lock();
        if state.dirty.is_some() {
            return Ok(());
        }
        let granule = state.granule();
        let mut tracking = Tracking { granule, bitmaps: RangeMap::new(self.pool) };
        for (range, _) in state.mappings.iter() {
            tracking.add(self.pool, range)?;
        }
        state.dirty = Some(tracking);
        state.mark_pins(IovaRange::ALL);
        Ok(())
    }

    /// Ends tracking and frees the bitmaps; off already: nothing happens (rule T1-434).
    ///
    /// # Errors
    ///
    /// `Denied`: the container is of the first kind (rule T1-416).
    pub fn stop_dirty_tracking(&self) -> Result<(), DirtyError> {
        self.only_v2()?;
        let gone = self.state.lock().dirty.take();
        drop(gone); // many nodes: not under the lock
        Ok(())
    }

    /// Whether dirty pages are tracked.
    #[must_use]
    pub fn is_tracking(&self) -> bool {
        self.state.lock().dirty.is_some()
    }

    pub(super) fn only_v2(&self) -> Result<(), DirtyError> {
        if self.options.kind == Kind::V2 { Ok(()) } else { Err(DirtyError::Denied) }
    }
}

impl Tracking {
    /// A clean bitmap for a mapping.
    pub(super) fn add(&mut self, pool: &'static Pool, range: IovaRange) -> Result<(), DirtyError> {
        let bits = range.span() / self.granule + 1;
        if bits > MAX_BITS {
            return Err(DirtyError::InvalidArg);
        }
        let bitmap = Bitmap::new(pool, range.first(), bits)?;
        self.bitmaps.insert(range, bitmap).map_err(|refused| match refused {
            InsertError::OutOfMemory => DirtyError::OutOfMemory,
            InsertError::Overlap => DirtyError::InvalidArg,
        })
    }

    /// The bit of `at` in a bitmap.
    pub(super) fn bit(&self, base: Iova, at: Iova) -> u64 {
        (at.0 - base.0) / self.granule
    }

    /// Marks what mappings have in `range`.
    pub(super) fn mark(&mut self, range: IovaRange) {
        let granule = self.granule;
        let mut next = Some(range.first());
        while let Some((entry, _)) = next.and_then(|at| self.bitmaps.first_from(at)) {
            let Some(part) = entry.intersection(range) else { return };
            if let Some((_, bitmap)) = self.bitmaps.get_mut(entry.first()) {
                let bit = |at: Iova| (at.0 - bitmap.base.0) / granule;
                let (first, last) = (bit(part.first()), bit(part.last()));
                bitmap.fill(first, last, true);
            }
            next = entry.last().checked_add(1);
        }
    }
}

impl<R: RawLock> State<R> {
    /// What maps, unmaps and dirty reads must be aligned to (rule T1-440).
    pub(super) fn alignment(&self) -> u64 {
        self.dirty.as_ref().map_or(self.granule(), |dirty| dirty.granule.max(self.granule()))
    }

    /// The granule that a bit stands for, or would (rule T1-527).
    pub(super) fn dirty_granule(&self) -> u64 {
        self.dirty.as_ref().map_or(self.granule(), |dirty| dirty.granule)
    }

    /// Marks pages in `range` dirty, if tracking is on.
    pub(super) fn mark_dirty(&mut self, range: IovaRange) {
        if let Some(dirty) = &mut self.dirty {
            dirty.mark(range);
        }
    }

    /// Marks the externally pinned pages in `range`: they are dirty at every look (rule T1-439).
    pub(super) fn mark_pins(&mut self, range: IovaRange) {
        let Self { dirty: Some(dirty), pins, .. } = self else { return };
        for (page, _) in pins.overlapping(range) {
            if let Some(part) = page.intersection(range) {
                dirty.mark(part);
            }
        }
    }

    /// A clean bitmap for a new mapping, if tracking is on and it has none (rules T1-275, T1-443).
    pub(super) fn track(
        &mut self,
        pool: &'static Pool,
        range: IovaRange,
    ) -> Result<(), DirtyError> {
        let Some(dirty) = &mut self.dirty else { return Ok(()) };
        if dirty.bitmaps.get(range.first()).is_some() {
            return Ok(()); // tracking began while the mapping was built
        }
        dirty.add(pool, range)
    }

    /// How many groups may have written anywhere (rule T1-038).
    pub(super) fn non_pinned_groups(&self) -> usize {
        let groups = |entry: &super::DomainEntry<R>| {
            entry.groups.lock().iter().filter(|group| !group.is_pinned()).count()
        };
        self.domains.iter().map(groups).sum()
    }
}

impl From<OutOfMemory> for DirtyError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}
