//! A registry with one unit, made anew in every run; what must hold when all threads are done; and
//! the loop over all runs.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::device::DeviceId;
use iommu::driver::{DomainId, EndpointId, Health, Run};
use iommu::group::OwnerId;
use iommu::pool::{Pool, Shared, Usage};
use iommu::prot::Prot;
use iommu::registry::DeviceInfo;

use crate::lock::LoomLock;
use crate::unit::Unit;

pub type Registry = iommu::registry::Registry<LoomLock>;
pub type Instance = iommu::instance::Instance<LoomLock>;
pub type Group = iommu::group::Group<LoomLock>;
pub type Ownership = iommu::group::Ownership<LoomLock>;
pub type Attachment = iommu::group::Attachment<LoomLock>;
pub type Domain = iommu::domain::PagingDomain<LoomLock>;

/// Two pages that don't touch, and where they are; the frames of a domain tell it from others.
pub const PAGE: u64 = 0x1000;
pub const OTHER: u64 = 0x8000;

/// What the threads of a scenario share. Clones are the same world.
#[derive(Clone)]
pub struct World(Arc<Parts>);

pub struct Parts {
    pub pool: &'static Pool,
    pub registry: Registry,
    pub unit: Unit,
    pub instance: Shared<Instance>,
    /// Another unit, for containers.
    pub second: (Unit, Shared<Instance>),
}

impl Deref for World {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Runs `scenario` in every interleaving of its threads; preemptions are not bounded.
///
/// The name goes to the output with the number of runs. The scenario gives back everything that it
/// made: the pool is empty after each run.
pub fn explore(name: &str, scenario: impl Fn(&World) + Send + Sync + 'static) {
    explore_bounded(None, name, scenario);
}

/// The same, but a thread is made to wait at most `preemptions` times in a run while it could go on:
/// a call of the container takes many locks.
pub fn explore_within(
    preemptions: usize,
    name: &str,
    scenario: impl Fn(&World) + Send + Sync + 'static,
) {
    explore_bounded(Some(preemptions), name, scenario);
}

fn explore_bounded(
    preemptions: Option<usize>,
    name: &str,
    scenario: impl Fn(&World) + Send + Sync + 'static,
) {
    let started = Instant::now();
    let runs = Arc::new(AtomicU64::new(0));
    let count = runs.clone();
    let pool: &'static Pool = Box::leak(Box::new(Pool::heap()));
    let mut model = loom::model::Builder::new();
    model.max_branches = 10_000;
    model.preemption_bound = preemptions;
    model.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let world = World::new(pool);
        scenario(&world);
        drop(world);
        assert_eq!(pool.usage(), Usage::default(), "a node is lost");
    });
    let runs = runs.load(Ordering::Relaxed);
    println!("{name}: {runs} interleavings, {} ms", started.elapsed().as_millis());
    assert!(runs > 1, "the threads never met");
}

/// A thread of the model.
pub fn spawn<T: 'static>(body: impl FnOnce() -> T + 'static) -> loom::thread::JoinHandle<T> {
    loom::thread::spawn(body)
}

/// Waits for two threads.
pub fn join<A, B>(one: loom::thread::JoinHandle<A>, other: loom::thread::JoinHandle<B>) -> (A, B) {
    (one.join().unwrap(), other.join().unwrap())
}

impl World {
    fn new(pool: &'static Pool) -> Self {
        let registry = Registry::with_lock(pool);
        let unit = Unit::new();
        let instance = registry.add_instance(unit.clone()).unwrap();
        let second = Unit::new();
        let second_instance = registry.add_instance(second.clone()).unwrap();
        let second = (second, second_instance);
        Self(Arc::new(Parts { pool, registry, unit, instance, second }))
    }

    /// Adds a device behind the second unit.
    pub fn device_at_second(&self, id: u32) -> Shared<Group> {
        let info = DeviceInfo { id: DeviceId(id.into()), endpoints: &[EndpointId(id)], with: None };
        self.registry.add_device(&self.second.1, &info).unwrap()
    }

    /// Adds a device with one endpoint of the same number, in a group of its own.
    pub fn device(&self, id: u32) -> Shared<Group> {
        self.device_with(id, None)
    }

    /// Adds a device with one endpoint of the same number, to the group of `with`.
    pub fn device_with(&self, id: u32, with: Option<u32>) -> Shared<Group> {
        let endpoints = [EndpointId(id)];
        let with = with.map(|id| DeviceId(id.into()));
        let info = DeviceInfo { id: DeviceId(id.into()), endpoints: &endpoints, with };
        self.registry.add_device(&self.instance, &info).unwrap()
    }

    pub fn domain(&self) -> Shared<Domain> {
        Domain::new(&self.instance, self.pool).unwrap()
    }

    /// Asserts that the unit has the endpoints of `groups`, each on the domain of its group, that
    /// `gone` (those of removed devices) are blocked, and that it has no others; and that counts
    /// and records of `domains` are what it has.
    pub fn check(&self, groups: &[&Shared<Group>], gone: &[u32], domains: &[&Shared<Domain>]) {
        assert_eq!(self.instance.health(), Health::Good);
        let digest = self.unit.sim().digest();
        let mut expected: Vec<_> = gone.iter().map(|id| (EndpointId(*id), DomainId(0))).collect();
        for group in groups {
            assert!(!group.is_poisoned());
            let place = group.current_domain().map_or(DomainId(0), |domain| domain.id());
            group.for_each_device(|device| {
                expected.extend(device.endpoints().iter().map(|endpoint| (*endpoint, place)));
            });
        }
        expected.sort();
        let places: Vec<_> = digest.iter().map(|(one, place, _)| (*one, *place)).collect();
        assert_eq!(places, expected, "each endpoint is where its group is");
        for domain in domains {
            let on_it: Vec<_> = digest.iter().filter(|(_, at, _)| *at == domain.id()).collect();
            assert_eq!(domain.endpoint_count(), on_it.len());
            let record = record(domain);
            assert_eq!(domain.mapping_count(), record.len());
            assert!(on_it.iter().all(|(_, _, runs)| *runs == record), "record and table");
        }
    }
}

fn record(domain: &Domain) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut next = Some(Iova(0));
    while let Some(run) = next.and_then(|iova| domain.next_mapping(iova)) {
        runs.push(run);
        next = run.range.last().checked_add(1);
    }
    runs
}

pub fn page(iova: u64) -> IovaRange {
    IovaRange::from_len(Iova(iova), 0x1000).unwrap()
}

/// Where `iova` is in domain `domain`: a frame that no other page and no other domain has.
pub fn frame(domain: &Domain, iova: u64) -> PhysAddr {
    PhysAddr((u64::from(domain.id().0) << 32) + iova)
}

/// Maps one page to its frame.
pub fn map(domain: &Domain, iova: u64) {
    domain.map(page(iova), frame(domain, iova), Prot::RW).expect("nothing is in the way");
}

/// Unmaps one page that is mapped.
pub fn unmap(domain: &Domain, iova: u64) {
    assert_eq!(domain.unmap(page(iova)), Ok(0x1000));
}

pub fn claim(group: &Shared<Group>) -> Ownership {
    Group::claim(group, OwnerId(7)).unwrap()
}

pub fn attach(group: &Shared<Group>, domain: &Shared<Domain>) -> Attachment {
    claim(group).attach(domain).unwrap()
}
