//! The unit itself: tables, the plan of refusals, the log. Under the lock of [`super::Sim`].

use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use super::{BLOCKED, Call, Refusal};
use crate::addr::{Iova, IovaRange, PhysAddr};
use crate::driver::{Counters, DomainId, EndpointId, Left, Run};
use crate::error::DomainError;
use crate::fault::{Access, DriverFault, FaultReason};
use crate::prot::Prot;

#[derive(Debug, Default)]
pub(super) struct Unit {
    /// Where each endpoint is; absent means on no domain.
    places: BTreeMap<EndpointId, DomainId>,
    /// What each domain maps, by first address. Absent: the domain does not exist.
    tables: BTreeMap<DomainId, BTreeMap<Iova, Run>>,
    pub(super) ids: BTreeSet<DomainId>,
    pub(super) loners: BTreeSet<EndpointId>,
    pub(super) log: Vec<Call>,
    pub(super) faults: Vec<DriverFault>,
    pub(super) counters: Counters,
    pub(super) broken: bool,
    plan: Option<(u64, Refusal)>,
    refused: u64,
}

impl Unit {
    pub(super) fn plan(&mut self, n: u64, refusal: Refusal) {
        self.plan = Some((n, refusal));
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
        };
        *count += 1;
        match &mut self.plan {
            Some((0, refusal)) => {
                let refusal = *refusal;
                if !refusal.then_all {
                    self.plan = None;
                }
                self.refused += 1;
                self.counters.refused += 1;
                Err(refusal)
            }
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn alloc(&mut self, limit: usize) -> Result<DomainId, DomainError> {
        let fits = |id: &DomainId| !self.ids.contains(id);
        let id = (1..=u32::MAX).map(DomainId).take(limit).find(fits).ok_or(DomainError::NoSpace)?;
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
        }
        answer?;
        self.places.insert(endpoint, to);
        self.tables.entry(to).or_default();
        Ok(())
    }

    pub(super) fn map(&mut self, domain: DomainId, run: Run) -> Result<(), ()> {
        self.request(Call::Map { domain, run }).map_err(drop)?;
        let table = self.tables.get_mut(&domain).ok_or(())?;
        if domain == BLOCKED || table.values().any(|old| old.range.overlaps(run.range)) {
            return Err(());
        }
        table.insert(run.range.first(), run);
        Ok(())
    }

    pub(super) fn unmap(&mut self, domain: DomainId, range: IovaRange) -> Result<(), ()> {
        self.request(Call::Unmap { domain, range }).map_err(drop)?;
        let table = self.tables.get_mut(&domain).ok_or(())?;
        let cut = |old: &Run| old.range.overlaps(range) && !range.encloses(old.range);
        if table.values().any(cut) {
            return Err(());
        }
        table.retain(|_, old| !old.range.overlaps(range));
        Ok(())
    }

    pub(super) fn access(
        &mut self,
        endpoint: EndpointId,
        iova: Iova,
        access: Access,
    ) -> Result<PhysAddr, DriverFault> {
        let fault = |reason| DriverFault { endpoint, address: Some(iova), access, reason };
        let place = self.places.get(&endpoint);
        let table = place.and_then(|place| self.tables.get(place));
        let found = match table {
            None => Err(fault(FaultReason::Domain)),
            Some(table) => {
                let needed = Prot::from_bits_truncate(access.bits());
                let below = table.range(..=iova).next_back().map(|(_, run)| *run);
                below
                    .filter(|run| run.range.contains(iova) && run.prot.contains(needed))
                    .and_then(|run| run.phys.checked_add(iova.0 - run.range.first().0))
                    .ok_or(fault(FaultReason::Mapping))
            }
        };
        if let Err(fault) = found {
            self.counters.faults += 1;
            self.faults.push(fault);
        }
        found
    }

    pub(super) fn digest(&self) -> Vec<(EndpointId, DomainId, Vec<Run>)> {
        let runs = |id| self.tables.get(id).map(|t| t.values().copied().collect());
        self.places.iter().map(|(ep, id)| (*ep, *id, runs(id).unwrap_or_default())).collect()
    }
}
