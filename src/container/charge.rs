//! Who is charged for a pinned page: its mapping, or an external pin, never both (rule T1-045).
//!
//! Every ordinary page of a mapping counts once. Without a domain the external pins are charged;
//! each has its flag `charged`. When the pages of a mapping are pinned for a domain, run by run, a
//! run takes over what the pins in it were charged and is charged the rest; when a run is unpinned
//! its pins are charged again and the rest is given back. Each step is made under one hold of
//! `Container::state`, so pins may come and go in between and the sum is right.

use super::drain::BATCH;
use super::state::State;
use super::{Container, Frame, Memory, MemoryOwner, Pinned};
use crate::addr::{IovaRange, PhysAddr};
use crate::driver::Run;
use crate::prot::Prot;
use crate::sync::RawLock;

/// A run that no domain maps any more: what is left to give back. 40 bytes: a batch of them is on the
/// stack.
pub(super) struct Taken {
    pub(super) range: IovaRange,
    phys: PhysAddr,
    prot: Prot,
    owner: MemoryOwner,
    /// Pages of it that stay charged, for external pins.
    kept: u64,
}
const _: () = assert!(size_of::<Taken>() == 40);

impl Taken {
    pub(super) const fn new(run: Run, owner: MemoryOwner) -> Self {
        Self { range: run.range, phys: run.phys, prot: run.prot, owner, kept: 0 }
    }

    const fn run(&self) -> Run {
        Run { range: self.range, phys: self.phys, prot: self.prot }
    }
}

pub(super) type TakenRuns = heapless::Vec<Taken, BATCH>;

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Whether the frames of two runs are of one kind (rule T1-310).
    pub(super) fn same_kind(&self, one: &Run, other: &Run) -> bool {
        self.memory.frame(one.phys) == self.memory.frame(other.phys)
    }

    /// How many pages of a run are charged.
    pub(super) fn counted(&self, run: Pinned) -> u64 {
        if self.memory.frame(run.phys) == Frame::Ordinary { run.pages } else { 0 }
    }

    /// Charges a run that was just pinned, less what external pins were charged for it. On failure
    /// it is unpinned.
    pub(super) fn charge_run(
        &self,
        run: &Run,
        owner: MemoryOwner,
        has_pins: bool,
    ) -> Result<(), super::PinError> {
        let counted = self.counted(self.pinned(run));
        let taken = if has_pins { self.state.lock().take_over(run.range) } else { 0 };
        let due = counted.saturating_sub(taken);
        let charged = if due > 0 { self.memory.charge(owner, due) } else { Ok(()) };
        if charged.is_err() {
            let kept = if has_pins { self.state.lock().hand_back(run.range) } else { 0 };
            self.unpin(run);
            self.uncharge(owner, taken.saturating_sub(kept));
        }
        charged
    }

    /// Unpins runs that are in no domain and were charged to `owner`.
    pub(super) fn release_runs(&self, runs: &[Run], owner: MemoryOwner) {
        for run in runs {
            let kept = self.state.lock().hand_back(run.range);
            self.give_back(&[Taken { kept, ..Taken::new(*run, owner) }]);
        }
    }

    /// Unpins runs and gives their charge back.
    pub(super) fn give_back(&self, taken: &[Taken]) {
        for one in taken {
            let run = self.pinned(&one.run());
            let counted = self.counted(run);
            if counted > 0 {
                self.memory.unpin(run, one.prot);
            }
            self.uncharge(one.owner, counted.saturating_sub(one.kept));
        }
    }

    fn unpin(&self, run: &Run) {
        self.unpin_one(self.pinned(run), run.prot);
    }

    /// Unpins frames, unless they are of a kind that is not.
    pub(super) fn unpin_one(&self, run: Pinned, prot: Prot) {
        if self.counted(run) > 0 {
            self.memory.unpin(run, prot);
        }
    }

    pub(super) fn uncharge(&self, owner: MemoryOwner, pages: u64) {
        if pages > 0 {
            self.memory.uncharge(owner, pages);
        }
    }

    fn pinned(&self, run: &Run) -> Pinned {
        Pinned { phys: run.phys, pages: run.range.span() / self.memory.page_size() + 1 }
    }
}

impl<R: RawLock> State<R> {
    /// The charge of the external pins in `range` becomes that of the run that is there now.
    fn take_over(&mut self, range: IovaRange) -> u64 {
        self.move_charge(range, false)
    }

    /// The external pins in `range` are charged again; returns how many pages that are.
    pub(super) fn hand_back(&mut self, range: IovaRange) -> u64 {
        self.move_charge(range, true)
    }

    /// Notes what external pins keep of runs that were just unmapped.
    pub(super) fn keep_charges(&mut self, taken: &mut [Taken]) {
        if !self.pins.is_empty() {
            for one in taken {
                one.kept = self.hand_back(one.range);
            }
        }
    }

    fn move_charge(&mut self, range: IovaRange, to_pins: bool) -> u64 {
        let mut moved = 0;
        self.pins.for_each_mut(range, |_, pin| {
            if pin.counted && pin.charged != to_pins {
                pin.charged = to_pins;
                moved += 1;
            }
            true
        });
        moved
    }
}
