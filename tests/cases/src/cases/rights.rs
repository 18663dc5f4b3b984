//! Read and write, page by page, and the same memory with several rights.

use iommu::fault::Access;
use iommu::prot::Prot;

use crate::bench::{Bench, Outcome, Transfer, Who};
use crate::steps::*;

/// A device writes where it may only write.
pub(crate) fn write_only_lets_a_write_through(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        map(&domain, AT, &memory, Prot::WRITE);
        let attached = attach(bench, who, &domain);
        arrives(bench, who, AT, &memory, 0);
        arrives(bench, who, AT + PAGE - 4, &memory, PAGE - 4);
        refused(bench, who, AT + PAGE);
        drop(attached);
    }
}

/// Pages that touch, of one piece of memory, keep their own rights.
pub(crate) fn rights_of_neighbours_do_not_mix(bench: &dyn Bench) {
    let memory = Memory::new(bench, 3);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        for (page, prot) in [(0, Prot::WRITE), (1, Prot::READ), (2, Prot::RW)] {
            let at = page * PAGE;
            domain.map(range(AT + at, 1), memory.at(at), prot).expect("is free");
        }
        let attached = attach(bench, who, &domain);
        arrives(bench, who, AT + PAGE - 4, &memory, PAGE - 4);
        write_refused(bench, who, AT + PAGE);
        write_refused(bench, who, AT + 2 * PAGE - 4);
        arrives(bench, who, AT + 2 * PAGE, &memory, 2 * PAGE);
        drop(attached);
    }
}

/// The same memory at two places with different rights: the place decides.
pub(crate) fn two_views_with_different_rights(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        map(&domain, AT, &memory, Prot::READ);
        map(&domain, AT + 0x5000, &memory, Prot::RW);
        let attached = attach(bench, who, &domain);
        write_refused(bench, who, AT);
        arrives(bench, who, AT + 0x5000, &memory, 0);
        drop(attached);
    }
}

/// Mapped again with fewer rights, and with more.
pub(crate) fn a_new_mapping_has_its_own_rights(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        let attached = attach(bench, who, &domain);
        for _ in 0..2 {
            map(&domain, AT, &memory, Prot::RW);
            arrives(bench, who, AT, &memory, 0);
            unmap(&domain, AT, 1);
            map(&domain, AT, &memory, Prot::READ);
            write_refused(bench, who, AT);
            unmap(&domain, AT, 1);
        }
        drop(attached);
    }
}

/// Rights come along with a replay.
pub(crate) fn rights_survive_a_replay(bench: &dyn Bench) {
    let memory = Memory::new(bench, 2);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        domain.map(range(AT, 1), memory.phys(), Prot::READ).expect("is free");
        domain.map(range(AT + PAGE, 1), memory.at(PAGE), Prot::RW).expect("is free");
        for _ in 0..2 {
            let attached = attach(bench, who, &domain);
            write_refused(bench, who, AT);
            arrives(bench, who, AT + PAGE, &memory, PAGE);
            drop(attached);
        }
    }
}

/// Two groups on one domain have the same rights, on two domains each its own.
pub(crate) fn rights_are_the_domain_s(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let (weak, strong) = (domain_for(bench, Who::One), domain_for(bench, Who::One));
    map(&weak, AT, &memory, Prot::READ);
    map(&strong, AT, &memory, Prot::RW);
    let mut one = attach(bench, Who::One, &weak);
    let mut two = attach(bench, Who::Two, &strong);
    write_refused(bench, Who::One, AT);
    arrives(bench, Who::Two, AT, &memory, 0);
    one.replace(&strong).expect("fits");
    arrives(bench, Who::One, AT, &memory, 0);
    two.replace(&weak).expect("fits");
    write_refused(bench, Who::Two, AT);
    arrives(bench, Who::One, AT, &memory, 0);
    drop((one, two));
}

/// Attributes that a unit can't express do no harm.
pub(crate) fn attributes_are_no_hindrance(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        let attached = attach(bench, who, &domain);
        for extra in [Prot::CACHE, Prot::NOEXEC, Prot::CACHE | Prot::NOEXEC] {
            map(&domain, AT, &memory, Prot::RW | extra);
            arrives(bench, who, AT, &memory, 0);
            unmap(&domain, AT, 1);
            map(&domain, AT, &memory, Prot::READ | extra);
            write_refused(bench, who, AT);
            unmap(&domain, AT, 1);
        }
        drop(attached);
    }
}

/// C-082: a device that nobody attached reads nothing, whichever it is.
pub(crate) fn never_attached_reads_nothing(bench: &dyn Bench) {
    let (secret, landing) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let mut jobs = Who::GROUPS.map(|who| Transfer::new(who, AT, secret.phys(), None));
    let jobs = &mut jobs[..groups(bench).count()]; // the one that may be missing is the last
    bench.transfer(jobs, READ_LEN);
    for Transfer { who, read, .. } in jobs.iter() {
        assert!(read.is_refused_at(AT), "{who:?}: {read:?}");
    }
    let domain = domain_for(bench, Who::One);
    map(&domain, AT, &secret, Prot::READ);
    map(&domain, LANDING, &landing, Prot::WRITE);
    let attached = attach(bench, Who::One, &domain);
    reads(bench, Who::One, AT, &secret, &landing);
    drop(attached);
}

/// C-180: after unmap and after detach a device reads nothing.
pub(crate) fn reads_end_with_the_mapping(bench: &dyn Bench) {
    let (secret, landing) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let who = Who::One;
    let domain = domain_for(bench, who);
    map(&domain, AT, &secret, Prot::RW);
    map(&domain, LANDING, &landing, Prot::WRITE);
    let attached = attach(bench, who, &domain);
    reads(bench, who, AT, &secret, &landing);
    unmap(&domain, AT, 1);
    let mut jobs = [Transfer::new(who, AT, secret.phys(), Some((LANDING, landing.phys())))];
    bench.transfer(&mut jobs, READ_LEN);
    let [Transfer { read, write, .. }] = jobs;
    assert!(read.is_refused_at(AT), "{read:?}");
    assert_eq!(write, Outcome::Arrived, "zeros arrive, not the secret");
    map(&domain, AT, &secret, Prot::RW);
    drop(attached);
    read_refused(bench, who, AT, &secret);
}

/// The pages around a mapping are not read either.
pub(crate) fn reads_beside_a_mapping_are_refused(bench: &dyn Bench) {
    let (secret, landing) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let domain = domain_for(bench, Who::One);
    map(&domain, AT, &secret, Prot::READ);
    map(&domain, LANDING, &landing, Prot::WRITE);
    let attached = [Who::One, Who::Two, Who::Pair].map(|who| attach(bench, who, &domain));
    let to = Some((LANDING, landing.phys()));
    let mut jobs = [
        Transfer::new(Who::One, AT - PAGE, landing.at(PAGE / 2), None),
        Transfer::new(Who::Two, AT, secret.phys(), to),
        Transfer::new(Who::Pair, AT + PAGE, landing.at(PAGE / 4), None),
    ];
    bench.transfer(&mut jobs, READ_LEN);
    let [below, inside, above] = jobs;
    assert!(below.read.is_refused_at(AT - PAGE), "{:?}", below.read);
    assert_eq!((inside.read, inside.write), (Outcome::Arrived, Outcome::Arrived));
    assert!(above.read.is_refused_at(AT + PAGE), "{:?}", above.read);
    drop(attached);
}

/// Two groups read at the same address, each its own memory.
pub(crate) fn domains_keep_reads_apart(bench: &dyn Bench) {
    let (one, two) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let landing = Memory::new(bench, 2);
    let attached = [(Who::One, &one), (Who::Two, &two)].map(|(who, memory)| {
        let domain = domain_for(bench, who);
        map(&domain, AT, memory, Prot::READ);
        map(&domain, LANDING, &landing, Prot::WRITE);
        attach(bench, who, &domain)
    });
    let mut jobs = [
        Transfer::new(Who::One, AT, one.phys(), Some((LANDING, landing.phys()))),
        Transfer::new(Who::Two, AT, two.phys(), Some((LANDING + PAGE, landing.at(PAGE)))),
    ];
    bench.transfer(&mut jobs, READ_LEN);
    for Transfer { who, read, write, .. } in jobs {
        assert_eq!((read, write), (Outcome::Arrived, Outcome::Arrived), "{who:?}");
    }
    drop(attached);
}

/// After a replace a device reads the new memory, and the old one no more.
pub(crate) fn a_replace_changes_what_is_read(bench: &dyn Bench) {
    let (one, two) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let landing = Memory::new(bench, 1);
    let who = Who::One;
    let (old, new) = (domain_for(bench, who), domain_for(bench, who));
    for (domain, memory) in [(&old, &one), (&new, &two)] {
        map(domain, AT, memory, Prot::READ);
        map(domain, LANDING, &landing, Prot::WRITE);
    }
    map(&old, AT + PAGE, &one, Prot::READ);
    let mut attached = attach(bench, who, &old);
    reads(bench, who, AT + PAGE, &one, &landing);
    attached.replace(&new).expect("fits");
    reads(bench, who, AT, &two, &landing);
    read_refused(bench, who, AT + PAGE, &one);
    drop(attached);
}

/// C-158: a device reads what it may only read, and the refusals of both kinds name the access.
pub(crate) fn refusals_name_the_access(bench: &dyn Bench) {
    let (secret, landing) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let attached = [Who::One, Who::Other].map(|who| {
        bench.has(who).then(|| {
            let domain = domain_for(bench, who);
            map(&domain, AT, &secret, Prot::READ);
            map(&domain, LANDING, &landing, Prot::WRITE);
            attach(bench, who, &domain)
        })
    });
    for who in each_unit(bench) {
        write_refused(bench, who, AT);
        arrives(bench, who, LANDING, &landing, 0);
    }
    let from = landing.at(PAGE / 2);
    let mut jobs =
        [Who::One, Who::Other].map(|who| Transfer::new(who, LANDING + PAGE / 2, from, None));
    let jobs = &mut jobs[..each_unit(bench).count()]; // the one that may be missing is the last
    bench.transfer(jobs, READ_LEN);
    for Transfer { who, read, .. } in jobs.iter() {
        let named = read.is_refused_for(LANDING + PAGE / 2, Access::READ);
        assert!(named, "{who:?}: {read:?}");
    }
    reads(bench, Who::One, AT, &secret, &landing);
    drop(attached);
}
