//! The identity domain (rules C-015, C-040, C-268, D-01).

use iommu::addr::{Iova, PhysAddr};
use iommu::driver::EndpointId;
use iommu::fault::Access;
use iommu::group::Current;
use iommu::prot::Prot;
use iommu::reserved::ReservedKind;
use iommu::sim::{Call, Refusal, SimConfig};

use crate::fixture::{World, claim, pages, region};

#[test]
fn all_of_memory_is_reached_until_the_group_leaves() {
    for identity in [true, false] {
        let world = World::with(SimConfig { identity, ..SimConfig::default() });
        let group = world.device(1, &[8, 9]);
        assert_eq!(world.reaches(8, 0x1234, Access::WRITE), None, "the control");
        let attached = claim(&group).attach_identity().unwrap();
        assert!(matches!(group.current(), Current::Identity));
        assert!(group.current_domain().is_none(), "nobody gets at the mappings");
        for address in [0, 0x1234, 0xffff_ffff_ffff] {
            assert_eq!(world.reaches(8, address, Access::WRITE), Some(PhysAddr(address)));
            assert_eq!(world.reaches(9, address, Access::READ), Some(PhysAddr(address)));
        }
        let ownership = attached.detach();
        assert_eq!(world.reaches(8, 0x1234, Access::READ), None);
        drop(ownership.attach_identity().unwrap());
        assert_eq!(world.reaches(8, 0x1234, Access::READ), None, "dropping detaches");
        assert!(group.owner().is_none());
        drop(group);
        world.registry.remove_device(iommu::device::DeviceId(1)).unwrap();
    }
}

#[test]
fn a_unit_with_such_a_domain_is_sent_one_request_per_endpoint() {
    let world = World::new();
    let group = world.device(1, &[8, 9]);
    let _ = world.sim.take_log();
    let _attached = claim(&group).attach_identity().unwrap();
    let log = world.sim.take_log();
    assert!(log.iter().all(|call| matches!(call, Call::Attach { .. })), "{log:?}");
    assert_eq!(log.len(), 2);
}

#[test]
fn replacing_goes_straight_from_one_to_the_other() {
    // C-130
    let world = World::new();
    let domain = world.domain();
    domain.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    let attached = claim(&world.device(1, &[8])).attach_identity().unwrap();
    world.sim.refuse(0, Refusal::ONCE);
    let (error, attached) = attached.replace(&domain).unwrap_err();
    assert_eq!((error.errno(), world.sim.refuse_none()), (5, 1));
    assert_eq!(world.reaches(8, 0x5000, Access::READ), Some(PhysAddr(0x5000)), "still there");
    let _ = world.sim.take_log();
    let attached = attached.replace(&domain).unwrap();
    assert_eq!(world.reaches(8, 0x1000, Access::READ), Some(PhysAddr(0xa000)));
    assert_eq!(world.reaches(8, 0x5000, Access::READ), None);
    let to: Vec<_> = world.sim.take_log();
    let expected = Call::Attach { endpoint: EndpointId(8), to: domain.id() };
    assert_eq!(
        to.iter().filter(|c| matches!(c, Call::Attach { .. })).collect::<Vec<_>>(),
        [&expected]
    );
    drop(attached);
}

#[test]
fn without_such_a_domain_the_holes_are_what_the_group_reserves() {
    // C-268: rounded to granules
    let world = World::with(SimConfig { identity: false, ..SimConfig::default() });
    let window = iommu::addr::IovaRange::new(Iova(0x8800), Iova(0x97ff)).unwrap();
    world.sim.reserve(EndpointId(8), region(ReservedKind::Msi, window));
    let group = world.device(1, &[8]);
    let usage = world.pool.usage();
    let attached = claim(&group).attach_identity().unwrap();
    for (address, reached) in [(0x7fff, true), (0x8000, false), (0x9fff, false), (0xa000, true)] {
        assert_eq!(world.reaches(8, address, Access::WRITE).is_some(), reached, "{address:#x}");
    }
    drop(attached);
    assert_eq!(world.pool.usage(), usage, "the domain that was made is gone");
}

#[test]
fn a_refused_attach_leaves_the_group_blocked_and_owned() {
    for identity in [true, false] {
        let world = World::with(SimConfig { identity, ..SimConfig::default() });
        let group = world.device(1, &[8, 9]);
        let usage = world.pool.usage();
        for nth in [0, 1] {
            world.sim.refuse(nth, Refusal::ONCE);
            let refused = claim(&group).attach_identity().unwrap_err();
            assert_eq!((refused.error.errno(), world.sim.refuse_none()), (5, 1));
            assert!(group.owner().is_some() && matches!(group.current(), Current::Blocked));
            assert_eq!(world.reaches(8, 0x1000, Access::READ), None);
            assert_eq!(world.reaches(9, 0x1000, Access::READ), None);
            assert_eq!(world.pool.usage(), usage);
        }
    }
}

#[test]
fn a_device_that_joins_reaches_what_the_group_reaches() {
    // C-148
    let world = World::new();
    let attached = claim(&world.device(1, &[8])).attach_identity().unwrap();
    let info = iommu::registry::DeviceInfo {
        id: iommu::device::DeviceId(2),
        endpoints: &[EndpointId(9)],
        with: Some(iommu::device::DeviceId(1)),
    };
    world.registry.add_device(&world.instance, &info).unwrap();
    assert_eq!(world.reaches(9, 0x1000, Access::READ), Some(PhysAddr(0x1000)));
    world.registry.remove_device(iommu::device::DeviceId(2)).unwrap();
    assert_eq!(world.reaches(9, 0x1000, Access::READ), None);
    assert_eq!(world.reaches(8, 0x1000, Access::READ), Some(PhysAddr(0x1000)));
    drop(attached);
}
