//! Handles of kernel drivers on one group: addresses, deferred unmaps, flushes (docs/locking.md).

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::device::DeviceId;
use iommu::dma::{Direction, DmaDevice, DmaOptions, Invalidation, Mapping};
use iommu::driver::{EndpointId, Health};
use iommu::error::{DmaError, UseError};
use iommu::group::{Group as AnyGroup, OwnerId};
use iommu::pool::Shared;
use iommu::reserved::{ReservedKind, ReservedRegion, ReservedRegions};
use iommu::sim::{Refusal, SimPlatform};

use crate::lock::LoomLock;
use crate::world::*;

type Dma = DmaDevice<&'static SimPlatform, LoomLock>;
type Given = Mapping<Box<[u8]>, &'static SimPlatform, LoomLock>;

/// The endpoint of the device.
const ME: u32 = 1;

/// A machine whose pages are counted; each scenario has one.
fn machine() -> &'static SimPlatform {
    Box::leak(Box::default())
}

/// What a handle is made with: unmaps wait until `limit` do.
fn deferred(limit: usize) -> DmaOptions {
    DmaOptions { invalidation: Invalidation::Deferred { limit }, ..DmaOptions::default() }
}

fn handle(group: &Shared<Group>, machine: &'static SimPlatform, options: &DmaOptions) -> Dma {
    DmaDevice::new(group, machine, options).unwrap()
}

/// Maps a page of memory at `phys`, and looks whether the device finds it.
fn map_page(world: &World, dma: &Dma, phys: u64) -> Iova {
    let iova = dma.map_pages_raw(PhysAddr(phys), 0x1000, Direction::Bidirectional).unwrap();
    assert_eq!(world.unit.read(ME, iova.0), Some(PhysAddr(phys)), "it is mapped");
    iova
}

#[expect(unsafe_code, reason = "no buffer is behind these pages")]
fn unmap_page(dma: &Dma, iova: Iova) -> Result<(), DmaError> {
    // SAFETY: nothing is bounced, and no memory is behind the address.
    unsafe { dma.unmap_raw(iova) }
}

/// Defers the unmap of a page; the ticket.
#[expect(unsafe_code, reason = "no buffer is behind these pages")]
fn defer_page(dma: &Dma, iova: Iova) -> iommu::dma::Ticket {
    // SAFETY: as above.
    unsafe { dma.defer_raw(iova) }.unwrap()
}

/// Gives a buffer of a few bytes, which is bounced.
fn give(dma: &Dma, byte: u8) -> Given {
    let buffer: Box<[u8]> = vec![byte; 16].into();
    dma.map(buffer, Direction::FromDevice).unwrap()
}

/// Nothing of the group is mapped, waits, or is held.
fn is_idle(machine: &SimPlatform, group: &Shared<Group>) {
    assert_eq!(machine.pages(), 0, "a page of the platform is lost");
    assert_eq!(group.kernel_users(), 0);
    drop(AnyGroup::claim(group, OwnerId(7)).expect("nobody uses it"));
}

#[test]
fn maps_and_unmaps_of_one_handle() {
    let machine = machine();
    explore_within(3, "dma: map and unmap, twice", move |world| {
        let group = world.device(ME);
        let dma = handle(&group, machine, &DmaOptions::default());
        let driver = |phys| {
            let (world, dma) = (world.clone(), dma.clone());
            spawn(move || {
                let iova = map_page(&world, &dma, phys);
                unmap_page(&dma, iova).unwrap();
                // The other may be there by now, but not this memory.
                assert_ne!(world.unit.read(ME, iova.0), Some(PhysAddr(phys)), "cut off");
            })
        };
        join(driver(PAGE), driver(OTHER));
        assert_eq!(dma.mapping_count(), 0);
        world.check(&[&group], &[], &[dma.used().domain()]);
        drop(dma);
        is_idle(machine, &group);
    });
}

#[test]
fn maps_that_stay_have_addresses_of_their_own() {
    let machine = machine();
    explore_within(3, "dma: map, map through two handles", move |world| {
        let group = world.device(ME);
        let driver = |phys| {
            let (world, group) = (world.clone(), group.clone());
            spawn(move || {
                let dma = handle(&group, machine, &DmaOptions::default());
                let iova = map_page(&world, &dma, phys);
                (dma, iova)
            })
        };
        let ((one, first), (other, second)) = join(driver(PAGE), driver(OTHER));
        assert!(one.used().domain().ptr_eq(other.used().domain()) && first != second);
        assert_eq!((group.kernel_users(), one.mapping_count()), (2, 2));
        assert_eq!(unmap_page(&one, second), Err(DmaError::NotMapped), "the other's");
        drop(one);
        assert_eq!(world.unit.read(ME, first.0), None, "forgotten by its handle");
        assert_eq!(world.unit.read(ME, second.0), Some(PhysAddr(OTHER)));
        drop(other);
        is_idle(machine, &group);
    });
}

#[test]
fn the_first_handle_against_the_last() {
    // C-228: the default domain goes with the last user, and comes with the first
    let machine = machine();
    explore("dma: end of a handle, new handle", move |world| {
        let group = world.device(ME);
        let old = handle(&group, machine, &DmaOptions::default());
        let iova = map_page(world, &old, PAGE);
        let leaving = spawn({
            let world = world.clone();
            move || {
                drop(old);
                assert_ne!(world.unit.read(ME, iova.0), Some(PhysAddr(PAGE)), "cut off");
            }
        });
        let new = handle(&group, machine, &DmaOptions::default());
        map_page(world, &new, OTHER);
        leaving.join().unwrap();
        assert_eq!((group.kernel_users(), new.mapping_count()), (1, 1));
        world.check(&[&group], &[], &[new.used().domain()]);
        drop(new);
        is_idle(machine, &group);
    });
}

#[test]
fn a_handle_against_a_claim() {
    let machine = machine();
    explore("dma: new handle, claim", move |world| {
        let group = world.device(ME);
        let claimer = spawn({
            let group = group.clone();
            move || AnyGroup::claim(&group, OwnerId(7)).is_ok()
        });
        let dma = DmaDevice::new(&group, machine, &DmaOptions::default());
        match &dma {
            Ok(dma) => drop(map_page(world, dma, PAGE)),
            Err(error) => assert_eq!(*error, UseError::Busy),
        }
        let claimed = claimer.join().unwrap();
        assert!(claimed || dma.is_ok(), "one of them has it");
        drop(dma);
        is_idle(machine, &group);
    });
}

#[test]
fn a_flush_that_returns_has_seen_the_end_of_those_before_it() {
    // C-187, C-191
    let machine = machine();
    explore_within(3, "dma: defer and flush, twice", move |world| {
        let group = world.device(ME);
        let dma = handle(&group, machine, &deferred(100));
        let driver = |phys| {
            let (world, dma) = (world.clone(), dma.clone());
            spawn(move || {
                let iova = map_page(&world, &dma, phys);
                let ticket = defer_page(&dma, iova);
                dma.flush().unwrap();
                assert!(dma.is_flushed(ticket));
                assert_ne!(world.unit.read(ME, iova.0), Some(PhysAddr(phys)), "cut off");
            })
        };
        join(driver(PAGE), driver(OTHER));
        assert_eq!((dma.waiting(), dma.mapping_count()), (0, 0));
        drop(dma);
        is_idle(machine, &group);
    });
}

#[test]
fn an_address_that_waits_is_not_used_again() {
    // C-191
    let machine = machine();
    explore("dma: flush, map", move |world| {
        let group = world.device(ME);
        let dma = handle(&group, machine, &deferred(100));
        let old = map_page(world, &dma, PAGE);
        let ticket = defer_page(&dma, old);
        let flusher = spawn({
            let dma = dma.clone();
            move || dma.flush().unwrap()
        });
        let new = map_page(world, &dma, OTHER);
        if dma.is_flushed(ticket) {
            assert_ne!(world.unit.read(ME, old.0), Some(PhysAddr(PAGE)), "the ticket says so");
        }
        flusher.join().unwrap();
        assert!(dma.is_flushed(ticket));
        assert_eq!(world.unit.read(ME, new.0), Some(PhysAddr(OTHER)), "not unmapped with the old");
        assert_eq!(dma.mapping_count(), 1);
        drop(dma);
        is_idle(machine, &group);
    });
}

#[test]
fn the_unmap_that_fills_the_queue_ends_all() {
    // C-188
    let machine = machine();
    explore("dma: defer, defer; the queue is full", move |world| {
        let group = world.device(ME);
        let dma = handle(&group, machine, &deferred(2));
        let pages = [map_page(world, &dma, PAGE), map_page(world, &dma, OTHER)];
        let driver = |iova| {
            let dma = dma.clone();
            spawn(move || defer_page(&dma, iova))
        };
        let tickets = join(driver(pages[0]), driver(pages[1]));
        assert_ne!(tickets.0, tickets.1);
        assert!(dma.is_flushed(tickets.0) && dma.is_flushed(tickets.1));
        assert_eq!((dma.waiting(), dma.mapping_count()), (0, 0));
        assert!(pages.iter().all(|iova| world.unit.read(ME, iova.0).is_none()));
        drop(dma);
        is_idle(machine, &group);
    });
}

#[test]
fn a_flush_that_is_refused_against_one_that_is_not() {
    let machine = machine();
    explore("dma: a refused flush, defer and flush", move |world| {
        let group = world.device(ME);
        let dma = handle(&group, machine, &deferred(100));
        let (old, new) = (map_page(world, &dma, PAGE), map_page(world, &dma, OTHER));
        let first = defer_page(&dma, old);
        world.unit.sim().refuse(0, Refusal::ONCE);
        let flusher = spawn({
            let dma = dma.clone();
            move || dma.flush()
        });
        let second = defer_page(&dma, new);
        let here = dma.flush();
        let there = flusher.join().unwrap();
        assert_eq!(world.unit.sim().refuse_none(), 1);
        assert!(here.is_err() != there.is_err(), "one of them is refused: {here:?}, {there:?}");
        // What was refused waits, behind what came meanwhile; nothing is lost or ended twice.
        let waiting = [first, second].iter().filter(|ticket| !dma.is_flushed(**ticket)).count();
        assert_eq!(dma.waiting(), waiting);
        assert_eq!(world.instance.health(), Health::Poisoned);
        dma.flush().expect("this unit confirms in the end");
        assert!(dma.is_flushed(first) && dma.is_flushed(second));
        assert_eq!((dma.waiting(), dma.mapping_count()), (0, 0));
        drop(dma);
    });
}

#[test]
fn bounce_pages_are_one_buffers_at_a_time() {
    let machine = machine();
    explore_within(3, "dma: bounced maps, deferred and flushed", move |world| {
        let group = world.device(ME);
        let dma = handle(&group, machine, &deferred(100));
        let waiting = give(&dma, 1).defer().unwrap();
        let flusher = spawn({
            let dma = dma.clone();
            move || dma.flush().unwrap()
        });
        let (one, other) = (give(&dma, 2), give(&dma, 3));
        let places = [&one, &other].map(|given| world.unit.read(ME, given.iova().0 & !0xfff));
        assert!(places == [None, None], "for writing only");
        flusher.join().unwrap();
        assert_ne!(one.iova(), other.iova());
        assert_eq!(*waiting.take().expect("it was flushed"), [1; 16]);
        assert_eq!(*one.unmap().unwrap(), [2; 16]);
        assert_eq!(*other.unmap().unwrap(), [3; 16]);
        drop(dma);
        is_idle(machine, &group);
    });
}

#[test]
fn a_mapping_is_ended_by_one() {
    let machine = machine();
    explore("dma: unmap, unmap of one mapping", move |world| {
        let group = world.device(ME);
        let dma = handle(&group, machine, &DmaOptions::default());
        let iova = map_page(world, &dma, PAGE);
        let driver = || {
            let dma = dma.clone();
            spawn(move || unmap_page(&dma, iova))
        };
        let mut ended = <[_; 2]>::from(join(driver(), driver()));
        ended.sort_by_key(Result::is_err);
        assert_eq!(ended, [Ok(()), Err(DmaError::NotMapped)]);
        assert_eq!((world.unit.read(ME, iova.0), dma.mapping_count()), (None, 0));
        drop(dma);
        is_idle(machine, &group);
    });
}

#[test]
fn a_device_that_reserves_joins_while_a_driver_maps() {
    // C-219: the union of the group, also of those that come later
    let machine = machine();
    explore("dma: map, hot-add of a device that reserves", move |world| {
        let group = world.device(ME);
        let top = IovaRange::from_len(Iova(0xffff_f000), 0x1000).unwrap();
        let mut reserved = ReservedRegions::new();
        reserved.add(ReservedRegion { range: top, kind: ReservedKind::Reserved }).unwrap();
        world.unit.sim().reserve(EndpointId(2), reserved);
        let dma = handle(&group, machine, &DmaOptions::default());
        let adder = spawn({
            let world = world.clone();
            move || {
                let info = iommu::registry::DeviceInfo {
                    id: DeviceId(2),
                    endpoints: &[EndpointId(2)],
                    with: Some(DeviceId(ME.into())),
                };
                world.registry.add_device(&world.instance, &info).is_ok()
            }
        });
        let iova = map_page(world, &dma, PAGE);
        let joined = adder.join().unwrap();
        assert_eq!(joined, iova != top.first(), "it joins, or the driver was there first");
        world.check(&[&group], if joined { &[] } else { &[2] }, &[dma.used().domain()]);
        drop(dma);
        is_idle(machine, &group);
    });
}
