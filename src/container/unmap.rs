//! `unmap_dma`: which mappings go, and what is on record when it ends early.
//!
//! The state is locked for the checks, for each batch, and for the record at the end. In between
//! `Phase::Removing` keeps others away from the mappings.

use super::drain::Owner;
use super::{Container, Mapping, Memory, Phase, State, UnmapDmaError, UnmapFailed, Unmapped};
use crate::addr::{Iova, IovaRange};
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

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Removes mappings and returns how many bytes of them are gone.
    ///
    /// Mappings go as wholes; holes are fine. When this returns `Ok`, no device reaches the memory
    /// any more and it is unpinned. Never allocates.
    ///
    /// # Errors
    ///
    /// [`UnmapFailed`]: the reason, as [`UnmapDmaError`], and how many bytes are gone all the same.
    /// `InvalidArg`, `Overflow` and `Busy` remove nothing. After `Io` the mappings below the place
    /// of the failure are gone, one that was gone in part is shorter, and the rest is as it was,
    /// pinned (rules T1-369, T1-383).
    pub fn unmap_dma(&self, request: &UnmapDma) -> Result<Unmapped, UnmapFailed> {
        let (range, serials) = {
            let mut state = self.state.lock();
            let range = state.check_unmap(request)?;
            let busy = |mapping: &Mapping| mapping.phase != Phase::Live;
            if state.mappings.overlapping(range).any(|(_, mapping)| busy(mapping)) {
                return Err(UnmapDmaError::Busy.into());
            }
            // Later mappings in the holes, made while the state is unlocked, have later serials.
            let serials = state.next_serial;
            state.for_each_in(range, |_, mapping| {
                mapping.phase = Phase::Removing;
                true
            });
            (range, serials)
        };
        let drained = self.drain(range, Owner::Before(serials));
        let kept_from = drained.as_ref().err().map(|failed| failed.at);
        let unmapped = self.state.lock().remove_drained(range, serials, kept_from);
        match drained {
            Ok(()) => Ok(unmapped),
            Err(_) => Err(UnmapFailed { error: UnmapDmaError::Io, unmapped }),
        }
    }
}

impl<R: RawLock> State<R> {
    /// Rules T1-356 to T1-361, in their order.
    fn check_unmap(&self, request: &UnmapDma) -> Result<IovaRange, UnmapDmaError> {
        let UnmapDma::Range { iova, size } = *request else { return Ok(IovaRange::ALL) };
        let low = self.granule() - 1;
        if iova & low != 0 || size == 0 || size & low != 0 {
            return Err(UnmapDmaError::InvalidArg);
        }
        let range = IovaRange::from_len(Iova(iova), size).ok_or(UnmapDmaError::Overflow)?;
        if self.cuts(range) { Err(UnmapDmaError::InvalidArg) } else { Ok(range) }
    }

    /// Forgets the mappings in `range` that were being removed and made before `serials`, and counts
    /// their bytes. What lies from `kept_from` on was not drained: it is live again.
    fn remove_drained(
        &mut self,
        range: IovaRange,
        serials: u64,
        kept_from: Option<Iova>,
    ) -> Unmapped {
        let mut bytes = 0_u64;
        let mut next = Some(range.first());
        while let Some((entry, mapping)) = next.and_then(|at| self.mappings.first_from(at)) {
            if entry.first() > range.last() {
                break;
            }
            next = entry.last().checked_add(1);
            if mapping.serial >= serials || mapping.phase != Phase::Removing {
                continue;
            }
            let serial = mapping.serial;
            match kept_from.filter(|kept| *kept <= entry.last()) {
                None => {
                    self.remove(entry, serial);
                    bytes = bytes.saturating_add(entry.len().unwrap_or(u64::MAX));
                }
                Some(kept) => {
                    self.set_phase(entry, serial, Phase::Live);
                    if kept > entry.first() {
                        self.trim_front(entry, kept);
                        bytes = bytes.saturating_add(kept.0 - entry.first().0);
                    }
                }
            }
        }
        Unmapped { bytes }
    }
}
