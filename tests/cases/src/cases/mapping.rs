//! What a mapping lets through, and what it does not.

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::driver::Run;
use iommu::error::{MapError, UnmapError};
use iommu::fault::Access;
use iommu::prot::Prot;

use crate::bench::{Bench, MAX_TRANSFER, Outcome, Transfer, Who};
use crate::steps::*;

/// Bytes arrive in both directions, by every device.
pub(crate) fn bytes_arrive_in_both_directions(bench: &dyn Bench) {
    const TO: u64 = AT + 0x10_0000;
    let devices = Who::ALL.len() as u64;
    let (source, target) = (Memory::new(bench, devices), Memory::new(bench, devices));
    let attached = Who::GROUPS.map(|who| {
        bench.has(who).then(|| {
            let domain = domain_for(bench, who);
            map(&domain, AT, &source, Prot::READ);
            map(&domain, TO, &target, Prot::WRITE);
            attach(bench, who, &domain)
        })
    });
    let mut jobs: [_; Who::ALL.len()] = core::array::from_fn(|index| {
        let at = index as u64 * PAGE;
        Transfer::new(Who::ALL[index], AT + at, source.at(at), Some((TO + at, target.at(at))))
    });
    let jobs = &mut jobs[..everyone(bench).count()]; // the one that may be missing is the last
    bench.transfer(jobs, MAX_TRANSFER);
    for Transfer { who, read, write, written, .. } in jobs.iter().copied() {
        assert_eq!((read, write), (Outcome::Arrived, Outcome::Arrived), "{who:?}");
        assert_eq!(written, MAX_TRANSFER, "{who:?}");
    }
    drop(attached);
}

/// C-158: a read-only mapping refuses a device's write, and the record says write.
pub(crate) fn read_only_refuses_a_write(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        map(&domain, AT, &memory, Prot::READ);
        let attached = attach(bench, who, &domain);
        write_refused(bench, who, AT);
        unmap(&domain, AT, 1);
        map(&domain, AT, &memory, Prot::RW);
        arrives(bench, who, AT, &memory, 0);
        drop(attached);
    }
}

/// C-158: a write-only mapping refuses a device's read; what it reads instead is zeros.
pub(crate) fn write_only_refuses_a_read(bench: &dyn Bench) {
    let (secret, landing) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let who = Who::One;
    let domain = domain_for(bench, who);
    map(&domain, AT, &secret, Prot::WRITE);
    map(&domain, LANDING, &landing, Prot::WRITE);
    let attached = attach(bench, who, &domain);
    let mut jobs = [Transfer::new(who, AT, secret.phys(), Some((LANDING, landing.phys())))];
    bench.transfer(&mut jobs, 64);
    let [Transfer { read, write, .. }] = jobs;
    assert!(read.is_refused_for(AT, Access::READ), "{read:?}");
    assert_eq!(write, Outcome::Arrived, "zeros went through the device, not the secret");
    arrives(bench, who, AT, &secret, 0);
    unmap(&domain, AT, 1);
    map(&domain, AT, &secret, Prot::READ);
    reads(bench, who, AT, &secret, &landing);
    drop(attached);
}

/// The pages below and above a mapping, and its own first and last word.
pub(crate) fn the_neighbours_of_a_mapping(bench: &dyn Bench) {
    let memory = Memory::new(bench, 3);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        map(&domain, AT, &memory, Prot::RW);
        let attached = attach(bench, who, &domain);
        arrives(bench, who, AT, &memory, 0);
        arrives(bench, who, AT + 3 * PAGE - 4, &memory, memory.len() - 4);
        refused(bench, who, AT + 3 * PAGE);
        refused(bench, who, AT - 4);
        refused(bench, who, AT - PAGE);
        drop(attached);
    }
}

/// C-180: after unmap the device is refused at once; the neighbour still works.
pub(crate) fn after_unmap(bench: &dyn Bench) {
    let (one, two) = (Memory::new(bench, 1), Memory::new(bench, 1));
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        map(&domain, AT, &one, Prot::RW);
        map(&domain, AT + PAGE, &two, Prot::RW);
        let attached = attach(bench, who, &domain);
        arrives(bench, who, AT, &one, 0);
        assert_eq!(domain.unmap(range(AT, 1)), Ok(PAGE));
        refused(bench, who, AT);
        arrives(bench, who, AT + PAGE, &two, 0);
        drop(attached);
    }
}

/// A place that is mapped again leads to the new memory only.
pub(crate) fn remapped(bench: &dyn Bench) {
    let (old, new) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let who = Who::One;
    let domain = domain_for(bench, who);
    map(&domain, AT, &old, Prot::RW);
    let attached = attach(bench, who, &domain);
    arrives(bench, who, AT, &old, 0);
    domain.unmap(range(AT, 1)).expect("unmaps");
    map(&domain, AT, &new, Prot::RW);
    arrives(bench, who, AT, &new, 0);
    drop(attached);
}

/// The same memory at two addresses: unmapping one leaves the other.
pub(crate) fn two_views_of_one_page(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in each_unit(bench) {
        let domain = domain_for(bench, who);
        map(&domain, AT, &memory, Prot::RW);
        map(&domain, AT + 0x5000, &memory, Prot::RW);
        let attached = attach(bench, who, &domain);
        arrives(bench, who, AT, &memory, 0);
        arrives(bench, who, AT + 0x5000, &memory, 0);
        unmap(&domain, AT, 1);
        refused(bench, who, AT);
        arrives(bench, who, AT + 0x5000, &memory, 0);
        drop(attached);
    }
}

/// C-169, C-264: a refused overlap sends nothing and leaves the old mapping in use.
pub(crate) fn overlap_is_refused(bench: &dyn Bench) {
    let (memory, other) = (Memory::new(bench, 2), Memory::new(bench, 1));
    let who = Who::One;
    let domain = domain_for(bench, who);
    map(&domain, AT, &memory, Prot::RW);
    let attached = attach(bench, who, &domain);
    let sent = cost_of(bench, who, || {
        for first in [AT, AT + PAGE] {
            let refused = domain.map(range(first, 1), other.phys(), Prot::RW);
            assert_eq!(refused, Err(MapError::Exists));
        }
    });
    assert_eq!((sent.map, sent.notifies), (0, 0));
    arrives(bench, who, AT + PAGE, &memory, PAGE);
    drop(attached);
}

/// C-161, C-163, C-179: what the device would accept and translate wrongly is never sent.
pub(crate) fn wrong_arguments_send_nothing(bench: &dyn Bench) {
    let memory = Memory::new(bench, 2);
    let who = Who::One;
    let domain = domain_for(bench, who);
    map(&domain, AT, &memory, Prot::RW);
    let attached = attach(bench, who, &domain);
    let odd = IovaRange::from_len(Iova(AT + 0x800), PAGE).expect("does not wrap");
    let free = range(AT + 0x10_0000, 1);
    let phys = memory.phys();
    let sent = cost_of(bench, who, || {
        assert_eq!(domain.map(odd, phys, Prot::RW), Err(MapError::InvalidArg));
        assert_eq!(domain.map(free, PhysAddr(phys.0 + 8), Prot::RW), Err(MapError::InvalidArg));
        assert_eq!(domain.map(free, phys, Prot::empty()), Err(MapError::InvalidArg));
        assert_eq!(domain.unmap(odd), Err(UnmapError::InvalidArg));
        assert_eq!(domain.unmap(range(AT, 1)), Err(UnmapError::InvalidArg), "cuts the mapping");
        assert_eq!(domain.unmap(range(AT + 0x20_0000, 16)), Ok(0), "a hole");
    });
    assert_eq!(sent.notifies, 0);
    arrives(bench, who, AT, &memory, 0);
    drop(attached);
}

/// The last page of the aperture is a page like any other.
pub(crate) fn the_last_page_of_the_aperture(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        let top = domain.geometry().aperture.last().0 & !(PAGE - 1);
        map(&domain, top, &memory, Prot::RW);
        let attached = attach(bench, who, &domain);
        arrives(bench, who, top, &memory, 0);
        domain.unmap(range(top, 1)).expect("unmaps");
        refused(bench, who, top);
        drop(attached);
    }
}

/// Design section 6: contiguous memory is one request, whatever its size.
pub(crate) fn two_mebibytes_are_one_request(bench: &dyn Bench) {
    let memory = Memory::new(bench, 512);
    let who = Who::One;
    let domain = domain_for(bench, who);
    let attached = attach(bench, who, &domain);
    let sent = cost_of(bench, who, || map(&domain, AT, &memory, Prot::RW));
    assert_eq!((sent.map, sent.notifies), (1, 1));
    let last = memory.len() - 4;
    arrives(bench, who, AT + last, &memory, last);
    let sent = cost_of(bench, who, || assert!(domain.unmap(range(AT, 512)).is_ok()));
    assert_eq!((sent.unmap, sent.notifies), (1, 1));
    refused(bench, who, AT);
    drop(attached);
}

/// Design section 6: 256 scattered pages are 256 requests and at most 2 notifies.
pub(crate) fn scattered_pages_go_in_batches(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        let attached = attach(bench, who, &domain);
        let run = |n: u64| Run {
            range: range(AT + n * 2 * PAGE, 1),
            phys: memory.phys(),
            prot: Prot::RW,
        };
        let runs: [Run; 256] = core::array::from_fn(|n| run(n as u64));
        let sent = cost_of(bench, who, || assert!(domain.map_runs(&runs).is_ok()));
        assert_eq!(sent.map, 256);
        assert!(sent.notifies <= 2, "{} notifies", sent.notifies);
        for n in [0, 127, 128, 255] {
            arrives(bench, who, AT + n * 2 * PAGE, &memory, 0);
            refused(bench, who, AT + n * 2 * PAGE + PAGE);
        }
        let sent = cost_of(bench, who, || {
            assert_eq!(domain.unmap(range(AT, 512)), Ok(256 * PAGE));
        });
        assert_eq!(sent.unmap, 256);
        assert!(sent.notifies <= 4, "{} notifies", sent.notifies);
        refused(bench, who, AT);
        drop(attached);
    }
}

/// C-267: a mapping made while nothing is attached costs no request, and works after the attach.
pub(crate) fn mapped_before_the_attach(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let who = Who::Pair;
    let domain = domain_for(bench, who);
    let sent = cost_of(bench, who, || map(&domain, AT, &memory, Prot::RW));
    assert_eq!(sent.notifies, 0);
    let attached = attach(bench, who, &domain);
    arrives(bench, who, AT, &memory, 0);
    arrives(bench, Who::Twin, AT, &memory, 0);
    drop(attached);
}
