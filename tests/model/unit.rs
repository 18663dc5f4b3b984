//! The unit of the model: the software IOMMU behind a lock of its own, as a unit with a request
//! queue has one. So loom may change threads before every request, and every call of the driver
//! is a place to compare the record with what the unit translates.

use std::sync::Arc;

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::driver::*;
use iommu::error::*;
use iommu::fault::{Access, DriverFault};
use iommu::reserved::ReservedRegions;
use iommu::sim::{Sim, SimDriver};
use lock_api::Mutex;

use crate::lock::LoomLock;

/// A handle on the unit; it is the driver as well.
#[derive(Clone)]
pub struct Unit {
    sim: Sim,
    driver: Arc<Mutex<LoomLock, SimDriver>>,
}

impl Unit {
    pub fn new() -> Self {
        let sim = Sim::new();
        let driver = Arc::new(Mutex::new(sim.driver()));
        Self { sim, driver }
    }

    /// The software IOMMU, to be asked or told what no thread of the scenario can come between.
    pub fn sim(&self) -> &Sim {
        &self.sim
    }

    /// A device's read, at a moment that loom chooses.
    pub fn read(&self, endpoint: u32, iova: u64) -> Option<PhysAddr> {
        let _unit = self.driver.lock();
        self.sim.reach(EndpointId(endpoint), Iova(iova), Access::READ).ok()
    }

    /// Compares what the core says of a domain with the unit, except for `ours`: runs that are in
    /// the record and not yet in the unit.
    fn compare(&self, domain: &DomainView<'_>, ours: &[Run]) {
        let digest = self.sim.digest();
        let mut on_it = digest.into_iter().filter(|(_, place, _)| *place == domain.id);
        let Some((_, _, runs)) = on_it.next() else {
            return assert_eq!(
                domain.endpoints, 0,
                "the core thinks that {:?} is in use",
                domain.id
            );
        };
        assert_eq!(domain.endpoints, 1 + on_it.count(), "endpoints of {:?}", domain.id);
        let record = domain.mappings.iter();
        let record = record.map(|(range, to)| Run { range, phys: to.phys, prot: to.prot });
        let sent: Vec<_> = record.filter(|run| !ours.contains(run)).collect();
        assert_eq!(sent, runs, "record and table of {:?}", domain.id);
    }
}

impl Driver for Unit {
    fn geometry(&self) -> Geometry {
        self.sim.driver().geometry() // fixed, so no lock
    }

    fn probe(&self, endpoint: EndpointId) -> Result<ReservedRegions, ProbeError> {
        self.driver.lock().probe(endpoint)
    }

    fn blocked(&self) -> DomainId {
        self.sim.driver().blocked()
    }

    fn alloc_domain(&self, features: DomainFeatures) -> Result<DomainId, DomainError> {
        self.driver.lock().alloc_domain(features)
    }

    fn free_domain(&self, id: DomainId) {
        let unit = self.driver.lock();
        let in_use = self.sim.digest().into_iter().any(|(_, place, _)| place == id);
        assert!(!in_use, "{id:?} is given back while an endpoint is on it");
        unit.free_domain(id);
    }

    fn compatible(&self, domain: &DomainView<'_>, endpoint: EndpointId) -> Result<(), AttachError> {
        self.driver.lock().compatible(domain, endpoint)
    }

    fn attach(
        &self,
        endpoints: &[EndpointId],
        new: &DomainView<'_>,
        old: Option<DomainId>,
    ) -> Result<(), AttachFailure> {
        let unit = self.driver.lock();
        if new.id != self.blocked() {
            self.compare(new, &[]); // the count of the blocking domain is an atomic under no lock
        }
        let digest = self.sim.digest();
        for endpoint in endpoints {
            let place = digest.iter().find(|(one, ..)| one == endpoint).map(|(_, place, _)| *place);
            assert!(place.is_none() || old.is_none() || place == old, "{endpoint:?} is elsewhere");
        }
        unit.attach(endpoints, new, old)
    }

    fn map(&self, domain: &DomainView<'_>, runs: &[Run]) -> Result<(), MapError> {
        let unit = self.driver.lock();
        self.compare(domain, runs);
        unit.map(domain, runs)
    }

    fn unmap(
        &self,
        domain: &DomainView<'_>,
        ranges: &[IovaRange],
        gather: &mut Gather,
    ) -> Result<(), UnmapError> {
        let unit = self.driver.lock();
        self.compare(domain, &[]);
        unit.unmap(domain, ranges, gather)
    }

    fn sync(&self, domain: &DomainView<'_>, gather: &mut Gather) -> Result<(), UnmapError> {
        self.driver.lock().sync(domain, gather)
    }

    fn take_faults(&self, sink: &mut dyn FnMut(DriverFault)) -> u64 {
        self.driver.lock().take_faults(sink)
    }

    fn counters(&self) -> Counters {
        self.driver.lock().counters()
    }

    fn health(&self) -> Health {
        self.driver.lock().health()
    }
}
