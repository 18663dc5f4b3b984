//! `map_dma` and `unmap_dma`: pinning, mapping into every domain, and taking all of it back.
//!
//! The state is locked for the checks and for each batch of runs, and unlocked while the provider
//! pins or unpins. `Phase` keeps others away from a mapping in between.

use core::ops::ControlFlow;

use heapless::Vec;

use super::{
    Container, MapDmaError, Mapping, Memory, Phase, Pinned, State, UnmapDmaError, Unmapped,
};
use crate::addr::{Iova, IovaRange, PhysAddr};
use crate::driver::Run;
use crate::prot::Prot;
use crate::rangemap::InsertError;
use crate::sync::RawLock;

/// A request to map (rules T1-260 ff.). All numbers are in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapDma {
    /// Where devices see the memory.
    pub iova: u64,
    /// Where the owner sees it.
    pub vaddr: u64,
    /// How much; not 0.
    pub size: u64,
    /// READ, WRITE or both, seen from the device (rule T1-280).
    pub prot: Prot,
}

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

/// How many runs are mapped, or unmapped, under one hold of the lock.
const BATCH: usize = 64;

type Runs = Vec<Run, BATCH>;

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Maps memory of the owner for every device of every group, now and later.
    ///
    /// Without groups the request is only recorded; the first attach pins and maps it (rule
    /// T1-273). With groups, `Ok` means that every device reaches the memory.
    ///
    /// # Errors
    ///
    /// As [`MapDmaError`], in the order of rules T1-263 to T1-274. Nothing of the call is left.
    pub fn map_dma(&self, request: &MapDma) -> Result<(), MapDmaError> {
        let (range, serial) = {
            let mut state = self.state.lock();
            let range = state.check_map(request)?;
            let serial = state.next_serial;
            let mapped = state.targets().next().is_some();
            let mapping = Mapping {
                vaddr: request.vaddr,
                serial,
                prot: request.prot,
                phase: if mapped { Phase::Building } else { Phase::Live },
                mapped,
            };
            state.mappings.insert(range, mapping).map_err(|refused| match refused {
                InsertError::Overlap => MapDmaError::Exists,
                InsertError::OutOfMemory => MapDmaError::OutOfMemory,
            })?;
            state.next_serial += 1;
            state.free_mappings -= 1;
            if !mapped {
                return Ok(());
            }
            (range, serial)
        };
        let built = self.pin_and_map(range, serial, request.vaddr, request.prot);
        let mut state = self.state.lock();
        match built {
            Ok(()) => {
                state.set_phase(range, serial, Phase::Live);
                Ok(())
            }
            Err(error) => {
                state.set_phase(range, serial, Phase::Removing);
                drop(state);
                if self.drain(range, Owner::Serial(serial)).is_ok() {
                    self.state.lock().remove(range, serial);
                } else {
                    // The unit may still reach the pages: the mapping stays, pinned.
                    self.state.lock().set_phase(range, serial, Phase::Live);
                }
                Err(error)
            }
        }
    }

    /// Removes mappings and returns how many bytes of them are gone.
    ///
    /// Mappings go as wholes; holes are fine. When this returns `Ok`, no device reaches the memory
    /// any more and it is unpinned. Never allocates.
    ///
    /// # Errors
    ///
    /// As [`UnmapDmaError`]. `InvalidArg`, `Overflow` and `Busy` remove nothing.
    pub fn unmap_dma(&self, request: &UnmapDma) -> Result<Unmapped, UnmapDmaError> {
        let (range, serials) = {
            let mut state = self.state.lock();
            let range = state.check_unmap(request)?;
            let busy = |mapping: &Mapping| mapping.phase != Phase::Live;
            if state.mappings.overlapping(range).any(|(_, mapping)| busy(mapping)) {
                return Err(UnmapDmaError::Busy);
            }
            // Later mappings in the holes, made while the state is unlocked, have later serials.
            let serials = state.next_serial;
            state.for_each_in(range, |mapping| mapping.phase = Phase::Removing);
            (range, serials)
        };
        let drained = self.drain(range, Owner::Before(serials));
        let mut state = self.state.lock();
        if drained.is_err() {
            state.for_each_in(range, |mapping| {
                if mapping.serial < serials && mapping.phase == Phase::Removing {
                    mapping.phase = Phase::Live;
                }
            });
            return Err(UnmapDmaError::Io);
        }
        let mut bytes = 0_u64;
        let mut next = Some(range.first());
        while let Some((entry, mapping)) = next.and_then(|at| state.mappings.first_from(at)) {
            if !range.overlaps(entry) {
                break;
            }
            let ours = mapping.serial < serials && mapping.phase == Phase::Removing;
            let serial = mapping.serial;
            next = entry.last().checked_add(1);
            if ours {
                state.remove(entry, serial);
                bytes = bytes.saturating_add(entry.len().unwrap_or(u64::MAX));
            }
        }
        Ok(Unmapped { bytes })
    }

    /// Pins the memory of a mapping and maps it into every target domain, batch by batch.
    ///
    /// On error some batches may be mapped: the caller drains them. What was pinned and not mapped
    /// is unpinned here.
    pub(super) fn pin_and_map(
        &self,
        range: IovaRange,
        serial: u64,
        vaddr: u64,
        prot: Prot,
    ) -> Result<(), MapDmaError> {
        let page = self.memory.page_size();
        let mut runs = Runs::new();
        let mut done = 0_u64; // offset of the first byte that is not pinned yet
        loop {
            let left = (range.span() - done) / page + 1;
            let pinned = self.memory.pin(vaddr + done, left, prot).map_err(MapDmaError::from);
            let placed = pinned.and_then(|run| {
                place(range, done, run, left, page, prot).ok_or_else(|| {
                    self.unpin_one(run, prot);
                    MapDmaError::Fault
                })
            });
            let run = match placed {
                Ok(run) => run,
                Err(error) => {
                    self.unpin_all(&runs);
                    return Err(error);
                }
            };
            let end = run.range.last().0 - range.first().0;
            let last = end >= range.span();
            if runs.push(run).is_err() {
                self.unpin_one(Pinned { phys: run.phys, pages: run.range.span() / page + 1 }, prot);
                self.unpin_all(&runs);
                return Err(MapDmaError::OutOfMemory); // unreachable: the batch is emptied when full
            }
            if last || runs.is_full() {
                match self.state.lock().map_batch(range, serial, &runs) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => {
                        self.unpin_all(&runs);
                        return Ok(());
                    }
                    Err(error) => {
                        self.unpin_all(&runs);
                        return Err(error);
                    }
                }
                runs.clear();
            }
            if last {
                return Ok(());
            }
            done = end + 1;
        }
    }

    /// Takes the pages of the mappings that `owner` names, inside `range`, out of every domain and
    /// unpins them, batch by batch. The mappings stay in the tree. Never allocates.
    pub(super) fn drain(&self, range: IovaRange, owner: Owner) -> Result<(), UnmapDmaError> {
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

    fn unpin_one(&self, run: Pinned, prot: Prot) {
        if run.pages > 0 {
            self.memory.unpin(run, prot);
        }
    }
}

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

impl<R: RawLock> State<R> {
    /// Rules T1-263 to T1-270, in their order.
    fn check_map(&self, request: &MapDma) -> Result<IovaRange, MapDmaError> {
        let MapDma { iova, vaddr, size, prot } = *request;
        if size == 0 {
            return Err(MapDmaError::InvalidArg);
        }
        let range = IovaRange::from_len(Iova(iova), size).ok_or(MapDmaError::Overflow)?;
        if vaddr.checked_add(size - 1).is_none() {
            return Err(MapDmaError::Overflow);
        }
        if !prot.intersects(Prot::RW) || !Prot::RW.contains(prot) {
            return Err(MapDmaError::InvalidArg);
        }
        if (iova | vaddr | size) & (self.granule() - 1) != 0 {
            return Err(MapDmaError::InvalidArg);
        }
        if self.mappings.overlaps(range) {
            return Err(MapDmaError::Exists);
        }
        if self.free_mappings == 0 {
            return Err(MapDmaError::NoSpace);
        }
        if !self.windows.allow(range) {
            return Err(MapDmaError::InvalidArg);
        }
        Ok(range)
    }

    /// Rules T1-356 to T1-361, in their order.
    fn check_unmap(&self, request: &UnmapDma) -> Result<IovaRange, UnmapDmaError> {
        let UnmapDma::Range { iova, size } = *request else { return Ok(IovaRange::ALL) };
        let low = self.granule() - 1;
        if iova & low != 0 || size == 0 || size & low != 0 {
            return Err(UnmapDmaError::InvalidArg);
        }
        let range = IovaRange::from_len(Iova(iova), size).ok_or(UnmapDmaError::Overflow)?;
        let cut = |at| self.mappings.get(at).is_some_and(|(entry, _)| !range.encloses(entry));
        if cut(range.first()) || cut(range.last()) {
            return Err(UnmapDmaError::InvalidArg);
        }
        Ok(range)
    }

    /// Maps a batch into every target domain, or into none (rule T1-282). `Break` means that the
    /// mapping is gone, or that no domain is left: a detach took the container's last group away.
    fn map_batch(
        &mut self,
        range: IovaRange,
        serial: u64,
        runs: &Runs,
    ) -> Result<ControlFlow<()>, MapDmaError> {
        let found = self.mappings.get(range.first());
        if found.is_none_or(|(_, mapping)| mapping.serial != serial || !mapping.mapped) {
            return Ok(ControlFlow::Break(()));
        }
        let mut failed = None;
        let mut count = 0;
        for (done, domain) in self.targets().enumerate() {
            if let Err(error) = domain.map_runs(runs) {
                failed = Some((done, error));
                break;
            }
            count += runs.len() as u64;
        }
        self.operations.dom_map += count;
        let Some((done, error)) = failed else {
            return Ok(ControlFlow::Continue(()));
        };
        let ranges: Vec<IovaRange, BATCH> = runs.iter().map(|run| run.range).collect();
        for domain in self.targets().take(done) {
            // A unit that refuses this is poisoned, and blocks all DMA.
            let _ = domain.unmap_ranges(&ranges);
        }
        self.operations.dom_unmap += done as u64;
        Err(error.into())
    }

    /// The next batch of runs from `first` on that belong to `owner`, read from a domain that has
    /// them, and where to go on.
    fn collect(&self, first: Iova, last: Iova, owner: Owner) -> (Runs, Option<Iova>) {
        let mut runs = Runs::new();
        let Some(source) = self.holders().next() else { return (runs, None) };
        let mut at = Some(first);
        while let Some(run) = at.and_then(|at| source.next_mapping(at)) {
            if run.range.first() > last {
                return (runs, None);
            }
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
    fn unmap_batch(&mut self, runs: &Runs) -> Result<(), UnmapDmaError> {
        if runs.is_empty() {
            return Ok(());
        }
        let ranges: Vec<IovaRange, BATCH> = runs.iter().map(|run| run.range).collect();
        let mut count = 0;
        let mut failed = false;
        for domain in self.holders().skip(1).chain(self.holders().take(1)) {
            count += 1;
            if domain.unmap_ranges(&ranges).is_err() {
                failed = true;
                break;
            }
        }
        self.operations.dom_unmap += count;
        if failed { Err(UnmapDmaError::Io) } else { Ok(()) }
    }

    pub(super) fn set_phase(&mut self, range: IovaRange, serial: u64, phase: Phase) {
        if let Some((_, mapping)) = self.mappings.get_mut(range.first())
            && mapping.serial == serial
        {
            mapping.phase = phase;
        }
    }

    pub(super) fn for_each_in(&mut self, range: IovaRange, mut each: impl FnMut(&mut Mapping)) {
        let mut next = Some(range.first());
        while let Some(at) = next {
            let Some((entry, _)) = self.mappings.first_from(at) else { return };
            if entry.first() > range.last() {
                return;
            }
            if let Some((_, mapping)) = self.mappings.get_mut(entry.first()) {
                each(mapping);
            }
            next = entry.last().checked_add(1);
        }
    }

    /// Forgets a mapping and gives its place back.
    pub(super) fn remove(&mut self, range: IovaRange, serial: u64) {
        let found = self.mappings.get(range.first());
        if found.is_some_and(|(_, mapping)| mapping.serial == serial) {
            self.mappings.remove(range.first());
            self.free_mappings += 1;
        }
    }
}

/// Where a pinned run goes, cut to what was asked for; `None` if the provider's answer is empty or
/// wraps.
fn place(
    range: IovaRange,
    done: u64,
    run: Pinned,
    left: u64,
    page: u64,
    prot: Prot,
) -> Option<Run> {
    let pages = run.pages.min(left);
    let first = Iova(range.first().0.checked_add(done)?);
    let range = IovaRange::from_len(first, pages.checked_mul(page)?)?;
    run.phys.checked_add(range.span())?;
    Some(Run { range, phys: PhysAddr(run.phys.0), prot })
}
