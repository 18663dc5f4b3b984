//! Several groups on one domain, several devices in one group, and devices that come and go.

use iommu::error::ProbeError;
use iommu::prot::Prot;
use iommu::registry::DeviceInfo;

use crate::bench::{Bench, Who};
use crate::steps::*;

/// The groups of the first unit.
const GROUPS: [Who; 3] = [Who::One, Who::Two, Who::Pair];

/// A map reaches the devices of all groups of a domain, an unmap leaves none.
pub(crate) fn three_groups_on_one_domain(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let domain = domain_for(bench, Who::One);
    let attached = GROUPS.map(|who| attach(bench, who, &domain));
    let all = [Who::One, Who::Two, Who::Pair, Who::Twin];
    for _ in 0..2 {
        let sent = cost_of(bench, Who::One, || map(&domain, AT, &memory, Prot::RW));
        assert_eq!((sent.map, sent.notifies), (1, 1), "once for all of them");
        all.into_iter().for_each(|who| arrives(bench, who, AT, &memory, 0));
        let sent = cost_of(bench, Who::One, || unmap(&domain, AT, 1));
        assert_eq!((sent.unmap, sent.notifies), (1, 1), "once for all of them");
        all.into_iter().for_each(|who| refused(bench, who, AT));
    }
    drop(attached);
}

/// The groups of a domain leave one by one.
pub(crate) fn groups_leave_one_by_one(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let domain = domain_for(bench, Who::One);
    map(&domain, AT, &memory, Prot::RW);
    let mut attached = GROUPS.map(|who| Some(attach(bench, who, &domain)));
    for gone in 0..GROUPS.len() {
        for who in GROUPS {
            let has_left = GROUPS[..gone].contains(&who);
            if has_left {
                refused(bench, who, AT);
            } else {
                arrives(bench, who, AT, &memory, 0);
            }
        }
        drop(attached[gone].take());
    }
    GROUPS.into_iter().for_each(|who| refused(bench, who, AT));
}

/// Replacing the domain of one group leaves the other group where it is.
pub(crate) fn replace_moves_one_group(bench: &dyn Bench) {
    let (one, two) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let (shared, own) = (domain_for(bench, Who::One), domain_for(bench, Who::One));
    map(&shared, AT, &one, Prot::RW);
    map(&own, AT + PAGE, &two, Prot::RW);
    let stays = attach(bench, Who::Pair, &shared);
    let mut moves = attach(bench, Who::One, &shared);
    arrives(bench, Who::One, AT, &one, 0);
    moves.replace(&own).expect("fits");
    refused(bench, Who::One, AT);
    arrives(bench, Who::One, AT + PAGE, &two, 0);
    arrives(bench, Who::Twin, AT, &one, 0);
    refused(bench, Who::Twin, AT + PAGE);
    drop((stays, moves));
}

/// Two groups change places, over a third domain.
pub(crate) fn two_groups_change_places(bench: &dyn Bench) {
    let (one, two) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let (first, second) = (domain_for(bench, Who::One), domain_for(bench, Who::One));
    map(&first, AT, &one, Prot::RW);
    map(&second, AT, &two, Prot::RW);
    map(&first, AT + PAGE, &one, Prot::RW);
    let mut a = attach(bench, Who::One, &first);
    let mut b = attach(bench, Who::Two, &second);
    for _ in 0..2 {
        arrives(bench, Who::One, AT, &one, 0);
        arrives(bench, Who::One, AT + PAGE, &one, 0);
        arrives(bench, Who::Two, AT, &two, 0);
        refused(bench, Who::Two, AT + PAGE);
        a.replace(&second).expect("fits");
        b.replace(&first).expect("fits");
        arrives(bench, Who::One, AT, &two, 0);
        refused(bench, Who::One, AT + PAGE);
        arrives(bench, Who::Two, AT, &one, 0);
        a.replace(&first).expect("fits");
        b.replace(&second).expect("fits");
    }
    drop((a, b));
}

/// C-148: a device that is added to an attached group reaches what the group reaches, at the cost
/// of one ATTACH, and leaves blocked.
pub(crate) fn hot_add_into_an_attached_group(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let domain = domain_for(bench, Who::One);
    map(&domain, AT, &memory, Prot::RW);
    let attached = attach(bench, Who::One, &domain);
    arrives(bench, Who::One, AT, &memory, 0);
    refused(bench, Who::Two, AT);
    let sent = cost_of(bench, Who::One, || join(bench, Who::Two, Who::One));
    assert_eq!((sent.attach, sent.map, sent.detach), (1, 0, 0));
    assert_eq!((bench.group(Who::One).device_count(), domain.endpoint_count()), (2, 2));
    arrives(bench, Who::Two, AT, &memory, 0);
    arrives(bench, Who::One, AT, &memory, 0);
    bench.registry().remove_device(bench.seat(Who::Two).device).expect("it is there");
    refused(bench, Who::Two, AT);
    arrives(bench, Who::One, AT, &memory, 0);
    put_back(bench, Who::Two);
    refused(bench, Who::Two, AT);
    drop(attached);
}

/// A group of two endpoints is attached and blocked as one.
pub(crate) fn two_endpoints_in_one_group(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let domain = domain_for(bench, Who::One);
    map(&domain, AT, &memory, Prot::RW);
    join(bench, Who::Two, Who::One);
    let both = [Who::One, Who::Two];
    both.into_iter().for_each(|who| refused(bench, who, AT));
    let mut attached = None;
    let sent = cost_of(bench, Who::One, || attached = claim(bench, Who::Two).attach(&domain).ok());
    assert_eq!((sent.attach, sent.map, sent.detach), (2, 1, 0), "one for each endpoint");
    both.into_iter().for_each(|who| arrives(bench, who, AT, &memory, 0));
    drop(attached);
    both.into_iter().for_each(|who| refused(bench, who, AT));
    bench.registry().remove_device(bench.seat(Who::Two).device).expect("it is there");
    put_back(bench, Who::Two);
}

/// One of two devices with one endpoint id is removed: the other one still reaches what it did.
pub(crate) fn a_twin_is_removed(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let domain = domain_for(bench, Who::Pair);
    map(&domain, AT, &memory, Prot::RW);
    let attached = attach(bench, Who::Pair, &domain);
    let sent = cost_of(bench, Who::Pair, || {
        bench.registry().remove_device(bench.seat(Who::Twin).device).expect("it is there");
    });
    assert_eq!(sent.notifies, 0, "the endpoint stays where it is");
    arrives(bench, Who::Pair, AT, &memory, 0);
    put_back(bench, Who::Twin);
    assert_eq!(bench.group(Who::Pair).device_count(), 2);
    arrives(bench, Who::Twin, AT, &memory, 0);
    drop(attached);
    refused(bench, Who::Twin, AT);
}

/// The last device of an attached group is removed; its domain is empty then, and can be filled
/// again by another group.
pub(crate) fn the_last_device_is_removed(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let domain = domain_for(bench, Who::Two);
    map(&domain, AT, &memory, Prot::RW);
    let attached = attach(bench, Who::Two, &domain);
    arrives(bench, Who::Two, AT, &memory, 0);
    bench.registry().remove_device(bench.seat(Who::Two).device).expect("it is there");
    assert_eq!(domain.endpoint_count(), 0);
    refused(bench, Who::Two, AT);
    let mut other = None;
    let sent = cost_of(bench, Who::One, || other = claim(bench, Who::One).attach(&domain).ok());
    assert_eq!((sent.attach, sent.map), (1, 1), "everything is replayed");
    arrives(bench, Who::One, AT, &memory, 0);
    refused(bench, Who::Two, AT);
    drop((attached, other));
    put_back(bench, Who::Two);
    refused(bench, Who::Two, AT);
}

/// Adding what is there, or nothing, or what would join two groups, moves nobody.
pub(crate) fn a_refused_add_moves_nobody(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let domain = domain_for(bench, Who::One);
    map(&domain, AT, &memory, Prot::RW);
    let attached = attach(bench, Who::One, &domain);
    let (one, two) = (bench.seat(Who::One), bench.seat(Who::Two));
    let new = iommu::device::DeviceId(0xf00d);
    let bridging = [one.endpoint, two.endpoint];
    let tries = [
        (DeviceInfo { id: one.device, endpoints: &[one.endpoint], with: None }, ProbeError::Exists),
        (DeviceInfo { id: new, endpoints: &[], with: None }, ProbeError::NoDevice),
        (DeviceInfo { id: new, endpoints: &bridging, with: None }, ProbeError::InvalidArg),
        (
            DeviceInfo { id: new, endpoints: &[two.endpoint], with: Some(one.device) },
            ProbeError::InvalidArg,
        ),
        (
            DeviceInfo { id: new, endpoints: &[one.endpoint], with: Some(new) },
            ProbeError::InvalidArg,
        ),
    ];
    let sent = cost_of(bench, Who::One, || {
        for (info, error) in &tries {
            let refused = bench.registry().add_device(bench.unit(Who::One), info).err();
            assert_eq!(refused, Some(*error), "{info:?}");
        }
    });
    assert_eq!(sent.notifies, 0);
    arrives(bench, Who::One, AT, &memory, 0);
    refused(bench, Who::Two, AT);
    drop(attached);
}

/// Both units at once: each group its own domain, the same address, its own memory.
pub(crate) fn the_same_address_at_two_units(bench: &dyn Bench) {
    let (one, two) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let (first, second) = (domain_for(bench, Who::One), domain_for(bench, Who::Other));
    map(&first, AT, &one, Prot::RW);
    map(&second, AT, &two, Prot::RW);
    let a = attach(bench, Who::One, &first);
    let b = attach(bench, Who::Other, &second);
    arrives(bench, Who::One, AT, &one, 0);
    arrives(bench, Who::Other, AT, &two, 0);
    unmap(&first, AT, 1);
    refused(bench, Who::One, AT);
    arrives(bench, Who::Other, AT, &two, 0);
    drop(b);
    refused(bench, Who::Other, AT);
    map(&first, AT, &one, Prot::RW);
    arrives(bench, Who::One, AT, &one, 0);
    drop(a);
}
