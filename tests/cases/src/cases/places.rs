//! Where mappings may be and where they lead: edges of the aperture, many pages, many places.

use iommu::addr::{Iova, IovaRange};
use iommu::error::MapError;
use iommu::prot::Prot;

use crate::bench::{Bench, Outcome, Transfer, Who};
use crate::steps::*;

/// Address 0 is an ordinary address, where the aperture begins there (rule D-20).
pub(crate) fn the_first_page_of_the_aperture(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in each_unit(bench) {
        let domain = domain_for(bench, who);
        let first = domain.geometry().aperture.first().0;
        map(&domain, first, &memory, Prot::RW);
        let attached = attach(bench, who, &domain);
        arrives(bench, who, first, &memory, 0);
        arrives(bench, who, first + PAGE - 4, &memory, PAGE - 4);
        refused(bench, who, first + PAGE);
        unmap(&domain, first, 1);
        refused(bench, who, first);
        drop(attached);
    }
}

/// C-163: nothing can be mapped beyond the end of the aperture, or over it, and nothing is reached
/// there. A unit whose addresses have all 64 bits has no beyond.
pub(crate) fn beyond_the_aperture(bench: &dyn Bench) {
    let memory = Memory::new(bench, 2);
    for who in each_unit(bench) {
        let domain = domain_for(bench, who);
        let last = domain.geometry().aperture.last();
        let top = last.0 - (PAGE - 1);
        let attached = attach(bench, who, &domain);
        if let Some(beyond) = last.checked_add(1) {
            let tries = [range(beyond.0, 1), range(top, 2)];
            let sent = cost_of(bench, who, || {
                for place in tries {
                    let refused = domain.map(place, memory.phys(), Prot::RW);
                    assert_eq!(refused, Err(MapError::Range));
                }
            });
            assert_eq!(sent.notifies, 0);
            refused(bench, who, beyond.0);
            refused(bench, who, top);
        } else {
            assert_eq!(IovaRange::from_len(Iova(top), 2 * PAGE), None, "such a range wraps");
        }
        domain.map(range(top, 1), memory.phys(), Prot::RW).expect("it is inside");
        arrives(bench, who, top, &memory, 0);
        drop(attached);
    }
}

/// Addresses above 4 GiB, where the aperture has them, are not cut to 32 bits.
pub(crate) fn above_four_gibibytes(bench: &dyn Bench) {
    let (low, high) = (Memory::new(bench, 1), Memory::new(bench, 1));
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        let attached = attach(bench, who, &domain);
        let above = AT + (1 << 32);
        if domain.geometry().aperture.contains(Iova(above)) {
            map(&domain, above, &high, Prot::RW);
            refused(bench, who, AT);
            arrives(bench, who, above, &high, 0);
            map(&domain, AT, &low, Prot::RW);
            arrives(bench, who, AT, &low, 0);
            unmap(&domain, above, 1);
            refused(bench, who, above);
            arrives(bench, who, AT, &low, 0);
        } else {
            let refused = domain.map(range(above, 1), high.phys(), Prot::RW);
            assert_eq!(refused, Err(MapError::Range));
        }
        drop(attached);
    }
}

/// One mapping of many pages leads each of them to its own place.
pub(crate) fn every_page_of_a_mapping(bench: &dyn Bench) {
    let memory = Memory::new(bench, 16);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        map(&domain, AT, &memory, Prot::RW);
        let attached = attach(bench, who, &domain);
        for page in 0..16 {
            let at = page * PAGE + page * 4;
            arrives(bench, who, AT + at, &memory, at);
        }
        unmap(&domain, AT, 16);
        for page in 0..16 {
            refused(bench, who, AT + page * PAGE);
        }
        drop(attached);
    }
}

/// The words of one page, in both halves and at both ends.
pub(crate) fn words_of_one_page(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let domain = domain_for(bench, Who::One);
    map(&domain, AT, &memory, Prot::RW);
    let attached = attach(bench, Who::One, &domain);
    for word in (0..PAGE).step_by(64) {
        arrives(bench, Who::One, AT + word, &memory, word);
    }
    arrives(bench, Who::One, AT + PAGE - 4, &memory, PAGE - 4);
    unmap(&domain, AT, 1);
    refused(bench, Who::One, AT + PAGE / 2);
    drop(attached);
}

/// A write that begins at the last byte of a mapping: that byte arrives, and no other.
pub(crate) fn the_last_byte_of_a_mapping(bench: &dyn Bench) {
    let (source, target) = (Memory::new(bench, 1), Memory::new(bench, 2));
    let last = PAGE - 1;
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        map(&domain, AT + 8 * PAGE, &source, Prot::READ);
        domain.map(range(AT, 1), target.phys(), Prot::RW).expect("is free");
        let attached = attach(bench, who, &domain);
        let to = Some((AT + last, target.at(last)));
        let mut jobs = [Transfer::new(who, AT + 8 * PAGE, source.phys(), to)];
        bench.transfer(&mut jobs, READ_LEN);
        let [Transfer { read, write, written, .. }] = jobs;
        assert_eq!((read, written), (Outcome::Arrived, 1));
        assert!(write.is_refused_at(AT + PAGE), "{who:?}: {write:?}");
        drop(attached);
    }
}

/// Pages in an order of their own: each leads where it was told to.
pub(crate) fn pages_in_reverse_order(bench: &dyn Bench) {
    const PAGES: u64 = 8;
    let memory = Memory::new(bench, PAGES);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        for page in 0..PAGES {
            let phys = memory.at((PAGES - 1 - page) * PAGE);
            domain.map(range(AT + page * PAGE, 1), phys, Prot::RW).expect("is free");
        }
        let attached = attach(bench, who, &domain);
        for page in 0..PAGES {
            arrives(bench, who, AT + page * PAGE, &memory, (PAGES - 1 - page) * PAGE);
        }
        refused(bench, who, AT + PAGES * PAGE);
        drop(attached);
    }
}

/// One page at many places; every other place is unmapped.
pub(crate) fn one_page_at_many_places(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let domain = domain_for(bench, Who::Pair);
    for place in 0..32 {
        map(&domain, AT + place * PAGE, &memory, Prot::RW);
    }
    let attached = attach(bench, Who::Pair, &domain);
    for place in 0..32 {
        arrives(bench, Who::Pair, AT + place * PAGE, &memory, 0);
    }
    for place in (0..32).step_by(2) {
        unmap(&domain, AT + place * PAGE, 1);
    }
    for place in (0..32).step_by(2) {
        refused(bench, Who::Twin, AT + place * PAGE);
        arrives(bench, Who::Twin, AT + (place + 1) * PAGE, &memory, 0);
    }
    drop(attached);
}

/// The record and the unit agree about where an address leads.
pub(crate) fn the_record_agrees_with_the_unit(bench: &dyn Bench) {
    let memory = Memory::new(bench, 3);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        map(&domain, AT, &memory, Prot::RW);
        let attached = attach(bench, who, &domain);
        for at in [0, PAGE + 8, 3 * PAGE - 4] {
            assert_eq!(domain.iova_to_phys(Iova(AT + at)), Some(memory.at(at)));
            arrives(bench, who, AT + at, &memory, at);
        }
        for at in [AT - PAGE, AT + 3 * PAGE] {
            assert_eq!(domain.iova_to_phys(Iova(at)), None);
            refused(bench, who, at);
        }
        drop(attached);
    }
}
