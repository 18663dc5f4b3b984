//! map_dma and unmap_dma: order of checks, exactness, undo, accounting of pins.

use iommu::addr::PageSizes;
use iommu::container::{MapDma, MapDmaError, Options, PinError, UnmapDma, UnmapDmaError};
use iommu::prot::Prot;
use iommu::sim::{Refusal, SimConfig};

use crate::fixture::{AT, PAGE, World, request};

fn range(iova: u64, pages: u64) -> UnmapDma {
    UnmapDma::Range { iova, size: pages * PAGE }
}

#[test]
fn a_request_that_is_wrong_in_two_ways_gets_the_first_error() {
    // T1-263 to T1-270, in their order: each row is wrong in its own way and in all later ones.
    let options = Options { allow_unsafe_interrupts: true, mapping_limit: 1, ..Options::default() };
    let world = World::open(vec![SimConfig::default()], options);
    world.attached(0);
    world.container.map_dma(&request(AT, 1)).unwrap();
    let none = Prot::empty();
    let rows = [
        (MapDma { iova: 1, vaddr: u64::MAX, size: 0, prot: none }, MapDmaError::InvalidArg),
        (MapDma { iova: u64::MAX, vaddr: 1, size: 2, prot: none }, MapDmaError::Overflow),
        (MapDma { iova: 1, vaddr: u64::MAX, size: 2, prot: none }, MapDmaError::Overflow),
        (MapDma { iova: AT + 1, vaddr: 1, size: 2, prot: none }, MapDmaError::InvalidArg),
        (MapDma { prot: Prot::CACHE, ..request(AT, 1) }, MapDmaError::InvalidArg),
        (MapDma { iova: AT + 1, ..request(AT, 1) }, MapDmaError::InvalidArg),
        (MapDma { vaddr: 1, ..request(AT, 1) }, MapDmaError::InvalidArg),
        (MapDma { size: 1, ..request(AT, 1) }, MapDmaError::InvalidArg),
        (request(AT, 1), MapDmaError::Exists),
        (request(1 << 60, 1), MapDmaError::NoSpace),
    ];
    let before = world.digest();
    for (row, error) in rows {
        assert_eq!(world.container.map_dma(&row), Err(error), "{row:?}");
        assert_eq!(world.digest(), before, "T1-284");
    }
    world.container.unmap_dma(&UnmapDma::All).unwrap();
    let outside = world.container.map_dma(&request(1 << 60, 1));
    assert_eq!(outside, Err(MapDmaError::InvalidArg), "T1-270");
}

#[test]
fn unmap_checks_come_in_their_order_and_remove_nothing() {
    // T1-356 to T1-361
    let world = World::new(1);
    world.attached(0);
    world.container.map_dma(&request(AT, 4)).unwrap();
    let before = world.digest();
    let rows = [
        (UnmapDma::Range { iova: AT + 1, size: 0 }, UnmapDmaError::InvalidArg),
        (UnmapDma::Range { iova: AT, size: 0 }, UnmapDmaError::InvalidArg),
        (UnmapDma::Range { iova: AT, size: 1 }, UnmapDmaError::InvalidArg),
        (UnmapDma::Range { iova: !0xfff, size: 2 * PAGE }, UnmapDmaError::Overflow),
        (range(AT + PAGE, 3), UnmapDmaError::InvalidArg),
        (range(AT, 3), UnmapDmaError::InvalidArg),
        (range(AT - PAGE, 2), UnmapDmaError::InvalidArg),
    ];
    for (row, error) in rows {
        assert_eq!(world.container.unmap_dma(&row), Err(error.into()), "{row:?}");
        assert_eq!(world.digest(), before);
    }
}

#[test]
fn unmap_takes_whole_mappings_over_holes_and_says_how_much() {
    // T1-365, T1-366, T1-369
    let world = World::new(1);
    let (_, endpoint) = world.attached(0);
    for n in [0, 2, 3, 9] {
        world.container.map_dma(&request(AT + n * PAGE, 1)).unwrap();
    }
    assert_eq!(world.container.unmap_dma(&range(AT, 8)).unwrap().bytes, 3 * PAGE);
    assert_eq!(world.container.unmap_dma(&range(AT, 8)).unwrap().bytes, 0);
    assert_eq!(world.reaches(0, endpoint, AT + 2 * PAGE), None);
    assert!(world.reaches(0, endpoint, AT + 9 * PAGE).is_some());
    assert_eq!(world.container.unmap_dma(&UnmapDma::All).unwrap().bytes, PAGE);
    assert_eq!(world.container.unmap_dma(&UnmapDma::All).unwrap().bytes, 0);
    assert_eq!((world.memory.pins(), world.container.free_mappings()), (0, 65_535));
}

#[test]
fn contiguous_memory_is_one_run_and_a_batch_one_notify() {
    // T1-310, T1-311; design section 6: one MAP per run, one notify per batch
    let world = World::new(1);
    world.attached(0);
    let before = world.units[0].1.counters();
    world.container.map_dma(&request(AT, 512)).unwrap();
    let sent = world.units[0].1.counters().since(&before);
    assert_eq!((sent.map, sent.notifies), (1, 1));
    world.memory.scatter();
    let before = world.units[0].1.counters();
    world.container.map_dma(&request(AT << 4, 64)).unwrap();
    let sent = world.units[0].1.counters().since(&before);
    assert_eq!((sent.map, sent.notifies), (64, 1));
    let before = world.units[0].1.counters();
    world.container.unmap_dma(&UnmapDma::All).unwrap();
    let sent = world.units[0].1.counters().since(&before);
    assert_eq!((sent.unmap, sent.notifies), (2, 1), "neighbours of a batch go in one request");
}

#[test]
fn a_failed_map_leaves_nothing_whatever_failed() {
    // T1-282, T1-283: two domains, 100 scattered pages, every failure point of every kind
    for kind in 0..4 {
        let mut failures = 0;
        for nth in 0.. {
            let world = World::new(2);
            world.memory.scatter();
            let (_, one) = world.attached(0);
            world.attached(1);
            let before = world.digest();
            match kind {
                0 => world.pool.refuse_nth(nth, true),
                1 => world.memory.refuse(nth, PinError::Fault),
                unit => world.units[unit - 2].0.refuse(nth, Refusal::ONCE),
            }
            let result = world.container.map_dma(&request(AT, 100));
            let units: u64 = world.units.iter().map(|(sim, _)| sim.refuse_none()).sum();
            let met = world.pool.refuse_none() + world.memory.refuse_none() + units;
            if met == 0 {
                result.unwrap();
                break;
            }
            failures += 1;
            let error = result.unwrap_err();
            assert_eq!(error.errno(), [12, 14, 5, 5][kind]);
            assert_eq!(world.digest(), before, "kind {kind}, failure point {nth}");
            world.container.map_dma(&request(AT, 100)).expect("the retry succeeds");
            assert_eq!(world.reaches(0, one, AT + 99 * PAGE), Some((AT + 99 * PAGE) * 16));
        }
        assert!(failures > 0, "kind {kind} met no failure");
    }
}

#[test]
fn an_unmap_that_is_not_confirmed_keeps_the_memory_pinned() {
    // T1-383
    let world = World::new(1);
    world.attached(0);
    world.container.map_dma(&request(AT, 3)).unwrap();
    world.units[0].0.refuse(0, Refusal::ONCE);
    assert_eq!(world.container.unmap_dma(&UnmapDma::All), Err(UnmapDmaError::Io.into()));
    assert_eq!((world.memory.pins(), world.container.mapping_count()), (3, 1));
}

#[test]
fn the_limit_of_mappings_is_exact() {
    // T1-033, T1-269, T1-290
    let options = Options { allow_unsafe_interrupts: true, mapping_limit: 3, ..Options::default() };
    let world = World::open(vec![SimConfig::default()], options);
    for n in 0..3 {
        world.container.map_dma(&request(AT + n * PAGE, 1)).unwrap();
    }
    assert_eq!(world.container.map_dma(&request(0, 1)).unwrap_err().errno(), 28);
    world.container.unmap_dma(&range(AT, 2)).unwrap();
    assert_eq!(world.container.free_mappings(), 2);
    world.container.map_dma(&request(0, 1)).unwrap();
}

#[test]
fn the_granule_is_the_largest_of_all_domains() {
    // T1-043, T1-285
    let coarse = PageSizes::from_bits(1 << 16 | 1 << 21).unwrap();
    let configs =
        vec![SimConfig::default(), SimConfig { page_sizes: coarse, ..SimConfig::default() }];
    let world = World::with(configs);
    world.attached(0);
    assert_eq!(world.container.page_sizes(), !0xfff);
    let (guest, _) = world.attached(1);
    assert_eq!(world.container.page_sizes(), 1 << 16 | 1 << 21);
    assert_eq!(world.container.map_dma(&request(AT, 1)), Err(MapDmaError::InvalidArg));
    world.container.map_dma(&request(AT, 16)).unwrap();
    drop(world.container.detach_group(guest));
    assert_eq!(world.container.page_sizes(), !0xfff);
}

#[test]
fn a_mapping_may_end_at_the_last_address() {
    // T1-286
    let world = World::new(0);
    world.container.map_dma(&request(!0xfff, 1)).unwrap();
    assert_eq!(world.container.map_dma(&request(!0xfff, 1)), Err(MapDmaError::Exists));
    assert_eq!(world.container.unmap_dma(&range(!0xfff, 1)).unwrap().bytes, PAGE);
}
