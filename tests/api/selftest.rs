//! The self-test: it holds on a unit that works, and each way to be broken fails the step that looks
//! for it; whatever happens, the group is as it was found.
#![expect(unsafe_code, reason = "a device writes to memory by its address")]

use core::num::NonZeroUsize;
use core::ptr::NonNull;
use std::alloc::{Layout, alloc, dealloc};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use iommu::addr::{Iova, IovaRange, PageSizes, PhysAddr};
use iommu::device::DeviceId;
use iommu::domain::PagingDomain;
use iommu::driver::EndpointId;
use iommu::fault::Access;
use iommu::group::{Group, OwnerId};
use iommu::platform::{IdentityPlatform, PAGE_SIZE};
use iommu::pool::{Pool, Shared};
use iommu::prot::Prot;
use iommu::registry::{DeviceInfo, Registry};
use iommu::reserved::{ReservedKind, ReservedRegion, ReservedRegions};
use iommu::selftest::{Broken, Outcome, Probe, Reason, Report, Step, run};
use iommu::sim::{Refusal, Sim, SimConfig};

const ENDPOINT: EndpointId = EndpointId(8);
/// An endpoint that nobody added.
const OTHER: EndpointId = EndpointId(0x99);

thread_local! {
    static PAGES: Cell<usize> = const { Cell::new(0) };
    static LIMIT: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn layout(pages: NonZeroUsize) -> Layout {
    Layout::from_size_align(pages.get() * PAGE_SIZE, PAGE_SIZE).unwrap()
}

fn take(pages: NonZeroUsize) -> Option<NonNull<u8>> {
    if pages.get() > LIMIT.get() {
        return None;
    }
    // SAFETY: the size is not 0.
    let start = NonNull::new(unsafe { alloc(layout(pages)) })?;
    start.expose_provenance();
    PAGES.set(PAGES.get() + pages.get());
    Some(start)
}

unsafe fn give_back(start: NonNull<u8>, pages: NonZeroUsize) {
    PAGES.set(PAGES.get() - pages.get());
    // SAFETY: the caller's promise: `take` gave it with this layout.
    unsafe { dealloc(start.as_ptr(), layout(pages)) };
}

fn now_ns() -> u64 {
    static START: Mutex<Option<Instant>> = Mutex::new(None);
    let start = *START.lock().unwrap().get_or_insert_with(Instant::now);
    // Faster than real time, so that what never comes is not waited for long.
    start.elapsed().as_nanos() as u64 * 100 + 1
}

// SAFETY: the heap gives memory once, at its own addresses.
static PLATFORM: IdentityPlatform = unsafe { IdentityPlatform::new(take, give_back, now_ns) };

/// What is wrong with device or unit.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Sabotage {
    None,
    WriteOnly,
    /// What is not translated passes.
    Bypass,
    NothingArrives,
    /// Permissions are not looked at.
    IgnoresReadOnly,
    /// A page too much is mapped.
    OnePageMore,
    /// Translations are never forgotten while the device is attached.
    StaleAfterUnmap,
    /// They survive a detach.
    StaleAfterDetach,
    OtherBytes,
    OtherData,
    Silent,
    FaultForNothing,
    OtherEndpoint,
    OtherAddress,
    ReportsRead,
    Dead,
}

struct Device {
    sim: Sim,
    sabotage: Sabotage,
    kept: [u8; 4],
    stale: BTreeMap<Iova, PhysAddr>,
    writes: usize,
}

impl Device {
    fn new(sim: &Sim, sabotage: Sabotage) -> Self {
        Self { sim: sim.clone(), sabotage, kept: [0; 4], stale: BTreeMap::new(), writes: 0 }
    }

    fn translate(&mut self, iova: Iova, access: Access) -> Option<PhysAddr> {
        let (sim, ask) = (&self.sim, |at, access| self.sim.reach(ENDPOINT, at, access).ok());
        match self.sabotage {
            Sabotage::OtherEndpoint => sim.reach(OTHER, iova, access).ok(),
            Sabotage::OtherAddress => ask(Iova(iova.0 | 0x4000_0000_0000), access),
            Sabotage::ReportsRead => ask(iova, Access::READ),
            Sabotage::Silent => {
                let runs = sim.digest().into_iter().find(|(who, ..)| *who == ENDPOINT)?.2;
                let run = runs.into_iter().find(|run| run.range.contains(iova))?;
                let wanted = if access == Access::WRITE { Prot::WRITE } else { Prot::READ };
                let offset = iova.0 - run.range.first().0;
                run.prot.contains(wanted).then_some(PhysAddr(run.phys.0 + offset))
            }
            Sabotage::FaultForNothing => {
                let found = ask(iova, access);
                ask(Iova(0x7000_0000_0000), access);
                found
            }
            Sabotage::NothingArrives => None,
            Sabotage::Bypass => {
                ask(iova, access).or(Some(PhysAddr(iova.0))).filter(|at| at.0 > 1 << 32)
            }
            Sabotage::IgnoresReadOnly => ask(iova, access).or_else(|| ask(iova, Access::READ)),
            Sabotage::OnePageMore => ask(iova, access).or_else(|| {
                let before = ask(Iova(iova.0.checked_sub(0x1000)?), Access::READ)?;
                // The read-only page is before the one beside; its own page is not this mistake.
                ask(iova, Access::READ).is_none().then_some(PhysAddr(before.0 + 0x1000))
            }),
            Sabotage::StaleAfterUnmap | Sabotage::StaleAfterDetach => {
                let found = ask(iova, access);
                let is_attached = sim.digest().iter().any(|(_, domain, _)| domain.0 != 0);
                let is_stale = is_attached == (self.sabotage == Sabotage::StaleAfterUnmap);
                let stale = self.stale.get(&iova).copied().filter(|_| is_stale);
                if let Some(found) = found {
                    self.stale.insert(iova, found);
                }
                found.or(stale)
            }
            _ => ask(iova, access),
        }
    }
}

impl Probe for Device {
    fn write(&mut self, to: Iova) -> Result<(), Broken> {
        self.writes += 1;
        if self.sabotage == Sabotage::Dead && self.writes == 3 {
            return Err(Broken("it is dead"));
        }
        let Some(at) = self.translate(to, Access::WRITE) else { return Ok(()) };
        let offset = if self.sabotage == Sabotage::OtherBytes { 8 } else { 0 };
        for (index, byte) in self.kept.into_iter().enumerate() {
            let address = at.0 as usize + offset + index;
            let place = core::ptr::with_exposed_provenance_mut::<u8>(address);
            // SAFETY: the unit leads here, or the self-test's own page does: memory of `take`.
            unsafe { place.write_volatile(byte) };
        }
        Ok(())
    }

    fn read(&mut self, from: Iova) -> Result<bool, Broken> {
        if self.sabotage == Sabotage::WriteOnly {
            return Ok(false);
        }
        let Some(at) = self.translate(from, Access::READ) else { return Ok(true) };
        for (index, byte) in self.kept.iter_mut().enumerate() {
            let place = core::ptr::with_exposed_provenance::<u8>(at.0 as usize + index);
            // SAFETY: as in `write`.
            *byte = unsafe { place.read_volatile() };
        }
        if self.sabotage == Sabotage::OtherData {
            self.kept[3] ^= 1;
        }
        Ok(true)
    }
}

struct World {
    sim: Sim,
    registry: Registry,
    group: Shared<Group>,
}

impl World {
    fn new(pool: &'static Pool, config: SimConfig) -> Self {
        let (sim, registry) = (Sim::with(config), Registry::new(pool));
        let iommu = registry.add_instance(sim.driver()).unwrap();
        let info = DeviceInfo { id: DeviceId(1), endpoints: &[ENDPOINT], with: None };
        let group = registry.add_device(&iommu, &info).unwrap();
        Self { sim, registry, group }
    }

    fn run(&self, sabotage: Sabotage) -> Report {
        let mut device = Device::new(&self.sim, sabotage);
        run(&self.group, ENDPOINT, &PLATFORM, self.registry.pool(), &mut device)
    }
}

fn found(world: &World) -> impl PartialEq + core::fmt::Debug + use<> {
    let is_free = Group::claim(&world.group, OwnerId(7)).is_ok();
    (world.registry.pool().usage(), PAGES.get(), world.sim.digest(), is_free)
}

#[test]
fn it_holds_on_a_unit_that_works() {
    static POOL: Pool = Pool::heap();
    let world = World::new(&POOL, SimConfig::default());
    let before = found(&world);
    let report = world.run(Sabotage::None);
    assert!(report.has_held(), "{report}");
    assert!(report.steps().all(|(_, outcome)| outcome.is_held()), "{report}");
    assert_eq!(report.to_string().lines().count(), Step::ALL.len());
    assert_eq!(found(&world), before);

    let report = world.run(Sabotage::WriteOnly);
    assert!(report.has_held(), "a probe that can't read fails nothing: {report}");
    assert_eq!(report.outcome(Step::Read), Outcome::Skipped);
    assert_eq!(found(&world), before);
}

#[test]
fn each_sabotage_fails_the_step_that_looks_for_it() {
    static POOL: Pool = Pool::heap();
    let world = World::new(&POOL, SimConfig::default());
    let before = found(&world);
    let cases = [
        (Sabotage::Bypass, Step::Blocked, "not behind this IOMMU"),
        (Sabotage::NothingArrives, Step::Mapped, "bus mastering on"),
        (Sabotage::NothingArrives, Step::Detached, "did not arrive"),
        (Sabotage::IgnoresReadOnly, Step::ReadOnly, "the write arrived"),
        (Sabotage::OnePageMore, Step::Outside, "the write arrived"),
        (Sabotage::StaleAfterUnmap, Step::Unmapped, "the write arrived"),
        (Sabotage::StaleAfterDetach, Step::Detached, "the write arrived"),
        (Sabotage::OtherBytes, Step::Mapped, "changed other bytes"),
        (Sabotage::OtherData, Step::Read, "read something else"),
        (Sabotage::Silent, Step::Faults, "no record told"),
        (Sabotage::FaultForNothing, Step::Mapped, "a write that was allowed"),
        (
            Sabotage::OtherEndpoint,
            Step::Faults,
            "endpoint 0x8, its DMA arrives as 0x99; take the ids",
        ),
        (Sabotage::OtherEndpoint, Step::Mapped, "wrong requester id"),
        (Sabotage::OtherAddress, Step::Faults, "does it emit all bits?"),
        (Sabotage::ReportsRead, Step::Faults, "the record says read"),
    ];
    for (sabotage, step, part) in cases {
        let report = world.run(sabotage);
        assert!(!report.has_held(), "{sabotage:?}:\n{report}");
        let outcome = report.outcome(step).to_string();
        assert!(outcome.contains(part), "{sabotage:?}: {outcome}\n{report}");
        assert_eq!(found(&world), before, "{sabotage:?}");
    }
    // What is not broken holds: the steps don't fail together.
    let held = |sabotage| world.run(sabotage).steps().filter(|step| step.1.is_held()).count();
    let all = Step::ALL.len();
    assert_eq!(held(Sabotage::Silent), all - 1);
    assert_eq!(held(Sabotage::StaleAfterUnmap), all - 1);
    assert_eq!(held(Sabotage::StaleAfterDetach), all - 1);
    assert_eq!(held(Sabotage::OtherData), all - 1);
    assert_eq!(held(Sabotage::IgnoresReadOnly), all - 1);
}

#[test]
fn a_device_that_is_dead_ends_it_and_its_memory_is_leaked() {
    static POOL: Pool = Pool::heap();
    let world = World::new(&POOL, SimConfig::default());
    let before = world.sim.digest();
    let (pages, usage) = (PAGES.get(), POOL.usage());
    let report = world.run(Sabotage::Dead);
    assert_eq!(report.outcome(Step::Blocked), Outcome::Held);
    assert_eq!(report.outcome(Step::Mapped), Outcome::Failed(Reason::Probe(Broken("it is dead"))));
    assert_eq!(report.outcome(Step::Detached), Outcome::Failed(Reason::NotTried));
    assert!(report.to_string().contains("does no DMA: it is dead"));
    assert_eq!(PAGES.get(), pages + 3, "nobody knows what it still does");
    assert_eq!((world.sim.digest(), POOL.usage()), (before, usage));
    assert!(Group::claim(&world.group, OwnerId(7)).is_ok());
}

#[test]
fn a_group_in_use_is_left_alone() {
    static POOL: Pool = Pool::heap();
    let world = World::new(&POOL, SimConfig::default());
    let domain = PagingDomain::new(world.group.instance(), &POOL).unwrap();
    let page = IovaRange::from_len(Iova(0x1000), 0x1000).unwrap();
    domain.map(page, PhysAddr(0x8000), Prot::RW).unwrap();
    let attached = Group::claim(&world.group, OwnerId(1)).unwrap().attach(&domain).unwrap();
    let report = world.run(Sabotage::None);
    assert!(report.outcome(Step::Blocked).to_string().contains("the group has an owner"));
    assert_eq!(world.sim.reach(ENDPOINT, Iova(0x1000), Access::WRITE), Ok(PhysAddr(0x8000)));
    drop(attached);
}

#[test]
fn without_memory_or_addresses_it_says_so() {
    static POOL: Pool = Pool::heap();
    let world = World::new(&POOL, SimConfig::default());
    let before = found(&world);
    LIMIT.set(2);
    let report = world.run(Sabotage::None);
    LIMIT.set(usize::MAX);
    assert_eq!(report.outcome(Step::Blocked), Outcome::Failed(Reason::OutOfMemory));
    assert_eq!(found(&world), before);

    let mut reserved = ReservedRegions::new();
    let all = IovaRange::new(Iova(0), Iova((1 << 48) - 1)).unwrap();
    reserved.add(ReservedRegion { range: all, kind: ReservedKind::Reserved }).unwrap();
    let config = SimConfig { reserved, ..SimConfig::default() };
    let full = World::new(&POOL, config);
    let report = full.run(Sabotage::None);
    assert_eq!(report.outcome(Step::Blocked), Outcome::Failed(Reason::NoWindow));
}

#[test]
fn a_larger_granule_works_too() {
    static POOL: Pool = Pool::heap();
    let page_sizes = PageSizes::from_bits(!0xffff).unwrap();
    let world = World::new(&POOL, SimConfig { page_sizes, ..SimConfig::default() });
    let before = found(&world);
    let report = world.run(Sabotage::None);
    assert!(report.has_held(), "{report}");
    assert_eq!(found(&world), before);
}

#[test]
fn a_refusal_at_any_place_leaves_the_group_as_it_was() {
    static POOL: Pool = Pool::heap();
    let mut refused = 0;
    for n in 0.. {
        let world = World::new(&POOL, SimConfig::default());
        let before = (POOL.usage(), PAGES.get());
        world.sim.refuse(n, Refusal::ONCE);
        let report = world.run(Sabotage::None);
        if world.sim.refuse_none() == 0 {
            assert!(report.has_held(), "{report}");
            break;
        }
        refused += 1;
        let is_usable = Group::claim(&world.group, OwnerId(7)).is_ok();
        if is_usable {
            assert_eq!((POOL.usage(), PAGES.get()), before, "request {n}\n{report}");
        }
        let free = world.sim.reach(ENDPOINT, Iova(0x10_0000), Access::WRITE);
        assert!(free.is_err(), "request {n}: nothing is reached afterwards");
    }
    assert!(refused >= 5, "{refused} requests");
}

#[test]
fn no_memory_for_a_node_is_told_and_nothing_stays() {
    static POOL: Pool = Pool::heap();
    let world = World::new(&POOL, SimConfig::default());
    let before = found(&world);
    let mut refused = 0;
    for n in 0.. {
        POOL.refuse_nth(n, false);
        let report = world.run(Sabotage::None);
        let met = POOL.refuse_none();
        assert_eq!(found(&world), before, "allocation {n}");
        if met == 0 {
            break;
        }
        refused += 1;
        assert!(!report.has_held(), "{report}");
        assert!(report.to_string().contains("out of memory"), "{report}");
    }
    assert!(refused >= 2, "{refused} allocations");
}

#[test]
fn what_a_unit_may_still_show_is_leaked() {
    // It dies at any of its requests: the group is poisoned, and the device keeps what it has.
    static POOL: Pool = Pool::heap();
    let mut leaked = 0;
    for n in 0.. {
        let world = World::new(&POOL, SimConfig::default());
        let before = PAGES.get();
        world.sim.refuse(n, Refusal::SILENCE);
        let report = world.run(Sabotage::None);
        if world.sim.refuse_none() == 0 {
            assert!(report.has_held(), "{report}");
            break;
        }
        assert!(!report.has_held(), "request {n}");
        let (kept, poisoned) = (PAGES.get() - before, world.group.is_poisoned());
        assert_eq!(kept > 0, poisoned, "request {n}\n{report}");
        leaked += usize::from(poisoned);
    }
    assert!(leaked > 1, "{leaked} times");
}
