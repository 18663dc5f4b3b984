//! Claim, attach, detach, replace: rights, order, cost, and what the unit does then.

use iommu::addr::PhysAddr;
use iommu::device::DeviceId;
use iommu::driver::{DomainId, EndpointId, Left};
use iommu::error::{AttachError, ClaimError};
use iommu::fault::Access;
use iommu::group::{Group, OwnerId};
use iommu::prot::Prot;
use iommu::sim::{Call, Refusal};

use crate::fixture::{World, claim, pages};

#[test]
fn a_device_is_blocked_from_the_moment_it_is_added() {
    // C-082, C-147, D-32
    let world = World::new();
    let group = world.device(1, &[8]);
    assert_eq!(world.reaches(8, 0x1000, Access::READ), None);
    assert!(group.current_domain().is_none());
    let ownership = claim(&group);
    assert_eq!(world.reaches(8, 0x1000, Access::WRITE), None, "claiming opens nothing");
    drop(ownership);
}

#[test]
fn one_owner_at_a_time_even_the_same_one() {
    // C-142
    let world = World::new();
    let group = world.device(1, &[8]);
    let first = claim(&group);
    assert_eq!(Group::claim(&group, OwnerId(7)).err(), Some(ClaimError::NotPermitted));
    drop(first);
    assert_eq!(group.owner(), None);
    drop(claim(&group));
}

#[test]
fn attach_costs_one_request_per_distinct_endpoint_and_no_detach() {
    // C-125, C-101
    let world = World::new();
    let group = world.device(1, &[8, 9]);
    world.device(2, &[9]); // behind the same bridge
    assert_eq!((group.device_count(), group.endpoint_count()), (2, 2));
    let domain = world.domain();
    domain.map(pages(0x10_0000, 4), PhysAddr(0x8000_0000), Prot::RW).unwrap();
    let _ = world.sim.take_log();
    let mut attached = claim(&group).attach(&domain).unwrap();
    let to = domain.id();
    assert_eq!(
        world.sim.take_log()[..2],
        [8, 9].map(|id| Call::Attach { endpoint: EndpointId(id), to }),
    );
    attached.replace(&domain).unwrap();
    assert_eq!(world.sim.take_log(), [], "the domain it is on costs nothing");
    for endpoint in [8, 9] {
        let target = world.reaches(endpoint, 0x10_1234, Access::WRITE);
        assert_eq!(target, Some(PhysAddr(0x8000_1234)));
    }
    let ownership = attached.detach();
    assert_eq!(world.reaches(8, 0x10_1234, Access::READ), None);
    assert_eq!(domain.endpoint_count(), 0);
    drop(ownership);
}

#[test]
fn mappings_made_before_the_attach_are_replayed_once() {
    // C-010, C-170, C-260
    let world = World::new();
    let (one, two) = (world.device(1, &[8]), world.device(2, &[9]));
    let domain = world.domain();
    for n in 0..100 {
        domain.map(pages(n * 0x2000, 1), PhysAddr(n << 12), Prot::READ).unwrap();
    }
    let before = world.instance.counters();
    let first = claim(&one).attach(&domain).unwrap();
    assert_eq!(world.instance.counters().since(&before).map, 100);
    let second = claim(&two).attach(&domain).unwrap();
    let sent = world.instance.counters().since(&before);
    assert_eq!((sent.map, sent.attach), (100, 2), "the second endpoint finds them there");
    drop(first);
    assert_eq!(world.reaches(9, 0x4000, Access::READ), Some(PhysAddr(2 << 12)));
    drop(second);
}

#[test]
fn a_domain_of_another_instance_is_incompatible_and_nothing_is_sent() {
    // C-257, C-111
    let world = World::new();
    let group = world.device(1, &[8]);
    let other = iommu::sim::Sim::new();
    let second = world.registry.add_instance(other.driver()).unwrap();
    let foreign = iommu::domain::PagingDomain::new(&second, world.pool).unwrap();
    let _ = world.sim.take_log();
    let refused = claim(&group).attach(&foreign).unwrap_err();
    assert_eq!(refused.error, AttachError::Incompatible);
    assert_eq!(refused.error.errno(), 124);
    assert_eq!((world.sim.take_log(), other.take_log()), (vec![], vec![]));
    // The ownership came back and is good for another try.
    let domain = world.domain();
    drop(refused.ownership.attach(&domain).unwrap());
}

#[test]
fn incompatibility_of_one_member_is_the_group_s_and_moves_nobody() {
    // C-110, C-100
    let world = World::new();
    let group = world.device(1, &[8]);
    world.device(2, &[8, 9]);
    let guest = world.device(3, &[10]);
    let domain = world.domain();
    let kept = claim(&guest).attach(&domain).unwrap();
    world.sim.disagree(EndpointId(9));
    let before = world.sim.digest();
    let _ = world.sim.take_log();
    let refused = claim(&group).attach(&domain).unwrap_err();
    assert_eq!(refused.error, AttachError::Incompatible);
    assert_eq!((world.sim.take_log(), world.sim.digest()), (vec![], before));
    let fresh = world.domain();
    drop(refused.ownership.attach(&fresh).expect("C-109: a fresh domain is compatible"));
    drop(kept);
}

#[test]
fn when_the_nth_member_refuses_all_are_back_where_they_were() {
    // C-132, D-16: with each place that the unit may have left the refused one in
    for left in [Left::Unchanged, Left::Blocked, Left::Unknown] {
        for nth in 0..3 {
            let world = World::new();
            let group = world.device(1, &[8, 9, 10]);
            let (old, new) = (world.domain(), world.domain());
            old.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
            new.map(pages(0x1000, 1), PhysAddr(0xb000), Prot::RW).unwrap();
            let mut attached = claim(&group).attach(&old).unwrap();
            let before = world.sim.digest();
            let refusal = Refusal { error: AttachError::NoSpace, left, ..Refusal::ONCE };
            world.sim.refuse(nth, refusal);
            assert_eq!(attached.replace(&new), Err(AttachError::NoSpace));
            assert_eq!(world.sim.refuse_none(), 1);
            assert_eq!(world.sim.digest(), before, "left {left:?}, member {nth}");
            assert_eq!((old.endpoint_count(), new.endpoint_count()), (3, 0));
            assert!(!group.is_poisoned());
            attached.replace(&new).expect("the retry succeeds");
            assert_eq!(world.reaches(10, 0x1000, Access::READ), Some(PhysAddr(0xb000)));
        }
    }
}

#[test]
fn a_failed_undo_poisons_the_group_and_leaves_nobody_on_a_third_domain() {
    // C-135, C-136
    let world = World::new();
    let group = world.device(1, &[8, 9]);
    let (old, new) = (world.domain(), world.domain());
    old.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    let mut attached = claim(&group).attach(&old).unwrap();
    world.sim.refuse(1, Refusal { left: Left::Unknown, ..Refusal::FOREVER });
    assert_eq!(attached.replace(&new), Err(AttachError::Io));
    assert!(world.sim.refuse_none() > 1);
    assert!(group.is_poisoned());
    assert_eq!(world.reaches(9, 0x1000, Access::READ), None);
    assert_eq!(attached.replace(&old), Err(AttachError::Io));
    let ownership = attached.detach();
    drop(ownership);
    assert_eq!(Group::claim(&group, OwnerId(1)).err(), Some(ClaimError::Io));
}

#[test]
fn a_failed_undo_ends_with_the_group_blocked_where_the_unit_obeys() {
    // C-134, C-135: requests 0, 1 are the ATTACHes, 2 the replay; 3 is the first one of the undo
    let world = World::new();
    let group = world.device(1, &[8, 9]);
    let (old, new) = (world.domain(), world.domain());
    for domain in [&old, &new] {
        domain.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    }
    let mut attached = claim(&group).attach(&old).unwrap();
    world.sim.refuse(2, Refusal::ONCE);
    assert_eq!(attached.replace(&new), Err(AttachError::Io));
    assert_eq!((world.sim.refuse_none(), group.is_poisoned()), (1, false), "the control");
    assert_eq!(world.reaches(8, 0x1000, Access::READ), Some(PhysAddr(0xa000)));
    world.sim.refuse_each(&[2, 3], Refusal::ONCE);
    assert_eq!(attached.replace(&new), Err(AttachError::Io));
    assert_eq!((world.sim.refuse_none(), group.is_poisoned()), (2, true));
    for endpoint in [8, 9] {
        assert_eq!(world.reaches(endpoint, 0x1000, Access::READ), None, "endpoint {endpoint}");
    }
    assert_eq!((old.endpoint_count(), new.endpoint_count()), (0, 0), "both proven blocked");
}

#[test]
fn what_a_refused_block_left_behind_is_sent_again_one_by_one() {
    // C-129: endpoint 8 obeyed, 9 was refused once; 8 is not sent a second time (C-101)
    let world = World::new();
    let group = world.device(1, &[8, 9, 10]);
    let domain = world.domain();
    domain.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    let attached = claim(&group).attach(&domain).unwrap();
    let _ = world.sim.take_log();
    world.sim.refuse(1, Refusal::ONCE);
    drop(attached);
    assert_eq!((world.sim.refuse_none(), group.is_poisoned()), (1, false));
    let sent: Vec<_> = world.sim.take_log().iter().map(endpoint_of).collect();
    assert_eq!(sent, [8, 9, 9, 10]);
    for endpoint in [8, 9, 10] {
        assert_eq!(world.reaches(endpoint, 0x1000, Access::READ), None);
    }
    assert_eq!(domain.endpoint_count(), 0);
}

#[test]
fn a_removed_device_of_a_poisoned_group_is_blocked_if_the_unit_obeys_now() {
    // C-093, C-135
    let world = World::new();
    let group = world.device(1, &[8]);
    let domain = world.domain();
    domain.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    let attached = claim(&group).attach(&domain).unwrap();
    world.sim.refuse(0, Refusal { left: Left::Unchanged, ..Refusal::FOREVER });
    drop(attached);
    assert!(world.sim.refuse_none() > 0 && group.is_poisoned());
    assert_eq!(world.reaches(8, 0x1000, Access::READ), Some(PhysAddr(0xa000)), "it did not obey");
    world.registry.remove_device(DeviceId(1)).unwrap();
    assert_eq!(world.reaches(8, 0x1000, Access::READ), None);
}

#[test]
fn a_domain_whose_count_is_not_certain_takes_no_other_group() {
    // C-240: else the unit would be told of the new endpoint and not of the mappings, because the
    // domain seems to have one already
    let world = World::new();
    let domain = world.domain();
    domain.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    let attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    world.sim.refuse(0, Refusal::FOREVER);
    drop(attached);
    assert!(world.sim.refuse_none() > 0);
    assert_eq!(domain.endpoint_count(), 1, "it may be there, it may be nowhere");
    let refused = claim(&world.device(2, &[9])).attach(&domain).unwrap_err();
    assert_eq!(refused.error, AttachError::Incompatible, "another domain works");
    let other = world.domain();
    other.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    let _attached = refused.ownership.attach(&other).unwrap();
    assert_eq!(world.reaches(9, 0x1000, Access::READ), Some(PhysAddr(0xa000)));
}

fn endpoint_of(call: &Call) -> u32 {
    let Call::Attach { endpoint, .. } = call else { panic!("{call:?}") };
    endpoint.0
}

#[test]
fn attach_device_needs_a_group_of_one() {
    // C-120
    let world = World::new();
    let group = world.device(1, &[8]);
    world.device(2, &[8]);
    let domain = world.domain();
    let refused = claim(&group).attach_device(DeviceId(1), &domain).unwrap_err();
    assert_eq!((refused.error, refused.error.errno()), (AttachError::NotSingleton, 22));
    let refused = refused.ownership.attach_device(DeviceId(99), &domain).unwrap_err();
    assert_eq!(refused.error, AttachError::NoDevice);
    drop(refused);
    world.registry.remove_device(DeviceId(2)).unwrap();
    drop(claim(&group).attach_device(DeviceId(1), &domain).unwrap());
}

#[test]
fn detach_keeps_the_ownership_and_drop_gives_everything_back() {
    // C-126, C-145, D-10, D-11
    let world = World::new();
    let group = world.device(1, &[8]);
    let usage = world.pool.usage();
    let domain = world.domain();
    let attached = claim(&group).attach(&domain).unwrap();
    assert_eq!(attached.domain().id(), domain.id());
    let ownership = attached.detach();
    assert_eq!(group.owner(), Some(OwnerId(7)));
    let attached = ownership.attach(&domain).unwrap();
    drop(attached);
    assert_eq!((group.owner(), group.current_domain().is_none()), (None, true));
    drop(domain);
    assert_eq!(world.pool.usage(), usage);
    assert_eq!(world.domain().id(), DomainId(1), "the id is free again");
}

#[test]
fn an_attachment_keeps_its_domain_alive() {
    // C-014, D-14
    let world = World::new();
    let group = world.device(1, &[8]);
    let domain = world.domain();
    domain.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::READ).unwrap();
    let attached = claim(&group).attach(&domain).unwrap();
    drop(domain);
    assert_eq!(world.reaches(8, 0x1000, Access::READ), Some(PhysAddr(0xa000)));
    attached.domain().unmap(pages(0x1000, 1)).unwrap();
    assert_eq!(world.reaches(8, 0x1000, Access::READ), None);
}
