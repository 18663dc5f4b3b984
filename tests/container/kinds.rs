//! The first kind of container, what a container says about itself, and changes of addresses.

use iommu::addr::{Iova, IovaRange};
use iommu::container::*;
use iommu::prot::Prot;
use iommu::reserved::{ReservedKind, ReservedRegion, ReservedRegions};
use iommu::sim::SimConfig;

use crate::fixture::{AT, PAGE, World, request};

const GROUP: EmulatedId = EmulatedId(7);

fn range(iova: u64, pages: u64) -> UnmapDma {
    UnmapDma::Range { iova, size: pages * PAGE }
}

fn update(iova: u64, vaddr: u64, pages: u64) -> UpdateVaddr {
    UpdateVaddr { iova, vaddr, size: pages * PAGE }
}

fn first_kind() -> World {
    let options = Options { kind: Kind::V1, allow_unsafe_interrupts: true, ..Options::default() };
    World::open(vec![SimConfig::default()], options)
}

#[test]
fn unmaps_of_the_first_kind_round_to_mappings() {
    // T1-366, T1-367, T1-368, W-20
    let world = first_kind();
    let container = &world.container;
    let (_, endpoint) = world.attached(0);
    for n in [0, 4, 8] {
        container.map_dma(&request(AT + n * PAGE, 4)).unwrap();
    }
    let unmap = |iova, pages| container.unmap_dma(&range(iova, pages)).unwrap().bytes / PAGE;
    assert_eq!(unmap(AT + PAGE, 9), 0, "begins inside: nothing, not even later ones");
    assert_eq!(container.mapping_count(), 3);
    assert_eq!(unmap(AT - PAGE, 1), 0);
    assert_eq!(unmap(AT - PAGE, 2), 4, "a mapping that begins inside goes as a whole");
    assert_eq!(unmap(AT + 4 * PAGE, 5), 8, "more than was asked for");
    assert_eq!(world.reaches(0, endpoint, AT + 11 * PAGE), None);
    container.map_dma(&request(AT, 4)).unwrap();
    assert_eq!(container.unmap_dma(&UnmapDma::All).unwrap().bytes, 4 * PAGE);
    assert_eq!(world.memory.pins(), 0);
}

#[test]
fn the_first_kind_has_no_pins_and_no_dirty_tracking() {
    // T1-416, T1-464, T1-480, T1-512
    let world = first_kind();
    let container = &world.container;
    container.attach_emulated(GROUP).unwrap();
    container.map_dma(&request(AT, 4)).unwrap();
    let pin = |iova, count| container.pin_pages(GROUP, iova, Prot::RW, &mut vec![None; count]);
    assert_eq!(pin(!0, 513), Err(PinPagesError::TooBig), "T1-461 comes first");
    assert_eq!(pin(!0, 2).unwrap_err().errno(), 13, "T1-464");
    assert_eq!(container.unpin_pages(AT, 1), 0);
    assert_eq!(container.start_dirty_tracking(), Err(DirtyError::Denied));
    assert_eq!(container.stop_dirty_tracking(), Err(DirtyError::Denied));
    let nonsense = DirtyRange { iova: 1, size: 0, page_size: 0 };
    assert_eq!(container.read_dirty(&nonsense, [0].as_mut_slice()).unwrap_err().errno(), 13);
    container.dma_write(AT, &[1]).expect("copies are for both kinds");
    assert_eq!(container.info().unwrap().migration.max_bitmap, 1 << 28, "T1-527: also here");
    assert_eq!(container.kind(), Kind::V1);
}

#[test]
fn a_container_says_what_it_is() {
    // T1-080 to T1-084, T1-440, T1-521, T1-527, T1-528, T1-529, T1-584
    let mut reserved = ReservedRegions::new();
    let window = IovaRange::from_len(Iova(0x20_0000), 0x1_0000).unwrap();
    reserved.add(ReservedRegion { range: window, kind: ReservedKind::Msi }).unwrap();
    let world = World::with(vec![SimConfig { reserved, ..SimConfig::default() }]);
    let container = &world.container;
    let ask = |number| Extension::from_number(number).map(|one| container.check_extension(one));
    let cold = |number| Extension::from_number(number).map(Extension::without_container);
    let yes = Some(true);
    let no = Some(false);
    assert_eq!([1, 3, 4, 6, 9, 10, 2].map(cold), [yes, yes, no, no, yes, no, None]);
    assert_eq!([1, 3, 4, 6, 9, 10, 8].map(ask), [yes, yes, yes, no, yes, yes, None]);
    container.attach_emulated(GROUP).unwrap();
    assert_eq!(ask(10), no, "T1-082");
    container.map_dma(&request(AT, 1)).unwrap();
    let info = container.info().unwrap();
    assert_eq!((info.page_sizes, info.free_mappings), (!0xfff, 65_534));
    assert_eq!(info.migration, Migration { page_size: PAGE, max_bitmap: MAX_DIRTY_BITMAP });
    assert_eq!(&*info.windows, [], "T1-201, T1-528");
    world.attached(0);
    assert_eq!(ask(4), no, "T1-083");
    let usable = |first, last| IovaRange::new(Iova(first), Iova(last)).unwrap();
    let list = [usable(0, 0x1f_ffff), usable(0x21_0000, (1 << 48) - 1)];
    assert_eq!(&*container.info().unwrap().windows, list);
    let before = world.digest();
    for nth in 0.. {
        world.pool.refuse_nth(nth, true);
        let info = container.info();
        if world.pool.refuse_none() == 0 {
            assert!(nth > 0);
            break;
        }
        assert_eq!(info.err(), Some(iommu::error::OutOfMemory));
        assert_eq!(world.digest(), before);
    }
}

#[test]
fn void_addresses_stop_what_needs_them_and_nothing_else() {
    // T1-039, T1-100, T1-150, T1-268, T1-288, T1-375, T1-400, T1-402, T1-403, T1-466, T1-496, T1-506
    let world = World::new(2);
    let container = &world.container;
    let (id, endpoint) = world.attached(0);
    container.map_dma(&request(AT, 2)).unwrap();
    container.map_dma(&request(AT + 2 * PAGE, 2)).unwrap();
    container.map_dma(&request(AT + 9 * PAGE, 1)).unwrap();
    let void = container.invalidate_vaddr(&range(AT, 9)).unwrap();
    assert_eq!((void.bytes, container.invalid_vaddrs()), (4 * PAGE, 2));
    assert!(world.reaches(0, endpoint, AT).is_some(), "T1-402");

    let (ownership, _) = world.group(1);
    let before = world.digest();
    let refused = container.attach_group(ownership).unwrap_err();
    assert_eq!(refused.error, AttachGroupError::Busy);
    assert_eq!(container.attach_emulated(GROUP), Err(AttachGroupError::Busy));
    let pinned = container.pin_pages(id, AT + 9 * PAGE, Prot::RW, &mut [None]);
    assert_eq!(pinned, Err(PinPagesError::Busy), "T1-466 comes before T1-467");
    assert_eq!(container.dma_write(AT + 9 * PAGE, &[1]), Err(DmaCopyError::Busy));
    assert_eq!(container.dma_read(AT + 9 * PAGE, &mut [1]), Err(DmaCopyError::Busy));
    assert_eq!(world.digest(), before);

    assert_eq!(container.map_dma(&request(AT, 2)), Err(MapDmaError::Exists), "T1-268");
    container.map_dma(&request(AT + 10 * PAGE, 1)).expect("T1-288");
    container.start_dirty_tracking().unwrap();
    let mut words = [0];
    let all = DirtyRange { iova: AT, size: 16 * PAGE, page_size: PAGE };
    container.read_dirty(&all, words.as_mut_slice()).unwrap();
    assert_eq!(words, [0b110_0000_1111]);
    container.info().unwrap();
    assert_eq!(container.unmap_dma(&range(AT, 2)).unwrap().bytes, 2 * PAGE, "T1-375");
    assert_eq!(container.invalid_vaddrs(), 1);
    container.update_vaddr(&update(AT + 2 * PAGE, 5 * AT, 2)).unwrap();
    assert_eq!(container.invalid_vaddrs(), 0);
    container.attach_group(refused.ownership).unwrap();
    container.dma_write(AT + 2 * PAGE, &[1]).unwrap();
    assert_eq!(container.unmap_dma(&UnmapDma::All).unwrap().bytes, 4 * PAGE);
    assert_eq!(world.memory.pins(), 0);
}

#[test]
fn invalidation_is_all_or_nothing() {
    // T1-354, T1-361, T1-400, T1-401
    let world = World::new(0);
    let container = &world.container;
    for n in 0..3 {
        container.map_dma(&request(AT + n * 2 * PAGE, 2)).unwrap();
    }
    container.attach_emulated(GROUP).unwrap();
    let wrong = container.invalidate_vaddr(&UnmapDma::Range { iova: 1, size: 0 }).unwrap_err();
    assert_eq!(wrong.errno(), 16, "T1-354 comes first");
    container.attach_emulated(EmulatedId(8)).unwrap();
    assert!(container.detach_emulated(GROUP) && container.detach_emulated(EmulatedId(8)));
    for n in 0..3 {
        container.map_dma(&request(AT + n * 2 * PAGE, 2)).unwrap();
    }
    assert_eq!(container.invalidate_vaddr(&range(AT + PAGE, 1)).unwrap_err().errno(), 22);
    assert_eq!(container.invalidate_vaddr(&range(AT + 2 * PAGE, 2)).unwrap().bytes, 2 * PAGE);
    let again = container.invalidate_vaddr(&UnmapDma::All).unwrap_err();
    assert_eq!((again.errno(), again.unmapped.bytes), (22, 0), "T1-401");
    assert_eq!(container.invalid_vaddrs(), 1);
    container.update_vaddr(&update(AT + 2 * PAGE, AT, 2)).unwrap();
    assert_eq!(container.invalidate_vaddr(&UnmapDma::All).unwrap().bytes, 6 * PAGE);
    container.unmap_dma(&UnmapDma::All).unwrap();
    assert_eq!((container.invalid_vaddrs(), container.mapping_count()), (0, 0));
    assert!(world.pool.usage().nodes <= 2, "the emulated group, and a node for the next mapping");
}

#[test]
fn an_update_names_one_void_mapping_exactly() {
    // T1-263, T1-264, T1-266, T1-404, T1-406, T1-407
    let world = World::new(1);
    let container = &world.container;
    world.attached(0);
    container.map_dma(&MapDma { prot: Prot::READ, ..request(AT, 4) }).unwrap();
    container.map_dma(&request(AT + 4 * PAGE, 4)).unwrap();
    container.invalidate_vaddr(&range(AT, 4)).unwrap();
    let update = |iova, vaddr, size| container.update_vaddr(&UpdateVaddr { iova, vaddr, size });
    let errno = |result: Result<(), UpdateVaddrError>| result.unwrap_err().errno();
    let before = world.digest();
    assert_eq!(errno(update(1, u64::MAX, 0)), 22);
    assert_eq!(errno(update(!0xfff, 1, 2 * PAGE)), 75);
    assert_eq!(errno(update(AT + 1, !0xfff, 2 * PAGE)), 75);
    assert_eq!(errno(update(AT, 1, 4 * PAGE)), 22);
    assert_eq!(errno(update(AT - 4 * PAGE, 0, 4 * PAGE)), 2);
    assert_eq!(errno(update(AT - PAGE, 0, 5 * PAGE)), 22);
    assert_eq!(errno(update(AT, 0, 3 * PAGE)), 22);
    assert_eq!(errno(update(AT, 0, 5 * PAGE)), 22);
    assert_eq!(errno(update(AT + 4 * PAGE, 0, 4 * PAGE)), 22, "it is not void");
    assert_eq!((container.invalid_vaddrs(), world.digest()), (1, before));
    update(AT, 7 * AT, 4 * PAGE).unwrap();
    assert_eq!(errno(update(AT, 7 * AT, 4 * PAGE)), 22, "once");
    assert_eq!(world.memory.charged(), 8, "T1-406");
    assert_eq!(container.dma_write(AT, &[1]), Err(DmaCopyError::NotPermitted), "prot stays");
    container.dma_write(AT + 4 * PAGE, &[9]).unwrap();
    container.dma_read(AT, &mut [0]).unwrap();
}

#[test]
fn a_new_owner_is_charged_and_the_old_one_is_not() {
    // T1-272, T1-320, T1-405: pages pinned for a domain, and pages pinned for a device alone
    for domain in [true, false] {
        let world = World::new(1);
        let container = &world.container;
        let memory = world.memory;
        memory.scatter();
        memory.frame_at(AT + PAGE, Frame::Reserved);
        memory.call_as(1);
        container.map_dma(&request(AT, 4)).unwrap();
        memory.call_as(2);
        container.map_dma(&request(AT + 8 * PAGE, 2)).unwrap();
        container.register_device(crate::pins::nobody()).unwrap();
        container.attach_emulated(GROUP).unwrap();
        container.pin_pages(GROUP, AT, Prot::RW, &mut [None; 3]).unwrap();
        let (id, _) = world.attached(0);
        if !domain {
            drop(container.detach_group(id));
        }
        let charged = if domain { (3, 2) } else { (2, 0) };
        assert_eq!((memory.charged_to(1), memory.charged_to(2)), charged, "T1-045");
        // The last emulated group may go while a group is left: then addresses can be void.
        if !domain {
            world.attached(0);
        }
        assert!(container.detach_emulated(GROUP));
        let before = (memory.charged_to(1), memory.charged_to(2));
        container.invalidate_vaddr(&range(AT, 4)).unwrap();
        memory.limit(4);
        memory.call_as(2);
        let update = || container.update_vaddr(&update(AT, 64 * AT, 4));
        assert_eq!(update(), Err(UpdateVaddrError::OutOfMemory));
        assert_eq!((memory.charged_to(1), memory.charged_to(2)), before);
        assert_eq!(container.invalid_vaddrs(), 1);
        memory.limit(5);
        update().unwrap();
        assert_eq!((memory.charged_to(1), memory.charged_to(2)), (0, 5));
        container.unpin_pages(AT, 3);
        container.unmap_dma(&UnmapDma::All).unwrap();
        assert_eq!((memory.charged(), memory.pins()), (0, 0));
    }
}

#[test]
fn each_owner_has_a_limit_of_its_own() {
    // T1-272, T1-320
    let world = World::new(1);
    let container = &world.container;
    world.attached(0);
    world.memory.limit(4);
    for owner in [1, 2] {
        world.memory.call_as(owner);
        let at = AT * u64::from(owner);
        container.map_dma(&request(at, 4)).expect("exactly the limit is allowed");
        let over = container.map_dma(&request(at + 8 * PAGE, 1));
        assert_eq!(over, Err(MapDmaError::OutOfMemory));
        assert_eq!(world.memory.charged_to(owner), 4);
    }
    container.unmap_dma(&range(AT, 4)).unwrap();
    assert_eq!((world.memory.charged_to(1), world.memory.charged_to(2)), (0, 4));
}
