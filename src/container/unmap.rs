//! `unmap_dma`: which mappings go, and what is on record when it ends early.
//!
//! The state is locked for the checks, for each batch, and for the record at the end. In between
//! `Phase::Removing` keeps others away from the mappings.

use lock_api::MutexGuard;

use super::charge::Taken;
use super::drain::Whose;
use super::report::{DirtyBitmap, DirtyRange, check_size};
use super::state::{Mapping, Phase, State, forgotten};
use super::{Container, Kind, Memory, UnmapDmaError, UnmapFailed, Unmapped};
use crate::addr::{Iova, IovaRange};
use crate::prot::Prot;
use crate::sync::RawLock;

/// A request to unmap (rules T1-350 ff.).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnmapDma {
    /// Every mapping that lies in the range.
    Range {
        /// The first byte.
        iova: u64,
        /// How many bytes; not 0.
        size: u64,
    },
    /// Every mapping there is (rule T1-366).
    All,
}

impl UnmapDma {
    pub(super) const fn is_range(&self) -> bool {
        matches!(self, Self::Range { .. })
    }
}

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Removes mappings and returns how many bytes of them are gone.
    ///
    /// Mappings go as wholes; holes are fine. (In a container of the first kind a request that begins
    /// inside a mapping removes nothing, and one that ends inside a mapping removes all of it: rules
    /// T1-367, T1-368.) When this returns `Ok`, no device reaches the memory
    /// any more and it is unpinned. A mapping with pages that emulated devices hold is removed once
    /// they have dropped them: every registered device is told, and the request begins again (rules
    /// T1-370, T1-491). Never allocates.
    ///
    /// # Errors
    ///
    /// [`UnmapFailed`]: the reason, as [`UnmapDmaError`], and how many bytes are gone all the same.
    /// At the first look `InvalidArg`, `Overflow` and `Busy` remove nothing. After `Io` the mappings
    /// below the place of the failure are gone, one that was gone in part is shorter, and the rest
    /// is as it was, pinned (rules T1-369, T1-383).
    pub fn unmap_dma(&self, request: &UnmapDma) -> Result<Unmapped, UnmapFailed> {
        let state = self.state.lock();
        let range = state.check_unmap(request, None)?;
        match self.unmap_one(state, range)? {
            Ok(unmapped) => Ok(unmapped),
            Err(state) => self.unmap(state, range, request.is_range(), None),
        }
    }

    /// As [`unmap_dma`](Self::unmap_dma) of a range, with the dirty bits of the mappings that go,
    /// as [`read_dirty`](Self::read_dirty) would give them (rules T1-374, T1-446).
    ///
    /// # Errors
    ///
    /// As [`unmap_dma`](Self::unmap_dma). `InvalidArg` also if tracking is off, `page_size` is not
    /// that of the tracking, or the bitmap is too small. After `Fault` the mapping whose bits could
    /// not be written stays, and those before it are gone.
    pub fn unmap_dma_dirty(
        &self,
        request: &DirtyRange,
        bitmap: &mut (impl DirtyBitmap + ?Sized),
    ) -> Result<Unmapped, UnmapFailed> {
        let mut bitmap = bitmap;
        let DirtyRange { iova, size, page_size } = *request;
        check_size(size, page_size, bitmap.bytes()).map_err(UnmapDmaError::from)?;
        let unmap = UnmapDma::Range { iova, size };
        let state = self.state.lock();
        let range = state.check_unmap(&unmap, Some(page_size))?;
        self.unmap(state, range, true, Some(&mut bitmap))
    }

    /// The short way for what is asked for most: one mapping that is one run, in the only domain, and
    /// nothing but the driver has to know. It does what [`unmap`](Self::unmap) does, which takes over
    /// where something is different (the inner `Err`); nothing was changed then.
    fn unmap_one<'s>(
        &'s self,
        mut state: MutexGuard<'s, R, State<R>>,
        range: IovaRange,
    ) -> Result<Result<Unmapped, MutexGuard<'s, R, State<R>>>, UnmapFailed> {
        let found = state.mappings.get(range.first()).filter(|(entry, _)| *entry == range);
        let Some((_, &Mapping { owner, phase: Phase::Live, vaddr_invalid: false, .. })) = found
        else {
            return Ok(Err(state));
        };
        let mut holders = state.holders();
        let (Some(domain), None) = (holders.next(), holders.next()) else {
            drop(holders);
            return Ok(Err(state));
        };
        if !state.pins.is_empty() || !state.copies.is_empty() || state.dirty.is_some() {
            drop(holders);
            return Ok(Err(state));
        }
        let taken = domain.take_exact(range);
        drop(holders);
        let mut run = match taken {
            Ok(Some(run)) => run,
            Ok(None) => return Ok(Err(state)), // not one run, or not at rest
            Err(_) => return Err(UnmapDmaError::Io.into()), // all is as it was, the unit is given up
        };
        state.operations.dom_unmap += 1;
        run.prot.remove(Prot::CACHE); // the unit's; the provider has never seen it
        state.mappings.remove(range.first());
        state.free_mappings += 1;
        drop(state);
        self.give_back(&[Taken::new(run, owner)]);
        Ok(Ok(Unmapped { bytes: range.len().unwrap_or(u64::MAX) }))
    }

    fn unmap<'s>(
        &'s self,
        mut state: MutexGuard<'s, R, State<R>>,
        range: IovaRange,
        is_range: bool,
        mut bitmap: Option<&mut dyn DirtyBitmap>,
    ) -> Result<Unmapped, UnmapFailed> {
        let mut bytes = 0_u64;
        let mut holders = Holders::default();
        loop {
            let stop =
                self.unmap_once(state, range, is_range, &mut bitmap, &mut bytes, &mut holders);
            let unmapped = Unmapped { bytes };
            match stop {
                Ok(None) => return Ok(unmapped),
                Ok(Some(held)) => self.notify(held),
                Err(error) => return Err(UnmapFailed { error, unmapped }),
            }
            state = self.state.lock();
        }
    }

    /// Removes the mappings in `range` up to the first one that is held, and returns that one.
    fn unmap_once<'s>(
        &'s self,
        mut state: MutexGuard<'s, R, State<R>>,
        range: IovaRange,
        is_range: bool,
        bitmap: &mut Option<&mut dyn DirtyBitmap>,
        bytes: &mut u64,
        holders: &mut Holders,
    ) -> Result<Option<IovaRange>, UnmapDmaError> {
        let Some((range, marked)) = state.mark(range, is_range)? else { return Ok(None) };
        let mut reported = Ok(());
        if let Some(bitmap) = bitmap {
            drop(state);
            reported = self.report_marked(range, &marked, &mut **bitmap);
            state = self.state.lock();
        }
        let mut gone = Unmapped { bytes: 0 };
        let whose = Whose::Before(marked.serials);
        let drained = self.drain_and(state, range, whose, |state, kept_from| {
            gone = state.remove_drained(range, marked.serials, kept_from);
        });
        *bytes = bytes.saturating_add(gone.bytes);
        drained.map_err(|_| UnmapDmaError::Io)?;
        reported?;
        let Some((held, serial)) = marked.held else { return Ok(None) };
        // Without anybody to tell, waiting would be in vain (rule T1-373).
        if self.state.lock().holders.is_empty() || !holders.may_tell(serial) {
            return Err(UnmapDmaError::Busy);
        }
        Ok(Some(held))
    }

    /// Writes the dirty bits of what is marked. From the mapping on for which that failed, nothing
    /// is marked any more (rule T1-374).
    fn report_marked(
        &self,
        range: IovaRange,
        marked: &Marked,
        bitmap: &mut dyn DirtyBitmap,
    ) -> Result<(), UnmapDmaError> {
        let mut next = Some(range.first());
        while let Some(at) = next {
            let found = self.state.lock().next_marked(range, at, marked.serials);
            let Some(mapping) = found else { break };
            if let Err(fault) = self.report_mapping(range, mapping, bitmap) {
                self.state.lock().unmark(mapping.first(), range, marked.serials);
                return Err(fault.into());
            }
            next = mapping.last().checked_add(1);
        }
        Ok(())
    }
}

/// How often the holders of a mapping were told to let go (rule T1-371, W-12).
const MAX_NOTIFICATIONS: u32 = 11;

/// The mapping that was found held last, and how often its holders were told.
#[derive(Default)]
struct Holders {
    serial: Option<u64>,
    told: u32,
}

impl Holders {
    fn may_tell(&mut self, serial: u64) -> bool {
        if self.serial != Some(serial) {
            *self = Self { serial: Some(serial), told: 0 };
        }
        self.told += 1;
        self.told <= MAX_NOTIFICATIONS
    }
}

/// What an unmap has marked for itself.
struct Marked {
    /// Mappings that are made while the state is unlocked have these serials, or later ones.
    serials: u64,
    /// The first mapping that is held, and its serial; nothing from there on is marked.
    held: Option<(IovaRange, u64)>,
}

impl<R: RawLock> State<R> {
    /// Rules T1-356 to T1-360, in their order.
    pub(super) fn check_unmap(
        &self,
        request: &UnmapDma,
        page_size: Option<u64>,
    ) -> Result<IovaRange, UnmapDmaError> {
        let UnmapDma::Range { iova, size } = *request else { return Ok(IovaRange::ALL) };
        let low = self.alignment() - 1;
        if iova & low != 0 || size == 0 || size & low != 0 {
            return Err(UnmapDmaError::InvalidArg);
        }
        let range = IovaRange::from_len(Iova(iova), size).ok_or(UnmapDmaError::Overflow)?;
        let tracked = self.dirty.as_ref().map(|dirty| dirty.granule);
        if page_size.is_some() && page_size != tracked {
            return Err(UnmapDmaError::InvalidArg); // rule T1-360
        }
        Ok(range)
    }

    /// Marks the mappings that a request for `range` means, up to the first one with external pins.
    /// `None`: it means none (rule T1-367).
    fn mark(
        &mut self,
        range: IovaRange,
        is_range: bool,
    ) -> Result<Option<(IovaRange, Marked)>, UnmapDmaError> {
        let exact = is_range && self.kind == Kind::V2;
        let Some(range) = self.reach(range, is_range) else { return Ok(None) };
        let Self { mappings, pins, copies, next_serial, .. } = self;
        let mut held = None;
        let mut cut = false;
        // Where the first mapping is that can't go; from there on nothing is marked.
        let busy = copies.iter().any(|copy| copy.overlaps(range));
        let mut bad = busy.then_some(range.first());
        mappings.for_each_mut(range, |entry, mapping| {
            cut = exact && !range.encloses(entry); // rules T1-361, T1-372
            if cut || mapping.phase != Phase::Live {
                bad = bad.or(Some(entry.first()));
            } else if held.is_none() && bad.is_none() {
                if !pins.is_empty() && pins.overlaps(entry) {
                    held = Some((entry, mapping.serial));
                } else {
                    mapping.phase = Phase::Removing;
                }
            }
            !cut
        });
        if let Some(bad) = bad {
            mappings.for_each_mut(range, |entry, mapping| {
                let seen = entry.first() < bad;
                if seen {
                    mapping.phase = Phase::Live; // as it was
                }
                seen
            });
            return Err(if cut { UnmapDmaError::InvalidArg } else { UnmapDmaError::Busy });
        }
        Ok(Some((range, Marked { serials: *next_serial, held })))
    }

    /// The first marked mapping from `at` on.
    fn next_marked(&self, range: IovaRange, at: Iova, serials: u64) -> Option<IovaRange> {
        let rest = IovaRange::new(at, range.last())?;
        let ours = |(_, mapping): &(IovaRange, &Mapping)| {
            mapping.serial < serials && mapping.phase == Phase::Removing
        };
        self.mappings.overlapping(rest).find(ours).map(|(range, _)| range)
    }

    /// What is marked from `first` on is live again.
    fn unmark(&mut self, first: Iova, range: IovaRange, serials: u64) {
        let Some(rest) = IovaRange::new(first, range.last()) else { return };
        self.for_each_in(rest, |_, mapping| {
            if mapping.serial < serials && mapping.phase == Phase::Removing {
                mapping.phase = Phase::Live;
            }
            true
        });
    }

    /// Forgets the mappings in `range` that were being removed and made before `serials`, and counts
    /// their bytes. What lies from `kept_from` on was not drained: it is live again.
    fn remove_drained(
        &mut self,
        range: IovaRange,
        serials: u64,
        kept_from: Option<Iova>,
    ) -> Unmapped {
        let Self { mappings, free_mappings, invalid_vaddrs, dirty, .. } = self;
        let mut bytes = 0_u64;
        let mut cut = None;
        mappings.remove_if(range, |entry, mapping| {
            if mapping.serial >= serials || mapping.phase != Phase::Removing {
                return false;
            }
            let kept = kept_from.filter(|kept| *kept <= entry.last());
            if let Some(kept) = kept {
                mapping.phase = Phase::Live;
                if kept > entry.first() {
                    bytes = bytes.saturating_add(kept.0 - entry.first().0);
                    cut = Some((entry, kept));
                }
                return false;
            }
            bytes = bytes.saturating_add(entry.len().unwrap_or(u64::MAX));
            forgotten(entry, mapping, free_mappings, invalid_vaddrs, dirty);
            true
        });
        if let Some((entry, kept)) = cut {
            self.trim_front(entry, kept);
        }
        Unmapped { bytes }
    }
}
