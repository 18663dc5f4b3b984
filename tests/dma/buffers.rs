//! Single buffers: what the device reaches, what it does not, and what comes back (rules C-221 to
//! C-223, C-226).

use iommu::addr::Iova;
use iommu::dma::{Direction, DmaOptions};
use iommu::error::DmaError;
use iommu::fault::Access;

use crate::fixture::{Cost, ME, Neighbours, PAGE, SECRET, World, aligned, deferred, phys};

/// Everything that a device can read in the granules around `iova`.
fn around(world: &World, iova: Iova, len: usize) -> Vec<u8> {
    let first = iova.0 & !0xfff;
    let last = (iova.0 + len as u64 - 1) | 0xfff;
    world.read(ME, first, (last + 1 - first) as usize).expect("the granules are mapped")
}

#[test]
fn a_whole_page_is_mapped_where_it_is() {
    let world = World::new();
    let dma = world.plain();
    let before = world.usage();
    let buffer = aligned(2 * PAGE);
    buffer.fill(7);
    let place = phys(buffer);
    let (mapped, cost) = world.cost(|| dma.map(buffer, Direction::Bidirectional).unwrap());
    assert_eq!(cost, Cost { map: 1, unmap: 0, syncs: 0, notifies: 1 });
    assert_eq!(world.machine.pages(), 0, "nothing is bounced");
    assert_eq!(world.leads_to(mapped.iova().0), Some(place));
    assert_eq!(world.read(ME, mapped.iova().0, 2 * PAGE), Some(vec![7; 2 * PAGE]));
    assert!(world.write(ME, mapped.iova().0 + 5, &[1, 2, 3]));
    let (iova, end) = (mapped.iova().0, mapped.iova().0 + 2 * PAGE as u64);
    assert!(!world.reaches(end, Access::READ) && !world.reaches(iova - 1, Access::READ));
    let (buffer, cost) = world.cost(|| mapped.unmap().unwrap());
    assert_eq!(cost, Cost { map: 0, unmap: 1, syncs: 0, notifies: 1 });
    assert_eq!(&buffer[4..9], &[7, 1, 2, 3, 7]);
    assert!(!world.reaches(iova, Access::READ), "unmapped");
    assert_eq!(world.usage_of(&dma), before);
}

#[test]
fn a_device_reads_zeros_beside_a_buffer_and_writes_nowhere() {
    // C-222: the neighbours of a buffer in its pages are not the device's
    let places =
        [(0, 100), (0xf80, 0x100), (0x234, 3 * PAGE), (1, PAGE - 1), (PAGE - 1, 2 * PAGE), (8, 8)];
    for (offset, len) in places {
        let world = World::new();
        let dma = world.plain();
        let before = world.usage();
        let mut memory = Neighbours::new(offset, len);
        let content = memory.buffer().to_vec();
        let result = dma.with_mapped(memory.buffer(), Direction::Bidirectional, |iova| {
            assert_eq!(iova.0 as usize % PAGE, offset, "the place in the page stays");
            let seen = around(&world, iova, len);
            let (front, rest) = seen.split_at(offset);
            assert_eq!(&rest[..len], content, "the buffer itself");
            assert!(front.iter().chain(&rest[len..]).all(|byte| *byte == 0), "{offset:#x}");
            let all = vec![0xbb; seen.len()];
            assert!(world.write(ME, iova.0 & !0xfff, &all), "the pages are the device's");
            assert!(!world.reaches((iova.0 & !0xfff) - 1, Access::READ));
            assert!(!world.reaches((iova.0 & !0xfff) + seen.len() as u64, Access::READ));
        });
        result.unwrap();
        assert!(memory.buffer().iter().all(|byte| *byte == 0xbb), "what the device wrote");
        assert!(memory.are_untouched(), "and not a byte more: {offset:#x} {len:#x}");
        drop(dma);
        world.registry.remove_device(iommu::device::DeviceId(u64::from(ME))).unwrap();
        let _ = before;
        assert_eq!(world.machine.pages(), 0);
    }
}

#[test]
fn without_the_bounce_the_neighbours_would_be_reached() {
    // The control of the test before: a page that is mapped as it is shows what lies beside.
    let world = World::new();
    let dma = world.plain();
    let mut memory = Neighbours::new(0x100, 16);
    let page = phys(memory.buffer()).0 & !0xfff;
    let iova = dma.map_pages_raw(iommu::addr::PhysAddr(page), 0x1000, Direction::ToDevice).unwrap();
    assert_eq!(world.read(ME, iova.0, 1), Some(vec![SECRET]));
}

#[test]
fn only_the_edges_are_bounced_and_the_pieces_go_in_one_exchange() {
    let world = World::new();
    let dma = world.plain();
    for (offset, len, pages, maps) in [
        (0x10, 5 * PAGE, 2, 3),        // head, middle, tail
        (0, 3 * PAGE + 1, 1, 2),       // tail
        (0x10, 4 * PAGE - 0x10, 1, 2), // head
        (0x10, 2 * PAGE - 0x20, 2, 1), // one piece of two pages
        (0x10, 0x20, 1, 1),
        (0, 4 * PAGE, 0, 1),
    ] {
        let pages_before = world.machine.pages();
        let mut memory = Neighbours::new(offset, len);
        let (result, cost) = world.cost(|| {
            dma.with_mapped(memory.buffer(), Direction::ToDevice, |_| world.machine.pages())
        });
        let held = result.unwrap();
        assert!(held >= pages && held <= pages_before + pages, "{offset:#x} {len:#x}: {held}");
        assert_eq!(
            cost,
            Cost { map: maps, unmap: 1, syncs: 0, notifies: 2 },
            "{offset:#x} {len:#x}"
        );
    }
}

#[test]
fn directions_are_enforced_by_the_unit() {
    // C-221
    let world = World::new();
    let dma = world.plain();
    for (direction, reads, writes) in [
        (Direction::ToDevice, true, false),
        (Direction::FromDevice, false, true),
        (Direction::Bidirectional, true, true),
    ] {
        for bounced in [false, true] {
            let buffer = if bounced { &mut aligned(PAGE)[1..100] } else { aligned(PAGE) };
            let mapped = dma.map(buffer, direction).unwrap();
            assert_eq!(mapped.direction(), direction);
            assert_eq!(world.reaches(mapped.iova().0, Access::READ), reads);
            assert_eq!(world.reaches(mapped.iova().0, Access::WRITE), writes);
        }
    }
    assert_eq!(dma.mapping_count(), 0, "dropped");
    let shared: &'static [u8] = aligned(PAGE);
    for direction in [Direction::FromDevice, Direction::Bidirectional] {
        let refused = dma.map(shared, direction).unwrap_err();
        assert_eq!(
            (refused.error, refused.buffer.map(|buffer| buffer.len())),
            (DmaError::InvalidArg, Some(PAGE))
        );
    }
    let mapped = dma.map(shared, Direction::ToDevice).unwrap();
    assert!(!world.write(ME, mapped.iova().0, &[1]));
}

#[test]
fn a_buffer_for_the_device_only_is_not_written_back() {
    // It may lie where nobody can write: this test dies if somebody does.
    static CONSTANT: [u8; 40] = [9; 40];
    let world = World::new();
    for dma in [world.plain(), world.clone_of(ME, &deferred(1))] {
        let mut mapped = dma.map(&CONSTANT[3..], Direction::ToDevice).unwrap();
        assert_eq!(world.read(ME, mapped.iova().0, 37), Some(vec![9; 37]));
        assert!(!world.write(ME, mapped.iova().0, &[1; 37]));
        mapped.sync_for_cpu().unwrap();
        mapped.sync_for_device().unwrap();
        assert_eq!(mapped.write(0, &[1]), Err(DmaError::InvalidArg));
        assert_eq!(mapped.defer().unwrap().flush().unwrap(), &[9; 37]);
        drop(dma.map(&CONSTANT[..], Direction::ToDevice).unwrap());
    }
}

#[test]
fn what_the_device_does_not_write_is_what_it_was() {
    // Bounced or not; and no bytes of a former buffer come back.
    let world = World::new();
    let dma = world.plain();
    for offset in [0, 7] {
        let secret: &'static mut [u8] = &mut aligned(PAGE)[offset..];
        secret.fill(SECRET);
        drop(dma.map(secret, Direction::ToDevice).unwrap());
        let buffer: &'static mut [u8] = &mut aligned(PAGE)[offset..];
        buffer.fill(3);
        let mapped = dma.map(buffer, Direction::FromDevice).unwrap();
        assert!(world.write(ME, mapped.iova().0 + 10, &[1; 20]));
        let buffer = mapped.unmap().unwrap();
        assert_eq!(&buffer[8..12], &[3, 3, 1, 1]);
        assert!(buffer[30..].iter().all(|byte| *byte == 3));
    }
}

#[test]
fn a_page_that_was_bounced_through_before_shows_nothing_of_it() {
    // The pages that a handle keeps are the same memory: beside the buffer there are zeros again.
    let world = World::new();
    let dma = world.plain();
    let mut big = Neighbours::new(0, PAGE - 1);
    big.buffer().fill(SECRET);
    let first =
        dma.with_mapped(big.buffer(), Direction::Bidirectional, |iova| world.leads_to(iova.0));
    let mut small = Neighbours::new(0x800, 4);
    dma.with_mapped(small.buffer(), Direction::Bidirectional, |iova| {
        let page = world.leads_to(iova.0 & !0xfff);
        assert_eq!(page, first.unwrap(), "the same page, or this test shows nothing");
        let seen = around(&world, iova, 4);
        assert!(seen.iter().all(|byte| *byte != SECRET));
    })
    .unwrap();
}

#[test]
fn syncs_move_bytes_while_the_device_has_the_buffer() {
    let world = World::new();
    let dma = world.plain();
    for start in [0, 40] {
        let buffer: &'static mut [u8] = &mut aligned(4 * PAGE)[start..3 * PAGE + 50];
        let len = buffer.len();
        let mut mapped = dma.map(buffer, Direction::Bidirectional).unwrap();
        let iova = mapped.iova().0;
        for at in [0, PAGE + 3, len - 4] {
            assert!(world.write(ME, iova + at as u64, b"from"));
            let mut seen = [0; 4];
            mapped.read(at, &mut seen).unwrap();
            assert_eq!(&seen, b"from");
            mapped.write(at, b"to..").unwrap();
            assert_eq!(world.read(ME, iova + at as u64, 4).unwrap(), b"to..");
        }
        // A write of the CPU takes nothing of the device's along: it wrote beside it since.
        assert!(world.write(ME, iova, b"dev"));
        mapped.write(3, b"c").unwrap();
        assert_eq!(world.read(ME, iova, 4).unwrap(), b"devc");
        mapped.sync_for_cpu().unwrap();
        mapped.sync_for_device().unwrap();
        assert_eq!(world.read(ME, iova, 4).unwrap(), b"devc");
        for (at, len) in [(len, 1), (len - 3, 4), (usize::MAX, 1)] {
            assert_eq!(mapped.read(at, &mut vec![0; len]), Err(DmaError::InvalidArg));
            assert_eq!(mapped.write(at, &vec![0; len]), Err(DmaError::InvalidArg));
        }
        let buffer = mapped.unmap().unwrap();
        assert_eq!((&buffer[..4], &buffer[len - 4..]), (&b"devc"[..], &b"to.."[..]));
    }
}

#[test]
fn a_device_that_is_not_coherent_gets_pages_of_the_platform_only() {
    // C-226
    let world = World::new();
    let dma = world.dma(&DmaOptions { coherent: false, ..DmaOptions::default() });
    let buffer = aligned(3 * PAGE);
    buffer.fill(4);
    let place = phys(buffer);
    let mapped = dma.map(buffer, Direction::Bidirectional).unwrap();
    assert_eq!(world.machine.pages(), 3);
    assert_ne!(world.leads_to(mapped.iova().0), Some(place));
    assert_eq!(world.read(ME, mapped.iova().0, 3 * PAGE), Some(vec![4; 3 * PAGE]));
    assert!(world.write(ME, mapped.iova().0 + 0x1fff, &[5, 6]));
    assert_eq!(&mapped.unmap().unwrap()[0x1ffe..0x2002], &[4, 5, 6, 4]);
}

#[test]
fn memory_that_the_platform_does_not_know_is_bounced() {
    let world = World::new();
    let dma = world.plain();
    world.machine.know_addresses(false);
    let buffer = aligned(2 * PAGE);
    buffer.fill(4);
    let mapped = dma.map(buffer, Direction::Bidirectional).unwrap();
    assert_eq!((world.machine.pages(), world.read(ME, mapped.iova().0, 1)), (2, Some(vec![4])));
    assert!(world.write(ME, mapped.iova().0, &[8]));
    assert_eq!(mapped.unmap().unwrap()[..2], [8, 4]);
}

#[test]
fn empty_buffers_are_refused_and_boxes_come_back() {
    let world = World::new();
    let dma = world.plain();
    let empty: Box<[u8]> = Box::new([]);
    assert_eq!(dma.map(empty, Direction::ToDevice).unwrap_err().error, DmaError::InvalidArg);
    let packet: Box<[u8]> = vec![1; 1500].into();
    let mapped = dma.map(packet, Direction::ToDevice).unwrap();
    assert_eq!(mapped.len(), 1500);
    assert_eq!(world.read(ME, mapped.iova().0, 1500), Some(vec![1; 1500]));
    assert_eq!(*mapped.unmap().unwrap(), [1; 1500]);
}

#[test]
fn a_larger_granule_than_the_platform_s_pages_is_bounced_whole() {
    use iommu::addr::PageSizes;
    use iommu::sim::SimConfig;
    let sizes = PageSizes::from_bits(!0x3fff).unwrap();
    let world = World::with(SimConfig { page_sizes: sizes, ..SimConfig::default() });
    let dma = world.plain();
    assert_eq!(dma.granule(), 0x4000);
    let mut memory = Neighbours::new(0x800, 0x1234);
    dma.with_mapped(memory.buffer(), Direction::Bidirectional, |iova| {
        // One granule or two: that is where the heap put it.
        let first = iova.0 & !0x3fff;
        let len = ((iova.0 + 0x1233) | 0x3fff) as usize + 1 - first as usize;
        let seen = world.read(ME, first, len).unwrap();
        assert!(seen.iter().all(|byte| *byte != SECRET));
        assert!(world.write(ME, first, &vec![0xcc; len]));
        assert!(!world.reaches(first + len as u64, Access::READ));
    })
    .unwrap();
    assert!(memory.buffer().iter().all(|byte| *byte == 0xcc) && memory.are_untouched());
    drop(dma);
    assert_eq!(world.machine.pages(), 0);
}
