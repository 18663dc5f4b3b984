//! Who shares a domain with whom, and what moves cost.

use iommu::error::ClaimError;
use iommu::group::{Group, OwnerId};
use iommu::prot::Prot;

use crate::bench::{Bench, Who};
use crate::steps::*;

/// T1-632: a second group of the same unit costs one ATTACH and nothing else.
pub(crate) fn a_second_group_shares_the_domain(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let domain = domain_for(bench, Who::One);
    map(&domain, AT, &memory, Prot::RW);
    let first = attach(bench, Who::One, &domain);
    let mut second = None;
    let sent = cost_of(bench, Who::Two, || {
        second = claim(bench, Who::Two).attach(&domain).ok();
    });
    assert_eq!((sent.attach, sent.map, sent.detach, sent.notifies), (1, 0, 0, 1));
    arrives(bench, Who::One, AT, &memory, 0);
    arrives(bench, Who::Two, AT, &memory, 0);
    // One unmap ends it for both.
    domain.unmap(range(AT, 1)).expect("unmaps");
    refused(bench, Who::One, AT);
    refused(bench, Who::Two, AT);
    drop((first, second));
}

/// C-046: two devices behind the bridge are one group, attached by one request.
pub(crate) fn devices_that_share_an_id_move_together(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let domain = domain_for(bench, Who::Pair);
    map(&domain, AT, &memory, Prot::RW);
    let mut attached = None;
    let sent = cost_of(bench, Who::Pair, || {
        attached = claim(bench, Who::Pair).attach(&domain).ok();
    });
    assert_eq!((sent.attach, sent.map), (1, 1));
    for who in [Who::Pair, Who::Twin] {
        arrives(bench, who, AT, &memory, 0);
    }
    drop(attached);
    for who in [Who::Pair, Who::Twin] {
        refused(bench, who, AT);
    }
}

/// C-142: an owned group can't be claimed again, also through its other member.
pub(crate) fn one_owner_at_a_time(bench: &dyn Bench) {
    let ownership = claim(bench, Who::Pair);
    let twins = bench.group(Who::Twin);
    assert_eq!(Group::claim(&twins, OwnerId(2)).err(), Some(ClaimError::NotPermitted));
    drop(ownership);
    drop(claim(bench, Who::Twin));
}

/// C-130: replace goes straight to the new domain; the old one's mappings reach no more.
pub(crate) fn replace_switches_domains(bench: &dyn Bench) {
    let (old_memory, new_memory) = (Memory::new(bench, 1), Memory::new(bench, 1));
    for who in kinds(bench) {
        let (old, new) = (domain_for(bench, who), domain_for(bench, who));
        map(&old, AT, &old_memory, Prot::RW);
        map(&new, AT, &new_memory, Prot::RW);
        map(&old, AT + PAGE, &old_memory, Prot::RW);
        let mut attached = attach(bench, who, &old);
        arrives(bench, who, AT, &old_memory, 0);
        let sent = cost_of(bench, who, || assert!(attached.replace(&new).is_ok()));
        assert_eq!((sent.attach, sent.detach, sent.map), (1, 0, 1));
        arrives(bench, who, AT, &new_memory, 0);
        refused(bench, who, AT + PAGE);
        let sent = cost_of(bench, who, || assert!(attached.replace(&new).is_ok()));
        assert_eq!(sent.notifies, 0, "C-101: it is there already");
        arrives(bench, who, AT, &new_memory, 0);
        drop(attached);
    }
}

/// Domains keep groups apart: the same address leads to each one's own memory.
pub(crate) fn domains_keep_groups_apart(bench: &dyn Bench) {
    let (one, two) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let (first, second) = (domain_for(bench, Who::One), domain_for(bench, Who::Two));
    map(&first, AT, &one, Prot::RW);
    map(&second, AT, &two, Prot::RW);
    map(&first, AT + PAGE, &one, Prot::RW);
    let a = attach(bench, Who::One, &first);
    let b = attach(bench, Who::Two, &second);
    arrives(bench, Who::Two, AT, &two, 0);
    arrives(bench, Who::One, AT, &one, 0);
    refused(bench, Who::Two, AT + PAGE);
    drop((a, b));
}

/// Domain ids of two units are independent although they are equal numbers.
pub(crate) fn units_keep_domains_apart(bench: &dyn Bench) {
    let (one, two) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let [firsts, seconds]: [[_; 8]; 2] =
        [Who::One, Who::Other].map(|who| core::array::from_fn(|_| domain_for(bench, who)));
    let mut pairs = firsts.iter().flat_map(|one| seconds.iter().map(move |two| (one, two)));
    let (first, second) = pairs.find(|(one, two)| one.id() == two.id()).expect("ids are small");
    map(first, AT, &one, Prot::RW);
    map(second, AT + PAGE, &two, Prot::RW);
    let a = attach(bench, Who::One, first);
    let b = attach(bench, Who::Other, second);
    arrives(bench, Who::One, AT, &one, 0);
    arrives(bench, Who::Other, AT + PAGE, &two, 0);
    refused(bench, Who::One, AT + PAGE);
    refused(bench, Who::Other, AT);
    drop((a, b));
}

/// C-259: one of two groups leaves, the domain and its mappings stay for the other.
pub(crate) fn a_group_leaves_a_shared_domain(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let domain = domain_for(bench, Who::One);
    map(&domain, AT, &memory, Prot::RW);
    let first = attach(bench, Who::One, &domain);
    let second = attach(bench, Who::Pair, &domain);
    drop(first);
    refused(bench, Who::One, AT);
    arrives(bench, Who::Pair, AT, &memory, 0);
    // It comes back to a domain that lives in the device: no replay.
    let sent = cost_of(bench, Who::One, || {
        drop(attach(bench, Who::One, &domain));
    });
    assert_eq!((sent.attach, sent.map), (2, 0));
    drop(second);
}

/// C-260: the last group leaves and one comes back: everything is replayed.
pub(crate) fn an_empty_domain_is_filled_again(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in each_unit(bench) {
        let domain = domain_for(bench, who);
        let pages: u64 = 1000;
        for n in 0..pages {
            map(&domain, AT + n * 2 * PAGE, &memory, Prot::RW);
        }
        for _ in 0..2 {
            let mut attached = None;
            let sent = cost_of(bench, who, || attached = claim(bench, who).attach(&domain).ok());
            assert_eq!((sent.attach, sent.map), (1, pages));
            assert!(sent.notifies <= 1 + pages.div_ceil(128), "{} notifies", sent.notifies);
            arrives(bench, who, AT, &memory, 0);
            arrives(bench, who, AT + (pages - 1) * 2 * PAGE, &memory, 0);
            refused(bench, who, AT + PAGE);
            drop(attached);
            refused(bench, who, AT);
        }
    }
}

/// Attach, map, unmap and detach many times: nothing is left behind.
pub(crate) fn nothing_piles_up(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let before = bench.registry().pool().usage();
    for round in 0..50_u64 {
        let domain = domain_for(bench, Who::One);
        map(&domain, AT + round * PAGE, &memory, Prot::RW);
        let a = attach(bench, Who::One, &domain);
        let b = attach(bench, Who::Pair, &domain);
        arrives(bench, Who::Twin, AT + round * PAGE, &memory, 0);
        drop((a, b));
    }
    assert_eq!(bench.registry().pool().usage(), before);
    refused(bench, Who::One, AT);
}

/// Domain ids are used again, each by one domain at a time.
pub(crate) fn domain_ids_are_reused_safely(bench: &dyn Bench) {
    let one = domain_for(bench, Who::One);
    let two = domain_for(bench, Who::One);
    assert_ne!(one.id(), two.id());
    let id = one.id();
    drop(one);
    let three = domain_for(bench, Who::One);
    assert_eq!(three.id(), id);
    assert_ne!(three.id(), two.id());
}
