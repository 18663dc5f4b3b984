//! A unit whose endpoints don't all reserve the same: QEMU's do, so one region more is made up here.
//! Everything else is the real driver and the real device.

use iommu::addr::IovaRange;
use iommu::driver::{
    AttachFailure, Capabilities, Counters, DomainFeatures, DomainId, DomainView, Driver,
    EndpointId, Gather, Geometry, Health, Run,
};
use iommu::error::{DomainError, MapError, ProbeError, UnmapError};
use iommu::fault::DriverFault;
use iommu::reserved::{ReservedKind, ReservedRegion, ReservedRegions};

/// A driver, and what one endpoint reserves beside what the device says.
pub struct Reserving<D> {
    /// The driver.
    pub driver: D,
    /// Whose region it is.
    pub endpoint: EndpointId,
    /// Where no mapping can be.
    pub region: IovaRange,
}

impl<D: Driver> Driver for Reserving<D> {
    fn geometry(&self) -> Geometry {
        self.driver.geometry()
    }

    fn capabilities(&self) -> Capabilities {
        self.driver.capabilities()
    }

    fn probe(&self, endpoint: EndpointId) -> Result<ReservedRegions, ProbeError> {
        let mut regions = self.driver.probe(endpoint)?;
        if endpoint == self.endpoint {
            let region = ReservedRegion { range: self.region, kind: ReservedKind::Reserved };
            regions.add(region).map_err(|_| ProbeError::NoSpace)?;
        }
        Ok(regions)
    }

    fn blocked(&self) -> DomainId {
        self.driver.blocked()
    }

    fn alloc_domain(&self, features: DomainFeatures) -> Result<DomainId, DomainError> {
        self.driver.alloc_domain(features)
    }

    fn free_domain(&self, id: DomainId) {
        self.driver.free_domain(id);
    }

    fn attach(
        &self,
        endpoints: &[EndpointId],
        new: &DomainView<'_>,
        old: Option<DomainId>,
    ) -> Result<(), AttachFailure> {
        self.driver.attach(endpoints, new, old)
    }

    fn map(&self, domain: &DomainView<'_>, runs: &[Run]) -> Result<(), MapError> {
        self.driver.map(domain, runs)
    }

    fn unmap(
        &self,
        domain: &DomainView<'_>,
        ranges: &[IovaRange],
        gather: &mut Gather,
    ) -> Result<(), UnmapError> {
        self.driver.unmap(domain, ranges, gather)
    }

    fn sync(&self, domain: &DomainView<'_>, gather: &mut Gather) -> Result<(), UnmapError> {
        self.driver.sync(domain, gather)
    }

    fn take_faults(&self, sink: &mut dyn FnMut(DriverFault)) -> u64 {
        self.driver.take_faults(sink)
    }

    fn counters(&self) -> Counters {
        self.driver.counters()
    }

    fn health(&self) -> Health {
        self.driver.health()
    }
}
