//! Taking pages out of every domain and unpinning them, batch by batch; never allocates.
//!
//! Each batch is collected and unmapped under one hold of `Container::state`, and unpinned after it.

use heapless::Vec;
use lock_api::MutexGuard;

use super::charge::{Taken, TakenRuns};
use super::state::{Phase, State};
use super::{Container, Memory};
use crate::addr::{Iova, IovaRange};
use crate::driver::Run;
use crate::mark::sabotage;
use crate::prot::Prot;
use crate::sync::RawLock;

/// How many runs are mapped, or unmapped, under one hold of the lock: as many as the ring of a
/// virtio-iommu has room for, so that each batch is one notify.
pub(super) const BATCH: usize = 128;

pub(super) type Runs = Vec<Run, BATCH>;

/// Whose pages a drain takes.
#[derive(Clone, Copy)]
pub(super) enum Whose {
    /// One mapping's.
    Serial(u64),
    /// Those of mappings that are being removed and were made before this serial.
    Before(u64),
    /// Everything.
    Anyone,
}

/// The IOMMU did not confirm an unmap. Everything below `at` is gone; what lies from there on is
/// where it was, pinned.
pub(super) struct NotUnmapped {
    pub(super) at: Iova,
}

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Takes the pages of the mappings that `whose` names, inside `range`, out of every domain and
    /// unpins them. The mappings stay in the tree.
    pub(super) fn drain(&self, range: IovaRange, whose: Whose) -> Result<(), NotUnmapped> {
        self.drain_and(self.state.lock(), range, whose, |_, _| ())
    }

    /// As [`drain`](Self::drain), from a locked state on. `end` is called under the lock of the last
    /// batch: with where it failed, or once no domain maps any of the pages. The last of them are
    /// unpinned after that.
    pub(super) fn drain_and<'s>(
        &'s self,
        mut state: MutexGuard<'s, R, State<R>>,
        range: IovaRange,
        whose: Whose,
        end: impl FnOnce(&mut State<R>, Option<Iova>),
    ) -> Result<(), NotUnmapped> {
        let mut taken = TakenRuns::new();
        let mut from = range.first();
        loop {
            let next = state.collect(from, range.last(), whose, &mut taken);
            if let Err(failed) = state.unmap_batch(&taken) {
                end(&mut state, Some(failed.at));
                return Err(failed);
            }
            state.keep_charges(&mut taken);
            let Some(next) = next else {
                end(&mut state, None);
                drop(state);
                self.give_back(&taken);
                return Ok(());
            };
            drop(state);
            self.give_back(&taken);
            taken.clear();
            from = next;
            state = self.state.lock();
        }
    }
}

impl<R: RawLock> State<R> {
    /// The next batch of runs from `first` on that belong to `whose`, read from a domain that has
    /// them, and where to go on. Between the first and the last of them there is no other's run.
    fn collect(
        &self,
        first: Iova,
        last: Iova,
        whose: Whose,
        taken: &mut TakenRuns,
    ) -> Option<Iova> {
        let source = self.holders().next()?;
        let range = IovaRange::new(first, last)?;
        // Runs and mappings ascend together.
        let mut mappings = self.mappings.overlapping(range);
        let mut mapping = mappings.next();
        let mut next = None;
        source.for_each_mapping(range, |mut run| {
            let at = run.range.first();
            while mapping.is_some_and(|(entry, _)| entry.last() < at) {
                mapping = mappings.next();
            }
            let mapping = mapping.filter(|(entry, _)| entry.contains(at)).map(|(_, one)| one);
            let belongs = match whose {
                Whose::Anyone => true,
                Whose::Serial(serial) => mapping.is_some_and(|one| one.serial == serial),
                Whose::Before(serial) => {
                    mapping.is_some_and(|one| one.serial < serial && one.phase == Phase::Removing)
                }
            };
            if !belongs {
                next = run.range.last().checked_add(1).filter(|_| !taken.is_empty());
                return taken.is_empty();
            }
            run.prot.remove(Prot::CACHE); // the unit's; the provider has never seen it
            let owner = mapping.map(|mapping| mapping.owner).unwrap_or_default();
            if taken.push(Taken::new(run, owner)).is_err() {
                next = Some(at);
            }
            next.is_none()
        });
        next
    }

    /// Unmaps a batch from every domain that may have it, the oldest first: where a unit does not confirm,
    /// all domains before it in the list still have the batch, and the first one is where the next drain
    /// looks. No domain has anything else between its first and its last run: all of them map the same.
    fn unmap_batch(&mut self, taken: &[Taken]) -> Result<(), NotUnmapped> {
        let [first, ..] = taken else { return Ok(()) };
        let at = first.range.first();
        let last = taken.last().map_or(first.range.last(), |last| last.range.last());
        let span = IovaRange::new(at, last).unwrap_or(first.range);
        for index in (0..self.holders().count()).rev() {
            sabotage!(UnmapNewestDomainOnly => if index > 0 { continue });
            let Some(domain) = self.holders().nth(index) else { break };
            let unmapped = domain.unmap_ranges(&[span]);
            self.operations.dom_unmap += 1;
            unmapped.map_err(|_| NotUnmapped { at })?;
        }
        Ok(())
    }
}

/// Where the runs are, as the domains want it.
pub(super) fn ranges(runs: &[Run]) -> Vec<IovaRange, BATCH> {
    runs.iter().map(|run| run.range).collect()
}
