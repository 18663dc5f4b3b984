//! Truth on record after a failure in the middle, runs as long as memory is, answers too long,
//! coherent mappings, and a first attach in linear time.

use iommu::addr::PageSizes;
use iommu::container::*;
use iommu::driver::{Capabilities, Left};
use iommu::prot::Prot;
use iommu::sim::{Call, Refusal, SimConfig};

use crate::fixture::{AT, PAGE, World, request};

#[test]
fn what_a_broken_unmap_removed_is_on_record_as_removed() {
    // T1-037, T1-369, T1-383: 80 mappings of 1, one of 200 and 80 of 1 scattered pages go in
    // batches of 128 runs; each batch fails once. Neighbours of a batch go in one request.
    for failing in 0..3_u64 {
        let world = World::new(1);
        world.memory.scatter();
        let (_, endpoint) = world.attached(0);
        for n in (0..80).chain(280..360) {
            world.container.map_dma(&request(AT + n * PAGE, 1)).unwrap();
        }
        world.container.map_dma(&request(AT + 80 * PAGE, 200)).unwrap();
        let refusal = Refusal { left: Left::Unchanged, ..Refusal::FOREVER };
        world.units[0].0.refuse(failing, refusal);
        let gone = 128 * failing;
        let failed = world.container.unmap_dma(&UnmapDma::All).unwrap_err();
        let unmapped = Unmapped { bytes: gone * PAGE };
        assert_eq!(failed, UnmapFailed { error: UnmapDmaError::Io, unmapped });
        let mappings = if failing == 0 { 161 } else { 81 };
        assert_eq!(world.container.mapping_count(), mappings);
        assert_eq!(world.container.free_mappings() as usize, 65_535 - mappings, "T1-033");
        assert_eq!(world.memory.pins(), 360 - gone);
        for n in 0..360 {
            let iova = AT + n * PAGE;
            let there = (n >= gone).then_some(iova * 16);
            assert_eq!(world.reaches(0, endpoint, iova), there, "page {n}");
        }
        // What is gone can be mapped again once the unit works; what stays is still taken.
        assert_eq!(world.units[0].0.refuse_none(), 1);
        assert_eq!(
            world.container.map_dma(&request(AT + gone * PAGE, 1)),
            Err(MapDmaError::Exists)
        );
        if failing > 0 {
            world.container.map_dma(&request(AT, gone)).unwrap();
            assert_eq!(world.memory.pins(), 360);
        }
        let rest = world.container.unmap_dma(&UnmapDma::All).unwrap();
        assert_eq!((rest.bytes, world.memory.pins()), (360 * PAGE, 0));
    }
}

#[test]
fn a_map_whose_undo_is_refused_keeps_only_what_may_still_be_reached() {
    // T1-283, T1-383: the second batch of 128 runs is refused, and so is the undo of the first.
    let world = World::new(1);
    world.memory.scatter();
    let (_, endpoint) = world.attached(0);
    // 128 maps, the second batch fails at its first run, the undo's unmap succeeds.
    world.units[0].0.refuse(128, Refusal::ONCE);
    assert_eq!(world.container.map_dma(&request(AT, 180)), Err(MapDmaError::Io));
    assert_eq!((world.memory.pins(), world.container.mapping_count()), (0, 0));
    world.units[0].0.refuse(128, Refusal { left: Left::Unchanged, ..Refusal::FOREVER });
    assert_eq!(world.container.map_dma(&request(AT, 180)), Err(MapDmaError::Io));
    assert_eq!((world.memory.pins(), world.container.mapping_count()), (128, 1));
    assert!(world.reaches(0, endpoint, AT).is_some(), "the unit did not obey");
    world.units[0].0.refuse_none();
    assert_eq!(world.container.unmap_dma(&UnmapDma::All).unwrap().bytes, 180 * PAGE);
    assert_eq!((world.memory.pins(), world.reaches(0, endpoint, AT)), (0, None));
}

#[test]
fn the_first_attach_pins_each_of_many_mappings_once_and_a_refusal_lets_all_go() {
    // T1-212, T1-648. Not timed; searched from the start each time, it would take minutes.
    const COUNT: u64 = 65_535; // as many as there may be
    let world = World::new(1);
    for n in 0..COUNT {
        world.container.map_dma(&request(AT + 2 * n * PAGE, 1)).unwrap();
    }
    let (ownership, _) = world.group(0);
    // The unit refuses the ATTACH itself, after the fill.
    world.units[0].0.refuse(0, Refusal { left: Left::Unchanged, ..Refusal::ONCE });
    world.container.attach_group(ownership).unwrap_err();
    assert_eq!((world.memory.pins(), world.container.operations().dom_map), (0, COUNT));
}

#[test]
fn answers_that_continue_each_other_are_one_run() {
    // T1-310, T1-311
    let world = World::new(1);
    world.attached(0);
    world.memory.in_pieces_of(3);
    let before = world.units[0].1.counters();
    world.container.map_dma(&request(AT, 200)).unwrap();
    let sent = world.units[0].1.counters().since(&before);
    assert_eq!((sent.map, sent.notifies), (1, 1));
    world.container.unmap_dma(&UnmapDma::All).unwrap();
    assert_eq!(world.memory.pins(), 0);
}

#[test]
fn a_unit_with_a_coarse_granule_needs_memory_in_pieces_of_it() {
    // T1-044: contiguous memory fits whatever the provider's answers are, scattered memory can't.
    let page_sizes = PageSizes::from_bits(1 << 16).unwrap();
    let world = World::with(vec![SimConfig { page_sizes, ..SimConfig::default() }]);
    let (_, endpoint) = world.attached(0);
    world.memory.in_pieces_of(1);
    world.container.map_dma(&request(AT, 32)).unwrap();
    assert!(world.reaches(0, endpoint, AT + 31 * PAGE).is_some());
    let before = world.digest();
    let skewed = MapDma { vaddr: 0x1000, ..request(2 * AT, 16) };
    assert_eq!(world.container.map_dma(&skewed), Err(MapDmaError::InvalidArg), "T1-266");
    world.memory.scatter();
    assert_eq!(world.container.map_dma(&request(2 * AT, 16)), Err(MapDmaError::InvalidArg));
    assert_eq!(world.digest(), before);
}

#[test]
fn what_is_pinned_beyond_a_request_is_unpinned_at_once() {
    // T1-326
    let world = World::new(1);
    let (_, endpoint) = world.attached(0);
    world.memory.give_too_much(5);
    world.container.map_dma(&request(AT, 4)).unwrap();
    assert_eq!(world.memory.pins(), 4);
    assert_eq!(world.reaches(0, endpoint, AT + 4 * PAGE), None);
    world.container.unmap_dma(&UnmapDma::All).unwrap();
    assert_eq!(world.memory.pins(), 0);
}

#[test]
fn mappings_are_coherent_where_the_unit_knows_the_attribute() {
    // T1-281, C-160: map into both, then replay from the one into a third and from the other
    let coherent = SimConfig { capabilities: Capabilities::CACHE_COHERENT, ..SimConfig::default() };
    let plain = SimConfig::default();
    let world = World::with(vec![coherent.clone(), plain.clone(), coherent, plain]);
    world.attached(0);
    world.attached(1);
    world.container.map_dma(&request(AT, 2)).unwrap();
    world.attached(2);
    world.attached(3);
    for (unit, cache) in [Prot::CACHE, Prot::empty(), Prot::CACHE, Prot::empty()].iter().enumerate()
    {
        let log = world.units[unit].0.take_log();
        let mut maps = log.iter().filter_map(|call| match call {
            Call::Map { run, .. } => Some(run.prot),
            _ => None,
        });
        assert_eq!((maps.next(), maps.next()), (Some(Prot::RW | *cache), None), "unit {unit}");
    }
    world.container.unmap_dma(&UnmapDma::All).unwrap();
    assert_eq!(world.memory.unpinned_with(), [Prot::RW], "the provider never sees the attribute");
}

#[test]
fn a_mapping_of_a_page_costs_less_than_96_bytes() {
    // T1-672, T1-675; design section 6: container and domain together, in any order
    const COUNT: u64 = 60_000;
    let cost = |place: &dyn Fn(u64) -> u64| {
        let world = World::new(1);
        // Nothing attached would keep no record; the unit's own tables are not counted, and slow.
        let domain = iommu::domain::PagingDomain::new(&world.units[0].1, world.pool).unwrap();
        let before = world.pool.usage().bytes;
        for n in 0..COUNT {
            let iova = AT + place(n) * PAGE;
            world.container.map_dma(&request(iova, 1)).unwrap();
            let page = iommu::addr::IovaRange::from_len(iommu::addr::Iova(iova), PAGE).unwrap();
            domain.map(page, iommu::addr::PhysAddr(iova), Prot::RW).unwrap();
        }
        (world.pool.usage().bytes - before) as f64 / COUNT as f64
    };
    let ascending = cost(&|n| 2 * n);
    // 7919 is prime to 60,000: every place once, in an order without neighbours.
    let mixed = cost(&|n| 2 * (n * 7_919 % COUNT));
    let descending = cost(&|n| 2 * (COUNT - n));
    println!(
        "bytes per 4 KiB mapping: {ascending:.1} ascending, {descending:.1} descending, {mixed:.1} mixed"
    );
    // Descending is the worst order: every split leaves leaves behind that nothing fills again.
    assert!(ascending <= 74.0, "{ascending:.1}");
    assert!(descending <= 96.0 && mixed <= 96.0, "{descending:.1}, {mixed:.1}");
}

#[test]
fn usable_iovas_that_a_detach_gave_back_need_memory_when_somebody_asks() {
    // T1-199, T1-200: a detach from a shared domain asks nobody; the list is made when it is read
    let world = World::new(1);
    world.attached(0);
    let (group, _) = world.attached(0);
    world.container.refresh_windows().unwrap();
    world.pool.refuse_nth(0, true);
    drop(world.container.detach_group(group));
    assert_eq!(world.pool.refuse_none(), 0, "nothing was asked for");
    world.pool.refuse_nth(0, false);
    assert_eq!(world.container.refresh_windows().map_err(|error| error.errno()), Err(12));
    assert_eq!(world.pool.refuse_none(), 1);
    world.container.check_invariants().unwrap();
    world.container.refresh_windows().unwrap();
    world.pool.refuse_nth(0, true);
    world.container.refresh_windows().unwrap();
    assert_eq!(world.pool.refuse_none(), 0, "nothing has changed since");
    world.container.check_invariants().unwrap();
}

#[test]
fn unmap_and_detach_need_no_memory() {
    // T1-200, T1-383: with pins, dirty bits, void addresses and two domains
    let world = World::new(2);
    let container = &world.container;
    world.memory.scatter();
    container.register_device(crate::pins::nobody()).unwrap();
    container.attach_emulated(EmulatedId(1)).unwrap();
    let (one, _) = world.attached(0);
    let (two, _) = world.attached(1);
    for n in 0..100 {
        container.map_dma(&request(AT + n * 4 * PAGE, 3)).unwrap();
    }
    container.start_dirty_tracking().unwrap();
    container.pin_pages(EmulatedId(1), AT, Prot::RW, &mut [None; 2]).unwrap();
    world.pool.refuse_nth(0, true);
    let range = UnmapDma::Range { iova: AT + 200 * PAGE, size: 100 * PAGE };
    assert_eq!(container.unmap_dma(&range).unwrap().bytes, 75 * PAGE);
    let mut words = [0; 2];
    let request = DirtyRange { iova: AT + 100 * PAGE, size: 100 * PAGE, page_size: PAGE };
    container.read_dirty(&request, words.as_mut_slice()).unwrap();
    let gone = container.unmap_dma_dirty(&request, words.as_mut_slice()).unwrap();
    assert_eq!(gone.bytes, 75 * PAGE);
    assert_eq!(container.unpin_pages(AT, 1), 1);
    assert_eq!(world.pool.refuse_none(), 0, "nothing was asked for");
    world.pool.refuse_nth(0, true);
    drop((container.detach_group(one), container.detach_group(two)));
    assert!(container.detach_emulated(EmulatedId(1)));
    assert!(world.pool.refuse_none() <= 2, "only the list of usable IOVAs, which may stay");
    assert_eq!((world.memory.pins(), world.memory.charged(), container.mapping_count()), (0, 0, 0));
}
