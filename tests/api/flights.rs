//! Maps and unmaps that nobody waits for.

use iommu::addr::{Iova, PhysAddr};
use iommu::domain::{MAX_FLIGHTS, PagingDomain};
use iommu::driver::Health;
use iommu::error::{MapError, UnmapError};
use iommu::fault::Access;
use iommu::group::Attachment;
use iommu::pool::Shared;
use iommu::prot::Prot;
use iommu::sim::{Call, Refusal};

use crate::fixture::{World, claim, pages, scattered};

/// A unit that lets started requests wait, `room` of them, and an attached domain.
fn slow(room: usize) -> (World, Shared<PagingDomain>, Attachment) {
    let world = World::new();
    let domain = world.domain();
    let attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    world.sim.hold(room);
    (world, domain, attached)
}

#[test]
fn a_started_map_ends_when_the_unit_is_done_and_not_before() {
    let (world, domain, _attached) = slow(64);
    let mut map =
        PagingDomain::start_map(&domain, pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    for _ in 0..3 {
        assert_eq!(map.poll(), None);
    }
    assert_eq!(world.reaches(8, 0x1000, Access::READ), None);
    world.sim.release();
    assert_eq!(map.poll(), Some(Ok(())));
    assert_eq!(map.poll(), None, "it is told once");
    assert_eq!(world.reaches(8, 0x1000, Access::READ), Some(PhysAddr(0xa000)));
    assert_eq!(map.wait(), Err(MapError::InvalidArg));

    world.sim.hold(64);
    let mut unmap = PagingDomain::start_unmap(&domain, pages(0, 0x10)).unwrap();
    assert_eq!(unmap.poll(), None);
    assert_eq!(domain.mapping_count(), 1, "it stays in the record until it is gone");
    assert!(world.reaches(8, 0x1000, Access::READ).is_some());
    world.sim.release();
    assert_eq!(unmap.poll(), Some(Ok(0x1000)));
    assert_eq!((domain.mapping_count(), world.reaches(8, 0x1000, Access::READ)), (0, None));
}

#[test]
fn where_nothing_has_to_wait_the_first_look_finds_the_end() {
    let world = World::new();
    let domain = world.domain();
    for attach in [false, true] {
        let _attached = attach.then(|| claim(&world.device(1, &[8])).attach(&domain).unwrap());
        let mut map =
            PagingDomain::start_map(&domain, pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
        assert_eq!(map.poll(), Some(Ok(())));
        assert_eq!(
            PagingDomain::start_unmap(&domain, pages(0x1000, 1)).unwrap().wait(),
            Ok(0x1000)
        );
        assert_eq!(PagingDomain::start_unmap(&domain, pages(0x1000, 1)).unwrap().wait(), Ok(0));
    }
}

#[test]
fn a_long_list_goes_in_parts_as_there_is_room() {
    let (world, domain, _attached) = slow(10);
    let mut map =
        PagingDomain::start_map_chunks(&domain, Iova(0x10_0000), &scattered(100), Prot::RW)
            .unwrap();
    let mut looks = 0;
    let end = loop {
        if let Some(end) = map.poll() {
            break end;
        }
        looks += 1;
        world.sim.release();
        world.sim.hold(10);
    };
    assert_eq!((end, looks), (Ok(()), 10));
    assert_eq!(
        world.reaches(8, 0x10_0000 + 99 * 0x1000, Access::READ),
        Some(PhysAddr(99 * 0x2000))
    );
    let mut unmap = PagingDomain::start_unmap(&domain, pages(0x10_0000, 100)).unwrap();
    assert_eq!(unmap.poll(), None);
    world.sim.release();
    assert_eq!(unmap.poll(), Some(Ok(100 * 0x1000)), "neighbours go in one request");
}

#[test]
fn several_are_on_their_way_at_a_time_and_too_many_are_refused() {
    let (world, domain, _attached) = slow(64);
    let start =
        |n: u64| PagingDomain::start_map(&domain, pages(n << 16, 1), PhysAddr(n << 20), Prot::RW);
    let mut maps: Vec<_> = (0..MAX_FLIGHTS as u64).map(|n| start(n).unwrap()).collect();
    assert_eq!(start(100).err(), Some(MapError::Busy));
    assert_eq!(PagingDomain::start_unmap(&domain, pages(0, 1)).err(), Some(UnmapError::Busy));
    world.sim.release();
    assert_eq!(start(100).err(), Some(MapError::Busy), "nobody has asked about them");
    assert_eq!(maps[3].poll(), Some(Ok(())));
    assert_eq!(start(100).unwrap().wait(), Ok(()));
    for map in &mut maps {
        let _ = map.poll();
    }
    assert_eq!(domain.mapping_count(), MAX_FLIGHTS + 1);
}

#[test]
fn a_refused_map_is_taken_back_in_every_part() {
    for nth in [0, 5, 9, 10, 25, 29] {
        let (world, domain, _attached) = slow(10);
        let before = (world.sim.digest(), world.pool.usage());
        world.sim.refuse(nth, Refusal::ONCE);
        let map =
            PagingDomain::start_map_chunks(&domain, Iova(0x10_0000), &scattered(30), Prot::RW);
        let end = {
            let mut map = map.unwrap();
            loop {
                if let Some(end) = map.poll() {
                    break end;
                }
                world.sim.release();
                world.sim.hold(10);
            }
        };
        assert_eq!((end, world.sim.refuse_none()), (Err(MapError::Io), 1));
        assert_eq!((world.sim.digest(), world.pool.usage()), before, "refused at {nth}");
        domain.map_chunks(Iova(0x10_0000), &scattered(30), Prot::RW).expect("the retry succeeds");
    }
}

#[test]
fn an_unmap_that_is_not_confirmed_keeps_what_it_did_not_confirm() {
    let (world, domain, _attached) = slow(64);
    domain.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    world.sim.refuse(0, Refusal::ONCE);
    let mut unmap = PagingDomain::start_unmap(&domain, pages(0x1000, 1)).unwrap();
    world.sim.release();
    assert_eq!(unmap.poll(), Some(Err(UnmapError::Io)));
    assert_eq!((world.sim.refuse_none(), domain.mapping_count()), (1, 1));
    assert_eq!(world.instance.health(), Health::Poisoned);
}

#[test]
fn a_call_that_touches_the_same_iovas_comes_after() {
    let (world, domain, _attached) = slow(64);
    let map = |phys| PagingDomain::start_map(&domain, pages(0x1000, 1), PhysAddr(phys), Prot::RW);
    let first = map(0xa000).unwrap();
    assert_eq!(map(0xb000).err(), Some(MapError::Exists));
    assert_eq!(domain.map(pages(0x1000, 1), PhysAddr(0), Prot::RW), Err(MapError::Exists));
    assert_eq!(domain.unmap(pages(0x1000, 1)), Ok(0x1000), "what was started is there by now");
    assert_eq!(first.wait(), Ok(()));
    assert_eq!(world.reaches(8, 0x1000, Access::READ), None);

    domain.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    let gone = PagingDomain::start_unmap(&domain, pages(0x1000, 1)).unwrap();
    domain.map(pages(0x1000, 1), PhysAddr(0xb000), Prot::RW).expect("the unmap came first");
    assert_eq!(gone.wait(), Ok(0x1000));
    assert_eq!(world.reaches(8, 0x1000, Access::READ), Some(PhysAddr(0xb000)));
}

#[test]
fn what_is_started_ends_before_endpoints_move() {
    // else an unmapped page would be replayed, or a refused one counted as there
    let (world, domain, attached) = slow(64);
    domain.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    let unmap = PagingDomain::start_unmap(&domain, pages(0x1000, 1)).unwrap();
    let map =
        PagingDomain::start_map(&domain, pages(0x5000, 1), PhysAddr(0xb000), Prot::RW).unwrap();
    let ownership = attached.detach();
    let _attached = ownership.attach(&domain).unwrap();
    assert_eq!(world.reaches(8, 0x1000, Access::READ), None);
    assert_eq!(world.reaches(8, 0x5000, Access::READ), Some(PhysAddr(0xb000)));
    assert_eq!((unmap.wait(), map.wait()), (Ok(0x1000), Ok(())));
}

#[test]
fn dropping_the_value_waits() {
    let (world, domain, _attached) = slow(64);
    drop(PagingDomain::start_map(&domain, pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap());
    assert_eq!(world.reaches(8, 0x1000, Access::READ), Some(PhysAddr(0xa000)));
    drop(PagingDomain::start_unmap(&domain, pages(0x1000, 1)).unwrap());
    assert_eq!(world.reaches(8, 0x1000, Access::READ), None);
    assert_eq!(domain.mapping_count(), 0);
}

#[test]
fn wrong_arguments_start_nothing() {
    let (world, domain, _attached) = slow(64);
    domain.map(pages(0x8000, 2), PhysAddr(0), Prot::RW).unwrap();
    let before = (world.sim.take_log().len(), world.pool.usage());
    let map = |first: u64, count, phys, prot| {
        PagingDomain::start_map(&domain, pages(first, count), PhysAddr(phys), prot).err()
    };
    assert_eq!(map(0x1800, 1, 0, Prot::RW), Some(MapError::InvalidArg));
    assert_eq!(map(0x1000, 1, 0x800, Prot::RW), Some(MapError::InvalidArg));
    assert_eq!(map(0x1000, 1, 0, Prot::CACHE), Some(MapError::InvalidArg));
    assert_eq!(map(0x1000, 2, !0xfff, Prot::RW), Some(MapError::Overflow));
    assert_eq!(map(1 << 48, 1, 0, Prot::RW), Some(MapError::Range));
    assert_eq!(map(0x9000, 1, 0, Prot::RW), Some(MapError::Exists));
    let cut = PagingDomain::start_unmap(&domain, pages(0x8000, 1)).err();
    assert_eq!(cut, Some(UnmapError::InvalidArg));
    world.pool.refuse_nth(0, true);
    let full = PagingDomain::start_map_chunks(&domain, Iova(0x10_0000), &scattered(40), Prot::RW);
    assert_eq!(full.err(), Some(MapError::OutOfMemory));
    assert!(world.pool.refuse_none() > 0);
    let log = world.sim.take_log();
    assert!(log.iter().all(|call| !matches!(call, Call::Map { .. })), "{log:?}");
    assert_eq!(world.pool.usage(), before.1);
}
