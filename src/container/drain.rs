//! Taking pages out of every domain and unpinning them, batch by batch; never allocates.
//!
//! Each batch is collected and unmapped under one hold of `Container::state`, and unpinned after it.

use heapless::Vec;

use super::charge::{Taken, TakenRuns};
use super::state::{Phase, State};
use super::{Container, Memory};
use crate::addr::{Iova, IovaRange};
use crate::driver::Run;
use crate::mark::sabotage;
use crate::prot::Prot;
use crate::sync::RawLock;

/// How many runs are mapped, or unmapped, under one hold of the lock.
pub(super) const BATCH: usize = 64;

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
        let mut from = Some(range.first());
        while let Some(first) = from {
            let mut state = self.state.lock();
            let (runs, next) = state.collect(first, range.last(), whose);
            state.unmap_batch(&runs)?;
            let taken = state.take(&runs);
            drop(state);
            self.give_back(&taken);
            from = next;
        }
        Ok(())
    }
}

impl<R: RawLock> State<R> {
    /// The next batch of runs from `first` on that belong to `whose`, read from a domain that has
    /// them, and where to go on.
    fn collect(&self, first: Iova, last: Iova, whose: Whose) -> (Runs, Option<Iova>) {
        let mut runs = Runs::new();
        let Some(source) = self.holders().next() else { return (runs, None) };
        let mut at = Some(first);
        while let Some(mut run) = at.and_then(|at| source.next_mapping(at)) {
            if run.range.first() > last {
                return (runs, None);
            }
            run.prot.remove(Prot::CACHE); // the unit's; the provider has never seen it
            if self.belongs(run.range.first(), whose) && runs.push(run).is_err() {
                return (runs, at);
            }
            at = run.range.last().checked_add(1);
        }
        (runs, None)
    }

    fn belongs(&self, at: Iova, whose: Whose) -> bool {
        let mapping = self.mappings.get(at).map(|(_, mapping)| mapping);
        match whose {
            Whose::Anyone => true,
            Whose::Serial(serial) => mapping.is_some_and(|mapping| mapping.serial == serial),
            Whose::Before(serial) => mapping
                .is_some_and(|mapping| mapping.serial < serial && mapping.phase == Phase::Removing),
        }
    }

    /// Whom the runs were charged to, and what of it external pins keep; right after the unmap.
    fn take(&mut self, runs: &[Run]) -> TakenRuns {
        let mut taken = TakenRuns::new();
        for run in runs {
            let mapping = self.mappings.get(run.range.first());
            let owner = mapping.map(|(_, mapping)| mapping.owner).unwrap_or_default();
            let kept = self.hand_back(run.range);
            taken.extend([Taken { run: *run, owner, kept }]);
        }
        taken
    }

    /// Unmaps a batch from every domain that may have it, the source of the batch last.
    fn unmap_batch(&mut self, runs: &[Run]) -> Result<(), NotUnmapped> {
        let Some(first) = runs.first() else { return Ok(()) };
        let mut count = 0;
        let mut failed = false;
        for domain in self.holders().skip(1).chain(self.holders().take(1)) {
            count += 1;
            sabotage!(UnmapNewestDomainOnly => if count < self.holders().count() as u64 { continue });
            if domain.unmap_ranges(&ranges(runs)).is_err() {
                failed = true;
                break;
            }
        }
        self.operations.dom_unmap += count;
        if failed { Err(NotUnmapped { at: first.range.first() }) } else { Ok(()) }
    }
}

/// Where the runs are, as the domains want it.
pub(super) fn ranges(runs: &[Run]) -> Vec<IovaRange, BATCH> {
    runs.iter().map(|run| run.range).collect()
}
