//! Dirty tracking: order of checks, placement of bits, scope, and bits on the way out.

use iommu::addr::PageSizes;
use iommu::container::*;
use iommu::prot::Prot;
use iommu::sim::SimConfig;

use crate::fixture::{AT, PAGE, Script, World, request};

const GROUP: EmulatedId = EmulatedId(7);

fn dirty(iova: u64, pages: u64) -> DirtyRange {
    DirtyRange { iova, size: pages * PAGE, page_size: PAGE }
}

/// What is dirty in a range, as page numbers from its start.
fn read(container: &Container<&Script>, iova: u64, pages: u64) -> Vec<u64> {
    let mut words = vec![0_u64; pages.div_ceil(64) as usize];
    container.read_dirty(&dirty(iova, pages), words.as_mut_slice()).unwrap();
    (0..pages).filter(|n| words[(n / 64) as usize] >> (n % 64) & 1 != 0).collect()
}

fn touch(container: &Container<&Script>, iova: u64) {
    container.dma_write(iova, &[1]).unwrap();
}

struct Nobody;

impl PinHolder for Nobody {
    fn dma_unmap(&self, _range: iommu::addr::IovaRange) {}
}

/// A container with an emulated group that may pin.
fn emulated(units: usize) -> World {
    let world = World::new(units);
    world.container.register_device(Nobody).unwrap();
    world.container.attach_emulated(GROUP).unwrap();
    world
}

fn pin(world: &World, member: impl Into<Member>, iova: u64) {
    world.container.pin_pages(member, iova, Prot::RW, &mut [None]).unwrap();
}

#[test]
fn checks_come_in_their_order() {
    // T1-423 to T1-430, T1-432, W-17: each row is wrong in its own way and in later ones
    let world = World::new(0);
    let container = &world.container;
    container.map_dma(&request(AT, 4)).unwrap();
    let row = |iova, size, page_size, words: usize, want: Result<(), DirtyError>| {
        let mut buffer = vec![7_u64; words];
        let request = DirtyRange { iova, size, page_size };
        let got = container.read_dirty(&request, buffer.as_mut_slice());
        assert_eq!(got, want, "{request:x?}, {words} words");
        assert!(got.is_ok() || buffer.iter().all(|word| *word == 7), "untouched");
        let mut buffer = vec![7_u64; words];
        if want.is_err() {
            // T1-353: the same for an unmap, which has no error but these
            let failed = container.unmap_dma_dirty(&request, buffer.as_mut_slice()).unwrap_err();
            assert_eq!(failed.unmapped.bytes, 0);
            assert!(matches!(failed.error.errno(), 22 | 75));
        }
    };
    let wrong = Err(DirtyError::InvalidArg);
    row(1, 0, 0, 0, wrong);
    row(!0xfff, 2 * PAGE, 0, 0, Err(DirtyError::Overflow));
    row(AT, PAGE, 0, 1, wrong);
    row(AT, PAGE, PAGE, 0, wrong);
    row(AT, 0xfff, PAGE, 1, wrong); // no whole page
    row(AT, 65 * PAGE, PAGE, 1, wrong);
    row(AT, 4 * PAGE, PAGE, 1, wrong); // T1-429: off
    container.start_dirty_tracking().unwrap();
    container.start_dirty_tracking().expect("T1-433: on already");
    row(AT, 4 * PAGE, 2 * PAGE, 1, wrong); // T1-427
    row(AT, 4 * PAGE, 3 * PAGE, 1, wrong);
    row(AT + 1, 4 * PAGE, PAGE, 1, wrong); // T1-428
    row(AT, 4 * PAGE + 1, PAGE, 1, wrong);
    row(AT + PAGE, 3 * PAGE, PAGE, 1, wrong); // T1-430
    row(AT, 3 * PAGE, PAGE, 1, wrong);
    row(AT, 4 * PAGE, PAGE, 1, Ok(()));
    row(0, 1 << 40, PAGE, 1 << 22, Ok(()));
    row(!0xfff, PAGE, PAGE, 1, Ok(())); // T1-424: the last page of the space
    container.stop_dirty_tracking().unwrap();
    container.stop_dirty_tracking().expect("T1-434: off already");
    assert!(!container.is_tracking());
}

#[test]
fn the_largest_bitmap_is_exact() {
    // T1-432, T1-448: only sizes count, nothing is read or written where nothing is mapped
    struct Huge(u64);
    impl DirtyBitmap for Huge {
        fn bytes(&self) -> u64 {
            self.0
        }
        fn load(&mut self, _: u64) -> Result<u64, BitmapFault> {
            Err(BitmapFault)
        }
        fn store(&mut self, _: u64, _: &[u64]) -> Result<(), BitmapFault> {
            Err(BitmapFault)
        }
    }
    let world = World::new(0);
    world.container.start_dirty_tracking().unwrap();
    let read = |pages: u64, bytes| world.container.read_dirty(&dirty(0, pages), &mut Huge(bytes));
    assert_eq!(read(1 << 31, MAX_DIRTY_BITMAP), Ok(()), "T1-449 too");
    assert_eq!(read(1 << 31, MAX_DIRTY_BITMAP + 1), Err(DirtyError::InvalidArg));
    assert_eq!(read((1 << 31) + 1, MAX_DIRTY_BITMAP), Err(DirtyError::InvalidArg));
    assert_eq!(read(65, 15), Err(DirtyError::InvalidArg));
    assert_eq!(read(65, 16), Ok(()));
}

#[test]
fn bits_land_where_they_belong_at_every_boundary() {
    // T1-435, T1-437, T1-438, T1-441, T1-645: one mapping at every offset and of sizes around the
    // words, in a buffer of ones: low bits before it are kept, high bits after it are zero.
    let world = World::new(0);
    let container = &world.container;
    container.start_dirty_tracking().unwrap();
    for pages in [1, 2, 63, 64, 65, 127, 128, 129] {
        for offset in (0..=66).chain([127, 128]) {
            container.map_dma(&request(AT + offset * PAGE, pages)).unwrap();
            let marks = [0, pages / 2, pages - 1];
            for n in marks {
                touch(container, AT + (offset + n) * PAGE + 5);
            }
            let total = offset + pages + 70;
            let count = total.div_ceil(64) as usize;
            let mut words = vec![!0_u64; count];
            container.read_dirty(&dirty(AT, total), words.as_mut_slice()).unwrap();
            for bit in 0..count as u64 * 64 {
                let is = words[(bit / 64) as usize] >> (bit % 64) & 1 != 0;
                let inside = bit >= offset && bit < offset + pages;
                let written = bit / 64 >= offset / 64 && bit / 64 <= (offset + pages - 1) / 64;
                let want = match (inside, written) {
                    (true, _) => marks.contains(&(bit - offset)),
                    (false, true) => bit < offset, // kept below, zero above
                    (false, false) => true,        // not written
                };
                assert_eq!(is, want, "{pages} pages at {offset}, bit {bit}");
            }
            assert_eq!(read(container, AT, total), [], "T1-439: reported once");
            container.unmap_dma(&UnmapDma::All).unwrap();
        }
    }
}

#[test]
fn neighbours_share_words_and_large_mappings_come_in_parts() {
    // T1-436, T1-437: three mappings in one word, and one of many chunks between them
    let world = World::new(0);
    let container = &world.container;
    container.map_dma(&request(AT, 3)).unwrap();
    container.map_dma(&request(AT + 3 * PAGE, 2)).unwrap();
    container.map_dma(&request(AT + 7 * PAGE, 20_000)).unwrap();
    container.map_dma(&request(AT + 20_007 * PAGE, 1)).unwrap();
    container.start_dirty_tracking().unwrap();
    let marks = [1, 4, 7, 63, 64, 4_095, 4_096, 4_097, 12_345, 20_006, 20_007];
    for n in marks {
        touch(container, AT + n * PAGE);
    }
    assert_eq!(read(container, AT, 20_100), marks);
    assert_eq!(read(container, AT, 20_100), []);
    for n in marks {
        touch(container, AT + n * PAGE);
    }
    assert_eq!(
        read(container, AT + 3 * PAGE, 20_004),
        marks[1..10].iter().map(|n| n - 3).collect::<Vec<_>>()
    );
    assert_eq!(read(container, AT, 20_100), [1, 20_007]);
    // A write over several mappings marks each page it touches (T1-511).
    container.dma_write(AT + 2 * PAGE + 4_095, &[0; 2 + 0x1000]).unwrap();
    assert_eq!(read(container, AT, 20_100), [2, 3, 4]);
}

#[test]
fn pins_are_dirty_at_every_look_and_copies_once() {
    // T1-439, T1-442, T1-443, T1-475
    let world = emulated(0);
    let container = &world.container;
    container.map_dma(&request(AT, 8)).unwrap();
    pin(&world, GROUP, AT + PAGE);
    container.start_dirty_tracking().unwrap();
    assert_eq!(read(container, AT, 8), [1], "T1-433: pinned before");
    pin(&world, GROUP, AT + 2 * PAGE);
    touch(container, AT + 5 * PAGE);
    assert_eq!(read(container, AT, 8), [1, 2, 5]);
    container.unpin_pages(AT + PAGE, 1);
    assert_eq!(read(container, AT, 8), [1, 2], "it was pinned until after the last look");
    assert_eq!(read(container, AT, 8), [2]);
    container.dma_read(AT + 7 * PAGE, &mut [0]).unwrap();
    container.map_dma(&request(AT + 8 * PAGE, 1)).unwrap();
    assert_eq!(read(container, AT, 9), [2], "reads and new mappings are clean");
    container.unpin_pages(AT + 2 * PAGE, 1);
    assert_eq!(read(container, AT, 9), [2]);
    pin(&world, GROUP, AT);
    pin(&world, GROUP, AT);
    container.unpin_pages(AT, 1);
    assert_eq!(read(container, AT, 9), [0]);
    assert_eq!(read(container, AT, 9), [0], "one reference is left");
}

#[test]
fn a_group_that_never_pinned_makes_everything_dirty() {
    // T1-038, T1-175, T1-236, T1-436, T1-444, T1-445, W-19, W-22
    let world = emulated(2);
    let container = &world.container;
    container.map_dma(&request(AT, 3)).unwrap();
    container.start_dirty_tracking().unwrap();
    assert_eq!(read(container, AT, 3), [], "an emulated group never counts");
    let (one, _) = world.attached(0);
    let (two, _) = world.attached(1);
    for _ in 0..2 {
        assert_eq!(read(container, AT, 3), [0, 1, 2]);
    }
    pin(&world, one, AT);
    assert_eq!(read(container, AT, 3), [0, 1, 2], "the other one may have written anywhere");
    pin(&world, two, AT + PAGE);
    assert_eq!(read(container, AT, 3), [0, 1, 2], "T1-445: what it wrote before is not known");
    assert_eq!(read(container, AT, 3), [0, 1], "from now on it is what they pin");
    pin(&world, one, AT);
    assert_eq!(read(container, AT, 3), [0, 1], "promoted once");
    drop(container.detach_group(two));
    assert_eq!(read(container, AT, 3), [0, 1], "a pinned group leaves nothing behind");
    let (three, _) = world.attached(1);
    assert_eq!(read(container, AT, 3), [0, 1, 2]);
    drop(container.detach_group(three));
    assert_eq!(read(container, AT, 3), [0, 1, 2], "T1-236");
    assert_eq!(read(container, AT, 3), [0, 1]);
    // Mappings without a domain are not reached by any group.
    drop(container.detach_group(one));
    assert_eq!(read(container, AT, 3), [0, 1]);
}

#[test]
fn a_failed_attach_leaves_the_bits_alone() {
    // T1-169, W-02
    let world = emulated(1);
    let container = &world.container;
    world.memory.limit(2);
    container.map_dma(&request(AT, 3)).unwrap();
    container.start_dirty_tracking().unwrap();
    touch(container, AT + PAGE);
    let (ownership, _) = world.group(0);
    container.attach_group(ownership).unwrap_err();
    assert_eq!(read(container, AT, 3), [1]);
}

#[test]
fn the_granule_of_the_tracking_stays() {
    // T1-440, W-10: attach raises the granule, detach lowers it again; the bits stay what they were
    let coarse = PageSizes::from_bits(1 << 16).unwrap();
    let world = World::with(vec![SimConfig { page_sizes: coarse, ..SimConfig::default() }]);
    let container = &world.container;
    let big = 16 * PAGE;
    container.map_dma(&request(AT, 32)).unwrap();
    container.start_dirty_tracking().unwrap();
    let (id, _) = world.attached(0);
    container.attach_emulated(GROUP).unwrap();
    assert_eq!(container.map_dma(&request(2 * AT, 1)), Err(MapDmaError::InvalidArg), "the larger");
    assert_eq!(read(container, AT, 32).len(), 32, "bits of 4 KiB");
    let wide = DirtyRange { iova: AT, size: 2 * big, page_size: big };
    assert_eq!(container.read_dirty(&wide, [0].as_mut_slice()), Err(DirtyError::InvalidArg));
    container.stop_dirty_tracking().unwrap();

    container.start_dirty_tracking().unwrap();
    let mut words = [0];
    container.read_dirty(&wide, words.as_mut_slice()).unwrap();
    assert_eq!(words, [3], "bits of 64 KiB");
    drop(container.detach_group(id));
    assert_eq!(container.page_sizes().trailing_zeros(), 12);
    assert_eq!(container.map_dma(&request(2 * AT, 1)), Err(MapDmaError::InvalidArg), "the larger");
    let small = UnmapDma::Range { iova: AT, size: PAGE };
    assert_eq!(container.unmap_dma(&small).unwrap_err().errno(), 22);
    container.read_dirty(&wide, words.as_mut_slice()).unwrap();
    touch(container, AT + big + 5);
    container.read_dirty(&wide, words.as_mut_slice()).unwrap();
    assert_eq!(words, [2]);
    container.stop_dirty_tracking().unwrap();
    container.map_dma(&request(2 * AT, 1)).unwrap();
}

/// A bitmap in memory that ends early.
struct Short {
    words: Vec<u64>,
    there: u64,
}

impl DirtyBitmap for Short {
    fn bytes(&self) -> u64 {
        1 << 20
    }
    fn load(&mut self, index: u64) -> Result<u64, BitmapFault> {
        if index < self.there { Ok(self.words[index as usize]) } else { Err(BitmapFault) }
    }
    fn store(&mut self, index: u64, words: &[u64]) -> Result<(), BitmapFault> {
        if index + words.len() as u64 > self.there {
            return Err(BitmapFault);
        }
        self.words[index as usize..][..words.len()].copy_from_slice(words);
        Ok(())
    }
}

#[test]
fn a_fault_forgets_nothing_that_was_not_delivered() {
    // T1-447: the first mapping was delivered, the second was not, in one part and in many
    let world = World::new(0);
    let container = &world.container;
    container.map_dma(&request(AT, 64)).unwrap();
    container.map_dma(&request(AT + 64 * PAGE, 10_000)).unwrap();
    container.start_dirty_tracking().unwrap();
    for there in [1, 2, 64, 65, 66] {
        for n in [3, 64, 70, 9_000] {
            touch(container, AT + n * PAGE);
        }
        let mut short = Short { words: vec![0; 200], there };
        let request = dirty(AT, 10_064);
        assert_eq!(container.read_dirty(&request, &mut short), Err(DirtyError::Fault));
        assert_eq!(short.words[0], 1 << 3);
        let again = read(container, AT, 10_064);
        assert!([64, 70, 9_000].iter().all(|n| again.contains(n)), "{there}");
        if there < 65 {
            assert_eq!(again, [64, 70, 9_000], "nothing of it was delivered: exact");
        }
        assert_eq!(read(container, AT, 10_064), []);
    }
}

#[test]
fn bits_come_with_an_unmap() {
    // T1-374, T1-446: bits from the start of the request, holes are fine, whole mappings go
    let world = emulated(1);
    let container = &world.container;
    container.start_dirty_tracking().unwrap();
    for n in [0, 2, 70] {
        container.map_dma(&request(AT + n * PAGE, 2)).unwrap();
    }
    for n in [1, 2, 71] {
        touch(container, AT + n * PAGE);
    }
    let mut words = [0; 2];
    let gone = container.unmap_dma_dirty(&dirty(AT, 70), words.as_mut_slice()).unwrap();
    assert_eq!((gone.bytes, words), (4 * PAGE, [0b110, 0]));
    let gone = container.unmap_dma_dirty(&dirty(AT, 128), words.as_mut_slice()).unwrap();
    assert_eq!((gone.bytes, words), (2 * PAGE, [0b110, 1 << 7]));
    assert_eq!(container.mapping_count(), 0);

    // With a group that never pinned everything is dirty, on the way out too.
    world.attached(0);
    container.map_dma(&request(AT, 4)).unwrap();
    container.unmap_dma_dirty(&dirty(AT, 4), words[..1].as_mut()).unwrap();
    assert_eq!(words[0], 0b1111);

    container.stop_dirty_tracking().unwrap();
    container.map_dma(&request(AT, 4)).unwrap();
    let off = container.unmap_dma_dirty(&dirty(AT, 4), words.as_mut_slice()).unwrap_err();
    assert_eq!((off.errno(), container.mapping_count()), (22, 1), "T1-360");
}

#[test]
fn an_unmap_stops_at_the_mapping_whose_bits_can_not_be_written() {
    // T1-374
    let world = World::new(1);
    let container = &world.container;
    world.attached(0);
    container.start_dirty_tracking().unwrap();
    for n in 0..4 {
        container.map_dma(&request(AT + n * 64 * PAGE, 1)).unwrap();
    }
    let mut short = Short { words: vec![0; 4], there: 2 };
    let failed = container.unmap_dma_dirty(&dirty(AT, 4 * 64), &mut short).unwrap_err();
    assert_eq!((failed.error, failed.errno()), (UnmapDmaError::Fault, 14));
    assert_eq!((failed.unmapped.bytes, short.words), (2 * PAGE, vec![1, 1, 0, 0]));
    assert_eq!((container.mapping_count(), world.memory.pins()), (2, 2));
    assert_eq!(read(container, AT, 256), [128, 192]);
    assert_eq!(container.unmap_dma(&UnmapDma::All).unwrap().bytes, 2 * PAGE);
}

#[test]
fn a_start_or_a_map_without_memory_for_bits_changes_nothing() {
    // T1-275, T1-433: every allocation in turn; no bits beyond 2^31 - 1 pages
    let mut failures = 0;
    for nth in 0.. {
        let world = World::new(1);
        for n in 0..40 {
            world.container.map_dma(&request(AT + n * 100 * PAGE, 100)).unwrap();
        }
        let before = world.digest();
        world.pool.refuse_nth(nth, true);
        let started = world.container.start_dirty_tracking();
        if world.pool.refuse_none() == 0 {
            started.unwrap();
            break;
        }
        failures += 1;
        assert_eq!(started, Err(DirtyError::OutOfMemory));
        assert_eq!((world.digest(), world.container.is_tracking()), (before, false));
    }
    assert!(failures > 40);
    for real in [false, true] {
        for nth in 0.. {
            let world = World::new(1);
            if real {
                world.attached(0);
            }
            world.container.start_dirty_tracking().unwrap();
            let before = world.digest();
            world.pool.refuse_nth(nth, true);
            let mapped = world.container.map_dma(&request(AT, 100));
            if world.pool.refuse_none() == 0 {
                mapped.unwrap();
                break;
            }
            assert_eq!((mapped, world.digest()), (Err(MapDmaError::OutOfMemory), before), "{nth}");
        }
    }
    let world = World::new(0);
    world.container.map_dma(&request(0, (1 << 31) - 1)).unwrap();
    world.container.map_dma(&request(1 << 50, 1 << 31)).unwrap();
    assert_eq!(world.container.start_dirty_tracking(), Err(DirtyError::InvalidArg));
    world.container.unmap_dma(&UnmapDma::All).unwrap();
    world.container.start_dirty_tracking().unwrap();
    let before = world.digest();
    let mapped = world.container.map_dma(&request(1 << 50, 1 << 31));
    assert_eq!((mapped, world.digest()), (Err(MapDmaError::InvalidArg), before));
}
