//! The unit itself: tables, the plan of refusals, the log. Under the lock of [`super::Sim`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::vec::Vec;

use super::{BLOCKED, Call, IDENTITY, Refusal};
use crate::addr::{Iova, IovaRange, PhysAddr};
use crate::driver::{
    Counters, DomainFeatures, DomainId, EndpointId, Left, Progress, Run, Start, Ticket, Work,
};
use crate::error::{DomainError, MapError};
use crate::fault::{Access, DriverFault, FaultReason};
use crate::prot::Prot;
use crate::reserved::ReservedRegions;

/// How many looks in vain a held unit allows: it is slow, not dead.
const PATIENCE: u32 = 100;

/// One request that nobody waits for.
#[derive(Debug)]
struct Started {
    ticket: u32,
    domain: DomainId,
    /// A map, or the range of an unmap.
    request: Result<Run, IovaRange>,
}

/// Which requests to refuse.
#[derive(Debug)]
struct Plan {
    /// The number of the next request.
    next: u64,
    numbers: BTreeSet<u64>,
    refusal: Refusal,
}

/// The size of the pages whose writes are recorded, in bytes.
const PAGE: u64 = 4096;

#[derive(Debug, Default)]
pub(super) struct Unit {
    /// Where each endpoint is; absent means on no domain.
    places: BTreeMap<EndpointId, DomainId>,
    /// What each domain maps, by first address. Absent: the domain does not exist.
    tables: BTreeMap<DomainId, BTreeMap<Iova, Run>>,
    /// What was unmapped but not invalidated: still reached.
    stale: BTreeMap<DomainId, Vec<Run>>,
    /// The domains whose dirty pages are recorded.
    tracked: BTreeSet<DomainId>,
    /// The pages of each domain that devices wrote while it was tracked.
    written: BTreeMap<DomainId, BTreeSet<Iova>>,
    /// Pages whose dirty bit was cleared but not synchronised: a write does not set it again.
    cached_dirty: BTreeMap<DomainId, BTreeSet<Iova>>,
    pub(super) ids: BTreeSet<DomainId>,
    pub(super) loners: BTreeSet<EndpointId>,
    pub(super) unable: BTreeMap<EndpointId, DomainFeatures>,
    pub(super) reserved: BTreeMap<EndpointId, ReservedRegions>,
    pub(super) log: Vec<Call>,
    pub(super) faults: Vec<DriverFault>,
    pub(super) counters: Counters,
    pub(super) broken: bool,
    /// How many started requests may be on their way; `None`: started calls are done at once.
    pub(super) room: Option<usize>,
    started: VecDeque<Started>,
    /// What became of started work that nobody asked about yet.
    ended: BTreeMap<u32, Progress>,
    next_ticket: u32,
    /// How often somebody looked in vain.
    looks: u32,
    plan: Option<Plan>,
    refused: u64,
}

impl Unit {
    pub(super) fn plan(&mut self, numbers: &[u64], refusal: Refusal) {
        let numbers = numbers.iter().copied().collect();
        self.plan = Some(Plan { next: 0, numbers, refusal });
        self.refused = 0;
    }

    pub(super) fn end_plan(&mut self) -> u64 {
        self.plan = None;
        core::mem::take(&mut self.refused)
    }

    /// Logs and counts a request, and refuses it if its turn has come.
    pub(super) fn request(&mut self, call: Call) -> Result<(), Refusal> {
        self.log.push(call);
        let count = match call {
            Call::Probe { .. } => &mut self.counters.probe,
            Call::Attach { .. } => &mut self.counters.attach,
            Call::Map { .. } => &mut self.counters.map,
            Call::Unmap { .. } => &mut self.counters.unmap,
            Call::Sync { .. } | Call::Track { .. } | Call::ReadDirty { .. } => &mut 0,
        };
        *count += 1;
        let Some(Plan { next, numbers, refusal }) = &mut self.plan else { return Ok(()) };
        let number = *next;
        *next += 1;
        let after = refusal.then_all && numbers.first().is_some_and(|first| *first < number);
        if !numbers.contains(&number) && !after {
            return Ok(());
        }
        self.refused += 1;
        self.counters.refused += 1;
        Err(*refusal)
    }

    pub(super) fn alloc(&mut self, limit: usize) -> Result<DomainId, DomainError> {
        let fits = |id: &DomainId| !self.ids.contains(id);
        let id =
            (1..IDENTITY.0).map(DomainId).take(limit).find(fits).ok_or(DomainError::NoSpace)?;
        self.ids.insert(id);
        Ok(id)
    }

    pub(super) fn attach(&mut self, endpoint: EndpointId, to: DomainId) -> Result<(), Refusal> {
        let answer = self.request(Call::Attach { endpoint, to });
        if answer.is_err_and(|refusal| refusal.left == Left::Unchanged) {
            return answer;
        }
        if let Some(old) = self.places.remove(&endpoint)
            && !self.places.values().any(|place| *place == old)
        {
            self.tables.remove(&old); // the last endpoint left: the domain is gone
            self.stale.remove(&old);
        }
        answer?;
        self.places.insert(endpoint, to);
        self.tables.entry(to).or_default();
        Ok(())
    }

    /// Maps a run; the error is the planned refusal, or `None` for a request that makes no sense.
    pub(super) fn map(&mut self, domain: DomainId, run: Run) -> Result<(), Option<Refusal>> {
        let answer = self.request(Call::Map { domain, run });
        if answer.is_err_and(|refusal| !refusal.silent) {
            return answer.map_err(Some);
        }
        let table = self.tables.get_mut(&domain).ok_or(None)?;
        let empty_for_ever = domain == BLOCKED || domain == IDENTITY;
        if empty_for_ever || table.values().any(|old| old.range.overlaps(run.range)) {
            return Err(None);
        }
        table.insert(run.range.first(), run);
        answer.map_err(Some)
    }

    pub(super) fn unmap(&mut self, domain: DomainId, range: IovaRange) -> Result<(), ()> {
        self.request(Call::Unmap { domain, range }).map_err(drop)?;
        let table = self.tables.get_mut(&domain).ok_or(())?;
        let cut = |old: &Run| old.range.overlaps(range) && !range.encloses(old.range);
        if table.values().any(cut) {
            return Err(());
        }
        let stale = self.stale.entry(domain).or_default();
        stale.extend(table.values().filter(|old| old.range.overlaps(range)));
        table.retain(|_, old| !old.range.overlaps(range));
        Ok(())
    }

    /// Takes as much of `work` as there is room for.
    pub(super) fn start(&mut self, domain: DomainId, work: Work<'_>) -> Start {
        let Some(room) = self.room else { return Start::Unsupported };
        let room = room.saturating_sub(self.started.len());
        let requests: Vec<_> = match work {
            Work::Map(runs) => runs.iter().map(|run| Ok(*run)).collect(),
            Work::Unmap(ranges) => ranges.iter().map(|range| Err(*range)).collect(),
        };
        let taken = requests.len().min(room);
        if taken == 0 {
            return Start::Full;
        }
        self.counters.notifies += 1;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let taken_over = requests.into_iter().take(taken);
        self.started.extend(taken_over.map(|request| Started { ticket, domain, request }));
        self.ended.insert(ticket, Progress::Done);
        Start::Started { ticket: Ticket(ticket), taken }
    }

    /// Does every request that is on its way.
    pub(super) fn work_off(&mut self) {
        while let Some(Started { ticket, domain, request }) = self.started.pop_front() {
            let done = match request {
                Ok(run) => {
                    let refused = self.map(domain, run).err();
                    self.broken |= refused.flatten().is_some_and(|refusal| refusal.silent);
                    refused.is_none()
                }
                Err(range) => {
                    let done = self.unmap(domain, range).is_ok();
                    self.invalidate(domain, range);
                    self.broken |= !done;
                    done
                }
            };
            if !done {
                let map = request.is_ok();
                let end = if map { Progress::Refused(MapError::Io) } else { Progress::Failed };
                self.ended.insert(ticket, end);
            }
        }
    }

    pub(super) fn progress(&mut self, ticket: Ticket) -> Progress {
        self.looks += 1;
        if self.looks > PATIENCE {
            self.work_off();
        }
        if self.started.iter().any(|started| started.ticket == ticket.0) {
            return Progress::Pending;
        }
        self.looks = 0;
        self.ended.remove(&ticket.0).unwrap_or(Progress::Failed)
    }

    /// Forgets what `range` of a domain translated to before it was unmapped.
    pub(super) fn invalidate(&mut self, domain: DomainId, range: IovaRange) {
        if let Some(stale) = self.stale.get_mut(&domain) {
            stale.retain(|old| !old.range.overlaps(range));
        }
        if let Some(cached) = self.cached_dirty.get_mut(&domain) {
            cached.retain(|page| !range.contains(*page));
        }
    }

    pub(super) fn track(&mut self, domain: DomainId, on: bool) {
        if on {
            self.tracked.insert(domain);
        } else {
            self.tracked.remove(&domain);
        }
    }

    /// The pages in `range` that were written, and forgets them if `clear`.
    pub(super) fn dirty(
        &mut self,
        domain: DomainId,
        range: IovaRange,
        clear: bool,
    ) -> Vec<IovaRange> {
        let written = self.written.entry(domain).or_default();
        let found: Vec<Iova> = written.range(range.first()..=range.last()).copied().collect();
        if clear {
            written.retain(|page| !range.contains(*page));
            self.cached_dirty.entry(domain).or_default().extend(&found);
        }
        found.into_iter().filter_map(|page| IovaRange::from_len(page, PAGE)).collect()
    }

    pub(super) fn access(
        &mut self,
        endpoint: EndpointId,
        iova: Iova,
        access: Access,
    ) -> Result<PhysAddr, DriverFault> {
        let fault = |reason| DriverFault { endpoint, address: Some(iova), access, reason };
        let place = self.places.get(&endpoint).copied();
        let needed = Prot::from_bits_truncate(access.bits());
        let lands = |run: &Run| {
            let inside = run.range.contains(iova) && run.prot.contains(needed);
            inside.then(|| run.phys.checked_add(iova.0 - run.range.first().0)).flatten()
        };
        let found = match place.and_then(|place| Some((place, self.tables.get(&place)?))) {
            None => Err(fault(FaultReason::Domain)),
            Some((IDENTITY, _)) => Ok(PhysAddr(iova.0)),
            Some((place, table)) => {
                let below = table.range(..=iova).next_back().map(|(_, run)| run);
                let stale = self.stale.get(&place).into_iter().flatten();
                below.into_iter().chain(stale).find_map(lands).ok_or(fault(FaultReason::Mapping))
            }
        };
        if let (Ok(_), Some(place), true) = (found, place, access.contains(Access::WRITE)) {
            self.record_write(place, iova);
        }
        if let Err(fault) = found {
            self.counters.faults += 1;
            self.faults.push(fault);
        }
        found
    }

    fn record_write(&mut self, domain: DomainId, iova: Iova) {
        let page = Iova(iova.0 & !(PAGE - 1));
        let cached = self.cached_dirty.get(&domain).is_some_and(|cached| cached.contains(&page));
        if self.tracked.contains(&domain) && !cached {
            self.written.entry(domain).or_default().insert(page);
        }
    }

    pub(super) fn digest(&self) -> Vec<(EndpointId, DomainId, Vec<Run>)> {
        let runs = |id| self.tables.get(id).map(|t| t.values().copied().collect());
        self.places.iter().map(|(ep, id)| (*ep, *id, runs(id).unwrap_or_default())).collect()
    }
}
