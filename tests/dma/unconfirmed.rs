//! Maps that the unit may have made without saying so: nobody gets the memory back.

use iommu::addr::{Iova, PhysAddr};
use iommu::dma::{Direction, DmaOptions};
use iommu::error::DmaError;
use iommu::fault::Access;
use iommu::sim::Refusal;

use crate::fixture::{ME, PAGE, World};

/// Lets the unit make the next map and die before it says so.
fn silence(world: &World) {
    world.sim.refuse(0, Refusal::SILENCE);
}

/// The lowest address that the device can write to now, below 4 GiB from the top.
fn reached(world: &World) -> Option<Iova> {
    let mapped = world.sim.digest().into_iter().flat_map(|(_, _, runs)| runs);
    mapped.map(|run| run.range.first()).find(|iova| world.reaches(iova.0, Access::WRITE))
}

#[test]
fn a_buffer_does_not_come_back() {
    for len in [PAGE + 1, 100] {
        let world = World::new();
        let dma = world.plain();
        silence(&world);
        let buffer: Box<[u8]> = vec![7; len].into();
        let refused = dma.map(buffer, Direction::Bidirectional).unwrap_err();
        assert_eq!((refused.error, refused.error.errno()), (DmaError::Unconfirmed, 5));
        assert!(refused.buffer.is_none(), "the device may write to it");
        let lost = reached(&world).expect("the unit did it");
        assert_eq!(dma.mapping_count(), 1, "its addresses are out of use");
        let pages = world.machine.pages();
        assert!(pages > 0, "it was bounced, at one end at least");
        // Nor does another handle get the address, nor the end of this one the pages.
        let other = world.clone_of(ME, &DmaOptions::default());
        drop(dma);
        assert_eq!((other.mapping_count(), world.machine.pages()), (1, pages));
        world.sim.refuse_none();
        other.trim();
        let fresh = other.map_pages_raw(PhysAddr(0), PAGE as u64, Direction::ToDevice).unwrap();
        assert_ne!(fresh.0 & !0xfff, lost.0 & !0xfff);
    }
}

#[test]
fn a_list_does_not_come_back() {
    let world = World::new();
    let dma = world.plain();
    let lists: [Box<[u8]>; 2] = [vec![1; 10].into(), vec![2; 2 * PAGE].into()];
    // Of two or more requests of the batch the last one is not answered.
    world.sim.refuse(1, Refusal::SILENCE);
    let refused = dma.map_list(lists, Direction::Bidirectional).unwrap_err();
    assert_eq!(refused.error, DmaError::Unconfirmed);
    assert!(refused.buffers.is_none() && reached(&world).is_some());
    assert_eq!(dma.mapping_count(), 1);
}

#[test]
fn pages_for_both_sides_are_not_given_back() {
    let world = World::new();
    let dma = world.plain();
    silence(&world);
    let before = world.machine.pages();
    assert_eq!(dma.alloc_coherent(2 * PAGE).unwrap_err(), DmaError::Unconfirmed);
    assert_eq!(world.machine.pages(), before + 2, "leaked");
    drop(dma);
    assert_eq!(world.machine.pages(), before + 2);
}

#[test]
fn by_address_the_caller_is_told() {
    let world = World::new();
    let dma = world.plain();
    silence(&world);
    let refused = dma.map_pages_raw(PhysAddr(0), PAGE as u64, Direction::Bidirectional);
    assert_eq!(refused, Err(DmaError::Unconfirmed));
    let lost = reached(&world).expect("the unit did it");
    #[expect(unsafe_code, reason = "unmaps by address")]
    // SAFETY: no buffer is behind the page.
    let unmapped = unsafe { dma.unmap_raw(lost) };
    assert_eq!(unmapped, Err(DmaError::NotMapped), "it is nobody's");
}

#[test]
fn a_borrow_ends_and_its_bounce_pages_stay() {
    let world = World::new();
    let dma = world.plain();
    silence(&world);
    let mut buffer = [0; 64];
    let ran = dma.with_mapped(&mut buffer, Direction::FromDevice, |_| panic!("it runs"));
    assert_eq!(ran, Err(DmaError::Unconfirmed));
    assert_eq!((world.machine.pages(), dma.mapping_count()), (1, 1));
    // What the device writes from now on goes to the page, which nobody else has.
    let lost = reached(&world).expect("the unit did it");
    assert!(world.write(ME, lost.0, &[0xaa; 64]));
    assert_eq!(buffer, [0; 64]);
}
