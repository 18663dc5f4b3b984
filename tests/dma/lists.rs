//! Scatter lists (rules C-173, C-174, C-224).

use iommu::addr::Iova;
use iommu::dma::{Direction, DmaOptions, Segment};
use iommu::error::DmaError;
use iommu::fault::Access;

use crate::fixture::{Cost, ME, Neighbours, PAGE, World, aligned, deferred};

fn segment(iova: u64, len: usize) -> Segment {
    Segment { iova: Iova(iova), len: len as u64 }
}

#[test]
fn a_list_is_one_run_of_addresses_and_one_exchange() {
    let world = World::new();
    let dma = world.plain();
    let before = world.usage();
    let memory = aligned(8 * PAGE);
    memory.fill(1);
    // Two that touch in memory, one that is elsewhere, the last one short.
    let (one, rest) = memory.split_at_mut(PAGE);
    let (two, rest) = rest.split_at_mut(2 * PAGE);
    let four = &mut rest[2 * PAGE..2 * PAGE + 100];
    four.fill(4);
    let three = &mut aligned(2 * PAGE)[..PAGE];
    three.fill(3);
    let (list, cost) =
        world.cost(|| dma.map_list([one, two, three, four], Direction::Bidirectional).unwrap());
    assert_eq!(cost, Cost { map: 3, unmap: 0, syncs: 0, notifies: 1 }, "neighbours are one MAP");
    let segments: Vec<_> = list.segments().collect();
    let iova = segments[0].iova.0;
    assert_eq!(segments, [segment(iova, 4 * PAGE + 100)], "one for the device");
    let seen = world.read(ME, iova, 4 * PAGE + 100).unwrap();
    assert_eq!((seen[0], seen[3 * PAGE], seen[4 * PAGE]), (1, 3, 4));
    assert_eq!(world.read(ME, iova + 4 * PAGE as u64 + 100, 1), Some(vec![0]), "bounced");
    assert!(!world.reaches(iova + 5 * PAGE as u64, Access::READ));
    assert!(world.write(ME, iova + 4 * PAGE as u64, b"written"));
    let (buffers, cost) = world.cost(|| list.unmap().unwrap());
    assert_eq!(cost, Cost { map: 0, unmap: 1, syncs: 0, notifies: 1 });
    assert_eq!(&buffers[3][..8], b"written\x04");
    assert!(!world.reaches(iova, Access::READ));
    let after = world.usage_of(&dma);
    assert_eq!((after.0, after.2), (before.0, before.2));
}

#[test]
fn each_buffer_has_granules_of_its_own() {
    let world = World::new();
    let dma = world.plain();
    let mut memory = Neighbours::new(0x80, 0x300);
    let whole = memory.buffer();
    whole.fill(1);
    let (one, rest) = whole.split_at_mut(0x100);
    let (_between, two) = rest.split_at_mut(0x100);
    // SAFETY: the list is used up below.
    #[expect(unsafe_code, reason = "borrows")]
    let list = unsafe { dma.map_borrowed_list([one, two], Direction::Bidirectional) }.unwrap();
    let [first, second] = list.segments().collect::<Vec<_>>()[..] else { panic!("{list:?}") };
    assert_eq!((first.len, second.len), (0x100, 0x100));
    assert_eq!(second.iova.0 - first.iova.0, 0x1200, "the next granule, at its place inside");
    for segment in [first, second] {
        assert!(world.write(ME, segment.iova.0 & !0xfff, &[0xdd; PAGE]));
    }
    list.unmap().unwrap();
    assert!(memory.are_untouched());
    let whole = memory.buffer();
    assert!(whole[..0x100].iter().chain(&whole[0x200..]).all(|byte| *byte == 0xdd));
    assert!(whole[0x100..0x200].iter().all(|byte| *byte == 1), "what lies between is no one's");
}

#[test]
fn segments_keep_the_limits_of_the_device() {
    let world = World::new();
    let options =
        DmaOptions { max_segment: 0x1800, segment_boundary: 0x3fff, ..Default::default() };
    let dma = world.dma(&options);
    let list = dma.map_list([aligned(7 * PAGE), aligned(3 * PAGE)], Direction::ToDevice).unwrap();
    let segments: Vec<_> = list.segments().collect();
    let mut at = segments[0].iova.0;
    for Segment { iova, len } in &segments {
        assert_eq!(iova.0, at, "no gap");
        assert!(*len > 0 && *len <= 0x1800);
        assert_eq!(at & !0x3fff, (at + len - 1) & !0x3fff, "none crosses a boundary");
        at += len;
    }
    assert_eq!(at - segments[0].iova.0, 10 * PAGE as u64);
    // Limits that make no sense end, and limit nothing.
    let world = World::new();
    let options = DmaOptions { max_segment: 0, segment_boundary: u64::MAX, ..Default::default() };
    let list =
        world.dma(&options).map_list([&mut aligned(PAGE)[..3]], Direction::ToDevice).unwrap();
    assert_eq!(list.segments().count(), 3);
    let world = World::new();
    let all =
        DmaOptions { max_segment: u64::MAX, segment_boundary: u64::MAX, ..Default::default() };
    let list = world.dma(&all).map_list([aligned(64 * PAGE)], Direction::ToDevice).unwrap();
    assert_eq!(list.segments().count(), 1);
}

#[test]
fn a_list_that_is_refused_comes_back() {
    let world = World::new();
    let dma = world.plain();
    let before = world.usage();
    let none: [Box<[u8]>; 0] = [];
    assert_eq!(dma.map_list(none, Direction::ToDevice).unwrap_err().error, DmaError::InvalidArg);
    let lists: [Box<[u8]>; 2] = [vec![1; 10].into(), vec![].into()];
    let refused = dma.map_list(lists, Direction::ToDevice).unwrap_err();
    assert_eq!(
        (refused.error, refused.buffers.map(|all| all[0].len())),
        (DmaError::InvalidArg, Some(10))
    );
    let shared: [&'static [u8]; 1] = [aligned(PAGE)];
    let refused = dma.map_list(shared, Direction::FromDevice).unwrap_err();
    assert_eq!(refused.error, DmaError::InvalidArg);
    assert_eq!((world.usage().0, world.usage().2), (before.0, before.2));
}

#[test]
fn a_list_of_many_pieces_needs_a_node_and_still_one_exchange() {
    let world = World::new();
    let dma = world.dma(&deferred(3));
    let buffers: [&'static mut [u8]; 40] = core::array::from_fn(|n| {
        let memory = aligned(2 * PAGE);
        memory.fill(n as u8);
        &mut memory[..PAGE]
    });
    let (list, cost) = world.cost(|| dma.map_list(buffers, Direction::ToDevice).unwrap());
    assert_eq!((cost.map, cost.notifies), (40, 1));
    let [only] = list.segments().collect::<Vec<_>>()[..] else {
        // 40 pages are longer than the 64 KiB that a segment may have.
        let lens: Vec<_> = list.segments().map(|segment| segment.len).collect();
        assert_eq!(lens, [0x1_0000, 0x1_0000, 0x8000]);
        let first = list.segments().next().unwrap().iova.0;
        for n in 0..40 {
            let seen = world.read(ME, first + n * PAGE as u64, 1);
            assert_eq!(seen, Some(vec![n as u8]));
        }
        return drop(list);
    };
    panic!("{only:?}");
}
