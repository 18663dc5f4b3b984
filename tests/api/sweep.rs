//! Failure sweeps: each allocation and each request of an operation fails once, in turn, until a
//! run meets no failure. After each failure nothing has changed, and the retry succeeds.

use iommu::addr::PhysAddr;
use iommu::device::DeviceId;
use iommu::driver::{EndpointId, Run};
use iommu::prot::Prot;
use iommu::registry::DeviceInfo;
use iommu::sim::{Refusal, Sim};

use crate::fixture::{World, claim, pages};

/// What must be equal before and after a failed operation.
fn digest(world: &World, sim: &Sim) -> impl PartialEq + std::fmt::Debug + use<> {
    let groups = world.registry.group_count();
    // On the blocking domain or on none: no device can tell the difference.
    let mut reach = sim.digest();
    reach.retain(|(_, domain, _)| domain.0 != 0);
    (reach, world.pool.usage(), groups, world.instance.health())
}

/// Runs `operation` in fresh worlds, failing at each point in turn.
fn sweep<S, E: std::fmt::Debug>(
    set_up: impl Fn() -> (World, S),
    operation: impl Fn(&World, &mut S) -> Result<(), E>,
) {
    for allocations in [true, false] {
        let mut failures = 0;
        for nth in 0.. {
            let (world, mut state) = set_up();
            let before = digest(&world, &world.sim);
            if allocations {
                // The undo must not allocate: everything after the first failure is refused too.
                world.pool.refuse_nth(nth, true);
            } else {
                world.sim.refuse(nth, Refusal::ONCE);
            }
            let result = operation(&world, &mut state);
            let met = world.pool.refuse_none() + world.sim.refuse_none();
            if met == 0 {
                result.expect("no failure was met");
                break;
            }
            failures += 1;
            result.expect_err("a failure was met");
            assert_eq!(digest(&world, &world.sim), before, "failure point {nth}");
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
        || (World::new(), ()),
        |world, ()| world.registry.add_device(&world.instance, &info).map(drop),
    );
}

#[test]
fn attaching_a_group_to_a_filled_domain() {
    sweep(
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
            let fresh = iommu::domain::PagingDomain::new(&world.instance, world.pool);
            let fresh = fresh.map_err(|error| error.errno())?;
            fresh.map_runs(&two_runs()).map_err(|error| error.errno())?;
            attached.replace(domain).map_err(|error| error.errno())
        },
    );
}

#[test]
fn mapping_into_an_attached_domain() {
    sweep(
        || {
            let world = World::new();
            let domain = world.domain();
            let attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
            (world, attached)
        },
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
