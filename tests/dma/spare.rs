//! Addresses that were given back and wait for the next mapping of their length (rule C-217).

use iommu::addr::{Iova, PhysAddr};
use iommu::device::DeviceId;
use iommu::dma::{Direction, DmaDevice, DmaOptions};
use iommu::driver::EndpointId;
use iommu::error::DmaError;
use iommu::fault::Access;
use iommu::registry::DeviceInfo;
use iommu::reserved::{ReservedKind, ReservedRegion, ReservedRegions};
use iommu::sim::Refusal;

use crate::fixture::{Dma, ME, PAGE, World, aligned, deferred, range};

/// Maps so many pages that no buffer is behind.
fn map(dma: &Dma, pages: u64) -> Result<Iova, DmaError> {
    dma.map_pages_raw(PhysAddr(0x10_0000), pages * PAGE as u64, Direction::Bidirectional)
}

#[expect(unsafe_code, reason = "unmaps by address")]
fn unmap(dma: &Dma, iova: Iova) {
    // SAFETY: no buffer is behind the pages.
    unsafe { dma.unmap_raw(iova) }.unwrap();
}

/// Unmaps with the next flush.
#[expect(unsafe_code, reason = "unmaps by address")]
fn defer(dma: &Dma, iova: Iova) {
    // SAFETY: no buffer is behind the pages.
    let _ = unsafe { dma.defer_raw(iova) }.unwrap();
}

#[test]
fn a_spare_address_asks_for_no_node_and_the_device_gets_the_new_memory() {
    let world = World::new();
    let dma = world.plain();
    let first = map(&dma, 1).unwrap();
    unmap(&dma, first);
    assert!(!world.reaches(first.0, Access::READ), "a spare address leads nowhere");
    world.pool.refuse_nth(0, true);
    let again = dma.map_pages_raw(PhysAddr(0x20_0000), PAGE as u64, Direction::ToDevice).unwrap();
    assert_eq!((again, world.pool.refuse_none()), (first, 0));
    assert_eq!(world.leads_to(again.0), Some(PhysAddr(0x20_0000)));
    assert!(!world.reaches(again.0, Access::WRITE), "with the new rights");
    assert!(!world.reaches(again.0 + PAGE as u64, Access::READ));
    unmap(&dma, again);
    assert_eq!(dma.mapping_count(), 0);
}

#[test]
fn longer_mappings_than_the_optimal_length_are_searched_for() {
    // C-227
    let world = World::new();
    let dma = world.plain();
    assert_eq!(dma.optimal_len(), 32 * PAGE as u64);
    for (pages, nodes) in [(32, 0), (33, 1)] {
        unmap(&dma, map(&dma, pages).unwrap());
        let before = world.pool.usage().nodes;
        let held = map(&dma, pages).unwrap();
        assert_eq!(world.pool.usage().nodes - before, nodes, "{pages} pages");
        unmap(&dma, held);
    }
}

#[test]
fn spare_addresses_never_stand_in_the_way_of_space_or_memory() {
    let world = World::new();
    let dma =
        world.dma(&DmaOptions { mask: 0xffff, coherent_mask: 0xffff, ..DmaOptions::default() });
    let all: Vec<_> = (0..15).map(|_| map(&dma, 1).unwrap()).collect();
    assert_eq!(map(&dma, 1), Err(DmaError::NoSpace));
    all.into_iter().for_each(|iova| unmap(&dma, iova));
    let nodes = world.pool.usage().nodes;
    assert_eq!(map(&dma, 8), Ok(Iova(0x8000)), "fifteen spare pages made room");
    assert_eq!(world.pool.usage().nodes, nodes - 15 + 1);
    // A node is refused once: to the addresses, then to the domain's record.
    for nth in 0..2 {
        let world = World::new();
        let dma = world.fresh(&DmaOptions::default());
        unmap(&dma, map(&dma, 1).unwrap());
        let other = world.join(ME + 1, None);
        let other = DmaDevice::new(&other, world.machine, &DmaOptions::default()).unwrap();
        world.pool.refuse_nth(nth, false);
        let refused = map(&other, 2);
        assert_eq!((refused, world.pool.refuse_none()), (Err(DmaError::OutOfMemory), 1), "{nth}");
        world.pool.refuse_nth(nth, false);
        // The record of this domain keeps its node: the addresses are all that a node is for.
        assert!(map(&dma, 2).is_ok());
        assert_eq!(world.pool.refuse_none(), u64::from(nth == 0));
    }
}

#[test]
fn a_domain_short_of_nodes_gets_those_of_spare_addresses() {
    let world = World::new();
    let dma = world.plain();
    let spare: Vec<_> = (0..100).map(|_| map(&dma, 1).unwrap()).collect();
    spare.into_iter().for_each(|iova| unmap(&dma, iova));
    // No address asks for a node now, so the first that does is the domain's record: its node is full.
    let mut held = Vec::new();
    let mut met = 0;
    while met == 0 {
        world.pool.refuse_nth(0, false);
        held.push(map(&dma, 1).expect("the spare nodes do"));
        met = world.pool.refuse_none();
    }
    assert!((2..100).contains(&held.len()), "{} fit into a node", held.len());
    assert_eq!(dma.mapping_count(), held.len());
    held.iter().for_each(|iova| assert!(world.reaches(iova.0, Access::READ)));
}

#[test]
fn a_list_short_of_nodes_gets_those_of_spare_addresses() {
    let world = World::new();
    let dma = world.plain();
    let spare = map(&dma, 1).unwrap();
    unmap(&dma, spare);
    let lists = || -> [Box<[u8]>; 2] { [vec![1; 10].into(), vec![2; 10].into()] };
    world.pool.refuse_nth(0, false); // for what is known of the second buffer
    let list = dma.map_list(lists(), Direction::ToDevice).expect("the spare node does");
    assert_eq!(world.pool.refuse_none(), 1);
    drop(list);
    dma.trim();
    let pages = world.machine.pages();
    world.pool.refuse_nth(0, false);
    let refused = dma.map_list(lists(), Direction::ToDevice).unwrap_err();
    assert_eq!((refused.error, world.pool.refuse_none()), (DmaError::OutOfMemory, 1));
    assert_eq!((dma.mapping_count(), world.machine.pages()), (0, pages));
}

#[test]
fn what_is_reserved_later_is_not_among_them() {
    // C-218, C-219: by the driver, and by a device that joins
    let world = World::new();
    let dma = world.plain();
    let spare = map(&dma, 1).unwrap();
    unmap(&dma, spare);
    dma.reserve(range(spare.0, spare.0 + 0xfff)).unwrap();
    let other = map(&dma, 1).unwrap();
    assert_ne!(other, spare);
    unmap(&dma, other);

    let range = range(other.0, other.0 + 0xfff);
    let mut regions = ReservedRegions::new();
    regions.add(ReservedRegion { range, kind: ReservedKind::Reserved }).unwrap();
    world.sim.reserve(EndpointId(9), regions);
    let id = |endpoint| DeviceId(u64::from(endpoint));
    let info = DeviceInfo { id: id(9), endpoints: &[EndpointId(9)], with: Some(id(ME)) };
    world.registry.add_device(&world.instance, &info).unwrap();
    let next = map(&dma, 1).unwrap();
    assert!(next != other && next != spare, "the device has it");
    unmap(&dma, next);
    assert_eq!(map(&dma, 1), Ok(next), "and it is asked once");
}

#[test]
fn a_map_that_fails_at_a_spare_address_leaves_it_free() {
    let world = World::new();
    let dma = world.plain();
    let first = map(&dma, 1).unwrap();
    unmap(&dma, first);
    world.sim.refuse(0, Refusal::ONCE);
    assert_eq!((map(&dma, 1), world.sim.refuse_none()), (Err(DmaError::Io), 1));
    assert_eq!(dma.mapping_count(), 0);
    assert_eq!(map(&dma, 1), Ok(first));
}

#[test]
fn deferred_unmaps_are_spare_after_the_flush_and_not_before() {
    // C-191
    for world in [World::new(), World::lazy()] {
        let dma = world.dma(&deferred(1000));
        let first = map(&dma, 1).unwrap();
        defer(&dma, first);
        let second = map(&dma, 1).unwrap();
        assert_ne!(first, second, "the device still reaches it");
        dma.flush().unwrap();
        world.pool.refuse_nth(0, true);
        let again = map(&dma, 1);
        assert_eq!((again, world.pool.refuse_none()), (Ok(first), 0), "no node is needed");
        // A bounced buffer goes with its record; what it leaves is free all the same.
        let bounced = dma.map(&mut aligned(PAGE)[1..], Direction::ToDevice).unwrap();
        let place = bounced.iova();
        drop(bounced.defer().unwrap());
        dma.flush().unwrap();
        assert_eq!(map(&dma, 1), Ok(Iova(place.0 & !0xfff)));
    }
}

#[test]
fn an_unmap_that_is_not_confirmed_leaves_no_spare_address() {
    let world = World::new();
    let dma = world.plain();
    let lost = map(&dma, 1).unwrap();
    world.sim.refuse(0, Refusal::FOREVER);
    #[expect(unsafe_code, reason = "unmaps by address")]
    // SAFETY: no buffer is behind the pages.
    let refused = unsafe { dma.unmap_raw(lost) };
    assert_eq!(refused, Err(DmaError::Io));
    world.sim.refuse_none();
    assert_eq!(dma.mapping_count(), 1, "lost, not spare");
    assert_ne!(map(&dma, 1), Ok(lost));
    dma.trim();
    assert_ne!(map(&dma, 1), Ok(lost));
}

#[test]
fn what_a_handle_loses_at_its_end_no_other_one_gets() {
    let world = World::new();
    let dma = world.plain();
    let other = world.clone_of(ME, &DmaOptions::default());
    let lost = map(&dma, 1).unwrap();
    world.sim.refuse(0, Refusal::FOREVER);
    drop(dma);
    assert!(world.sim.refuse_none() > 0);
    assert_eq!(other.mapping_count(), 1, "lost, not spare");
    assert_ne!(map(&other, 1), Ok(lost));
    other.trim();
    assert_ne!(map(&other, 1), Ok(lost));
}
