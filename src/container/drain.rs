//! Taking pages out of every domain and unpinning them, batch by batch; never allocates.
//!
//! Each batch is collected and unmapped under one hold of `Container::state`, and unpinned after it.

use heapless::Vec;

use super::{Container, Memory, Phase, Pinned, State};
use crate::addr::{Iova, IovaRange};
use crate::driver::Run;
use crate::prot::Prot;
use crate::sync::RawLock;

/// How many runs are mapped, or unmapped, under one hold of the lock.
pub(super) const BATCH: usize = 64;

pub(super) type Runs = Vec<Run, BATCH>;

/// Whose pages a drain takes.
#[derive(Clone, Copy)]
pub(super) enum Owner {
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
    /// Takes the pages of the mappings that `owner` names, inside `range`, out of every domain and
    /// unpins them. The mappings stay in the tree.
    pub(super) fn drain(&self, range: IovaRange, owner: Owner) -> Result<(), NotUnmapped> {
        let mut from = Some(range.first());
        while let Some(first) = from {
            let mut state = self.state.lock();
            let (runs, next) = state.collect(first, range.last(), owner);
            let unmapped = state.unmap_batch(&runs);
            drop(state);
            unmapped?;
            self.unpin_all(&runs);
            from = next;
        }
        Ok(())
    }

    pub(super) fn unpin_all(&self, runs: &[Run]) {
        let page = self.memory.page_size();
        for run in runs {
            self.unpin_one(Pinned { phys: run.phys, pages: run.range.span() / page + 1 }, run.prot);
        }
    }

    pub(super) fn unpin_one(&self, run: Pinned, prot: Prot) {
        if run.pages > 0 {
            self.memory.unpin(run, prot);
        }
    }
}

impl<R: RawLock> State<R> {
    /// The next batch of runs from `first` on that belong to `owner`, read from a domain that has
    /// them, and where to go on.
    fn collect(&self, first: Iova, last: Iova, owner: Owner) -> (Runs, Option<Iova>) {
        let mut runs = Runs::new();
        let Some(source) = self.holders().next() else { return (runs, None) };
        let mut at = Some(first);
        while let Some(mut run) = at.and_then(|at| source.next_mapping(at)) {
            if run.range.first() > last {
                return (runs, None);
            }
            run.prot.remove(Prot::CACHE); // the unit's; the provider has never seen it
            if self.belongs(run.range.first(), owner) && runs.push(run).is_err() {
                return (runs, at);
            }
            at = run.range.last().checked_add(1);
        }
        (runs, None)
    }

    fn belongs(&self, at: Iova, owner: Owner) -> bool {
        let mapping = self.mappings.get(at).map(|(_, mapping)| mapping);
        match owner {
            Owner::Anyone => true,
            Owner::Serial(serial) => mapping.is_some_and(|mapping| mapping.serial == serial),
            Owner::Before(serial) => mapping
                .is_some_and(|mapping| mapping.serial < serial && mapping.phase == Phase::Removing),
        }
    }

    /// Unmaps a batch from every domain that may have it, the source of the batch last.
    fn unmap_batch(&mut self, runs: &[Run]) -> Result<(), NotUnmapped> {
        let Some(first) = runs.first() else { return Ok(()) };
        let mut count = 0;
        let mut failed = false;
        for domain in self.holders().skip(1).chain(self.holders().take(1)) {
            count += 1;
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
