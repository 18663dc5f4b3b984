//! How groups form, grow and shrink.

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::device::DeviceId;
use iommu::driver::EndpointId;
use iommu::error::{AttachError, ClaimError, MapError, ProbeError};
use iommu::fault::{Access, FaultReason};
use iommu::group::{Group, OwnerId};
use iommu::prot::Prot;
use iommu::registry::DeviceInfo;
use iommu::reserved::{ReservedKind, ReservedRegion, ReservedRegions};
use iommu::sim::{Refusal, SimConfig};

use crate::fixture::{World, claim, pages, region};

fn reserving(kind: ReservedKind, range: IovaRange) -> World {
    World::with(SimConfig { reserved: region(kind, range), ..SimConfig::default() })
}

#[test]
fn devices_with_the_same_endpoint_id_share_a_group() {
    // C-046, C-049
    let world = World::new();
    let (one, two, other) = (world.device(1, &[8]), world.device(2, &[8]), world.device(3, &[9]));
    assert!(one.ptr_eq(&two) && !one.ptr_eq(&other));
    assert_eq!((one.device_count(), one.endpoint_count()), (2, 1));
    assert_eq!(world.registry.group_count(), 2);
    let mut members = vec![];
    one.for_each_device(|device| members.push(device.id()));
    assert_eq!(members, [DeviceId(1), DeviceId(2)]);
}

#[test]
fn topology_can_join_devices_that_ids_keep_apart() {
    // C-057, C-059
    let world = World::new();
    let one = world.device(1, &[8]);
    let info = DeviceInfo { id: DeviceId(2), endpoints: &[EndpointId(9)], with: Some(DeviceId(1)) };
    assert!(world.registry.add_device(&world.instance, &info).unwrap().ptr_eq(&one));
    assert_eq!(one.endpoint_count(), 2);
}

#[test]
fn a_device_that_would_bridge_two_groups_is_refused() {
    // C-046: ids that point to two groups
    let world = World::new();
    world.device(1, &[8]);
    world.device(2, &[9]);
    let info =
        DeviceInfo { id: DeviceId(3), endpoints: &[EndpointId(8), EndpointId(9)], with: None };
    let refused = world.registry.add_device(&world.instance, &info).err();
    assert_eq!(refused, Some(ProbeError::InvalidArg));
    let twice = DeviceInfo { id: DeviceId(1), ..info };
    let refused = world.registry.add_device(&world.instance, &twice).err();
    assert_eq!(refused, Some(ProbeError::Exists));
    let none = DeviceInfo { endpoints: &[], ..info };
    let refused = world.registry.add_device(&world.instance, &none).err();
    assert_eq!(refused, Some(ProbeError::NoDevice));
}

#[test]
fn a_device_added_to_an_attached_group_reaches_what_the_group_reaches() {
    // C-148
    let world = World::new();
    let group = world.device(1, &[8]);
    let domain = world.domain();
    domain.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    let attached = claim(&group).attach(&domain).unwrap();
    let info = DeviceInfo { id: DeviceId(2), endpoints: &[EndpointId(9)], with: Some(DeviceId(1)) };
    world.registry.add_device(&world.instance, &info).unwrap();
    assert_eq!(world.reaches(9, 0x1000, Access::WRITE), Some(PhysAddr(0xa000)));
    assert_eq!(domain.endpoint_count(), 2);

    world.registry.remove_device(DeviceId(2)).unwrap();
    assert_eq!(world.reaches(9, 0x1000, Access::WRITE), None, "it left blocked");
    assert_eq!(world.reaches(8, 0x1000, Access::WRITE), Some(PhysAddr(0xa000)), "others stay");
    assert_eq!(domain.endpoint_count(), 1);
    drop(attached);
}

#[test]
fn a_member_that_shares_its_id_leaves_without_blocking_the_other() {
    let world = World::new();
    let group = world.device(1, &[8]);
    world.device(2, &[8]);
    let domain = world.domain();
    domain.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    let attached = claim(&group).attach(&domain).unwrap();
    world.registry.remove_device(DeviceId(1)).unwrap();
    assert_eq!(world.reaches(8, 0x1000, Access::READ), Some(PhysAddr(0xa000)));
    world.registry.remove_device(DeviceId(2)).unwrap();
    assert_eq!(world.reaches(8, 0x1000, Access::READ), None);
    assert_eq!(world.registry.group_count(), 0);
    assert_eq!(world.registry.remove_device(DeviceId(2)).err(), Some(ProbeError::NoDevice));
    drop(attached);
}

#[test]
fn a_hot_added_device_that_the_unit_refuses_stays_blocked_and_the_caller_knows() {
    // C-075, C-150
    for (nth, error) in [(0, ProbeError::Io), (1, ProbeError::Io)] {
        let world = World::new();
        let group = world.device(1, &[8]);
        let domain = world.domain();
        domain.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
        let attached = claim(&group).attach(&domain).unwrap();
        let info =
            DeviceInfo { id: DeviceId(2), endpoints: &[EndpointId(9)], with: Some(DeviceId(1)) };
        world.sim.refuse(nth, Refusal::ONCE);
        assert_eq!(world.registry.add_device(&world.instance, &info).err(), Some(error));
        assert_eq!(world.sim.refuse_none(), 1);
        assert_eq!((group.device_count(), domain.endpoint_count()), (1, 1));
        assert_eq!(world.reaches(9, 0x1000, Access::READ), None);
        assert_eq!(world.reaches(8, 0x1000, Access::READ), Some(PhysAddr(0xa000)));
        world.registry.add_device(&world.instance, &info).expect("the retry succeeds");
        drop(attached);
    }
}

#[test]
fn a_new_member_whose_reserved_region_is_mapped_is_refused() {
    // C-151
    let world = World::new();
    let group = world.device(1, &[8]);
    let domain = world.domain();
    let attached = claim(&group).attach(&domain).unwrap();
    domain.map(pages(0x8000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    world.sim.reserve(EndpointId(9), region(ReservedKind::Reserved, pages(0x8000, 1)));
    let info = DeviceInfo { id: DeviceId(2), endpoints: &[EndpointId(9)], with: Some(DeviceId(1)) };
    let refused = world.registry.add_device(&world.instance, &info).err();
    assert_eq!(refused, Some(ProbeError::AddrInUse));
    assert_eq!(world.reaches(9, 0x8000, Access::READ), None);
    assert_eq!(domain.reserved(), ReservedRegions::new(), "nothing of it is left");

    let other = world.device(3, &[9]);
    let refused = claim(&other).attach(&domain).unwrap_err();
    assert_eq!(refused.error.errno(), 98, "D-28: attach looks as well");
    domain.unmap(pages(0x8000, 1)).unwrap();
    world.registry.remove_device(DeviceId(3)).unwrap();
    world.registry.add_device(&world.instance, &info).expect("nothing is in the way any more");
    assert_eq!(attached.group().device_count(), 2);
}

#[test]
fn what_an_attached_device_reserves_can_not_be_mapped() {
    // D-28, MapError::AddrInUse
    let world = World::new();
    world.sim.reserve(EndpointId(8), region(ReservedKind::Reserved, pages(0x8000, 1)));
    world.sim.reserve(EndpointId(9), region(ReservedKind::Msi, pages(0xa000, 1)));
    let domain = world.domain();
    let one = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    let refused = |first| domain.map(pages(first, 1), PhysAddr(0x1000), Prot::RW).err();
    assert_eq!(refused(0x8000), Some(MapError::AddrInUse));
    assert_eq!(refused(0xa000), None, "the group that reserves it is not here");
    domain.unmap(pages(0xa000, 1)).unwrap();
    let two = claim(&world.device(2, &[9])).attach(&domain).unwrap();
    let before = world.sim.digest();
    assert_eq!(refused(0xa000), Some(MapError::AddrInUse));
    let around = domain.map(pages(0x7000, 3), PhysAddr(0x1000), Prot::RW);
    assert_eq!(around, Err(MapError::AddrInUse), "in the middle of a mapping");
    assert_eq!(world.sim.digest(), before);
    drop(one);
    assert_eq!(refused(0x8000), None, "it left and took its region along");
    assert_eq!(refused(0xa000), Some(MapError::AddrInUse));
    let ownership = two.detach();
    assert_eq!(refused(0xa000), None);
    let back = ownership.attach(&domain).unwrap_err();
    assert_eq!(back.error, AttachError::AddrInUse);
}

#[test]
fn a_relaxable_region_forbids_nothing() {
    // T1-194
    let world = reserving(ReservedKind::DirectRelaxable, pages(0x8000, 1));
    let domain = world.domain();
    let attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    domain.map(pages(0x8000, 1), PhysAddr(0x1000), Prot::RW).unwrap();
    drop(attached);
}

#[test]
fn a_group_that_needs_direct_mappings_can_not_be_claimed() {
    // C-090, D-29
    let world = reserving(ReservedKind::Direct, pages(0x8000, 1));
    let group = world.device(1, &[8]);
    assert_eq!(Group::claim(&group, OwnerId(1)).err(), Some(ClaimError::DirectRequired));
    let world = reserving(ReservedKind::DirectRelaxable, pages(0x8000, 1));
    drop(claim(&world.device(1, &[8])));
}

#[test]
fn an_endpoint_with_both_kinds_of_msi_window_is_refused() {
    // C-034
    let mut reserved = ReservedRegions::new();
    for (first, kind) in [(0x1000, ReservedKind::Msi), (0x4000, ReservedKind::SoftwareMsi)] {
        reserved.add(ReservedRegion { range: pages(first, 1), kind }).unwrap();
    }
    let world = World::with(SimConfig { reserved, ..SimConfig::default() });
    let info = DeviceInfo { id: DeviceId(1), endpoints: &[EndpointId(8)], with: None };
    let refused = world.registry.add_device(&world.instance, &info).err();
    assert_eq!(refused, Some(ProbeError::InvalidArg));
}

#[test]
fn an_instance_goes_when_its_last_device_has() {
    // C-005, C-234
    let world = World::new();
    world.device(1, &[8]);
    let refused = world.registry.remove_instance(&world.instance).err();
    assert_eq!(refused, Some(ProbeError::Exists));
    world.registry.remove_device(DeviceId(1)).unwrap();
    world.registry.remove_instance(&world.instance).unwrap();
    let refused = world.registry.remove_instance(&world.instance).err();
    assert_eq!(refused, Some(ProbeError::NoDevice));
    let World { pool, registry, instance, .. } = world;
    drop((instance, registry));
    assert_eq!(pool.usage().nodes, 0);
}

#[test]
fn a_fault_names_device_address_access_and_reason() {
    // C-031, D-17, D-33
    let world = World::new();
    world.device(1, &[8, 9]);
    assert_eq!(world.registry.next_fault(&world.instance), None);
    assert_eq!(world.reaches(9, 0x1234, Access::WRITE), None);
    let fault = world.registry.next_fault(&world.instance).unwrap();
    assert_eq!(fault.device, Some(DeviceId(1)));
    assert_eq!(fault.record.endpoint, EndpointId(9));
    assert_eq!(fault.record.address, Some(Iova(0x1234)));
    assert_eq!((fault.record.access, fault.record.reason), (Access::WRITE, FaultReason::Mapping));
    assert_eq!(world.reaches(77, 0x1234, Access::READ), None);
    let fault = world.registry.next_fault(&world.instance).unwrap();
    assert_eq!((fault.device, fault.record.reason), (None, FaultReason::Domain));
}

#[test]
fn faults_that_nobody_takes_are_counted() {
    let world = World::new();
    world.device(1, &[8]);
    for n in 0..100 {
        assert_eq!(world.reaches(8, n, Access::READ), None);
    }
    let mut taken = 0;
    while world.instance.next_fault().is_some() {
        taken += 1;
    }
    assert_eq!((taken, world.instance.lost_faults()), (64, 36));
}
