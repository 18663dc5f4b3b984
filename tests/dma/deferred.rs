//! Deferred invalidation: what the device reaches meanwhile, and when memory and addresses are used
//! again (rules C-187 to C-191).

use iommu::dma::{Direction, DmaOptions};
use iommu::driver::Health;
use iommu::error::DmaError;
use iommu::fault::Access;
use iommu::sim::Refusal;

use crate::fixture::{Cost, ME, PAGE, World, aligned, deferred};

#[test]
fn strict_is_the_default_and_ends_before_it_returns() {
    // C-223, C-180: the control of everything below, with the same calls
    for world in [World::new(), World::lazy()] {
        let dma = world.plain();
        let mapped = dma.map(aligned(PAGE), Direction::Bidirectional).unwrap();
        let iova = mapped.iova().0;
        let unmapped = mapped.defer().unwrap();
        assert!(!world.reaches(iova, Access::READ), "cut off");
        assert!(unmapped.is_ready() && dma.waiting() == 0);
        assert_eq!(unmapped.take().unwrap().len(), PAGE);
    }
}

#[test]
fn until_the_flush_the_device_reaches_the_memory_and_nobody_else_has_it() {
    // C-190 (the window, on purpose), C-191
    for world in [World::new(), World::lazy()] {
        let dma = world.dma(&deferred(256));
        let before = world.usage();
        let mapped = dma.map(aligned(PAGE), Direction::Bidirectional).unwrap();
        let iova = mapped.iova();
        let (unmapped, cost) = world.cost(|| mapped.defer().unwrap());
        assert_eq!(cost, Cost { map: 0, unmap: 0, syncs: 0, notifies: 0 });
        assert_eq!(dma.waiting(), 1);
        assert!(world.write(ME, iova.0, b"late"), "the window that deferring opens");
        let unmapped = unmapped.take().expect_err("the buffer does not come out");
        let other = dma.map(aligned(PAGE), Direction::Bidirectional).unwrap();
        assert_ne!(other.iova(), iova, "the address is not used again");
        dma.flush().unwrap();
        assert!(!world.reaches(iova.0, Access::READ), "cut off");
        assert_eq!(&unmapped.take().unwrap()[..4], b"late", "the buffer is back");
        let again = dma.map(aligned(PAGE), Direction::ToDevice).unwrap();
        assert_eq!(again.iova(), iova, "and the address may be used again");
        drop((again, other));
        assert_eq!(world.usage_of(&dma), before);
    }
}

#[test]
fn many_unmaps_are_one_exchange() {
    let world = World::lazy();
    let dma = world.dma(&deferred(256));
    let map = |n: usize| dma.map(aligned(PAGE * n), Direction::ToDevice).unwrap();
    let mapped: Vec<_> = (0..40).map(|n| map(1 + n % 3)).collect();
    let (waiting, cost) = world.cost(|| {
        let waiting: Vec<_> = mapped.into_iter().map(|one| one.defer().unwrap()).collect();
        dma.flush().unwrap();
        waiting
    });
    assert_eq!((cost.syncs, cost.notifies), (1, 2), "one batch of unmaps, one invalidation");
    assert!(cost.unmap <= 40);
    assert_eq!((dma.waiting(), dma.mapping_count()), (0, 0));
    assert!(waiting.into_iter().all(|one| one.take().is_ok()));
    // The same, strictly.
    let strict = World::lazy();
    let dma = strict.plain();
    let mapped: Vec<_> =
        (0..40).map(|_| dma.map(aligned(PAGE), Direction::ToDevice).unwrap()).collect();
    let ((), cost) = strict.cost(|| drop(mapped));
    assert_eq!((cost.unmap, cost.syncs, cost.notifies), (40, 40, 80));
}

#[test]
fn a_full_queue_is_flushed_by_the_unmap_that_fills_it() {
    // C-188: bounded
    let world = World::lazy();
    let dma = world.dma(&deferred(4));
    let mut waiting = Vec::new();
    for n in 1..=10 {
        let mapped = dma.map(aligned(PAGE), Direction::ToDevice).unwrap();
        waiting.push(mapped.defer().unwrap());
        assert_eq!(dma.waiting(), n % 4);
    }
    let ready: Vec<_> = waiting.iter().map(|one| one.is_ready()).collect();
    assert_eq!(ready, [true, true, true, true, true, true, true, true, false, false]);
    drop(waiting.pop());
    assert_eq!(dma.waiting(), 0, "dropping one ends the wait of all");
    assert!(waiting.into_iter().all(|one| one.is_ready()));
    // A limit of nothing is strict, by another way.
    let world = World::lazy();
    let dma = world.dma(&deferred(0));
    let mapped = dma.map(aligned(PAGE), Direction::ToDevice).unwrap();
    assert!(mapped.defer().unwrap().is_ready());
}

#[test]
fn more_than_a_batch_waits_and_ends() {
    let world = World::new();
    let dma = world.dma(&deferred(1000));
    let before = world.usage();
    let mapped: Vec<_> =
        (0..150).map(|_| dma.map(aligned(PAGE), Direction::ToDevice).unwrap()).collect();
    let waiting: Vec<_> = mapped.into_iter().map(|one| one.defer().unwrap()).collect();
    let ((), cost) = world.cost(|| dma.flush().unwrap());
    assert_eq!(cost.notifies, 3, "64 at a time");
    drop(waiting);
    assert_eq!(world.usage_of(&dma), before);
}

#[test]
fn bounce_pages_wait_as_well_and_late_writes_go_nowhere() {
    let world = World::lazy();
    let dma = world.dma(&deferred(100));
    let buffer: &'static mut [u8] = &mut aligned(PAGE)[8..24];
    let mapped = dma.map(buffer, Direction::FromDevice).unwrap();
    let iova = mapped.iova().0;
    assert!(world.write(ME, iova, b"in time"));
    let unmapped = mapped.defer().unwrap();
    assert!(world.write(ME, iova, b"too late"), "the page is still there");
    let other: &'static mut [u8] = &mut aligned(PAGE)[8..24];
    let other = dma.map(other, Direction::Bidirectional).unwrap();
    assert_ne!(world.leads_to(other.iova().0), world.leads_to(iova), "another page");
    assert_eq!(&unmapped.flush().unwrap()[..8], b"in time\0");
    assert_eq!(other.unmap().unwrap(), &[0; 16]);
}

#[test]
fn addresses_that_wait_are_found_before_there_are_none() {
    let world = World::lazy();
    let few = DmaOptions { mask: 4 * PAGE as u64 - 1, ..deferred(1000) };
    let dma = world.dma(&few);
    let map = || dma.map(aligned(PAGE), Direction::ToDevice);
    let mapped: Vec<_> = (0..3).map(|_| map().unwrap()).collect();
    assert_eq!(map().unwrap_err().error, DmaError::NoSpace, "three pages have addresses");
    let waiting: Vec<_> = mapped.into_iter().map(|one| one.defer().unwrap()).collect();
    let again = map().expect("what waits is ended first");
    assert!(waiting.iter().all(|one| one.is_ready()) && dma.waiting() == 0);
    drop(again.defer().unwrap());
    let mut held: Vec<_> = (0..3).map(|_| map().unwrap()).collect();
    let last = held.remove(0).defer().unwrap();
    world.sim.refuse(0, Refusal::ONCE);
    assert_eq!(map().unwrap_err().error, DmaError::NoSpace, "the unit does not confirm");
    assert!(world.sim.refuse_none() == 1 && !last.is_ready());
}

#[test]
fn a_strict_unmap_does_not_end_the_others() {
    let world = World::lazy();
    let dma = world.dma(&deferred(100));
    let one = dma.map(aligned(PAGE), Direction::ToDevice).unwrap();
    let two = dma.map(aligned(PAGE), Direction::ToDevice).unwrap();
    let at = two.iova().0;
    let one = one.defer().unwrap();
    two.unmap().unwrap();
    assert!(!world.reaches(at, Access::READ), "strict whatever the mode");
    assert!(!one.is_ready());
    one.flush().unwrap();
}

#[test]
fn two_handles_of_a_group_have_queues_of_their_own() {
    let world = World::lazy();
    let one = world.dma(&deferred(100));
    let group = world.join(9, Some(ME));
    let two = iommu::dma::DmaDevice::new(&group, world.machine, &deferred(100)).unwrap();
    let first = one.map(aligned(PAGE), Direction::ToDevice).unwrap().defer().unwrap();
    let second = two.map(aligned(PAGE), Direction::ToDevice).unwrap().defer().unwrap();
    two.flush().unwrap();
    assert!(second.is_ready() && !first.is_ready());
    drop((first, second));
    assert_eq!(one.mapping_count(), 0);
}

#[test]
fn a_flush_that_is_not_confirmed_keeps_everything_out_of_use() {
    let world = World::lazy();
    let dma = world.dma(&deferred(100));
    let mapped = dma.map(aligned(PAGE), Direction::ToDevice).unwrap();
    let iova = mapped.iova();
    let waiting = mapped.defer().unwrap();
    world.sim.refuse(0, Refusal::ONCE);
    assert_eq!(dma.flush(), Err(DmaError::Io));
    assert_eq!((world.sim.refuse_none(), world.instance.health()), (1, Health::Poisoned));
    assert!(!waiting.is_ready());
    assert_eq!((dma.waiting(), dma.mapping_count()), (1, 1), "it goes on waiting");
    let other = dma.map(aligned(PAGE), Direction::ToDevice).unwrap();
    assert_ne!(other.iova(), iova);
    assert_eq!(waiting.flush().unwrap().len(), PAGE, "this unit confirms in the end");
    assert_eq!(dma.mapping_count(), 1);
}

#[test]
fn the_unmap_that_fills_the_queue_says_if_the_flush_failed() {
    let world = World::lazy();
    let dma = world.dma(&deferred(2));
    let one = dma.map(aligned(PAGE), Direction::ToDevice).unwrap().defer().unwrap();
    let two = dma.map(aligned(PAGE), Direction::ToDevice).unwrap();
    world.sim.refuse(1, Refusal::ONCE); // the invalidation
    assert_eq!(two.defer().unwrap_err(), DmaError::Io);
    assert_eq!(world.sim.refuse_none(), 1);
    assert_eq!(dma.waiting(), 2);
    assert!(!one.is_ready());
}

#[test]
fn the_last_handle_ends_what_waits() {
    let world = World::lazy();
    let before = world.usage();
    let group = world.join(ME, None);
    let with_device = world.usage();
    let dma = iommu::dma::DmaDevice::new(&group, world.machine, &deferred(100)).unwrap();
    let buffer: &'static mut [u8] = &mut aligned(PAGE)[1..];
    drop(dma.map(buffer, Direction::ToDevice).unwrap().defer().unwrap());
    let buffer: &'static mut [u8] = &mut aligned(PAGE)[1..];
    let mapped = dma.map(buffer, Direction::ToDevice).unwrap();
    drop(dma);
    assert!(world.reaches(mapped.iova().0, Access::READ), "a mapping is a handle too");
    drop(mapped);
    assert_eq!(world.usage(), with_device);
    assert_eq!(group.kernel_users(), 0);
    let _ = (before, DmaOptions::default());
}
