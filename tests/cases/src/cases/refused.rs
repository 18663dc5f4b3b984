//! Accesses beside what is mapped, and after it is mapped no more. Each is refused before and
//! after the one moment in which it is allowed.

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::domain::PagingDomain;
use iommu::driver::{Health, Run};
use iommu::error::{AttachError, MapError};
use iommu::group::{Group, OwnerId};
use iommu::prot::Prot;

use crate::bench::{Bench, Outcome, Transfer, Who};
use crate::steps::*;

/// Refused, mapped, arrives, unmapped, refused.
fn only_while_mapped(bench: &dyn Bench, who: Who, domain: &PagingDomain, iova: u64) {
    let memory = Memory::new(bench, 1);
    refused(bench, who, iova);
    map(domain, iova, &memory, Prot::RW);
    arrives(bench, who, iova, &memory, 0);
    unmap(domain, iova, 1);
    refused(bench, who, iova);
}

/// A mapping far away opens nothing here.
pub(crate) fn attached_but_not_mapped_there(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        map(&domain, AT + 0x2000_0000, &memory, Prot::RW);
        let attached = attach(bench, who, &domain);
        only_while_mapped(bench, who, &domain, AT);
        arrives(bench, who, AT + 0x2000_0000, &memory, 0);
        drop(attached);
    }
}

/// A whole granule below a mapping: the byte right below is no good test (rule C-279).
pub(crate) fn one_page_below(bench: &dyn Bench) {
    let memory = Memory::new(bench, 2);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        map(&domain, AT, &memory, Prot::RW);
        let attached = attach(bench, who, &domain);
        only_while_mapped(bench, who, &domain, AT - PAGE);
        arrives(bench, who, AT, &memory, 0);
        drop(attached);
    }
}

/// The page above a mapping.
pub(crate) fn one_page_above(bench: &dyn Bench) {
    let memory = Memory::new(bench, 2);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        map(&domain, AT, &memory, Prot::RW);
        let attached = attach(bench, who, &domain);
        only_while_mapped(bench, who, &domain, AT + 2 * PAGE);
        arrives(bench, who, AT + PAGE, &memory, PAGE);
        drop(attached);
    }
}

/// The page between two mappings.
pub(crate) fn in_a_hole(bench: &dyn Bench) {
    let (below, above) = (Memory::new(bench, 1), Memory::new(bench, 1));
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        map(&domain, AT - PAGE, &below, Prot::RW);
        map(&domain, AT + PAGE, &above, Prot::RW);
        let attached = attach(bench, who, &domain);
        only_while_mapped(bench, who, &domain, AT);
        arrives(bench, who, AT - 4, &below, PAGE - 4);
        arrives(bench, who, AT + PAGE, &above, 0);
        drop(attached);
    }
}

/// One transfer over the end of a mapping: it is done up to the end, and refused from there on.
pub(crate) fn across_the_end_of_a_mapping(bench: &dyn Bench) {
    const TO: u64 = AT + 0x10_0000;
    const UNITS: [Who; 2] = [Who::One, Who::Other];
    let source = Memory::new(bench, 1);
    let targets = UNITS.map(|_| Memory::new(bench, 2));
    let domains: [_; 2] = core::array::from_fn(|index| {
        bench.has(UNITS[index]).then(|| {
            let domain = domain_for(bench, UNITS[index]);
            map(&domain, AT, &source, Prot::READ);
            domain.map(range(TO, 1), targets[index].phys(), Prot::RW).expect("is free");
            let attached = attach(bench, UNITS[index], &domain);
            (domain, attached)
        })
    });
    let over_the_end = |check: &dyn Fn(Outcome, usize)| {
        let mut jobs: [_; 2] = core::array::from_fn(|index| {
            let to = (TO + PAGE - 32, targets[index].at(PAGE - 32));
            Transfer::new(UNITS[index], AT, source.phys(), Some(to))
        });
        let jobs = &mut jobs[..each_unit(bench).count()]; // the one that may be missing is the last
        bench.transfer(jobs, 64);
        for Transfer { who, read, write, written, .. } in jobs.iter().copied() {
            assert_eq!(read, Outcome::Arrived, "{who:?}");
            check(write, written);
        }
    };
    over_the_end(&|write, written| {
        assert!(write.is_refused_at(TO + PAGE), "{write:?}");
        assert_eq!(written, 32);
    });
    for ((domain, _), target) in domains.iter().flatten().zip(&targets) {
        domain.map(range(TO + PAGE, 1), target.at(PAGE), Prot::RW).expect("is free");
    }
    over_the_end(&|write, written| {
        assert_eq!((write, written), (Outcome::Arrived, 64), "two mappings that touch");
    });
}

/// C-180: the neighbours are unmapped; the mapping between them works on, and they do not.
pub(crate) fn after_unmap_of_the_neighbours(bench: &dyn Bench) {
    let memory = Memory::new(bench, 3);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        for page in 0..3 {
            let at = page * PAGE;
            domain.map(range(AT + at, 1), memory.at(at), Prot::RW).expect("is free");
        }
        let attached = attach(bench, who, &domain);
        for page in 0..3 {
            arrives(bench, who, AT + page * PAGE, &memory, page * PAGE);
        }
        unmap(&domain, AT, 1);
        unmap(&domain, AT + 2 * PAGE, 1);
        refused(bench, who, AT);
        refused(bench, who, AT + 2 * PAGE);
        arrives(bench, who, AT + PAGE, &memory, PAGE);
        drop(attached);
    }
}

/// One unmap over mappings and holes leaves none of them.
pub(crate) fn after_unmap_of_a_wide_range(bench: &dyn Bench) {
    let memory = Memory::new(bench, 2);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        let places = [AT, AT + 3 * PAGE, AT + 15 * PAGE];
        for at in places {
            domain.map(range(at, 1), memory.phys(), Prot::RW).expect("is free");
        }
        let beyond = AT + 16 * PAGE;
        map(&domain, beyond, &memory, Prot::RW);
        let attached = attach(bench, who, &domain);
        for at in places {
            arrives(bench, who, at, &memory, 0);
        }
        assert_eq!(domain.unmap(range(AT, 16)), Ok(3 * PAGE));
        for at in places {
            refused(bench, who, at);
        }
        arrives(bench, who, beyond, &memory, 0);
        drop(attached);
    }
}

/// C-130: what only the old domain maps is refused after a replace, and back again after another.
pub(crate) fn after_replace(bench: &dyn Bench) {
    let (one, two) = (Memory::new(bench, 1), Memory::new(bench, 1));
    for who in kinds(bench) {
        let (old, new) = (domain_for(bench, who), domain_for(bench, who));
        map(&old, AT, &one, Prot::RW);
        map(&new, AT + PAGE, &two, Prot::RW);
        let mut attached = attach(bench, who, &old);
        for _ in 0..2 {
            arrives(bench, who, AT, &one, 0);
            refused(bench, who, AT + PAGE);
            attached.replace(&new).expect("fits");
            refused(bench, who, AT);
            arrives(bench, who, AT + PAGE, &two, 0);
            attached.replace(&old).expect("fits");
        }
        drop(attached);
    }
}

/// What another domain maps, with another group on it.
pub(crate) fn mapped_in_another_domain(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for (who, other) in [(Who::One, Who::Two), (Who::Pair, Who::One), (Who::Two, Who::Pair)] {
        let (mine, theirs) = (domain_for(bench, who), domain_for(bench, other));
        map(&theirs, AT, &memory, Prot::RW);
        let attached = [attach(bench, who, &mine), attach(bench, other, &theirs)];
        arrives(bench, other, AT, &memory, 0);
        refused(bench, who, AT);
        map(&mine, AT, &memory, Prot::RW);
        arrives(bench, who, AT, &memory, 0);
        drop(attached);
    }
}

/// What another domain maps that nobody is on.
pub(crate) fn mapped_in_a_domain_of_nobody(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let (mine, spare) = (domain_for(bench, who), domain_for(bench, who));
        map(&spare, AT, &memory, Prot::RW);
        let mut attached = attach(bench, who, &mine);
        refused(bench, who, AT);
        attached.replace(&spare).expect("fits");
        arrives(bench, who, AT, &memory, 0);
        drop(attached);
    }
}

/// C-174: a list of runs that can't be mapped as a whole leaves nothing of it.
pub(crate) fn after_a_failed_map_of_many(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        map(&domain, AT + 2 * PAGE, &memory, Prot::RW);
        let attached = attach(bench, who, &domain);
        let run =
            |page| Run { range: range(AT + page * PAGE, 1), phys: memory.phys(), prot: Prot::RW };
        let sent = cost_of(bench, who, || {
            assert_eq!(domain.map_runs(&[run(0), run(1), run(2)]), Err(MapError::Exists));
            assert_eq!(domain.map_runs(&[run(0), run(1), run(1)]), Err(MapError::Exists));
        });
        assert_eq!(sent.notifies, 0);
        refused(bench, who, AT);
        refused(bench, who, AT + PAGE);
        arrives(bench, who, AT + 2 * PAGE, &memory, 0);
        domain.map_runs(&[run(0), run(1)]).expect("both are free");
        arrives(bench, who, AT, &memory, 0);
        arrives(bench, who, AT + PAGE, &memory, 0);
        drop(attached);
    }
}

/// C-161 to C-163: maps that are refused for their arguments open nothing.
pub(crate) fn after_a_failed_map(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let who = Who::One;
    let domain = domain_for(bench, who);
    let attached = attach(bench, who, &domain);
    let phys = memory.phys();
    let half = IovaRange::from_len(Iova(AT), PAGE / 2).expect("does not wrap");
    let wraps = PhysAddr(u64::MAX - PAGE + 1);
    let tries = [
        (range(AT, 1), PhysAddr(phys.0 + 8), Prot::RW, MapError::InvalidArg),
        (range(AT, 1), phys, Prot::empty(), MapError::InvalidArg),
        (range(AT, 1), phys, Prot::RW | Prot::MMIO | Prot::CACHE, MapError::InvalidArg),
        (half, phys, Prot::RW, MapError::InvalidArg),
        (range(AT, 2), wraps, Prot::RW, MapError::Overflow),
    ];
    for (range, phys, prot, error) in tries {
        assert_eq!(domain.map(range, phys, prot), Err(error));
        refused(bench, who, AT);
    }
    assert_eq!(domain.mapping_count(), 0);
    map(&domain, AT, &memory, Prot::RW);
    arrives(bench, who, AT, &memory, 0);
    drop(attached);
}

/// C-132: a replace that fails leaves the group where it was.
pub(crate) fn after_a_failed_replace(bench: &dyn Bench) {
    let (one, two) = (Memory::new(bench, 1), Memory::new(bench, 1));
    for who in kinds(bench) {
        let regions = bench.group(who).reserved();
        let window = regions.as_slice().first().expect("there is an MSI window").range.first().0;
        let (old, new) = (domain_for(bench, who), domain_for(bench, who));
        map(&old, AT, &one, Prot::RW);
        map(&new, AT + PAGE, &two, Prot::RW);
        map(&new, window, &two, Prot::RW);
        let mut attached = attach(bench, who, &old);
        let sent = cost_of(bench, who, || {
            assert_eq!(attached.replace(&new), Err(AttachError::AddrInUse));
        });
        assert_eq!(sent.notifies, 0);
        arrives(bench, who, AT, &one, 0);
        refused(bench, who, AT + PAGE);
        unmap(&new, window, 1);
        attached.replace(&new).expect("nothing is in the way now");
        arrives(bench, who, AT + PAGE, &two, 0);
        refused(bench, who, AT);
        drop(attached);
    }
}

/// What one owner mapped is nothing to the next one.
pub(crate) fn after_a_change_of_owner(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let (first, second) = (domain_for(bench, who), domain_for(bench, who));
        map(&first, AT, &memory, Prot::RW);
        let attached = attach(bench, who, &first);
        arrives(bench, who, AT, &memory, 0);
        drop(attached);
        let ownership = Group::claim(&bench.group(who), OwnerId(2)).expect("it is free");
        let attached = ownership.attach(&second).expect("attaches");
        refused(bench, who, AT);
        map(&second, AT, &memory, Prot::RW);
        arrives(bench, who, AT, &memory, 0);
        drop(attached);
    }
}

/// D-14: the attachment keeps its domain, also when the host has dropped its handle.
pub(crate) fn while_only_the_attachment_holds_the_domain(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        map(&domain, AT, &memory, Prot::RW);
        let attached = attach(bench, who, &domain);
        drop(domain);
        arrives(bench, who, AT, &memory, 0);
        refused(bench, who, AT + PAGE);
        unmap(attached.domain(), AT, 1);
        refused(bench, who, AT);
        drop(attached);
    }
}

/// C-267: unmapped while nobody is attached: not there after the attach.
pub(crate) fn unmapped_before_the_attach(bench: &dyn Bench) {
    let memory = Memory::new(bench, 2);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        domain.map(range(AT, 1), memory.phys(), Prot::RW).expect("is free");
        domain.map(range(AT + PAGE, 1), memory.at(PAGE), Prot::RW).expect("is free");
        let attached = attach(bench, who, &domain);
        arrives(bench, who, AT, &memory, 0);
        drop(attached);
        let sent = cost_of(bench, who, || unmap(&domain, AT, 1));
        assert_eq!(sent.notifies, 0);
        let attached = attach(bench, who, &domain);
        refused(bench, who, AT);
        arrives(bench, who, AT + PAGE, &memory, PAGE);
        drop(attached);
    }
}

/// Whatever was refused, the units work on, and refused no request.
pub(crate) fn refusals_harm_no_unit(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        let refused_before = bench.unit(who).counters().refused;
        let attached = attach(bench, who, &domain);
        for page in 0..20 {
            refused(bench, who, AT + page * PAGE);
        }
        map(&domain, AT, &memory, Prot::RW);
        arrives(bench, who, AT, &memory, 0);
        drop(attached);
        assert_eq!(bench.unit(who).health(), Health::Good);
        assert_eq!(bench.unit(who).counters().refused, refused_before);
    }
}

/// A refusal at one unit is recorded there, and nowhere else.
pub(crate) fn records_stay_with_their_unit(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for (who, other) in [(Who::One, Who::Other), (Who::Other, Who::One)] {
        bench.touch(who, AT);
        assert_eq!(bench.unit(other).next_fault(), None);
        let record = bench.unit(who).next_fault().expect("a record is there");
        assert_eq!(record.endpoint, bench.seat(who).endpoint);
        drop_faults(bench);
        let domain = domain_for(bench, who);
        map(&domain, AT, &memory, Prot::RW);
        let attached = attach(bench, who, &domain);
        arrives(bench, who, AT, &memory, 0);
        refused(bench, other, AT);
        drop(attached);
    }
}
