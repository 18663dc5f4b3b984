//! `map_dma`: checks, pinning run by run, mapping into every domain, and the undo.
//!
//! The state is locked for the checks and for each batch of runs, and unlocked while the provider
//! pins or unpins. `Phase::Building` keeps others away from the mapping in between.

use super::drain::{Runs, Whose, ranges};
use super::state::{Mapping, Phase, State, targets};
use super::{Container, Frame, MapDmaError, Memory, MemoryOwner, Pinned};
use crate::addr::{Iova, IovaRange, PhysAddr};
use crate::domain::PagingDomain;
use crate::driver::{Capabilities, Run};
use crate::error::MapError;
use crate::mark::{sabotage, sabotaged};
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

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Maps memory of the owner for every device of every group, now and later.
    ///
    /// Without groups the request is only recorded; the first attach pins and maps it (rule
    /// T1-273). With groups, `Ok` means that every device reaches the memory.
    ///
    /// # Errors
    ///
    /// As [`MapDmaError`], in the order of rules T1-263 to T1-275. Nothing of the call is left,
    /// unless the unit did not answer, or refused the undo as well (`Io`, and its instance is poisoned):
    /// then what it may still reach stays mapped and pinned, in a mapping of the container.
    pub fn map_dma(&self, request: &MapDma) -> Result<(), MapDmaError> {
        let owner = self.memory.caller();
        let (range, mapping, had_node) = {
            let mut state = self.state.lock();
            let fresh = self.refresh_if_wide(&mut state).is_ok();
            let mut checked = state.check_map(request, fresh);
            if checked.is_err() && self.refresh(&mut state).is_ok() {
                checked = state.check_map(request, true); // a device that left may have been in the way
            }
            let range = checked?;
            let had_node = state.mappings.has_node();
            let serial = state.next_serial;
            let mapped = state.targets().next().is_some();
            let mapping = Mapping {
                vaddr: request.vaddr,
                serial,
                owner,
                vaddr_invalid: false,
                rights: request.prot.bits() as u8, // READ and WRITE alone: checked above
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
                let tracked = state.track(self.pool, range);
                if tracked.is_err() {
                    state.forget(range, serial, had_node);
                }
                return Ok(tracked?);
            }
            (range, mapping, had_node)
        };
        let serial = mapping.serial;
        let build = Build::new(range, &mapping, false);
        let (mut state, built) = loop {
            let built = self.pin_and_map(&build);
            if let Ok(Built::Live) = built {
                return Ok(());
            }
            let mut state = self.state.lock();
            if built.is_err() || !state.map_again(range, serial) {
                break (state, built);
            }
        };
        // Rule T1-275 comes last. The mapping is there still: nobody removes what is being built.
        let built = built.and_then(|_| Ok(state.track(self.pool, range)?));
        match built {
            Ok(()) => {
                state.set_phase(range, serial, Phase::Live);
                Ok(())
            }
            Err(error) => {
                state.set_phase(range, serial, Phase::Removing);
                drop(state);
                let drain = || self.drain(range, Whose::Serial(serial));
                let drained = sabotaged!(NoUndoAcrossDomains, drain(), Ok(()));
                let mut state = self.state.lock();
                match drained {
                    Ok(()) => state.forget(range, serial, had_node),
                    // The unit may still reach the pages: the mapping stays, pinned.
                    Err(failed) => {
                        state.set_phase(range, serial, Phase::Live);
                        state.trim_front(range, failed.at);
                    }
                }
                Err(error)
            }
        }
    }

    /// Pins the memory of a mapping and maps it into every target domain, batch by batch. Answers
    /// of the provider that continue each other are one run (rules T1-310, T1-311).
    ///
    /// On error some batches may be mapped: the caller drains them. What was pinned and not mapped
    /// is unpinned here.
    pub(super) fn pin_and_map(&self, build: &Build) -> Result<Built, MapDmaError> {
        let page = self.memory.page_size();
        let (at, pages) = (build.range.first(), build.range.span() / page + 1);
        let pinned = self.pin(build, at, pages)?;
        let mut run = self.accept(build, at, pages, pinned)?;
        if run.range == build.range {
            return self.send(build, core::slice::from_mut(&mut run), true); // the usual case
        }
        self.pin_and_map_more(build, run)
    }

    /// As [`pin_and_map`](Self::pin_and_map), once the first run is pinned.
    #[inline(never)] // a batch of runs is on its stack
    fn pin_and_map_more(&self, build: &Build, first: Run) -> Result<Built, MapDmaError> {
        let mut runs = Runs::new();
        runs.extend([first]);
        match self.pin_runs(build, &mut runs) {
            Ok(Some(ended)) => Ok(ended),
            Ok(None) => self.send(build, &mut runs, true),
            Err(error) => {
                self.release_runs(&runs, build.owner);
                Err(error)
            }
        }
    }

    /// Pins what lies behind the run in `runs`, and maps all but the last batch, which is left there.
    /// `Some`: a batch was not mapped, and the mapping is gone or given up.
    #[inline(always)]
    fn pin_runs(&self, build: &Build, runs: &mut Runs) -> Result<Option<Built>, MapDmaError> {
        let page = self.memory.page_size();
        while let Some(last) = runs.last_mut() {
            // A run may be longer than its first answer. With pins in it, each is charged by itself.
            let answer = if build.pins { None } else { self.pin_on(build, last)? };
            let Some(at) = last.range.last().checked_add(1).filter(|at| build.range.contains(*at))
            else {
                break;
            };
            let left = (build.range.last().0 - at.0) / page + 1;
            let pinned = match answer {
                Some(pinned) => pinned,
                None => self.pin(build, at, left)?,
            };
            let run = self.accept(build, at, left, pinned)?;
            if build.pins
                && let Some(joined) = joined(last, &run)
                && self.same_kind(last, &run)
            {
                *last = joined;
                continue;
            }
            if runs.is_full() {
                let sent = self.send(build, runs, false);
                runs.clear();
                if !matches!(sent, Ok(Built::Part)) {
                    self.release_runs(&[run], build.owner);
                    return sent.map(Some);
                }
            }
            runs.extend([run]);
        }
        Ok(None)
    }

    /// Pins on behind `run`, as long as the provider's answers continue it; the first that does not is
    /// returned, not charged. Made for providers that hand out page after page (rule T1-311).
    #[inline(always)]
    fn pin_on(&self, build: &Build, run: &mut Run) -> Result<Option<Pinned>, MapDmaError> {
        let page = self.memory.page_size();
        let frame = self.memory.frame(run.phys);
        let mut left = (build.range.last().0 - run.range.last().0) / page;
        let mut end = run.phys.0.checked_add(run.range.span()).and_then(|last| last.checked_add(1));
        let mut ended = Ok(None);
        while left > 0 {
            let at = Iova(build.range.last().0 - (left * page - 1));
            let pinned = match self.pin(build, at, left) {
                Ok(pinned) => pinned,
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            };
            let fits = 0 < pinned.pages && pinned.pages <= left;
            let continues =
                fits && end == Some(pinned.phys.0) && self.memory.frame(pinned.phys) == frame;
            let next = pinned.phys.0.checked_add(pinned.pages.wrapping_mul(page));
            if !continues || next.is_none() {
                ended = Ok(Some(pinned));
                break;
            }
            if frame == Frame::Ordinary
                && let Err(refused) = self.memory.charge(build.owner, pinned.pages)
            {
                self.memory.unpin(pinned, build.prot);
                ended = Err(refused.into());
                break;
            }
            end = next;
            left -= pinned.pages;
        }
        let last = Iova(build.range.last().0 - left * page);
        run.range = IovaRange::new(run.range.first(), last).unwrap_or(run.range);
        ended
    }

    /// Maps a batch, which is the last one or not. If it was not mapped, it is unpinned; where a unit
    /// may have it, it stays in a domain's record for the caller's drain to find, pinned.
    #[inline(always)]
    fn send(&self, build: &Build, runs: &mut [Run], last: bool) -> Result<Built, MapDmaError> {
        let sent = self.state.lock().map_batch(build, runs, last);
        match sent {
            Ok(Built::Part | Built::Live) | Err(NotMapped { kept: true, .. }) => {}
            Ok(Built::Gone) | Err(NotMapped { kept: false, .. }) => {
                self.release_runs(runs, build.owner);
            }
        }
        sent.map_err(|refused| refused.error)
    }

    /// Asks the provider for the next run of a mapping, from `at` on.
    #[inline(always)]
    fn pin(&self, build: &Build, at: Iova, left: u64) -> Result<Pinned, MapDmaError> {
        let vaddr = build.vaddr + (at.0 - build.range.first().0);
        Ok(self.memory.pin(build.owner, vaddr, left, build.prot)?)
    }

    /// Checks and charges an answer of the provider. What it pinned beyond the end of the mapping is
    /// unpinned at once, and all of it on an error.
    #[inline]
    fn accept(
        &self,
        build: &Build,
        at: Iova,
        left: u64,
        pinned: Pinned,
    ) -> Result<Run, MapDmaError> {
        let page = self.memory.page_size();
        let run = place(at, pinned, left, page, build.prot);
        if run.is_none() {
            self.unpin_one(pinned, build.prot);
        } else if let Some(beyond) = pinned.pages.checked_sub(left)
            && let Some(phys) = pinned.phys.checked_add(left * page)
        {
            self.unpin_one(Pinned { phys, pages: beyond }, build.prot);
        }
        let run = run.ok_or(MapDmaError::Fault)?;
        self.charge_run(&run, build.owner, build.pins)?;
        Ok(run)
    }
}

/// How far a mapping is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Built {
    /// What was pinned is mapped; the mapping is being built still.
    Part,
    /// All of it is mapped, and nobody is at work on it any more.
    Live,
    /// The mapping is gone, or no domain is left: a detach took the container's last group away.
    Gone,
}

/// Why a batch is not mapped.
struct NotMapped {
    error: MapDmaError,
    /// A unit did not confirm that it does not have it.
    kept: bool,
}

/// A mapping whose pages are to be pinned and mapped.
#[derive(Clone, Copy)]
pub(super) struct Build {
    pub(super) range: IovaRange,
    pub(super) serial: u64,
    vaddr: u64,
    owner: MemoryOwner,
    prot: Prot,
    /// There may be external pins in it, made while no domain was there.
    pins: bool,
}

impl Build {
    pub(super) fn new(range: IovaRange, mapping: &Mapping, pins: bool) -> Self {
        let Mapping { serial, vaddr, owner, .. } = *mapping;
        Self { range, serial, vaddr, owner, prot: mapping.prot(), pins }
    }
}

impl<R: RawLock> State<R> {
    /// Rules T1-263 to T1-270, in their order. `fresh`: the list of usable IOVAs leaves out all that
    /// devices reserve; otherwise each of them is asked.
    #[inline(always)]
    fn check_map(&self, request: &MapDma, fresh: bool) -> Result<IovaRange, MapDmaError> {
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
        if (iova | vaddr | size) & (self.alignment() - 1) != 0 {
            return Err(MapDmaError::InvalidArg);
        }
        let allowed = if self.free_mappings == 0 {
            Err(MapDmaError::NoSpace)
        } else if !self.windows.allow(range) || !fresh && self.reserved_by_device(range) {
            Err(MapDmaError::InvalidArg)
        } else {
            return Ok(range); // the insert looks for overlaps
        };
        if self.mappings.overlaps(range) { Err(MapDmaError::Exists) } else { allowed }
    }

    /// Whether a mapping that is being built has to be built anew: a detach took the last group away
    /// meanwhile, pages and all, and a new one has come, whose attach passes over what is being built.
    fn map_again(&mut self, range: IovaRange, serial: u64) -> bool {
        let has_targets = self.targets().next().is_some();
        match self.mappings.get_mut(range.first()) {
            Some((_, mapping)) if mapping.serial == serial && !mapping.mapped && has_targets => {
                mapping.mapped = true;
                true
            }
            _ => false,
        }
    }

    /// Maps a batch into every target domain, or into none (rule T1-282). After the last one the
    /// mapping is live, unless it has a dirty bitmap to get. Where a unit does not confirm that it does
    /// not have it, it stays in that domain and in all before it: the first one is where a drain looks.
    #[inline(always)]
    fn map_batch(
        &mut self,
        build: &Build,
        runs: &mut [Run],
        last: bool,
    ) -> Result<Built, NotMapped> {
        let Self { mappings, domains, passing, dirty, operations, .. } = self;
        let found = mappings.get_mut(build.range.first());
        let ours = |mapping: &Mapping| mapping.serial == build.serial && mapping.mapped;
        let Some((_, mapping)) = found.filter(|(_, mapping)| ours(mapping)) else {
            return Ok(Built::Gone);
        };
        let mut done = 0;
        let mut refused = None;
        for domain in targets(domains, passing) {
            refused = map_coherent(domain, runs).err();
            if refused.is_some() {
                break;
            }
            done += 1;
            sabotage!(MapFirstDomainOnly => break);
        }
        operations.dom_map += (done * runs.len()) as u64;
        let Some(error) = refused else {
            if last && dirty.is_none() {
                mapping.phase = Phase::Live;
                return Ok(Built::Live);
            }
            return Ok(Built::Part);
        };
        sabotage!(NoUndoAcrossDomains => return Err(NotMapped { error: error.into(), kept: false }));
        let mut kept = error == MapError::Unconfirmed;
        for index in (0..done).rev() {
            let Some(domain) = self.targets().nth(index).filter(|_| !kept) else { break };
            kept = domain.unmap_ranges(&ranges(runs)).is_err();
            self.operations.dom_unmap += 1;
        }
        Err(NotMapped { error: error.into(), kept })
    }
}

/// Maps runs with the coherent-cache attribute where the unit knows it (rule T1-281). The provider
/// has never seen it, so it is taken off again.
pub(super) fn map_coherent<R: RawLock>(
    domain: &PagingDomain<R>,
    runs: &mut [Run],
) -> Result<(), MapError> {
    let coherent = domain.instance().capabilities().contains(Capabilities::CACHE_COHERENT);
    if !coherent {
        return domain.map_runs(runs);
    }
    runs.iter_mut().for_each(|run| run.prot.insert(Prot::CACHE));
    let mapped = domain.map_runs(runs);
    runs.iter_mut().for_each(|run| run.prot.remove(Prot::CACHE));
    mapped
}

/// The two runs as one, if the second continues the first, at the device and in memory.
#[inline]
fn joined(one: &Run, next: &Run) -> Option<Run> {
    let range = IovaRange::new(one.range.first(), next.range.last())?;
    let length = one.range.len()?;
    let continues = one.phys.checked_add(length) == Some(next.phys) && one.prot == next.prot;
    continues.then_some(Run { range, ..*one })
}

/// Where a pinned run goes, cut to what was asked for; `None` if the provider's answer is empty or
/// wraps.
#[inline]
fn place(at: Iova, run: Pinned, left: u64, page: u64, prot: Prot) -> Option<Run> {
    let range = IovaRange::from_len(at, run.pages.min(left).checked_mul(page)?)?;
    run.phys.checked_add(range.span())?;
    Some(Run { range, phys: PhysAddr(run.phys.0), prot })
}
