//! What a group can be besides attached to a domain of its owner: on the identity domain, in the
//! hands of kernel drivers; and the other ways to map, unmap and hear of faults.

use core::sync::atomic::{AtomicU64, Ordering};

use iommu::addr::Iova;
use iommu::domain::{Chunk, DomainOptions, PagingDomain};
use iommu::error::MapError;
use iommu::fault::{Fault, FaultHandler, Handled};
use iommu::group::{Group, OwnerId};
use iommu::prot::Prot;

use crate::bench::{Bench, Who};
use crate::steps::*;

/// C-015: on the identity domain a device reaches memory at its physical address, and none of it
/// after the detach.
pub(crate) fn identity_until_the_detach(bench: &dyn Bench) {
    let memory = Memory::new(bench, 2);
    let place = memory.phys().0;
    for who in kinds(bench) {
        refused(bench, who, place);
        let attached = claim(bench, who).attach_identity().expect("attaches");
        arrives(bench, who, place, &memory, 0);
        arrives(bench, who, place + 2 * PAGE - 4, &memory, 2 * PAGE - 4);
        let ownership = attached.detach();
        refused(bench, who, place);
        drop(ownership.attach_identity().expect("attaches"));
        refused(bench, who, place);
    }
}

/// One group on the identity domain opens nothing for the others, blocked or translated.
pub(crate) fn identity_is_one_group_s(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let place = memory.phys().0;
    let domain = domain_for(bench, Who::Pair);
    map(&domain, AT, &memory, Prot::RW);
    let translated = attach(bench, Who::Pair, &domain);
    let attached = claim(bench, Who::One).attach_identity().expect("attaches");
    arrives(bench, Who::One, place, &memory, 0);
    refused(bench, Who::Two, place);
    refused(bench, Who::Twin, place);
    arrives(bench, Who::Twin, AT, &memory, 0);
    drop((attached, translated));
    refused(bench, Who::One, place);
}

/// C-130: straight from the identity domain to a paging domain: all but its mappings is out of reach.
pub(crate) fn from_identity_to_a_paging_domain(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let place = memory.phys().0;
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        map(&domain, AT, &memory, Prot::RW);
        let attached = claim(bench, who).attach_identity().expect("attaches");
        arrives(bench, who, place, &memory, 0);
        let attached = attached.replace(&domain).expect("fits");
        refused(bench, who, place);
        arrives(bench, who, AT, &memory, 0);
        drop(attached);
        refused(bench, who, AT);
    }
}

/// C-181: after the sync of deferred unmaps nothing of them is reached, and all the rest is.
pub(crate) fn deferred_unmaps_end_with_the_sync(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        for page in 0..4 {
            map(&domain, AT + page * PAGE, &memory, Prot::RW);
        }
        let attached = attach(bench, who, &domain);
        let mut unmaps = domain.defer_unmaps();
        for page in 0..3 {
            arrives(bench, who, AT + page * PAGE, &memory, 0);
            assert_eq!(unmaps.unmap(range(AT + page * PAGE, 1)), Ok(PAGE));
        }
        assert_eq!(unmaps.sync(), Ok(3 * PAGE));
        for page in 0..3 {
            refused(bench, who, AT + page * PAGE);
        }
        arrives(bench, who, AT + 3 * PAGE, &memory, 0);
        drop(attached);
    }
}

/// D-23: dropping the value synchronises; and a place is used again only after that.
pub(crate) fn deferred_unmaps_end_with_the_value(bench: &dyn Bench) {
    let (old, new) = (Memory::new(bench, 1), Memory::new(bench, 1));
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        let attached = attach(bench, who, &domain);
        map(&domain, AT, &old, Prot::RW);
        arrives(bench, who, AT, &old, 0);
        let mut unmaps = domain.defer_unmaps();
        unmaps.unmap(range(AT, 1)).expect("unmaps");
        map(&domain, AT, &new, Prot::RW);
        arrives(bench, who, AT, &new, 0);
        unmaps.unmap(range(AT, 1)).expect("unmaps");
        drop(unmaps);
        refused(bench, who, AT);
        drop(attached);
    }
}

/// C-138 to C-141: a kernel driver's group reaches what the driver mapped, until the last driver
/// has gone; nobody can claim it meanwhile.
pub(crate) fn the_default_domain(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let used = Group::use_default(&bench.group(who)).expect("it is free");
        refused(bench, who, AT);
        map(used.domain(), AT, &memory, Prot::RW);
        arrives(bench, who, AT, &memory, 0);
        assert!(Group::claim(&bench.group(who), OwnerId(2)).is_err());
        let again = Group::use_default(&bench.group(who)).expect("it may have several users");
        drop(used);
        arrives(bench, who, AT, &memory, 0);
        drop(again);
        refused(bench, who, AT);
        drop(claim(bench, who));
    }
}

/// A group that has an owner is nothing for kernel drivers, and stays where it is.
pub(crate) fn the_default_domain_of_an_owned_group(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        map(&domain, AT, &memory, Prot::RW);
        let attached = attach(bench, who, &domain);
        assert!(Group::use_default(&bench.group(who)).is_err());
        arrives(bench, who, AT, &memory, 0);
        refused(bench, who, AT + PAGE);
        drop(attached);
    }
}

/// C-173: a scatter list is mapped without a hole, each chunk to its own memory.
pub(crate) fn chunks_follow_one_another(bench: &dyn Bench) {
    let (one, two) = (Memory::new(bench, 2), Memory::new(bench, 1));
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        let attached = attach(bench, who, &domain);
        let chunks = [
            Chunk { phys: two.phys(), len: PAGE },
            Chunk { phys: one.phys(), len: PAGE },
            Chunk { phys: one.at(PAGE), len: PAGE },
        ];
        let sent = cost_of(bench, who, || {
            assert_eq!(domain.map_chunks(Iova(AT), &chunks, Prot::RW), Ok(range(AT, 3)));
        });
        assert!((2..=3).contains(&sent.map), "{} requests", sent.map);
        arrives(bench, who, AT + 4, &two, 4);
        arrives(bench, who, AT + PAGE, &one, 0);
        arrives(bench, who, AT + 3 * PAGE - 4, &one, 2 * PAGE - 4);
        refused(bench, who, AT + 3 * PAGE);
        unmap(&domain, AT, 3);
        for page in 0..3 {
            refused(bench, who, AT + page * PAGE);
        }
        drop(attached);
    }
}

/// C-174: nothing of a scatter list that can't be mapped as a whole.
pub(crate) fn after_a_failed_map_of_chunks(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        let attached = attach(bench, who, &domain);
        map(&domain, AT + 2 * PAGE, &memory, Prot::RW);
        let chunk = Chunk { phys: memory.phys(), len: PAGE };
        let tries = [
            ([chunk; 3], MapError::Exists),
            ([chunk, chunk, Chunk { len: PAGE / 2, ..chunk }], MapError::InvalidArg),
        ];
        for (chunks, error) in tries {
            assert_eq!(domain.map_chunks(Iova(AT), &chunks, Prot::RW), Err(error));
            refused(bench, who, AT);
            refused(bench, who, AT + PAGE);
            arrives(bench, who, AT + 2 * PAGE, &memory, 0);
        }
        domain.map_chunks(Iova(AT), &[chunk; 2], Prot::RW).expect("both are free");
        arrives(bench, who, AT, &memory, 0);
        arrives(bench, who, AT + PAGE, &memory, 0);
        drop(attached);
    }
}

/// D-28: nothing is mapped in a reserved region of a group that is attached.
pub(crate) fn a_region_is_refused_while_attached(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let regions = bench.group(who).reserved();
        let window = regions.as_slice().first().expect("there is an MSI window").range;
        let domain = domain_for(bench, who);
        let attached = attach(bench, who, &domain);
        let sent = cost_of(bench, who, || {
            let place = range(window.first().0, 1);
            assert_eq!(domain.map(place, memory.phys(), Prot::RW), Err(MapError::AddrInUse));
        });
        assert_eq!((sent.notifies, domain.mapping_count()), (0, 0));
        refused(bench, who, window.first().0 - PAGE);
        map(&domain, window.first().0 - PAGE, &memory, Prot::RW);
        arrives(bench, who, window.first().0 - PAGE, &memory, 0);
        drop(attached);
    }
}

/// Adds up the addresses of the faults that it is told of.
struct Sum(AtomicU64);

impl FaultHandler for Sum {
    fn fault(&self, fault: &Fault) -> Handled {
        let address = fault.record.address.map_or(0, |address| address.0);
        self.0.fetch_add(address, Ordering::Relaxed);
        Handled::Yes
    }
}

/// C-201: the handler of a domain is told of the refusals of its devices, and of no others.
pub(crate) fn the_handler_of_the_domain_is_told(bench: &dyn Bench) {
    static MINE: Sum = Sum(AtomicU64::new(0));
    let memory = Memory::new(bench, 1);
    for who in [Who::One, Who::Pair] {
        let pool = bench.registry().pool();
        let options = DomainOptions { fault_handler: Some(&MINE), ..DomainOptions::default() };
        let domain = PagingDomain::with_options(bench.unit(who), pool, &options);
        let domain = domain.expect("the unit has a domain left");
        let attached = attach(bench, who, &domain);
        let before = MINE.0.load(Ordering::Relaxed);
        bench.touch(who, AT);
        bench.touch(Who::Two, AT + PAGE);
        let mut unhandled = 0;
        bench.registry().deliver_faults(bench.unit(who), |fault| {
            assert_eq!(fault.record.address, Some(Iova(AT + PAGE)));
            unhandled += 1;
        });
        assert!(unhandled > 0, "nobody was there for the other device's");
        let told = MINE.0.load(Ordering::Relaxed) - before;
        assert!(told > 0 && told.is_multiple_of(AT), "told of {told:#x} in sum");
        map(&domain, AT, &memory, Prot::RW);
        arrives(bench, who, AT, &memory, 0);
        drop(attached);
    }
}
