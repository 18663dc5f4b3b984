//! A device that joins an attached group: what it reserves can't be mapped any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use iommu::addr::{Iova, IovaRange};
use iommu::container::{Container, IdentityMemory, MapDma, Options};
use iommu::device::DeviceId;
use iommu::driver::*;
use iommu::error::{AttachError, DomainError, MapError, ProbeError, UnmapError};
use iommu::fault::DriverFault;
use iommu::group::{Group, OwnerId};
use iommu::pool::Pool;
use iommu::prot::Prot;
use iommu::registry::{DeviceInfo, Registry};
use iommu::reserved::{ReservedKind, ReservedRegion, ReservedRegions};
use iommu::sim::{Sim, SimDriver};

use crate::fixture::PAGE;

/// A software unit whose endpoints report regions of their own.
struct Odd {
    driver: SimDriver,
    regions: Arc<Mutex<BTreeMap<EndpointId, ReservedRegions>>>,
}

impl Driver for Odd {
    fn geometry(&self) -> Geometry {
        self.driver.geometry()
    }
    fn probe(&self, endpoint: EndpointId) -> Result<ReservedRegions, ProbeError> {
        Ok(self.regions.lock().unwrap().get(&endpoint).cloned().unwrap_or_default())
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
    fn compatible(&self, domain: &DomainView<'_>, endpoint: EndpointId) -> Result<(), AttachError> {
        self.driver.compatible(domain, endpoint)
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

#[test]
fn what_a_new_member_reserves_is_not_usable_from_then_on() {
    // T1-042, T1-046
    let pool: &'static Pool = Box::leak(Box::new(Pool::heap()));
    let registry = Registry::new(pool);
    let regions = Arc::new(Mutex::new(BTreeMap::new()));
    let driver = Odd { driver: Sim::new().driver(), regions: regions.clone() };
    let instance = registry.add_instance(driver).unwrap();
    let one = DeviceInfo { id: DeviceId(1), endpoints: &[EndpointId(1)], with: None };
    let group = registry.add_device(&instance, &one).unwrap();
    let options = Options { allow_unsafe_interrupts: true, ..Options::default() };
    let container: Container<_> = Container::new(pool, IdentityMemory, options);
    container.attach_group(Group::claim(&group, OwnerId(1)).unwrap()).unwrap();
    let page = |iova| MapDma { iova, vaddr: 0, size: PAGE, prot: Prot::RW };
    container.map_dma(&page(0x10_0000)).unwrap();

    let mut reserved = ReservedRegions::new();
    let window = IovaRange::from_len(Iova(0x20_0000), 0x1_0000).unwrap();
    reserved.add(ReservedRegion { range: window, kind: ReservedKind::Reserved }).unwrap();
    regions.lock().unwrap().insert(EndpointId(2), reserved);
    let two = DeviceInfo { id: DeviceId(2), endpoints: &[EndpointId(2)], with: Some(DeviceId(1)) };
    registry.add_device(&instance, &two).unwrap();

    pool.refuse_nth(0, true);
    assert_eq!(container.map_dma(&page(0x20_8000)).unwrap_err().errno(), 22, "without memory too");
    assert!(container.refresh_windows().is_err(), "the old list stays");
    assert!(pool.refuse_none() > 0);
    let list = || {
        let mut list = vec![];
        container.for_each_window(|window| list.push((window.first().0, window.last().0)));
        list
    };
    assert_eq!(list(), [(0, 0x1f_ffff), (0x21_0000, (1 << 48) - 1)]);
    container.map_dma(&page(0x21_0000)).unwrap();
    registry.remove_device(DeviceId(2)).unwrap();
    container.map_dma(&page(0x20_8000)).expect("the device is gone");
    assert_eq!(list(), [(0, (1 << 48) - 1)]);
}
