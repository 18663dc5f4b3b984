//! `impl Driver`: what the software unit is asked, under its lock.

use std::vec::Vec;

use super::{BLOCKED, Call, IDENTITY, Refusal, SimConfig, SimDriver};
use crate::addr::IovaRange;
use crate::driver::{
    AttachFailure, Capabilities, Counters, DomainFeatures, DomainId, DomainView, Driver,
    EndpointId, Gather, Geometry, Health, Left, Progress, Run, Start, Ticket, Work,
};
use crate::error::{AttachError, DirtyError, DomainError, MapError, ProbeError, UnmapError};
use crate::fault::DriverFault;
use crate::reserved::ReservedRegions;

impl Driver for SimDriver {
    fn geometry(&self) -> Geometry {
        let SimConfig { page_sizes, aperture, .. } = self.sim.config;
        Geometry { page_sizes, aperture }
    }

    fn capabilities(&self) -> Capabilities {
        self.sim.config.capabilities
    }

    fn probe(&self, endpoint: EndpointId) -> Result<ReservedRegions, ProbeError> {
        let mut unit = self.sim.unit();
        unit.request(Call::Probe { endpoint }).map_err(|refusal| refusal.error)?;
        let own = unit.reserved.get(&endpoint);
        Ok(own.unwrap_or(&self.sim.config.reserved).clone())
    }

    fn blocked(&self) -> DomainId {
        BLOCKED
    }

    fn identity(&self) -> Result<DomainId, DomainError> {
        if self.sim.config.identity { Ok(IDENTITY) } else { Err(DomainError::Unsupported) }
    }

    fn alloc_domain(&self, _features: DomainFeatures) -> Result<DomainId, DomainError> {
        self.sim.unit().alloc(self.sim.config.domains)
    }

    fn free_domain(&self, id: DomainId) {
        self.sim.unit().ids.remove(&id);
    }

    fn compatible(&self, domain: &DomainView<'_>, endpoint: EndpointId) -> Result<(), AttachError> {
        let unit = self.sim.unit();
        let lonely = unit.loners.contains(&endpoint) && domain.endpoints > 0;
        let unable = unit.unable.get(&endpoint).is_some_and(|u| u.intersects(domain.features));
        if lonely || unable { Err(AttachError::Incompatible) } else { Ok(()) }
    }

    fn attach(
        &self,
        endpoints: &[EndpointId],
        new: &DomainView<'_>,
        _old: Option<DomainId>,
    ) -> Result<(), AttachFailure> {
        let mut unit = self.sim.unit();
        unit.work_off();
        unit.counters.notifies += 1;
        for (index, endpoint) in endpoints.iter().enumerate() {
            if let Err(refusal) = unit.attach(*endpoint, new.id) {
                let touched = index + usize::from(refusal.left != Left::Unchanged);
                let Refusal { error, left, .. } = refusal;
                return Err(AttachFailure { error, refused: index, left, touched });
            }
        }
        unit.track(new.id, new.dirty);
        if new.endpoints > 0 {
            return Ok(());
        }
        for (range, target) in new.mappings.iter() {
            let run = Run { range, phys: target.phys, prot: target.prot };
            if let Err(refusal) = unit.map(new.id, run) {
                unit.broken |= refusal.is_some_and(|refusal| refusal.silent);
                let (left, touched) = (Left::Unknown, endpoints.len());
                return Err(AttachFailure { error: AttachError::Io, refused: 0, left, touched });
            }
        }
        Ok(())
    }

    fn map(&self, domain: &DomainView<'_>, runs: &[Run]) -> Result<(), MapError> {
        if domain.endpoints == 0 {
            return Ok(());
        }
        let mut unit = self.sim.unit();
        unit.work_off();
        unit.counters.notifies += 1;
        for (done, run) in runs.iter().enumerate() {
            if let Err(refusal) = unit.map(domain.id, *run) {
                if refusal.is_some_and(|refusal| refusal.silent) {
                    unit.broken = true;
                    return Err(MapError::Unconfirmed);
                }
                let undone = runs.iter().take(done).all(|r| unit.unmap(domain.id, r.range).is_ok());
                unit.invalidate(domain.id, IovaRange::ALL);
                unit.broken |= !undone;
                if !undone {
                    return Err(MapError::Unconfirmed);
                }
                let full = refusal.is_some_and(|refusal| refusal.error == AttachError::OutOfMemory);
                return Err(if full { MapError::OutOfMemory } else { MapError::Io });
            }
        }
        Ok(())
    }

    fn unmap(
        &self,
        domain: &DomainView<'_>,
        ranges: &[IovaRange],
        gather: &mut Gather,
    ) -> Result<(), UnmapError> {
        if domain.endpoints == 0 {
            return Ok(());
        }
        let mut unit = self.sim.unit();
        unit.work_off();
        unit.counters.notifies += 1;
        for range in ranges {
            if unit.unmap(domain.id, *range).is_err() {
                unit.broken = true;
                return Err(UnmapError::Io);
            }
            gather.add(*range);
        }
        if !self.capabilities().contains(Capabilities::DEFERRED_UNMAP) {
            unit.invalidate(domain.id, IovaRange::ALL);
            gather.clear();
        }
        Ok(())
    }

    fn sync(&self, domain: &DomainView<'_>, gather: &mut Gather) -> Result<(), UnmapError> {
        let Some(range) = gather.range() else { return Ok(()) };
        let mut unit = self.sim.unit();
        unit.work_off();
        unit.counters.notifies += 1;
        if unit.request(Call::Sync { domain: domain.id, range }).is_err() {
            unit.broken = true;
            return Err(UnmapError::Io);
        }
        unit.invalidate(domain.id, range);
        gather.clear();
        Ok(())
    }

    fn start(&self, domain: &DomainView<'_>, work: Work<'_>) -> Start {
        let mut unit = self.sim.unit();
        if domain.endpoints == 0 { Start::Unsupported } else { unit.start(domain.id, work) }
    }

    fn progress(&self, ticket: Ticket) -> Progress {
        self.sim.unit().progress(ticket)
    }

    fn set_dirty_tracking(&self, domain: &DomainView<'_>, on: bool) -> Result<(), DirtyError> {
        let mut unit = self.sim.unit();
        unit.request(Call::Track { domain: domain.id, on }).map_err(|_| DirtyError::Io)?;
        unit.track(domain.id, on);
        Ok(())
    }

    fn read_dirty(
        &self,
        domain: &DomainView<'_>,
        range: IovaRange,
        clear: bool,
        sink: &mut dyn FnMut(IovaRange),
        gather: &mut Gather,
    ) -> Result<(), DirtyError> {
        let mut unit = self.sim.unit();
        let call = Call::ReadDirty { domain: domain.id, range, clear };
        unit.request(call).map_err(|_| DirtyError::Io)?;
        let pages: Vec<IovaRange> = unit.dirty(domain.id, range, clear);
        for page in pages {
            sink(page);
            if clear {
                gather.add(page);
            }
        }
        Ok(())
    }

    fn take_faults(&self, sink: &mut dyn FnMut(DriverFault)) -> u64 {
        let mut unit = self.sim.unit();
        core::mem::take(&mut unit.faults).into_iter().for_each(sink);
        0
    }

    fn counters(&self) -> Counters {
        self.sim.unit().counters
    }

    fn health(&self) -> Health {
        if self.sim.unit().broken { Health::Poisoned } else { Health::Good }
    }
}
