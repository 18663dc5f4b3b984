//! A registry with software units, and the addresses that the tests use.

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::device::DeviceId;
use iommu::domain::{Chunk, PagingDomain};
use iommu::driver::EndpointId;
use iommu::fault::Access;
use iommu::group::{Group, OwnerId, Ownership};
use iommu::instance::Instance;
use iommu::pool::{Pool, Shared};
use iommu::registry::{DeviceInfo, Registry};
use iommu::reserved::{ReservedKind, ReservedRegion, ReservedRegions};
use iommu::sim::{Sim, SimConfig};

pub struct World {
    pub pool: &'static Pool,
    pub registry: Registry,
    pub sim: Sim,
    pub instance: Shared<Instance>,
}

impl World {
    pub fn new() -> Self {
        Self::with(SimConfig::default())
    }

    pub fn with(config: SimConfig) -> Self {
        // Each test counts its own nodes; a few bytes per test are never given back.
        let pool: &'static Pool = Box::leak(Box::new(Pool::heap()));
        let registry = Registry::new(pool);
        let sim = Sim::with(config);
        let instance = registry.add_instance(sim.driver()).unwrap();
        Self { pool, registry, sim, instance }
    }

    /// Adds device `id` with these endpoint ids.
    pub fn device(&self, id: u64, endpoints: &[u32]) -> Shared<Group> {
        let endpoints: Vec<_> = endpoints.iter().map(|id| EndpointId(*id)).collect();
        let info = DeviceInfo { id: DeviceId(id), endpoints: &endpoints, with: None };
        self.registry.add_device(&self.instance, &info).unwrap()
    }

    pub fn domain(&self) -> Shared<PagingDomain> {
        PagingDomain::new(&self.instance, self.pool).unwrap()
    }

    pub fn reaches(&self, endpoint: u32, iova: u64, access: Access) -> Option<PhysAddr> {
        self.sim.reach(EndpointId(endpoint), Iova(iova), access).ok()
    }
}

pub fn claim(group: &Shared<Group>) -> Ownership {
    Group::claim(group, OwnerId(7)).unwrap()
}

pub fn pages(first: u64, count: u64) -> IovaRange {
    IovaRange::from_len(Iova(first), count * 0x1000).unwrap()
}

/// A list of pages, none next to another in memory.
pub fn scattered(count: u64) -> Vec<Chunk> {
    (0..count).map(|n| Chunk { phys: PhysAddr(n * 0x2000), len: 0x1000 }).collect()
}

/// A table with this region.
pub fn region(kind: ReservedKind, range: IovaRange) -> ReservedRegions {
    let mut reserved = ReservedRegions::new();
    reserved.add(ReservedRegion { range, kind }).unwrap();
    reserved
}
