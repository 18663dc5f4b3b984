//! Failure sweeps: each allocation and each request of an operation fails once, in turn, until a
//! run meets no failure. After each failure nothing has changed, and the retry succeeds.
//!
//! | operation | allocations | requests |
//! |---|---|---|
//! | `Registry::add_instance` | here | none: asks the driver nothing |
//! | `Registry::add_device` | here, `direct.rs` | here, `direct.rs` |
//! | `Registry::remove_device`, detach, drop | none: here | `attach.rs` (poisoned, blocked) |
//! | `PagingDomain::new` | here | none |
//! | `Ownership::attach`, `attach_identity`, `Attachment::replace` | here | here |
//! | `Group::use_default` | here | here |
//! | `map`, `map_runs`, `map_chunks`, `map_doorbell` | here | here |
//! | `unmap`, `defer_unmaps` | none: here | here (poisoned) |
//! | `set_dirty_tracking`, `read_dirty` | none | `dirty.rs` |

use std::cell::RefCell;

use iommu::addr::{Iova, PhysAddr};
use iommu::device::DeviceId;
use iommu::domain::{Chunk, DomainOptions, PagingDomain};
use iommu::driver::{Capabilities, EndpointId, Health, Run};
use iommu::error::UnmapError;
use iommu::fault::Access;
use iommu::group::{Attachment, Group, OwnerId, Ownership};
use iommu::pool::Shared;
use iommu::prot::Prot;
use iommu::registry::DeviceInfo;
use iommu::reserved::ReservedKind;
use iommu::sim::{Refusal, Sim, SimConfig};

use crate::fixture::{World, claim, pages, region};

/// What must be equal before and after a failed operation.
fn digest(world: &World, sim: &Sim) -> impl PartialEq + std::fmt::Debug + use<> {
    let groups = world.registry.group_count();
    // On the blocking domain or on none: no device can tell the difference.
    let mut reach = sim.digest();
    reach.retain(|(_, domain, _)| domain.0 != 0);
    (reach, world.pool.usage(), groups, world.instance.health())
}

/// Where an operation may fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fail {
    Allocations,
    Requests,
}

const BOTH: &[Fail] = &[Fail::Allocations, Fail::Requests];

/// Runs `operation` in fresh worlds, failing at each point in turn.
fn sweep<S, E: std::fmt::Debug>(
    kinds: &[Fail],
    set_up: impl Fn() -> (World, S),
    operation: impl Fn(&World, &mut S) -> Result<(), E>,
) {
    for kind in kinds {
        let mut failures = 0;
        for nth in 0.. {
            let (world, mut state) = set_up();
            let before = digest(&world, &world.sim);
            match kind {
                // The undo must not allocate: everything after the first failure is refused too.
                Fail::Allocations => world.pool.refuse_nth(nth, true),
                Fail::Requests => world.sim.refuse(nth, Refusal::ONCE),
            }
            let result = operation(&world, &mut state);
            let met = world.pool.refuse_none() + world.sim.refuse_none();
            if met == 0 {
                result.expect("no failure was met");
                break;
            }
            failures += 1;
            result.expect_err("a failure was met");
            assert_eq!(digest(&world, &world.sim), before, "{kind:?}, failure point {nth}");
            operation(&world, &mut state).expect("the retry succeeds");
        }
        assert!(failures > 0, "the sweep met no failure: is the injection wired up?");
    }
}

fn two_runs() -> [Run; 2] {
    [0x1000, 0x5000].map(|first| Run {
        range: pages(first, 1),
        phys: PhysAddr(first),
        prot: Prot::RW,
    })
}

#[test]
fn adding_a_device() {
    let info =
        DeviceInfo { id: DeviceId(5), endpoints: &[EndpointId(8), EndpointId(9)], with: None };
    sweep(
        BOTH,
        || (World::new(), ()),
        |world, ()| world.registry.add_device(&world.instance, &info).map(drop),
    );
}

#[test]
fn adding_an_instance() {
    sweep(
        &[Fail::Allocations],
        || (World::new(), None),
        |world, added| {
            *added = Some(world.registry.add_instance(Sim::new().driver())?);
            Ok::<_, iommu::error::ProbeError>(())
        },
    );
}

#[test]
fn adding_a_device_to_an_attached_group() {
    let info = DeviceInfo { id: DeviceId(5), endpoints: &[EndpointId(9)], with: Some(DeviceId(1)) };
    sweep(
        BOTH,
        || {
            let world = World::new();
            world
                .sim
                .reserve(EndpointId(9), region(ReservedKind::SoftwareMsi, pages(0x90_0000, 1)));
            let (world, attached) = attached_to(world);
            (world, attached)
        },
        |world, attached| {
            let added = world.registry.add_device(&world.instance, &info);
            let window = attached.domain().msi_window();
            assert_eq!(window.is_some(), added.is_ok(), "the window comes with the device");
            added.map(drop)
        },
    );
}

#[test]
fn making_a_domain() {
    sweep(
        &[Fail::Allocations],
        || (World::new(), None),
        |world, made| {
            *made = Some(PagingDomain::new(&world.instance, world.pool)?);
            Ok::<_, iommu::error::DomainError>(())
        },
    );
}

/// A group's right in any of its forms, so that an operation can take it and give it back.
enum Right {
    Owned(Ownership),
    Other(#[expect(dead_code, reason = "held")] Box<dyn std::any::Any>),
}

fn owned() -> (World, RefCell<Option<Right>>) {
    let world = World::new();
    let group = world.device(1, &[8, 9]);
    (world, RefCell::new(Some(Right::Owned(claim(&group)))))
}

/// Takes the ownership out, tries `attach`, and puts back what comes of it.
fn try_attach<A: 'static>(
    right: &RefCell<Option<Right>>,
    attach: impl FnOnce(Ownership) -> Result<A, iommu::group::Refused>,
) -> Result<(), i32> {
    let Some(Right::Owned(ownership)) = right.take() else { panic!("attached already") };
    let (kept, result) = match attach(ownership) {
        Ok(attached) => (Right::Other(Box::new(attached)), Ok(())),
        Err(refused) => (Right::Owned(refused.ownership), Err(refused.error.errno())),
    };
    right.replace(Some(kept));
    result
}

#[test]
fn attaching_a_group_for_the_first_time() {
    let filled = || {
        let (world, right) = owned();
        let domain = world.domain();
        domain.map_runs(&two_runs()).unwrap();
        (world, (right, domain))
    };
    let attach = |_: &World, state: &mut (RefCell<Option<Right>>, Shared<PagingDomain>)| {
        try_attach(&state.0, |ownership| ownership.attach(&state.1))
    };
    sweep(&[Fail::Requests], filled, attach);
    let (world, mut state) = filled();
    world.pool.refuse_nth(0, true);
    attach(&world, &mut state).unwrap();
    assert_eq!(world.pool.refuse_none(), 0, "attach asks for no memory");
}

#[test]
fn attaching_to_identity() {
    for (identity, kinds) in [(true, &[Fail::Requests][..]), (false, BOTH)] {
        sweep(
            kinds,
            || {
                let world = World::with(SimConfig { identity, ..SimConfig::default() });
                let group = world.device(1, &[8, 9]);
                (world, RefCell::new(Some(Right::Owned(claim(&group)))))
            },
            |_, right| try_attach(right, Ownership::attach_identity),
        );
    }
}

#[test]
fn using_the_default_domain() {
    sweep(
        BOTH,
        || {
            let world = World::new();
            let relaxable = region(ReservedKind::DirectRelaxable, pages(0x8000, 1));
            world.sim.reserve(EndpointId(8), relaxable);
            let group = world.device(1, &[8, 9]);
            (world, (group, None))
        },
        |_, (group, used)| {
            *used = Some(Group::use_default(group)?);
            Ok::<_, iommu::error::UseError>(())
        },
    );
}

fn attached_to(world: World) -> (World, Attachment) {
    let domain = world.domain();
    let attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    (world, attached)
}

#[test]
fn mapping_a_scatter_list() {
    let list = [(0xa000, 0x1000), (0xb000, 0x1000), (0x1_0000, 0x2000)]
        .map(|(phys, len)| Chunk { phys: PhysAddr(phys), len });
    sweep(
        BOTH,
        || attached_to(World::new()),
        |_, attached| attached.domain().map_chunks(Iova(0x1000), &list, Prot::RW).map(drop),
    );
}

#[test]
fn mapping_a_doorbell() {
    sweep(
        BOTH,
        || {
            let world = World::new();
            let options =
                DomainOptions { msi_window: Some(pages(0x5000, 1)), ..DomainOptions::default() };
            let domain = PagingDomain::with_options(&world.instance, world.pool, &options).unwrap();
            let attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
            (world, attached)
        },
        |_, attached| attached.map_doorbell(PhysAddr(0xfee0_0040)).map(drop),
    );
}

#[test]
fn an_unmap_that_is_not_confirmed_keeps_the_mapping_and_poisons() {
    // the documented exception: what the unit did not confirm, it may still reach
    for capabilities in [Capabilities::empty(), Capabilities::DEFERRED_UNMAP] {
        let mut failures = 0;
        for nth in 0.. {
            let (world, attached) =
                attached_to(World::with(SimConfig { capabilities, ..SimConfig::default() }));
            let domain = attached.domain();
            domain.map_runs(&two_runs()).unwrap();
            world.pool.refuse_nth(0, true);
            world.sim.refuse(nth, Refusal::ONCE);
            let unmapped = domain.unmap(pages(0, 0x10));
            assert_eq!(world.pool.refuse_none(), 0, "unmap asks for no memory");
            if world.sim.refuse_none() == 0 {
                assert_eq!(unmapped, Ok(0x2000));
                break;
            }
            failures += 1;
            assert_eq!(unmapped, Err(UnmapError::Io));
            assert_eq!(domain.mapping_count(), 2, "the batch stays in the record");
            assert_eq!(world.instance.health(), Health::Poisoned);
        }
        assert!(failures > 0);
    }
}

#[test]
fn a_claim_asks_for_nothing() {
    let world = World::new();
    let group = world.device(1, &[8]);
    world.pool.refuse_nth(0, true);
    world.sim.refuse(0, Refusal::FOREVER);
    let ownership = Group::claim(&group, OwnerId(1)).unwrap();
    drop(ownership);
    assert_eq!(world.pool.refuse_none() + world.sim.refuse_none(), 0);
    assert_eq!(world.reaches(8, 0, Access::READ), None);
}

#[test]
fn moving_a_group_to_a_filled_domain() {
    sweep(
        BOTH,
        || {
            let world = World::new();
            let group = world.device(1, &[8, 9]);
            let domain = world.domain();
            domain.map_runs(&two_runs()).unwrap();
            let old = world.domain();
            let attached = claim(&group).attach(&old).unwrap();
            (world, (attached, domain))
        },
        |world, (attached, domain)| {
            // Attach allocates nothing, so the sweep over allocations needs a node of its own.
            let fresh = PagingDomain::new(&world.instance, world.pool);
            let fresh = fresh.map_err(|error| error.errno())?;
            fresh.map_runs(&two_runs()).map_err(|error| error.errno())?;
            attached.replace(domain).map_err(|error| error.errno())
        },
    );
}

#[test]
fn mapping_into_an_attached_domain() {
    sweep(
        BOTH,
        || attached_to(World::new()),
        |_, attached| attached.domain().map_runs(&two_runs()),
    );
}

#[test]
fn detach_unmap_and_teardown_need_no_memory() {
    // D-13, "the undo path allocates nothing"
    let world = World::new();
    let group = world.device(1, &[8, 9]);
    let domain = world.domain();
    domain.map_runs(&two_runs()).unwrap();
    let attached = claim(&group).attach(&domain).unwrap();
    world.pool.refuse_nth(0, true);
    domain.unmap(pages(0x1000, 1)).unwrap();
    let ownership = attached.detach();
    drop(ownership);
    drop(domain);
    world.registry.remove_device(DeviceId(1)).unwrap();
    assert_eq!(world.pool.refuse_none(), 0, "nothing was asked for");
}
