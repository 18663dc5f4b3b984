//! A world with a unit, a machine and devices that move bytes.
#![expect(unsafe_code, reason = "a device reads and writes memory by its address")]

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::device::DeviceId;
use iommu::dma::{DmaDevice, DmaOptions, Invalidation};
use iommu::driver::{Capabilities, EndpointId};
use iommu::fault::Access;
use iommu::group::Group;
use iommu::instance::Instance;
use iommu::pool::{Pool, Shared, Usage};
use iommu::registry::{DeviceInfo, Registry};
use iommu::sim::{Call, Sim, SimConfig, SimPlatform};

pub const PAGE: usize = 0x1000;

/// The device of most tests.
pub const ME: u32 = 8;

pub type Dma = DmaDevice<&'static SimPlatform>;

pub struct World {
    pub pool: &'static Pool,
    pub machine: &'static SimPlatform,
    pub registry: Registry,
    pub sim: Sim,
    pub instance: Shared<Instance>,
}

impl World {
    pub fn new() -> Self {
        Self::with(SimConfig::default())
    }

    pub fn with(config: SimConfig) -> Self {
        // Each test counts its own nodes and pages; a few bytes per test are never given back.
        let pool: &'static Pool = Box::leak(Box::new(Pool::heap()));
        let machine: &'static SimPlatform = Box::leak(Box::default());
        let registry = Registry::new(pool);
        let sim = Sim::with(config);
        let instance = registry.add_instance(sim.driver()).unwrap();
        Self { pool, machine, registry, sim, instance }
    }

    /// A unit that keeps using what was unmapped until it is told to forget it.
    pub fn lazy() -> Self {
        let capabilities = Capabilities::DEFERRED_UNMAP | Capabilities::MMIO;
        Self::with(SimConfig { capabilities, ..SimConfig::default() })
    }

    /// Adds a device with this endpoint to a group: its own, or that of another one.
    pub fn join(&self, endpoint: u32, with: Option<u32>) -> Shared<Group> {
        let id = |endpoint| DeviceId(u64::from(endpoint));
        let endpoints = [EndpointId(endpoint)];
        let info = DeviceInfo { id: id(endpoint), endpoints: &endpoints, with: with.map(id) };
        self.registry.add_device(&self.instance, &info).unwrap()
    }

    /// The handle of a driver for a new device [`ME`]. Its domain has had a mapping, and keeps the node;
    /// no addresses are spare.
    pub fn dma(&self, options: &DmaOptions) -> Dma {
        let dma = self.fresh(options);
        drop(dma.alloc_coherent(1).unwrap());
        dma.trim();
        dma
    }

    /// The same, and nothing was ever mapped.
    pub fn fresh(&self, options: &DmaOptions) -> Dma {
        DmaDevice::new(&self.join(ME, None), self.machine, options).unwrap()
    }

    pub fn plain(&self) -> Dma {
        self.dma(&DmaOptions::default())
    }

    /// A further handle, for a device that is there.
    pub fn clone_of(&self, endpoint: u32, options: &DmaOptions) -> Dma {
        let group = self.registry.group_of(DeviceId(u64::from(endpoint))).unwrap();
        DmaDevice::new(&group, self.machine, options).unwrap()
    }

    /// What the device reads at `iova`, or `None` if it is refused at the first byte.
    pub fn read(&self, endpoint: u32, iova: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        // SAFETY: the tests map memory of theirs only, and are one thread.
        let read = unsafe { self.sim.read(EndpointId(endpoint), Iova(iova), &mut bytes) };
        read.ok().map(|()| bytes)
    }

    /// Lets the device write; whether all bytes got there.
    pub fn write(&self, endpoint: u32, iova: u64, bytes: &[u8]) -> bool {
        // SAFETY: the tests map memory of theirs only, and are one thread.
        unsafe { self.sim.write(EndpointId(endpoint), Iova(iova), bytes) }.is_ok()
    }

    pub fn reaches(&self, iova: u64, access: Access) -> bool {
        self.sim.reach(EndpointId(ME), Iova(iova), access).is_ok()
    }

    pub fn leads_to(&self, iova: u64) -> Option<PhysAddr> {
        self.sim.reach(EndpointId(ME), Iova(iova), Access::READ).ok()
    }

    /// What is in use: nodes, pages, mappings in the unit.
    pub fn usage(&self) -> (Usage, usize, usize) {
        let mapped = self.sim.digest().iter().map(|(_, _, runs)| runs.len()).sum();
        (self.pool.usage(), self.machine.pages(), mapped)
    }

    /// The same without the nodes of spare addresses.
    pub fn usage_of(&self, dma: &Dma) -> (Usage, usize, usize) {
        dma.trim();
        self.usage()
    }

    /// How many maps, unmaps and invalidations the unit was asked for, and with how many notifies,
    /// while `run` ran.
    pub fn cost<T>(&self, run: impl FnOnce() -> T) -> (T, Cost) {
        let before = self.instance.counters();
        let _ = self.sim.take_log();
        let result = run();
        let spent = self.instance.counters().since(&before);
        let syncs =
            self.sim.take_log().iter().filter(|call| matches!(call, Call::Sync { .. })).count();
        let cost = Cost { map: spent.map, unmap: spent.unmap, syncs, notifies: spent.notifies };
        (result, cost)
    }
}

#[derive(PartialEq, Eq, Debug)]
pub struct Cost {
    pub map: u64,
    pub unmap: u64,
    pub syncs: usize,
    pub notifies: u64,
}

pub fn deferred(limit: usize) -> DmaOptions {
    let invalidation = Invalidation::Deferred { limit };
    DmaOptions { invalidation, ..DmaOptions::default() }
}

pub fn range(first: u64, last: u64) -> IovaRange {
    IovaRange::new(Iova(first), Iova(last)).unwrap()
}

/// `len` bytes, `offset` into a page, with a page of secrets before and behind. The buffer is the
/// slice in the middle.
pub struct Neighbours {
    all: Vec<u8>,
    start: usize,
    len: usize,
}

/// What the neighbours of a buffer are filled with.
pub const SECRET: u8 = 0x5e;

impl Neighbours {
    pub fn new(offset: usize, len: usize) -> Self {
        let mut all = vec![SECRET; len + offset + 4 * PAGE];
        let page = (all.as_ptr() as usize).next_multiple_of(PAGE) - all.as_ptr() as usize;
        let start = page + PAGE + offset;
        for (at, byte) in all[start..start + len].iter_mut().enumerate() {
            *byte = at as u8 | 1;
        }
        Self { all, start, len }
    }

    pub fn buffer(&mut self) -> &mut [u8] {
        &mut self.all[self.start..self.start + self.len]
    }

    /// Whether every byte beside the buffer is what it was.
    pub fn are_untouched(&self) -> bool {
        let (before, rest) = self.all.split_at(self.start);
        before.iter().chain(&rest[self.len..]).all(|byte| *byte == SECRET)
    }
}

/// `len` bytes from the start of a page on, for good.
pub fn aligned(len: usize) -> &'static mut [u8] {
    let all = vec![0_u8; len + PAGE].leak();
    let start = (all.as_ptr() as usize).next_multiple_of(PAGE) - all.as_ptr() as usize;
    &mut all[start..start + len]
}

/// Where a buffer of the program is.
pub fn phys(buffer: &[u8]) -> PhysAddr {
    PhysAddr(buffer.as_ptr() as u64)
}
