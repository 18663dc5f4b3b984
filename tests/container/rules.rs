//! Rules that each want a world of their own: who may overlap what, in which order a replay goes, what
//! an attach costs the driver, what an entry costs.

use iommu::addr::{Iova, IovaRange};
use iommu::container::*;
use iommu::device::DeviceId;
use iommu::driver::{EndpointId, Left};
use iommu::error::AttachError;
use iommu::group::{Group, GroupId, OwnerId, Ownership};
use iommu::prot::Prot;
use iommu::registry::DeviceInfo;
use iommu::reserved::{ReservedKind, ReservedRegion, ReservedRegions};
use iommu::sim::{Call, Refusal, SimConfig};

use crate::fixture::{AT, PAGE, World, request, shape};

#[test]
fn a_fresh_domain_that_does_not_fit_ends_the_search() {
    // T1-163, W-23: EMEDIUMTYPE of the domain that was allocated last passes through, whether there
    // was another one (which answers the same, and is passed by) or not.
    for prior in [false, true] {
        let world = World::new(2);
        if prior {
            world.attached(1);
        }
        world.container.map_dma(&request(AT, 2)).unwrap();
        let (ownership, endpoint) = world.group(1);
        world.units[1].0.disagree(EndpointId(endpoint));
        let before = world.digest();
        let (error, left) = (AttachError::Incompatible, Left::Unchanged);
        world.units[1].0.refuse(0, Refusal { error, left, ..Refusal::ONCE });
        let mut back = None;
        let cost = world.cost(|| back = world.container.attach_group(ownership).err());
        assert_eq!(world.units[1].0.refuse_none(), 1);
        let refused = back.expect("no domain fits");
        assert_eq!(refused.error, AttachGroupError::Incompatible);
        assert_eq!(refused.error.errno(), 124);
        assert_eq!(shape(cost), [1, 0, 1 + u64::from(prior), 0, 1]);
        assert_eq!(world.digest(), before);
        assert_eq!(world.reaches(1, endpoint, AT), None);
        world.container.attach_group(refused.ownership).expect("the next one fits");
        assert!(world.reaches(1, endpoint, AT).is_some());
    }
}

#[test]
fn only_relaxable_regions_may_be_mapped() {
    // T1-194: of the five kinds one is ignored everywhere; a direct one keeps owners out (C-090).
    let kinds = [
        (ReservedKind::DirectRelaxable, true),
        (ReservedKind::Reserved, false),
        (ReservedKind::Msi, false),
        (ReservedKind::SoftwareMsi, false),
    ];
    for (kind, usable) in kinds {
        let mut reserved = ReservedRegions::new();
        let range = IovaRange::from_len(Iova(AT), 4 * PAGE).unwrap();
        reserved.add(ReservedRegion { range, kind }).unwrap();
        let world = World::with(vec![SimConfig { reserved, ..SimConfig::default() }]);
        world.container.map_dma(&request(AT + PAGE, 1)).unwrap();
        let (ownership, endpoint) = world.group(0);
        let attached = world.container.attach_group(ownership);
        assert_eq!(attached.is_ok(), usable, "{kind:?}");
        if let Err(refused) = attached {
            assert_eq!(refused.error.errno(), 22);
            world.container.unmap_dma(&UnmapDma::All).unwrap();
            world.container.attach_group(refused.ownership).unwrap();
        }
        let mut inside = false;
        world.container.for_each_window(|window| inside |= window.overlaps(range));
        assert_eq!(inside, usable, "{kind:?}");
        let mapped = world.container.map_dma(&request(AT, 1)).map_err(MapDmaError::errno);
        assert_eq!(mapped, if usable { Ok(()) } else { Err(22) }, "{kind:?}");
        assert_eq!(world.reaches(0, endpoint, AT).is_some(), usable);
    }
}

#[test]
fn a_detach_without_memory_keeps_the_windows() {
    // T1-196, T1-200: the list is replaced as a whole, or stays; the group is gone all the same.
    let narrow = IovaRange::new(Iova(0), Iova((1 << 32) - 1)).unwrap();
    let config = SimConfig { aperture: narrow, ..SimConfig::default() };
    let world = World::with(vec![SimConfig::default(), config]);
    world.attached(0);
    let (leaves, endpoint) = world.attached(1);
    let last = || {
        let mut last = 0;
        world.container.for_each_window(|window| last = window.last().0);
        last
    };
    assert_eq!(last(), narrow.last().0);
    world.pool.refuse_nth(0, true);
    assert!(world.container.detach_group(leaves).is_some());
    assert_eq!(last(), narrow.last().0, "the old list");
    assert!(world.pool.refuse_none() > 0);
    assert_eq!((world.container.domain_count(), world.reaches(1, endpoint, AT)), (1, None));
    assert_eq!(last(), (1 << 48) - 1);
    world.container.map_dma(&request(1 << 40, 1)).unwrap();
}

#[test]
fn a_replay_goes_by_address_and_physical_zero_is_a_place() {
    // T1-210, T1-216, W-09
    let world = World::new(2);
    world.memory.scatter();
    world.attached(0);
    for page in [9, 0, 300, 4, 70] {
        world.container.map_dma(&request(page * PAGE, 2)).unwrap();
    }
    assert_eq!(world.container.iova_to_phys(Iova(0)), Some(iommu::addr::PhysAddr(0)));
    let (ownership, endpoint) = world.group(1);
    let _ = world.units[1].0.take_log();
    world.container.attach_group(ownership).unwrap();
    let sent = world.units[1].0.take_log().into_iter().filter_map(|call| match call {
        Call::Map { run, .. } => Some(run.range.first().0 / PAGE),
        _ => None,
    });
    assert_eq!(sent.collect::<Vec<_>>(), [0, 1, 4, 5, 9, 10, 70, 71, 300, 301]);
    assert_eq!(world.reaches(1, endpoint, 0), Some(0));
    assert_eq!(world.reaches(1, endpoint, 301 * PAGE), Some(301 * PAGE * 16));
}

#[test]
fn a_container_says_which_domain_a_group_is_on() {
    // T1-072
    let world = World::new(2);
    let (one, two) = (world.attached(0).0, world.attached(0).0);
    let (other, _) = world.attached(1);
    let id = |group| world.container.domain_of(group).expect("it is in");
    assert!(id(one).ptr_eq(&id(two)));
    assert!(!id(one).ptr_eq(&id(other)));
    assert!(world.container.domain_of(GroupId(0xdead)).is_none());
    drop(world.container.detach_group(one));
    assert!(world.container.domain_of(one).is_none());
}

#[test]
fn a_full_unit_takes_groups_for_the_domain_that_is_there() {
    // T1-627: the old routine takes a domain id for each attach, the new one only when none fits.
    let config = SimConfig { domains: 1, ..SimConfig::default() };
    let world = World::with(vec![config]);
    world.container.map_dma(&request(AT, 1)).unwrap();
    for _ in 0..5 {
        let (_, endpoint) = world.attached(0);
        assert!(world.reaches(0, endpoint, AT).is_some());
    }
    assert_eq!(world.container.domain_count(), 1);
}

/// A group of `count` devices behind a unit, claimed.
fn group_of(world: &World, unit: usize, first: u32, count: u32) -> Ownership {
    let add = |endpoint: u32| {
        let with = (endpoint > first).then_some(DeviceId(first.into()));
        let endpoints = [EndpointId(endpoint)];
        let info = DeviceInfo { id: DeviceId(endpoint.into()), endpoints: &endpoints, with };
        world.registry.add_device(&world.units[unit].1, &info).unwrap()
    };
    let groups: Vec<_> = (first..first + count).map(add).collect();
    Group::claim(&groups[0], OwnerId(1)).unwrap()
}

#[test]
fn an_attach_calls_the_driver_once_per_device() {
    // T1-615 to T1-621, column NEW; T1-625: nobody is moved twice. A refusal costs f = 0: another
    // unit's domain is refused by the core, and whether a unit's own one fits is asked of each
    // device before one is moved.
    const N: u32 = 3;
    let world = World::new(3);
    let attaches =
        |log: &[Call]| log.iter().filter(|call| matches!(call, Call::Attach { .. })).count() as u32;
    let mut next = 100;
    let mut join = |unit: usize, loner: bool| {
        next += N;
        let ownership = group_of(&world, unit, next, N);
        if loner {
            world.units[unit].0.disagree(EndpointId(next + N - 1)); // the last device refuses
        }
        world.units.iter().for_each(|(sim, _)| drop(sim.take_log()));
        let before = world.container.operations();
        world.container.attach_group(ownership).unwrap();
        let calls = world.units.iter().map(|(sim, _)| attaches(&sim.take_log())).sum::<u32>();
        (calls, world.container.operations().since(&before).attach_fail)
    };
    let rows = [
        ("T1-615, S1", join(0, false), (N, 0)),
        ("T1-616, S2", join(0, false), (N, 0)),
        ("T1-617, S3", join(1, false), (N, 1)),
        ("T1-616, S4a", join(1, false), (N, 0)),
        ("T1-618, S4b", join(0, false), (N, 1)),
        ("T1-619, S4c", join(2, false), (N, 2)),
        ("T1-620, m = 3", join(0, false), (N, 2)),
        ("T1-621, k = 3, the unit's own domain among them", join(0, true), (N, 3)),
    ];
    for (row, seen, expected) in rows {
        assert_eq!(seen, expected, "{row}");
    }
}

#[test]
fn what_the_entries_cost() {
    // T1-675: a group entry, a domain entry, an external pin, in bytes as they are asked for.
    let world = World::new(2);
    world.memory.scatter();
    world.attached(0);
    let container = &world.container;
    let bytes = |call: &dyn Fn()| {
        let before = world.pool.usage();
        call();
        let after = world.pool.usage();
        (after.nodes - before.nodes, after.bytes - before.bytes)
    };
    let group = std::cell::RefCell::new(Some(world.group(0).0));
    let (nodes, entry) = bytes(&|| container.attach_group(group.take().unwrap()).unwrap());
    assert_eq!(nodes, 1, "nothing else on reuse");
    container.register_device(crate::pins::nobody()).unwrap();
    container.attach_emulated(EmulatedId(1)).unwrap();
    container.map_dma(&request(AT, 512)).unwrap();
    let (_, pins) = bytes(&|| {
        container.pin_pages(EmulatedId(1), AT, Prot::RW, &mut [None; 512]).unwrap();
    });
    println!("group entry: {entry} bytes; external pin: {:.1}", pins as f64 / 512.0);
    assert!(pins <= 512 * 48, "an external pin: {} bytes", pins / 512);
    assert!(entry <= 96, "a group entry: {entry} bytes");
}
