//! A unit that takes everything and does nothing: for containers that need many domains, which one
//! unit alone gives no reason for. What it is asked costs next to nothing, and sends nothing.

use core::sync::atomic::{AtomicU32, Ordering};

use iommu::addr::{IovaRange, PageSizes};
use iommu::driver::{
    AttachFailure, Counters, DomainFeatures, DomainId, DomainView, Driver, EndpointId, Gather,
    Geometry, Health, Run,
};
use iommu::error::{DomainError, MapError, ProbeError, UnmapError};
use iommu::fault::DriverFault;
use iommu::reserved::ReservedRegions;

/// The unit; the number is the next domain's.
#[derive(Default)]
pub struct IdleUnit(AtomicU32);

impl Driver for IdleUnit {
    fn geometry(&self) -> Geometry {
        let page_sizes = PageSizes::from_bits(!0xfff).expect("the bits are page sizes");
        Geometry { page_sizes, aperture: IovaRange::ALL }
    }

    fn probe(&self, _: EndpointId) -> Result<ReservedRegions, ProbeError> {
        Ok(ReservedRegions::new())
    }

    fn blocked(&self) -> DomainId {
        DomainId(0)
    }

    fn alloc_domain(&self, _: DomainFeatures) -> Result<DomainId, DomainError> {
        Ok(DomainId(1 + self.0.fetch_add(1, Ordering::Relaxed)))
    }

    fn free_domain(&self, _: DomainId) {}

    fn attach(
        &self,
        _: &[EndpointId],
        _: &DomainView<'_>,
        _: Option<DomainId>,
    ) -> Result<(), AttachFailure> {
        Ok(())
    }

    fn map(&self, _: &DomainView<'_>, _: &[Run]) -> Result<(), MapError> {
        Ok(())
    }

    fn unmap(&self, _: &DomainView<'_>, _: &[IovaRange], _: &mut Gather) -> Result<(), UnmapError> {
        Ok(())
    }

    fn sync(&self, _: &DomainView<'_>, _: &mut Gather) -> Result<(), UnmapError> {
        Ok(())
    }

    fn take_faults(&self, _: &mut dyn FnMut(DriverFault)) -> u64 {
        0
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn health(&self) -> Health {
        Health::Good
    }
}
