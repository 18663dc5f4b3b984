//! Regions that must stay mapped 1:1, and the default domain of kernel drivers (rules C-085 to
//! C-091, C-138 to C-141, C-153, D-12, D-29).

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::device::DeviceId;
use iommu::driver::EndpointId;
use iommu::error::{ClaimError, MapError, ProbeError, UseError};
use iommu::fault::Access;
use iommu::group::{Current, Group, OwnerId};
use iommu::prot::Prot;
use iommu::registry::DeviceInfo;
use iommu::reserved::ReservedKind;
use iommu::sim::{Refusal, SimConfig};

use crate::fixture::{World, claim, pages, region};

/// The region of the tests: it begins and ends inside pages.
fn legacy() -> IovaRange {
    IovaRange::new(Iova(0x8800), Iova(0xa7ff)).unwrap()
}

fn join(world: &World, id: u64, endpoint: u32, with: u64) -> Result<(), ProbeError> {
    let info = DeviceInfo {
        id: DeviceId(id),
        endpoints: &[EndpointId(endpoint)],
        with: Some(DeviceId(with)),
    };
    world.registry.add_device(&world.instance, &info).map(drop)
}

/// Where endpoint 8 and 9 get to: around and in the region.
fn reach(world: &World, endpoint: u32) -> Vec<u64> {
    let at = [0, 0x7fff, 0x8000, 0x8800, 0xafff, 0xb000];
    at.into_iter().filter(|at| world.reaches(endpoint, *at, Access::WRITE).is_some()).collect()
}

#[test]
fn a_direct_region_is_mapped_from_the_start_and_nothing_else_is() {
    // C-085, C-086: rounded out; C-088: never a moment without it
    let world = World::new();
    world.sim.reserve(EndpointId(8), region(ReservedKind::Direct, legacy()));
    let group = world.device(1, &[8]);
    assert_eq!(reach(&world, 8), [0x8000, 0x8800, 0xafff]);
    assert_eq!(world.reaches(8, 0x8800, Access::WRITE), Some(PhysAddr(0x8800)));
    assert_eq!(Group::claim(&group, OwnerId(1)).err(), Some(ClaimError::DirectRequired));
    let Current::Paging(domain) = group.current() else { panic!("on its default domain") };
    let refused = domain.map(pages(0x8000, 1), PhysAddr(0), Prot::RW);
    assert_eq!(refused, Err(MapError::AddrInUse), "nobody maps over it");
    drop(domain);
    world.registry.remove_device(DeviceId(1)).unwrap();
    assert_eq!(reach(&world, 8), [0; 0], "gone with the device");
}

#[test]
fn a_relaxable_region_alone_leaves_the_group_blocked_and_free_to_claim() {
    let world = World::new();
    world.sim.reserve(EndpointId(8), region(ReservedKind::DirectRelaxable, legacy()));
    let group = world.device(1, &[8]);
    assert_eq!(reach(&world, 8), [0; 0]);
    drop(claim(&group));
    let used = Group::use_default(&group).unwrap();
    assert_eq!(reach(&world, 8), [0x8000, 0x8800, 0xafff], "but a kernel driver finds it mapped");
    drop(used);
    assert_eq!(reach(&world, 8), [0; 0]);
}

#[test]
fn a_member_with_a_direct_region_moves_its_group_and_takes_it_back() {
    let world = World::new();
    let group = world.device(1, &[8]);
    world.sim.reserve(EndpointId(9), region(ReservedKind::Direct, legacy()));
    assert!(matches!(group.current(), Current::Blocked));
    join(&world, 2, 9, 1).unwrap();
    assert_eq!(reach(&world, 9), [0x8000, 0x8800, 0xafff]);
    assert_eq!(reach(&world, 8), reach(&world, 9), "a group is on one domain");
    // A second one with a region that overlaps: its own pages are added.
    let more = IovaRange::new(Iova(0xa000), Iova(0xbfff)).unwrap();
    world.sim.reserve(EndpointId(10), region(ReservedKind::Direct, more));
    join(&world, 3, 10, 1).unwrap();
    assert_eq!(reach(&world, 10), [0x8000, 0x8800, 0xafff, 0xb000]);
    world.registry.remove_device(DeviceId(2)).unwrap();
    assert!(matches!(group.current(), Current::Paging(_)), "the other one needs it");
    world.registry.remove_device(DeviceId(3)).unwrap();
    assert!(matches!(group.current(), Current::Blocked));
    assert_eq!(reach(&world, 8), [0; 0]);
    drop(claim(&group));
}

#[test]
fn a_group_with_an_owner_takes_no_such_device() {
    // C-153: claimed or attached
    let world = World::new();
    let group = world.device(1, &[8]);
    world.sim.reserve(EndpointId(9), region(ReservedKind::Direct, legacy()));
    let ownership = claim(&group);
    assert_eq!(join(&world, 2, 9, 1), Err(ProbeError::DirectRequired));
    let domain = world.domain();
    let attached = ownership.attach(&domain).unwrap();
    assert_eq!(join(&world, 2, 9, 1), Err(ProbeError::DirectRequired));
    assert_eq!(reach(&world, 9), [0; 0], "blocked");
    assert_eq!((group.device_count(), domain.endpoint_count()), (1, 1));
    drop(attached);
    join(&world, 2, 9, 1).expect("nobody owns it any more");
}

#[test]
fn a_failure_on_the_way_leaves_the_group_where_it_was() {
    let refusals = |nth, allocations| {
        let world = World::new();
        let group = world.device(1, &[8]);
        world.sim.reserve(EndpointId(9), region(ReservedKind::Direct, legacy()));
        let before = (world.pool.usage(), group.device_count(), reach(&world, 8));
        if allocations {
            world.pool.refuse_nth(nth, true);
        } else {
            world.sim.refuse(nth, Refusal::ONCE);
        }
        let joined = join(&world, 2, 9, 1);
        let met = world.pool.refuse_none() + world.sim.refuse_none();
        if met == 0 {
            joined.expect("no failure was met");
            return false;
        }
        joined.expect_err("a failure was met");
        assert_eq!((world.pool.usage(), group.device_count(), reach(&world, 8)), before);
        assert!(matches!(group.current(), Current::Blocked) && !group.is_poisoned());
        assert_eq!(reach(&world, 9), [0; 0]);
        join(&world, 2, 9, 1).expect("the retry succeeds");
        true
    };
    for allocations in [false, true] {
        let met = (0..).take_while(|nth| refusals(*nth, allocations)).count();
        assert!(met > 2, "the sweep met only {met} failures");
    }
}

#[test]
fn a_region_outside_the_aperture_is_refused() {
    let world = World::with(SimConfig { aperture: pages(0, 8), ..SimConfig::default() });
    world.sim.reserve(EndpointId(8), region(ReservedKind::Direct, legacy()));
    let info = DeviceInfo { id: DeviceId(1), endpoints: &[EndpointId(8)], with: None };
    let refused = world.registry.add_device(&world.instance, &info).err();
    assert_eq!(refused, Some(ProbeError::InvalidArg));
    world.sim.reserve(EndpointId(8), region(ReservedKind::DirectRelaxable, legacy()));
    let group = world.registry.add_device(&world.instance, &info).unwrap();
    assert_eq!(Group::use_default(&group).err(), Some(UseError::Range));
    assert_eq!((group.kernel_users(), reach(&world, 8)), (0, vec![]));
}

#[test]
fn kernel_drivers_share_the_default_domain_and_keep_owners_out() {
    // C-138 to C-140, C-142, D-12
    let world = World::new();
    let group = world.device(1, &[8, 9]);
    let one = Group::use_default(&group).unwrap();
    let two = Group::use_default(&group).unwrap();
    assert!(one.domain().ptr_eq(two.domain()));
    assert_eq!(group.kernel_users(), 2);
    one.domain().map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    assert_eq!(world.reaches(9, 0x1000, Access::READ), Some(PhysAddr(0xa000)));
    assert_eq!(Group::claim(&group, OwnerId(1)).err(), Some(ClaimError::NotPermitted));
    drop(one);
    assert_eq!(world.reaches(9, 0x1000, Access::READ), Some(PhysAddr(0xa000)), "one is left");
    drop(two);
    assert_eq!(world.reaches(9, 0x1000, Access::READ), None);
    let ownership = claim(&group);
    assert_eq!(Group::use_default(&group).err(), Some(UseError::Busy));
    drop(ownership);
    let _used = Group::use_default(&group).expect("free again");
}

#[test]
fn a_use_that_fails_leaves_the_group_free() {
    let world = World::new();
    let group = world.device(1, &[8, 9]);
    for nth in [0, 1] {
        let usage = world.pool.usage();
        world.sim.refuse(nth, Refusal::ONCE);
        assert_eq!(Group::use_default(&group).err(), Some(UseError::Io));
        assert_eq!((world.sim.refuse_none(), group.kernel_users()), (1, 0));
        assert_eq!(world.pool.usage(), usage);
        world.pool.refuse_nth(0, true);
        assert_eq!(Group::use_default(&group).err(), Some(UseError::OutOfMemory));
        assert_eq!((world.pool.refuse_none(), group.kernel_users()), (1, 0));
        drop(claim(&group));
    }
    let gone = world.device(2, &[10]);
    world.registry.remove_device(DeviceId(2)).unwrap();
    assert_eq!(Group::use_default(&gone).err(), Some(UseError::NoDevice));
}

#[test]
fn a_new_member_of_a_group_in_use_finds_its_regions_mapped() {
    // C-152, the other way round: in the domain that the device is on
    let world = World::new();
    let group = world.device(1, &[8]);
    let used = Group::use_default(&group).unwrap();
    world.sim.reserve(EndpointId(9), region(ReservedKind::Direct, legacy()));
    used.domain().map(pages(0x9000, 1), PhysAddr(0), Prot::RW).unwrap();
    assert_eq!(join(&world, 2, 9, 1), Err(ProbeError::AddrInUse), "a driver mapped there");
    assert_eq!(reach(&world, 9), [0; 0]);
    used.domain().unmap(pages(0x9000, 1)).unwrap();
    used.domain().map(pages(0x9000, 1), PhysAddr(0x9000), Prot::RW).unwrap();
    join(&world, 2, 9, 1).expect("that page is 1:1 already (C-087)");
    assert_eq!(reach(&world, 9), [0x8000, 0x8800, 0xafff]);
    drop(used);
    assert_eq!(reach(&world, 9), [0x8000, 0x8800, 0xafff], "they stay as long as the device");
    assert!(matches!(group.current(), Current::Paging(_)));
}
