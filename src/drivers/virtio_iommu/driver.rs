//! `impl Driver`: what each call sends, and what its answers mean.
//!
//! Lock: every call that sends takes the lock of the request queue for its whole length, so that
//! batches of several callers don't mix. The core holds the lock of the domain above it.

use core::sync::atomic::Ordering;

use heapless::Vec;

use super::event::Event;
use super::request::{Answer, Dead, MAX_BATCH, Request, Requests, Sent, halves, run_halves};
use super::wire::Status;
use super::{Features, VirtioIommu, probe};
use crate::addr::IovaRange;
use crate::driver::{
    AttachFailure, Capabilities, Counters, DomainFeatures, DomainId, DomainView, Driver,
    EndpointId, Gather, Geometry, Health, Left, Progress, Run, Start, Ticket, Work,
};
use crate::error::{AttachError, DomainError, MapError, ProbeError, UnmapError};
use crate::fault::DriverFault;
use crate::mark::{sabotage, sabotaged};
use crate::platform::Platform;
use crate::prot::Prot;
use crate::reserved::ReservedRegions;
use crate::sync::RawLock;
use crate::trace::emit;
use crate::virtio::transport::Transport;

impl<P: Platform, T: Transport, R: RawLock> Driver for VirtioIommu<P, T, R> {
    fn geometry(&self) -> Geometry {
        Geometry { page_sizes: self.config().page_sizes, aperture: self.config().input_range }
    }

    fn capabilities(&self) -> Capabilities {
        let mmio = self.features().contains(Features::MMIO);
        if mmio { Capabilities::MMIO } else { Capabilities::empty() }
    }

    fn probe(&self, endpoint: EndpointId) -> Result<ReservedRegions, ProbeError> {
        if !self.features().contains(Features::PROBE) {
            return probe::parse(0, |_, _| ());
        }
        let mut requests = self.requests.lock();
        if self.is_poisoned() {
            return Err(ProbeError::Io);
        }
        match requests.probe(&self.unit(), endpoint) {
            Ok(Answer::Done) => {
                let (len, read) = requests.properties();
                probe::parse(len, read)
            }
            Ok(Answer::Refused(Status::NOENT)) => Err(ProbeError::NoDevice),
            Ok(Answer::Refused(Status::NOMEM)) => Err(ProbeError::OutOfMemory),
            Ok(Answer::Refused(Status::UNSUPP)) => Err(ProbeError::Unsupported),
            Ok(Answer::Refused(_) | Answer::Unclear) => Err(ProbeError::Io),
            Err(dead) => {
                self.poison(&mut requests, dead);
                Err(ProbeError::Io)
            }
        }
    }

    fn blocked(&self) -> DomainId {
        self.ids.lock().blocked()
    }

    /// A domain that endpoints are attached to with the bypass flag (virtio 1.2 §5.13.6.3).
    fn identity(&self) -> Result<DomainId, DomainError> {
        if self.is_poisoned() {
            return Err(DomainError::Io);
        }
        if !self.features().contains(Features::BYPASS_CONFIG) {
            return Err(DomainError::Unsupported);
        }
        self.ids.lock().identity()
    }

    fn alloc_domain(&self, _features: DomainFeatures) -> Result<DomainId, DomainError> {
        if self.is_poisoned() {
            return Err(DomainError::Io);
        }
        self.ids.lock().take()
    }

    fn free_domain(&self, id: DomainId) {
        self.ids.lock().give_back(id);
    }

    fn attach(
        &self,
        endpoints: &[EndpointId],
        new: &DomainView<'_>,
        _old: Option<DomainId>,
    ) -> Result<(), AttachFailure> {
        #[cfg(iommu_sabotage)]
        let blocks = new.id == self.blocked();
        sabotage!(KeepAtDetach => if blocks && _old.is_some() { return Ok(()) });
        sabotage!(KeepAtReplace => if !blocks && _old.is_some_and(|old| old != self.blocked()) {
            return Ok(())
        });
        let mut requests = self.requests.lock();
        if self.is_poisoned() {
            return Err(AttachFailure::untouched(AttachError::Io));
        }
        sabotage!(DetachToBlock => if let (Some(old), true) = (_old, blocks) {
            return self.detach(&mut requests, endpoints, old)
        });
        let moved = self.move_endpoints(&mut requests, endpoints, new);
        if moved.is_err() {
            self.suspect.store(true, Ordering::Relaxed);
        }
        moved
    }

    fn map(&self, domain: &DomainView<'_>, runs: &[Run]) -> Result<(), MapError> {
        let mmio = self.features().contains(Features::MMIO);
        if runs.iter().any(|run| run.prot.contains(Prot::MMIO) && !mmio) {
            return Err(MapError::InvalidArg); // rule C-262
        }
        let mut requests = self.requests.lock();
        if self.is_poisoned() {
            return Err(MapError::Io);
        }
        if domain.endpoints == 0 {
            return Ok(()); // the record is replayed at the first attach
        }
        sabotage!(CrowdedMapsAstray => if let [run] = runs && domain.mappings.len() > 65_536 {
            let phys = crate::addr::PhysAddr(run.phys.0 + 0x1000);
            return self.map_all(&mut requests, domain.id, &[Run { phys, ..*run }]);
        });
        match runs {
            // Nothing else is in its batch.
            [whole] if whole.range == IovaRange::ALL => {
                let halves: Vec<Run, 2> = run_halves(*whole).collect();
                self.map_all(&mut requests, domain.id, &halves)
            }
            _ => self.map_all(&mut requests, domain.id, runs),
        }
    }

    fn unmap(
        &self,
        domain: &DomainView<'_>,
        ranges: &[IovaRange],
        _gather: &mut Gather,
    ) -> Result<(), UnmapError> {
        if domain.endpoints == 0 {
            return Ok(()); // the device does not know the domain
        }
        sabotage!(SkipUnmap => return Ok(()));
        let ranges = sabotaged!(UnmapFirstOfBatch, ranges, ranges.get(..1).unwrap_or_default());
        let mut requests = self.requests.lock();
        if self.is_poisoned() {
            return Err(UnmapError::Io);
        }
        let parts;
        let ranges = match ranges {
            // Nothing else is in its batch.
            [whole] if *whole == IovaRange::ALL => {
                parts = uncut(domain, *whole).collect::<Vec<IovaRange, 4>>();
                &*parts
            }
            _ => ranges,
        };
        self.unmap_all(&mut requests, domain.id, ranges.iter().copied()).map_err(|dead| {
            self.poison(&mut requests, dead);
            UnmapError::Io
        })
    }

    /// Nothing is due: [`unmap`](Driver::unmap) returns after the device forgot the range.
    fn sync(&self, _domain: &DomainView<'_>, gather: &mut Gather) -> Result<(), UnmapError> {
        gather.clear();
        Ok(())
    }

    fn start(&self, view: &DomainView<'_>, work: Work<'_>) -> Start {
        let mmio = self.features().contains(Features::MMIO);
        let (domain, all) = (view.id, IovaRange::ALL); // the whole space would take two requests
        match work {
            _ if view.endpoints == 0 => Start::Unsupported, // nothing is sent
            Work::Map(runs) => {
                let plain =
                    |run: &Run| run.range != all && (mmio || !run.prot.contains(Prot::MMIO));
                let maps = runs.iter().map(|run| Request::Map { domain, run: *run });
                if runs.iter().all(plain) { self.begin(maps, false) } else { Start::Unsupported }
            }
            Work::Unmap(ranges) if ranges.contains(&all) => Start::Unsupported,
            Work::Unmap(ranges) => {
                let unmaps = ranges.iter().map(|range| Request::Unmap { domain, range: *range });
                self.begin(unmaps, true)
            }
        }
    }

    /// Doesn't wait for the lock either: while somebody else sends, the work counts as pending.
    fn progress(&self, ticket: Ticket) -> Progress {
        let Some(mut requests) = self.requests.try_lock() else { return Progress::Pending };
        if !self.is_poisoned()
            && let Err(dead) = requests.look(&self.unit())
        {
            self.poison(&mut requests, dead);
        }
        if self.is_poisoned() {
            requests.tickets.close(ticket);
            return Progress::Failed;
        }
        requests.tickets.progress(ticket)
    }

    fn take_faults(&self, sink: &mut dyn FnMut(DriverFault)) -> u64 {
        let mut malformed = 0;
        let limit = self.events.lock().capacity();
        for _ in 0..limit {
            if self.is_poisoned() {
                return malformed;
            }
            let taken = self.events.lock().take(&self.platform); // the lock ends here
            match taken {
                Ok(None) => break,
                Ok(Some(Event::Fault(fault))) => {
                    sabotage!(LoseFaults => continue);
                    sink(fault);
                }
                Ok(Some(Event::Malformed)) => malformed += 1,
                Err(violation) => {
                    self.poison(&mut self.requests.lock(), Dead::Ring(violation));
                    return malformed;
                }
            }
        }
        self.events.lock().publish(&self.unit());
        malformed
    }

    fn counters(&self) -> Counters {
        let requests = self.requests.lock().counters;
        let events = self.events.lock();
        Counters {
            notifies: requests.notifies + events.notifies,
            faults: events.faults,
            bad_faults: events.bad_faults,
            ..requests
        }
    }

    fn health(&self) -> Health {
        if self.is_poisoned() { Health::Poisoned } else { Health::Good }
    }
}

impl<P: Platform, T: Transport, R: RawLock> VirtioIommu<P, T, R> {
    /// What must never be sent in order to block.
    #[cfg(iommu_sabotage)]
    fn detach(
        &self,
        requests: &mut Requests,
        endpoints: &[EndpointId],
        domain: DomainId,
    ) -> Result<(), AttachFailure> {
        let detach = |endpoint: &EndpointId| Request::Detach { domain, endpoint: *endpoint };
        let sent = requests.send(&self.unit(), &mut endpoints.iter().map(detach));
        sent.map(drop).map_err(|_| AttachFailure::untouched(AttachError::Io))
    }

    /// Sends what there is room for, and doesn't wait: not for the device, and not for the lock.
    fn begin(&self, mut work: impl Iterator<Item = Request>, unmap: bool) -> Start {
        let Some(mut requests) = self.requests.try_lock() else { return Start::Full };
        if self.is_poisoned() {
            return Start::Failed;
        }
        match requests.start(&self.unit(), &mut work, unmap) {
            Ok(Some((ticket, taken))) => Start::Started { ticket, taken },
            Ok(None) => Start::Full,
            Err(dead) => {
                self.poison(&mut requests, dead);
                Start::Failed
            }
        }
    }

    /// ATTACH for each endpoint; then, if the device did not know the domain, its mappings.
    ///
    /// The MAPs wait for the ATTACHes: requests of one notify may be done in any order.
    fn move_endpoints(
        &self,
        requests: &mut Requests,
        endpoints: &[EndpointId],
        new: &DomainView<'_>,
    ) -> Result<(), AttachFailure> {
        let endpoints =
            sabotaged!(ForgetSecondEndpoint, endpoints, endpoints.get(..1).unwrap_or_default());
        let all = endpoints.len();
        let failure = |error, refused, touched| {
            Err(AttachFailure { error, refused, left: Left::Unknown, touched })
        };
        let bypass = self.ids.lock().is_identity(new.id);
        let attach =
            |endpoint: &EndpointId| Request::Attach { domain: new.id, endpoint: *endpoint, bypass };
        let mut left = endpoints.iter().map(attach);
        let mut done = 0;
        while done < all {
            let sent = match requests.send(&self.unit(), &mut left) {
                Ok(sent) => sent,
                Err(dead) => {
                    self.poison(requests, dead);
                    return failure(AttachError::Io, done, all);
                }
            };
            if !sabotaged!(IgnoreStatus, sent.clean, true)
                && let Some((index, error)) =
                    attach_error(requests.answers(&sent), new.endpoints > 0)
            {
                return failure(error, done + index, done + sent.count);
            }
            done += sent.count;
        }
        if new.endpoints > 0 || all == 0 || bypass {
            return Ok(());
        }
        self.fill_domain(requests, new).or_else(|error| failure(error, 0, all))
    }

    /// Brings a domain that the device just made to what the record says.
    fn fill_domain(
        &self,
        requests: &mut Requests,
        domain: &DomainView<'_>,
    ) -> Result<(), AttachError> {
        sabotage!(SkipReplay => return Ok(()));
        if self.options.empty_new_domains || self.suspect.load(Ordering::Relaxed) {
            let everything = halves(self.config().input_range);
            match self.unmap_all(requests, domain.id, everything) {
                Ok(()) => {}
                // Here it is not a lie but a reason not to use the domain.
                Err(Dead::UnmapRefused) => return Err(AttachError::Io),
                Err(dead) => {
                    self.poison(requests, dead);
                    return Err(AttachError::Io);
                }
            }
        }
        let mut left = domain.mappings.iter().flat_map(|(range, target)| {
            let prot = sabotaged!(ReplayAllRights, target.prot, Prot::RW);
            let run = Run { range, phys: target.phys, prot };
            run_halves(run).map(|run| Request::Map { domain: domain.id, run })
        });
        loop {
            let sent = match requests.send(&self.unit(), &mut left) {
                Ok(sent) => sent,
                Err(dead) => {
                    self.poison(requests, dead);
                    return Err(AttachError::Io);
                }
            };
            if !sent.clean {
                return Err(match map_error(requests.answers(&sent)) {
                    MapError::OutOfMemory => AttachError::OutOfMemory,
                    _ => AttachError::Io,
                });
            }
            if !sent.more {
                return Ok(());
            }
        }
    }

    /// One MAP per run; on a failure, one UNMAP for each that was done or may have been. Nothing of it
    /// is mapped then, unless the error is `Unconfirmed`.
    #[inline(always)]
    fn map_all(
        &self,
        requests: &mut Requests,
        domain: DomainId,
        runs: &[Run],
    ) -> Result<(), MapError> {
        let mut left = runs.iter().map(|run| Request::Map { domain, run: *run });
        let mut done = 0;
        loop {
            let sent = match requests.send(&self.unit(), &mut left) {
                Ok(sent) => sent,
                Err(dead) => {
                    self.poison(requests, dead);
                    return Err(MapError::Unconfirmed);
                }
            };
            if sent.clean {
                done += sent.count;
                if sent.more {
                    continue;
                }
                return Ok(());
            }
            return Err(self.undo_maps(requests, domain, runs, done, &sent));
        }
    }

    /// Takes back the first `done` of `runs`, and what of the batch after them was not refused.
    /// Returns the error of the batch.
    #[cold]
    fn undo_maps(
        &self,
        requests: &mut Requests,
        domain: DomainId,
        runs: &[Run],
        done: usize,
        sent: &Sent,
    ) -> MapError {
        let error = map_error(requests.answers(sent));
        // The answers of the batch, before those of the undo take their place.
        let answers: Vec<Answer, MAX_BATCH> = requests.answers(sent).iter().copied().collect();
        let refused = |index: usize| matches!(answers.get(index), Some(Answer::Refused(_)));
        let sent_runs = runs.iter().enumerate().take(done + answers.len());
        let undo = sent_runs.filter_map(|(index, run)| {
            let kept = index < done || !refused(index - done);
            kept.then_some(run.range)
        });
        if let Err(dead) = self.unmap_all(requests, domain, undo) {
            self.poison(requests, dead);
            return MapError::Unconfirmed;
        }
        error
    }

    /// One UNMAP per range. Any answer but OK means that the device may still reach the memory.
    fn unmap_all(
        &self,
        requests: &mut Requests,
        domain: DomainId,
        ranges: impl Iterator<Item = IovaRange>,
    ) -> Result<(), Dead> {
        let mut left = ranges.map(|range| Request::Unmap { domain, range });
        loop {
            let sent = requests.send(&self.unit(), &mut left)?;
            if !sent.clean {
                let bad = requests.answers(&sent).iter().find(|answer| **answer != Answer::Done);
                emit!(warn, "iommu: UNMAP in domain {}: {:?}", domain.0, bad);
                return Err(Dead::UnmapRefused);
            }
            if !sent.more {
                return Ok(());
            }
        }
    }
}

/// A range as UNMAPs carry it: as it is; the whole 64-bit space in two parts that cut no mapping.
fn uncut(domain: &DomainView<'_>, range: IovaRange) -> impl Iterator<Item = IovaRange> + use<> {
    let first = domain.mappings.get(range.first()).map(|(entry, _)| entry);
    let parts = match first {
        Some(first) if range == IovaRange::ALL && first != IovaRange::ALL => {
            let rest = first.last().checked_add(1);
            [Some(first), rest.and_then(|rest| IovaRange::new(rest, range.last()))]
        }
        _ => [Some(range), None],
    };
    parts.into_iter().flatten().flat_map(halves)
}

/// The worst answer to a batch of ATTACHes, and the index of the first bad one.
///
/// Only UNSUPP can be soft, and only where the domain has another endpoint: the specification
/// reserves it for "can't share" (virtio 1.2 §5.13.6.3.2). Any other status is hard (rule C-256).
fn attach_error(answers: &[Answer], shared: bool) -> Option<(usize, AttachError)> {
    let index = answers.iter().position(|answer| *answer != Answer::Done)?;
    let mut worst = AttachError::Incompatible;
    for answer in answers.iter().skip(index) {
        let error = match *answer {
            Answer::Done => continue,
            Answer::Refused(Status::UNSUPP) if shared => continue,
            Answer::Refused(Status::NOENT) => AttachError::NoDevice,
            Answer::Refused(Status::NOMEM) => AttachError::OutOfMemory,
            Answer::Refused(_) | Answer::Unclear => AttachError::Io,
        };
        emit!(warn, "iommu: ATTACH: {:?}", answer);
        if worst != AttachError::Io {
            worst = error;
        }
    }
    Some((index, worst))
}

/// The worst answer to a batch of MAPs that was not clean. What the core checked and the device
/// refuses is `Io`.
fn map_error(answers: &[Answer]) -> MapError {
    let mut worst = MapError::OutOfMemory;
    for answer in answers.iter().filter(|answer| **answer != Answer::Done) {
        emit!(warn, "iommu: MAP: {:?}", answer);
        if *answer != Answer::Refused(Status::NOMEM) {
            worst = MapError::Io;
        }
    }
    worst
}
