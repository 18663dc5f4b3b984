//! Who shares a domain with whom, and what moves cost.

use iommu::error::ClaimError;
use iommu::group::{Group, OwnerId};
use iommu::prot::Prot;

use super::{AT, PAGE, arrives, buffer, domain_for, map, range, refused, refused_from};
use crate::machine::POOL;
use crate::world::{World, place};

/// T1-632: a second group of the same unit costs one ATTACH and nothing else.
pub fn a_second_group_shares_the_domain(world: &World) {
    let memory = buffer(1);
    let domain = domain_for(world, place::ROOT);
    map(&domain, AT, &memory, Prot::RW);
    let first = world.claim(place::ROOT).attach(&domain).expect("attaches");
    let mut second = None;
    let sent = world.sent(place::ROOT_2, || {
        second = world.claim(place::ROOT_2).attach(&domain).ok();
    });
    assert_eq!((sent.attach, sent.map, sent.detach, sent.notifies), (1, 0, 0, 1));
    arrives(world, place::ROOT, AT, &memory, 0);
    arrives(world, place::ROOT_2, AT, &memory, 0);
    // One unmap ends it for both.
    domain.unmap(range(AT, 1)).expect("unmaps");
    refused_from(world, place::ROOT, AT, &memory);
    refused_from(world, place::ROOT_2, AT, &memory);
    drop((first, second));
}

/// C-046: two devices behind the bridge are one group, attached by one request.
pub fn devices_that_share_an_id_move_together(world: &World) {
    let memory = buffer(1);
    let domain = domain_for(world, place::BRIDGE);
    map(&domain, AT, &memory, Prot::RW);
    let mut attached = None;
    let sent = world.sent(place::BRIDGE, || {
        attached = world.claim(place::BRIDGE).attach(&domain).ok();
    });
    assert_eq!((sent.attach, sent.map), (1, 1));
    for index in [place::BRIDGE, place::BRIDGE_2] {
        arrives(world, index, AT, &memory, 0);
    }
    drop(attached);
    for index in [place::BRIDGE, place::BRIDGE_2] {
        refused_from(world, index, AT, &memory);
    }
}

/// C-142: an owned group can't be claimed again, also through its other member.
pub fn one_owner_at_a_time(world: &World) {
    let ownership = world.claim(place::BRIDGE);
    let twin = world.devices.get(place::BRIDGE_2).expect("the machine has it");
    assert_eq!(Group::claim(&twin.group, OwnerId(2)).err(), Some(ClaimError::NotPermitted));
    drop(ownership);
    drop(world.claim(place::BRIDGE_2));
}

/// C-130: replace goes straight to the new domain; the old one's mappings reach no more.
pub fn replace_switches_domains(world: &World) {
    let (old_memory, new_memory) = (buffer(1), buffer(1));
    for index in [place::ROOT, place::BRIDGE, place::OTHER] {
        let (old, new) = (domain_for(world, index), domain_for(world, index));
        map(&old, AT, &old_memory, Prot::RW);
        map(&new, AT, &new_memory, Prot::RW);
        map(&old, AT + PAGE, &old_memory, Prot::RW);
        let mut attached = world.claim(index).attach(&old).expect("attaches");
        arrives(world, index, AT, &old_memory, 0);
        let sent = world.sent(index, || assert!(attached.replace(&new).is_ok()));
        assert_eq!((sent.attach, sent.detach, sent.map), (1, 0, 1));
        arrives(world, index, AT, &new_memory, 0);
        refused_from(world, index, AT + PAGE, &old_memory);
        let sent = world.sent(index, || assert!(attached.replace(&new).is_ok()));
        assert_eq!(sent.notifies, 0, "C-101: it is there already");
        arrives(world, index, AT, &new_memory, 0);
        drop(attached);
    }
}

/// Domains keep groups apart: the same address leads to each one's own memory.
pub fn domains_keep_groups_apart(world: &World) {
    let (one, two) = (buffer(1), buffer(1));
    let (first, second) = (domain_for(world, place::ROOT), domain_for(world, place::ROOT_2));
    map(&first, AT, &one, Prot::RW);
    map(&second, AT, &two, Prot::RW);
    map(&first, AT + PAGE, &one, Prot::RW);
    let a = world.claim(place::ROOT).attach(&first).expect("attaches");
    let b = world.claim(place::ROOT_2).attach(&second).expect("attaches");
    one.fill(0x11);
    arrives(world, place::ROOT_2, AT, &two, 0);
    assert!(one.is_filled(0x11), "the other group's memory was written");
    arrives(world, place::ROOT, AT, &one, 0);
    refused_from(world, place::ROOT_2, AT + PAGE, &one);
    drop((a, b));
}

/// Domain ids of two units are independent although they are equal numbers.
pub fn units_keep_domains_apart(world: &World) {
    let (one, two) = (buffer(1), buffer(1));
    let [firsts, seconds]: [[_; 8]; 2] =
        [place::ROOT, place::OTHER].map(|index| core::array::from_fn(|_| domain_for(world, index)));
    let mut pairs = firsts.iter().flat_map(|one| seconds.iter().map(move |two| (one, two)));
    let (first, second) = pairs.find(|(one, two)| one.id() == two.id()).expect("ids are small");
    map(first, AT, &one, Prot::RW);
    map(second, AT + PAGE, &two, Prot::RW);
    let a = world.claim(place::ROOT).attach(first).expect("attaches");
    let b = world.claim(place::OTHER).attach(second).expect("attaches");
    arrives(world, place::ROOT, AT, &one, 0);
    arrives(world, place::OTHER, AT + PAGE, &two, 0);
    refused_from(world, place::ROOT, AT + PAGE, &two);
    refused_from(world, place::OTHER, AT, &one);
    drop((a, b));
}

/// C-259: one of two groups leaves, the domain and its mappings stay for the other.
pub fn a_group_leaves_a_shared_domain(world: &World) {
    let memory = buffer(1);
    let domain = domain_for(world, place::ROOT);
    map(&domain, AT, &memory, Prot::RW);
    let first = world.claim(place::ROOT).attach(&domain).expect("attaches");
    let second = world.claim(place::BRIDGE).attach(&domain).expect("attaches");
    drop(first);
    refused_from(world, place::ROOT, AT, &memory);
    arrives(world, place::BRIDGE, AT, &memory, 0);
    // It comes back to a domain that lives in the device: no replay.
    let sent = world.sent(place::ROOT, || {
        drop(world.claim(place::ROOT).attach(&domain).expect("attaches"));
    });
    assert_eq!((sent.attach, sent.map), (2, 0));
    drop(second);
}

/// C-260: the last group leaves and one comes back: everything is replayed.
pub fn an_empty_domain_is_filled_again(world: &World) {
    let memory = buffer(1);
    let index = place::OTHER;
    let domain = domain_for(world, index);
    let pages: u64 = 1000;
    for n in 0..pages {
        domain.map(range(AT + n * 2 * PAGE, 1), memory.phys(), Prot::RW).expect("is free");
    }
    for _ in 0..2 {
        let mut attached = None;
        let sent = world.sent(index, || attached = world.claim(index).attach(&domain).ok());
        assert_eq!((sent.attach, sent.map), (1, pages));
        assert!(sent.notifies <= 1 + pages.div_ceil(128), "{} notifies", sent.notifies);
        arrives(world, index, AT, &memory, 0);
        arrives(world, index, AT + (pages - 1) * 2 * PAGE, &memory, 0);
        refused(world, index, AT + PAGE);
        drop(attached);
        refused_from(world, index, AT, &memory);
    }
}

/// Attach, map, unmap and detach many times: nothing is left behind.
pub fn nothing_piles_up(world: &World) {
    let memory = buffer(1);
    let before = POOL.usage();
    for round in 0..50_u64 {
        let domain = domain_for(world, place::ROOT);
        map(&domain, AT + round * PAGE, &memory, Prot::RW);
        let a = world.claim(place::ROOT).attach(&domain).expect("attaches");
        let b = world.claim(place::BRIDGE).attach(&domain).expect("attaches");
        arrives(world, place::BRIDGE_2, AT + round * PAGE, &memory, 0);
        drop((a, b));
    }
    assert_eq!(POOL.usage(), before);
    refused_from(world, place::ROOT, AT, &memory);
}
