//! What a mapping lets through, and what it does not.

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::driver::Run;
use iommu::error::{MapError, UnmapError};
use iommu::prot::Prot;
use iommu_runtime::edu::{Direction, MAX_TRANSFER};

use super::{AT, DEVICES, PAGE, arrives, buffer, domain_for, map, range, refused, refused_from};
use crate::probe;
use crate::world::{World, place};

/// Bytes arrive in both directions, by every device.
pub fn bytes_arrive_in_both_directions(world: &World) {
    let (source, target) = (buffer(DEVICES), buffer(DEVICES));
    source.fill_pattern(3);
    target.fill(0);
    let mut attached = heapless::Vec::<_, DEVICES>::new();
    for index in [place::ROOT, place::ROOT_2, place::BRIDGE, place::OTHER] {
        let domain = domain_for(world, index);
        map(&domain, AT, &source, Prot::READ);
        map(&domain, AT + 0x10_0000, &target, Prot::WRITE);
        let _ = attached.push(world.claim(index).attach(&domain).expect("attaches"));
    }
    let devices = world.devices.iter().map(|member| &member.device).zip(0_u64..);
    let from = devices.clone().map(|(device, index)| (device, AT + index * PAGE));
    probe::transfer(from, Direction::FromMemory, MAX_TRANSFER);
    let to = devices.map(|(device, index)| (device, AT + 0x10_0000 + index * PAGE));
    probe::transfer(to, Direction::ToMemory, MAX_TRANSFER);
    for index in 0..DEVICES {
        let at = index * PAGE as usize;
        assert!(target.has_pattern(at, MAX_TRANSFER, 3, at), "device {index}: other bytes");
        assert_eq!(target.read(at + MAX_TRANSFER), 0, "one byte more was written");
    }
    assert!(world.units.iter().all(|unit| unit.next_fault().is_none()));
}

/// C-158: a read-only mapping refuses a device's write, and the record says write.
pub fn read_only_refuses_a_write(world: &World) {
    let memory = buffer(1);
    for index in [place::ROOT, place::BRIDGE, place::OTHER] {
        let domain = domain_for(world, index);
        map(&domain, AT, &memory, Prot::READ);
        let attached = world.claim(index).attach(&domain).expect("attaches");
        let outcome = probe::poke(world.unit_of(index), world.device(index), AT, &memory, 0);
        assert!(probe::is_write_refusal(outcome, AT), "{outcome:?}");
        domain.unmap(range(AT, 1)).expect("unmaps");
        map(&domain, AT, &memory, Prot::RW);
        arrives(world, index, AT, &memory, 0);
        drop(attached);
    }
}

/// C-158: a write-only mapping refuses a device's read; what it reads instead is zeros.
pub fn write_only_refuses_a_read(world: &World) {
    let (secret, target) = (buffer(1), buffer(1));
    secret.fill_pattern(9);
    let index = place::ROOT;
    let domain = domain_for(world, index);
    map(&domain, AT, &secret, Prot::WRITE);
    map(&domain, AT + PAGE, &target, Prot::WRITE);
    let attached = world.claim(index).attach(&domain).expect("attaches");
    target.fill(0xee);
    let device = world.device(index);
    probe::transfer(core::iter::once((device, AT)), Direction::FromMemory, 64);
    let outcome = probe::refusal(world.unit_of(index), device.endpoint);
    assert!(outcome.is_refused_at(AT), "{outcome:?}");
    probe::transfer(core::iter::once((device, AT + PAGE)), Direction::ToMemory, 64);
    assert!((0..64).all(|at| target.read(at) == 0), "the secret went through the device");
    drop(attached);
}

/// The pages below and above a mapping, and its own first and last word.
pub fn the_neighbours_of_a_mapping(world: &World) {
    let memory = buffer(3);
    for index in [place::ROOT, place::OTHER] {
        let domain = domain_for(world, index);
        map(&domain, AT, &memory, Prot::RW);
        let attached = world.claim(index).attach(&domain).expect("attaches");
        arrives(world, index, AT, &memory, 0);
        arrives(world, index, AT + 3 * PAGE - 4, &memory, memory.len() - 4);
        refused_from(world, index, AT + 3 * PAGE, &memory);
        refused_from(world, index, AT - 4, &memory);
        refused_from(world, index, AT - PAGE, &memory);
        drop(attached);
    }
}

/// C-180: after unmap the device is refused at once; the neighbour still works.
pub fn after_unmap(world: &World) {
    let (one, two) = (buffer(1), buffer(1));
    for index in [place::ROOT, place::BRIDGE, place::OTHER] {
        let domain = domain_for(world, index);
        map(&domain, AT, &one, Prot::RW);
        map(&domain, AT + PAGE, &two, Prot::RW);
        let attached = world.claim(index).attach(&domain).expect("attaches");
        arrives(world, index, AT, &one, 0);
        assert_eq!(domain.unmap(range(AT, 1)), Ok(PAGE));
        refused_from(world, index, AT, &one);
        arrives(world, index, AT + PAGE, &two, 0);
        drop(attached);
    }
}

/// A place that is mapped again leads to the new memory only.
pub fn remapped(world: &World) {
    let (old, new) = (buffer(1), buffer(1));
    let index = place::ROOT;
    let domain = domain_for(world, index);
    map(&domain, AT, &old, Prot::RW);
    let attached = world.claim(index).attach(&domain).expect("attaches");
    arrives(world, index, AT, &old, 0);
    domain.unmap(range(AT, 1)).expect("unmaps");
    map(&domain, AT, &new, Prot::RW);
    old.fill(0x11);
    arrives(world, index, AT, &new, 0);
    assert!(old.is_filled(0x11), "the old memory was written");
    drop(attached);
}

/// The same memory at two addresses: unmapping one leaves the other.
pub fn two_views_of_one_page(world: &World) {
    let memory = buffer(1);
    let index = place::OTHER;
    let domain = domain_for(world, index);
    map(&domain, AT, &memory, Prot::RW);
    map(&domain, AT + 0x5000, &memory, Prot::RW);
    let attached = world.claim(index).attach(&domain).expect("attaches");
    arrives(world, index, AT, &memory, 0);
    arrives(world, index, AT + 0x5000, &memory, 0);
    domain.unmap(range(AT, 1)).expect("unmaps");
    refused_from(world, index, AT, &memory);
    arrives(world, index, AT + 0x5000, &memory, 0);
    drop(attached);
}

/// C-169, C-264: a refused overlap sends nothing and leaves the old mapping in use.
pub fn overlap_is_refused(world: &World) {
    let (memory, other) = (buffer(2), buffer(1));
    let index = place::ROOT;
    let domain = domain_for(world, index);
    map(&domain, AT, &memory, Prot::RW);
    let attached = world.claim(index).attach(&domain).expect("attaches");
    let sent = world.sent(index, || {
        for first in [AT, AT + PAGE] {
            let refused = domain.map(range(first, 1), other.phys(), Prot::RW);
            assert_eq!(refused, Err(MapError::Exists));
        }
    });
    assert_eq!((sent.map, sent.notifies), (0, 0));
    arrives(world, index, AT + PAGE, &memory, PAGE as usize);
    drop(attached);
}

/// C-161, C-163, C-179: what the device would accept and translate wrongly is never sent.
pub fn wrong_arguments_send_nothing(world: &World) {
    let memory = buffer(2);
    let index = place::ROOT;
    let domain = domain_for(world, index);
    map(&domain, AT, &memory, Prot::RW);
    let attached = world.claim(index).attach(&domain).expect("attaches");
    let odd = IovaRange::from_len(Iova(AT + 0x800), PAGE).expect("does not wrap");
    let free = range(AT + 0x10_0000, 1);
    let phys = memory.phys();
    let sent = world.sent(index, || {
        assert_eq!(domain.map(odd, phys, Prot::RW), Err(MapError::InvalidArg));
        assert_eq!(domain.map(free, PhysAddr(phys.0 + 8), Prot::RW), Err(MapError::InvalidArg));
        assert_eq!(domain.map(free, phys, Prot::empty()), Err(MapError::InvalidArg));
        assert_eq!(domain.unmap(odd), Err(UnmapError::InvalidArg));
        assert_eq!(domain.unmap(range(AT, 1)), Err(UnmapError::InvalidArg), "cuts the mapping");
        assert_eq!(domain.unmap(range(AT + 0x20_0000, 16)), Ok(0), "a hole");
    });
    assert_eq!(sent.notifies, 0);
    arrives(world, index, AT, &memory, 0);
    drop(attached);
}

/// The last page of the aperture is a page like any other.
pub fn the_last_page_of_the_aperture(world: &World) {
    let memory = buffer(1);
    for index in [place::ROOT, place::OTHER] {
        let domain = domain_for(world, index);
        let top = domain.geometry().aperture.last().0 & !(PAGE - 1);
        map(&domain, top, &memory, Prot::RW);
        let attached = world.claim(index).attach(&domain).expect("attaches");
        arrives(world, index, top, &memory, 0);
        domain.unmap(range(top, 1)).expect("unmaps");
        refused_from(world, index, top, &memory);
        drop(attached);
    }
}

/// Design section 6: contiguous memory is one request, whatever its size.
pub fn two_mebibytes_are_one_request(world: &World) {
    let memory = buffer(512);
    let index = place::ROOT;
    let domain = domain_for(world, index);
    let attached = world.claim(index).attach(&domain).expect("attaches");
    let sent = world.sent(index, || map(&domain, AT, &memory, Prot::RW));
    assert_eq!((sent.map, sent.notifies), (1, 1));
    let last = memory.len() - 4;
    let outcome =
        probe::poke(world.unit_of(index), world.device(index), AT + last as u64, &memory, last);
    assert_eq!(outcome, probe::Outcome::Arrived);
    let sent = world.sent(index, || assert!(domain.unmap(range(AT, 512)).is_ok()));
    assert_eq!((sent.unmap, sent.notifies), (1, 1));
    refused(world, index, AT);
    drop(attached);
}

/// Design section 6: 256 scattered pages are 256 requests and at most 2 notifies.
pub fn scattered_pages_go_in_batches(world: &World) {
    let memory = buffer(1);
    for index in [place::ROOT, place::OTHER] {
        let domain = domain_for(world, index);
        let attached = world.claim(index).attach(&domain).expect("attaches");
        let run = |n: u64| Run {
            range: range(AT + n * 2 * PAGE, 1),
            phys: memory.phys(),
            prot: Prot::RW,
        };
        let runs: [Run; 256] = core::array::from_fn(|n| run(n as u64));
        let sent = world.sent(index, || assert!(domain.map_runs(&runs).is_ok()));
        assert_eq!(sent.map, 256);
        assert!(sent.notifies <= 2, "{} notifies", sent.notifies);
        for n in [0, 127, 128, 255] {
            arrives(world, index, AT + n * 2 * PAGE, &memory, 0);
            refused(world, index, AT + n * 2 * PAGE + PAGE);
        }
        let sent = world.sent(index, || {
            assert_eq!(domain.unmap(range(AT, 512)), Ok(256 * PAGE));
        });
        assert_eq!(sent.unmap, 256);
        assert!(sent.notifies <= 4, "{} notifies", sent.notifies);
        refused_from(world, index, AT, &memory);
        drop(attached);
    }
}

/// C-267: a mapping made while nothing is attached costs no request, and works after the attach.
pub fn mapped_before_the_attach(world: &World) {
    let memory = buffer(1);
    let index = place::BRIDGE;
    let domain = domain_for(world, index);
    let sent = world.sent(index, || map(&domain, AT, &memory, Prot::RW));
    assert_eq!(sent.notifies, 0);
    let attached = world.claim(index).attach(&domain).expect("attaches");
    arrives(world, index, AT, &memory, 0);
    arrives(world, place::BRIDGE_2, AT, &memory, 0);
    drop(attached);
}
