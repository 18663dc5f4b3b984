//! Maps and unmaps that nobody waits for.
//!
//! [`PagingDomain::start_map`] and [`PagingDomain::start_unmap`] send what the ring has room for and
//! return a value to ask with. What is on its way is kept with the domain (`DomainState::flights`),
//! under its lock, so that every other call knows: one that touches the same IOVAs, or moves
//! endpoints, first sees it to its end. So a started call never overtakes another one, and the
//! record is right whenever somebody else looks.

use core::fmt;

use heapless::Vec;

use super::map::is_whole;
use super::{Chunk, DomainState, PagingDomain, chunks};
use crate::addr::{Iova, IovaRange, PhysAddr};
use crate::driver::{Progress, Run, Start, Ticket, Work};
use crate::error::{MapError, UnmapError};
use crate::pool::Shared;
use crate::prot::Prot;
use crate::sync::{RawLock, SpinLock};

/// How many runs or ranges are begun at a time.
const BATCH: usize = 64;

/// How many started calls a domain may have at a time, ended ones that nobody asked about included.
pub const MAX_FLIGHTS: usize = 8;

pub(super) type Flights = Vec<Flight, MAX_FLIGHTS>;

/// A started call.
pub(super) struct Flight {
    serial: u64,
    unmap: bool,
    range: IovaRange,
    /// From where on nothing was sent yet; `None` once everything was.
    next: Option<Iova>,
    /// What is on its way, and which part of the range it is about.
    out: Option<(Ticket, IovaRange)>,
    /// The last address that something was sent for.
    sent: Option<Iova>,
    /// The bytes that were unmapped.
    bytes: u64,
    ended: Option<Result<(), Trouble>>,
}

impl Flight {
    pub(super) fn overlaps(&self, range: IovaRange) -> bool {
        self.range.overlaps(range)
    }
}

/// Why a started call failed.
#[derive(Clone, Copy)]
enum Trouble {
    Map(MapError),
    Unmap,
}

/// A map that was started (see [`PagingDomain::start_map`]).
///
/// Devices may use the mapping once [`poll`](Self::poll) or [`wait`](Self::wait) said `Ok`.
/// Dropping the value waits for the end and ignores how it was. On a failure nothing is mapped, unless it
/// was `Unconfirmed`, which nobody is told then: to be told, [`wait`](Self::wait).
#[must_use = "dropping it waits, and doesn't tell whether the map worked"]
pub struct PendingMap<R: RawLock = SpinLock> {
    flight: Handle<R>,
}

/// An unmap that was started (see [`PagingDomain::start_unmap`]).
///
/// The memory must not be reused before [`poll`](Self::poll) or [`wait`](Self::wait) said `Ok`.
/// Dropping the value waits for the end, but doesn't tell it.
#[must_use = "dropping it waits, and doesn't tell whether the memory is free"]
pub struct PendingUnmap<R: RawLock = SpinLock> {
    flight: Handle<R>,
}

struct Handle<R: RawLock> {
    domain: Shared<PagingDomain<R>>,
    serial: u64,
    asked: bool,
}

impl<R: RawLock> PagingDomain<R> {
    /// Starts to map `range` and doesn't wait for the unit: for callers that have something else to
    /// do, and for several maps that are to be on their way together.
    ///
    #[cfg_attr(feature = "sim", doc = "```")]
    #[cfg_attr(not(feature = "sim"), doc = "```ignore")]
    /// # use iommu::{addr::*, device::DeviceId, domain::*, driver::EndpointId, group::*, pool::Pool};
    /// # use iommu::{prot::Prot, registry::*, sim::Sim};
    /// # static POOL: Pool = Pool::heap();
    /// # let registry = Registry::new(&POOL);
    /// # let iommu = registry.add_instance(Sim::new().driver())?;
    /// # let info = DeviceInfo { id: DeviceId(1), endpoints: &[EndpointId(8)], with: None };
    /// # let group = registry.add_device(&iommu, &info)?;
    /// # let domain = PagingDomain::new(&iommu, &POOL)?;
    /// # let attached = Group::claim(&group, OwnerId(1))?.attach(&domain).unwrap();
    /// let page = |n: u64| IovaRange::from_len(Iova(n << 12), 0x1000).unwrap();
    /// let mut one = PagingDomain::start_map(&domain, page(1), PhysAddr(0x8000), Prot::RW)?;
    /// let two = PagingDomain::start_map(&domain, page(9), PhysAddr(0xa000), Prot::RW)?;
    /// while one.poll().transpose()?.is_none() {
    ///     // something else to do
    /// }
    /// two.wait()?; // or wait after all
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The range is taken at once. Any other call that touches it, or that moves endpoints to or from
    /// the domain, first waits for the end.
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map), as far as it can be known at once; what the unit answers comes with
    /// the end. `Range` also for the whole 64-bit space. `Busy`: [`MAX_FLIGHTS`] started calls of the domain were not asked about yet. On
    /// every error nothing was started.
    pub fn start_map(
        domain: &Shared<Self>,
        range: IovaRange,
        phys: PhysAddr,
        prot: Prot,
    ) -> Result<PendingMap<R>, MapError> {
        let len = range.len().ok_or(MapError::Range)?;
        Self::start_map_chunks(domain, range.first(), &[Chunk { phys, len }], prot)
    }

    /// Starts to map a scatter list, and doesn't wait for the unit; see [`start_map`](Self::start_map)
    /// and [`map_chunks`](Self::map_chunks).
    ///
    /// # Errors
    ///
    /// As [`map_chunks`](Self::map_chunks) and [`start_map`](Self::start_map).
    pub fn start_map_chunks(
        domain: &Shared<Self>,
        iova: Iova,
        chunks: &[Chunk],
        prot: Prot,
    ) -> Result<PendingMap<R>, MapError> {
        let range = chunks::check(&domain.geometry(), iova, chunks, prot)?;
        let mut state = domain.lock();
        if state.flights.is_full() {
            return Err(MapError::Busy);
        }
        domain.record(&mut state, range, chunks, prot)?;
        let serial = domain.take_off(&mut state, range, false);
        drop(state);
        Ok(PendingMap { flight: Handle { domain: domain.clone(), serial, asked: false } })
    }

    /// Starts to remove every mapping inside `range`, and doesn't wait for the unit.
    ///
    /// Until the end, the mappings stay in the record, so nothing can be mapped there.
    ///
    /// # Errors
    ///
    /// As [`unmap`](Self::unmap), as far as it can be known at once. `Busy`: [`MAX_FLIGHTS`]
    /// started calls of the domain were not asked about yet. On every error nothing was started.
    pub fn start_unmap(
        domain: &Shared<Self>,
        range: IovaRange,
    ) -> Result<PendingUnmap<R>, UnmapError> {
        let mut state = domain.lock();
        domain.land(&mut state, |flight| flight.range.overlaps(range));
        if !is_whole(&domain.geometry(), range) {
            return Err(UnmapError::InvalidArg);
        }
        state.check_cuts(&[range])?;
        if state.flights.is_full() {
            return Err(UnmapError::Busy);
        }
        let serial = domain.take_off(&mut state, range, true);
        drop(state);
        Ok(PendingUnmap { flight: Handle { domain: domain.clone(), serial, asked: false } })
    }

    /// Books a flight and sends its first part.
    fn take_off(&self, state: &mut DomainState, range: IovaRange, unmap: bool) -> u64 {
        state.serial += 1;
        let serial = state.serial;
        let next = Some(range.first());
        let flight =
            Flight { serial, unmap, range, next, out: None, sent: None, bytes: 0, ended: None };
        let _ = state.flights.push(flight); // the callers looked whether there is a place
        self.advance(state, serial, false);
        serial
    }

    /// Sees flights to their end, waiting for the unit. The wait ends, as every wait does: an
    /// overdue flight poisons the instance.
    pub(super) fn land(&self, state: &mut DomainState, which: impl Fn(&Flight) -> bool) {
        loop {
            let open = |flight: &&Flight| flight.ended.is_none() && which(flight);
            let Some(serial) = state.flights.iter().find(open).map(|flight| flight.serial) else {
                return;
            };
            self.advance(state, serial, true);
            core::hint::spin_loop();
        }
    }

    /// Sees every flight to its end: before endpoints move.
    pub(crate) fn land_all(&self, state: &mut DomainState) {
        if !state.flights.is_empty() {
            self.land(state, |_| true);
        }
    }

    /// Takes in what came back, and sends the next part if there is one. With `wait`, a part that
    /// finds no room is done by the call that waits.
    fn advance(&self, state: &mut DomainState, serial: u64, wait: bool) {
        loop {
            let Some(flight) = state.flight(serial) else { return };
            if flight.ended.is_some() {
                return;
            }
            if let Some((ticket, part)) = flight.out {
                let answer = self.instance.driver().progress(ticket);
                if answer == Progress::Pending {
                    return;
                }
                self.part_ended(state, serial, part, answer);
            } else if flight.next.is_none() {
                self.end(state, serial, Ok(()));
            } else if !self.send_part(state, serial, wait) {
                return;
            }
        }
    }

    /// Sends the next part of a flight, or does it at once where the driver can't but wait.
    /// Whether there was room.
    fn send_part(&self, state: &mut DomainState, serial: u64, wait: bool) -> bool {
        let Some(flight) = state.flight(serial) else { return true };
        let (unmap, last) = (flight.unmap, flight.range.last());
        let rest = flight.next.and_then(|next| IovaRange::new(next, last));
        let part = rest.map(|rest| state.part_of(rest, unmap)).unwrap_or_default();
        let Some((first, whole)) = part.span() else {
            if let Some(flight) = state.flight(serial) {
                flight.next = None; // there is nothing left to send
            }
            return true;
        };
        let driver = self.instance.driver();
        let (ticket, span) = match driver.start(&state.view(self.id), part.work()) {
            Start::Started { ticket, taken } => {
                (Some(ticket), part.span_of(taken).unwrap_or(first))
            }
            Start::Full if !wait => return false,
            Start::Full | Start::Unsupported => (None, whole),
            Start::Failed => {
                self.end(state, serial, Err(trouble(unmap)));
                return true;
            }
        };
        let answer = ticket.is_none().then(|| self.do_part(state, &part));
        if let Some(flight) = state.flight(serial) {
            flight.out = ticket.map(|ticket| (ticket, span));
            flight.next = span.last().checked_add(1).filter(|next| *next <= last);
            // Of what a driver refused outright nothing is there.
            let refused = |answer| matches!(answer, Progress::Refused(error) if error != MapError::Unconfirmed);
            if !answer.is_some_and(refused) {
                flight.sent = Some(span.last());
            }
        }
        if let Some(answer) = answer {
            self.part_ended(state, serial, span, answer);
        }
        true
    }

    /// Does a part, and waits for it.
    fn do_part(&self, state: &mut DomainState, part: &Part) -> Progress {
        match part.work() {
            Work::Map(runs) => match self.instance.driver().map(&state.view(self.id), runs) {
                Ok(()) => Progress::Done,
                Err(error) => Progress::Refused(error),
            },
            Work::Unmap(ranges) => {
                self.cut_off(state, ranges).map_or(Progress::Failed, |()| Progress::Done)
            }
        }
    }

    /// Brings the record to what the unit said about a part.
    fn part_ended(&self, state: &mut DomainState, serial: u64, part: IovaRange, answer: Progress) {
        let Some(flight) = state.flight(serial) else { return };
        flight.out = None;
        let unmap = flight.unmap;
        match answer {
            Progress::Pending => {}
            Progress::Done if unmap => {
                let bytes = state.remove_inside(part);
                if let Some(flight) = state.flight(serial) {
                    flight.bytes = flight.bytes.saturating_add(bytes);
                }
            }
            Progress::Done => {}
            Progress::Refused(error) if !unmap => self.end(state, serial, Err(Trouble::Map(error))),
            Progress::Refused(_) | Progress::Failed => {
                self.end(state, serial, Err(trouble(unmap)));
            }
        }
    }

    /// Ends a flight; what was mapped of a map that failed is taken back.
    fn end(&self, state: &mut DomainState, serial: u64, how: Result<(), Trouble>) {
        let Some(&mut Flight { range, sent, .. }) = state.flight(serial) else { return };
        let how = how.map_err(|trouble| match trouble {
            Trouble::Map(error) => Trouble::Map(self.take_back(state, range, sent, error)),
            Trouble::Unmap => trouble,
        });
        if let Some(flight) = state.flight(serial) {
            flight.ended = Some(how);
        }
    }

    /// Takes back a map of `range` that failed, of which everything up to `sent` may be there, and takes
    /// it out of the record. Where the unit does not confirm that it is poisoned, and the record keeps
    /// what was sent. Returns what the error is then.
    fn take_back(
        &self,
        state: &mut DomainState,
        range: IovaRange,
        sent: Option<Iova>,
        error: MapError,
    ) -> MapError {
        let done = sent.and_then(|last| IovaRange::new(range.first(), last));
        if let Some(done) = done
            && self.cut_off(state, &[done]).is_err()
        {
            let rest = done.last().checked_add(1);
            if let Some(rest) = rest.and_then(|rest| IovaRange::new(rest, range.last())) {
                state.remove_inside(rest);
            }
            return MapError::Unconfirmed;
        }
        state.remove_inside(range);
        state.mappings.shed(); // it may be this call's
        if error == MapError::Unconfirmed { MapError::Io } else { error }
    }

    fn ask(&self, serial: u64, wait: bool) -> Option<(Result<(), Trouble>, u64)> {
        let mut state = if wait { self.lock() } else { self.state.try_lock()? };
        if wait {
            self.land(&mut state, |flight| flight.serial == serial);
        } else {
            self.advance(&mut state, serial, false);
        }
        let place = state.flights.iter().position(|flight| flight.serial == serial)?;
        let ended = state.flights.get(place)?.ended?;
        let flight = state.flights.swap_remove(place);
        Some((ended, flight.bytes))
    }
}

/// What goes to the driver together.
#[expect(clippy::large_enum_variant, reason = "it lives on the stack, for one call")]
enum Part {
    Map(Vec<Run, BATCH>),
    Unmap(Vec<IovaRange, BATCH>),
}

impl Default for Part {
    fn default() -> Self {
        Self::Unmap(Vec::new())
    }
}

impl Part {
    fn work(&self) -> Work<'_> {
        match self {
            Self::Map(runs) => Work::Map(runs),
            Self::Unmap(ranges) => Work::Unmap(ranges),
        }
    }

    fn range(&self, at: usize) -> Option<IovaRange> {
        match self {
            Self::Map(runs) => runs.get(at).map(|run| run.range),
            Self::Unmap(ranges) => ranges.get(at).copied(),
        }
    }

    /// From the first to the last of the first `count`.
    fn span_of(&self, count: usize) -> Option<IovaRange> {
        let last = self.range(count.checked_sub(1)?)?;
        IovaRange::new(self.range(0)?.first(), last.last())
    }

    /// The first one, and the span of all.
    fn span(&self) -> Option<(IovaRange, IovaRange)> {
        let count = match self {
            Self::Map(runs) => runs.len(),
            Self::Unmap(ranges) => ranges.len(),
        };
        Some((self.range(0)?, self.span_of(count)?))
    }
}

impl DomainState {
    fn flight(&mut self, serial: u64) -> Option<&mut Flight> {
        self.flights.iter_mut().find(|flight| flight.serial == serial)
    }

    /// What of `rest` goes to the driver next.
    fn part_of(&self, rest: IovaRange, unmap: bool) -> Part {
        if unmap {
            let mut runs = Vec::new();
            let _ = self.whole_runs(&[rest], &mut runs); // what straddles an end was refused before
            return Part::Unmap(runs);
        }
        let found = self.mappings.overlapping(rest).take(BATCH);
        Part::Map(found.map(|(range, to)| Run { range, phys: to.phys, prot: to.prot }).collect())
    }
}

fn trouble(unmap: bool) -> Trouble {
    if unmap { Trouble::Unmap } else { Trouble::Map(MapError::Io) }
}

impl<R: RawLock> Handle<R> {
    /// `None` once the end was told.
    fn ask(&mut self, wait: bool) -> Option<(Result<(), Trouble>, u64)> {
        if self.asked {
            return None;
        }
        let end = self.domain.ask(self.serial, wait);
        self.asked |= end.is_some();
        end
    }
}

impl<R: RawLock> Drop for Handle<R> {
    fn drop(&mut self) {
        let _ = self.ask(true);
    }
}

impl<R: RawLock> PendingMap<R> {
    /// Looks, and doesn't wait. `None`: it is on its way, or its end was told already.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`, `Io`: the device refused; nothing is mapped. `Unconfirmed`: it did not answer, or
    /// did not take back what it had done; as of [`PagingDomain::map`].
    pub fn poll(&mut self) -> Option<Result<(), MapError>> {
        self.flight.ask(false).map(|(end, _)| map_end(end))
    }

    /// Waits for the end; for a bounded time, as every wait.
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll). `InvalidArg`: its end was told already.
    pub fn wait(mut self) -> Result<(), MapError> {
        self.flight.ask(true).map_or(Err(MapError::InvalidArg), |(end, _)| map_end(end))
    }
}

impl<R: RawLock> PendingUnmap<R> {
    /// Looks, and doesn't wait: with `Ok`, the bytes that no device reaches any more. `None`: it is
    /// on its way, or its end was told already.
    ///
    /// # Errors
    ///
    /// `Io`: the device did not confirm; what it did not confirm stays in the record, the instance
    /// is poisoned, and the memory must be kept until it was reset.
    pub fn poll(&mut self) -> Option<Result<u64, UnmapError>> {
        self.flight.ask(false).map(unmap_end)
    }

    /// Waits for the end; for a bounded time, as every wait.
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll). `InvalidArg`: its end was told already.
    pub fn wait(mut self) -> Result<u64, UnmapError> {
        self.flight.ask(true).map_or(Err(UnmapError::InvalidArg), unmap_end)
    }
}

fn map_end(end: Result<(), Trouble>) -> Result<(), MapError> {
    end.map_err(|trouble| match trouble {
        Trouble::Map(error) => error,
        Trouble::Unmap => MapError::Io,
    })
}

fn unmap_end((end, bytes): (Result<(), Trouble>, u64)) -> Result<u64, UnmapError> {
    end.map(|()| bytes).map_err(|_| UnmapError::Io)
}

impl<R: RawLock> fmt::Debug for PendingMap<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingMap")
            .field("domain", &self.flight.domain.id())
            .finish_non_exhaustive()
    }
}

impl<R: RawLock> fmt::Debug for PendingUnmap<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingUnmap")
            .field("domain", &self.flight.domain.id())
            .finish_non_exhaustive()
    }
}
