//! Maps that a unit may have made without saying so: what was pinned for them stays pinned.

use iommu::container::{MapDmaError, UnmapDma, UnmapDmaError};
use iommu::driver::Left;
use iommu::sim::Refusal;

use crate::fixture::{AT, PAGE, World, request};

/// Fails, and the unit does nothing of it.
const REFUSED: Refusal = Refusal { left: Left::Unchanged, ..Refusal::ONCE };

/// What was pinned stays until the units obey; then each page is unpinned once.
fn ends(world: &World, pages: u64, units: &[usize]) {
    assert_eq!((world.memory.pins(), world.container.mapping_count()), (pages, 1));
    let failed = world.container.unmap_dma(&UnmapDma::All).unwrap_err();
    assert_eq!((failed.error, failed.unmapped.bytes), (UnmapDmaError::Io, 0));
    assert_eq!(world.memory.pins(), pages, "it may still be reached");
    for unit in units {
        assert!(world.units[*unit].0.refuse_none() > 0);
    }
    world.container.unmap_dma(&UnmapDma::All).unwrap();
    assert_eq!((world.memory.pins(), world.container.mapping_count()), (0, 0));
    world.container.check_invariants().unwrap();
}

#[test]
fn a_map_that_is_not_answered_keeps_its_pages() {
    // T1-383
    let world = World::new(1);
    let (_, endpoint) = world.attached(0);
    world.units[0].0.refuse(0, Refusal::SILENCE);
    assert_eq!(world.container.map_dma(&request(AT, 4)), Err(MapDmaError::Io));
    assert!(world.reaches(0, endpoint, AT + 3 * PAGE).is_some(), "the unit did it");
    ends(&world, 4, &[0]);
    assert_eq!(world.reaches(0, endpoint, AT), None);
}

#[test]
fn of_many_batches_what_was_sent_is_kept() {
    // The second batch of 128 runs is not answered, in the middle or at its first run.
    for nth in [128, 150] {
        let world = World::new(1);
        world.memory.scatter();
        let (_, endpoint) = world.attached(0);
        world.units[0].0.refuse(nth, Refusal::SILENCE);
        assert_eq!(world.container.map_dma(&request(AT, 300)), Err(MapDmaError::Io));
        assert!(world.reaches(0, endpoint, AT + nth * PAGE).is_some(), "the unit did it");
        ends(&world, 256, &[0]);
    }
}

#[test]
fn an_undo_that_is_refused_keeps_the_pages_in_the_domain_that_has_them() {
    // T1-282, T1-383: the newest domain is asked first; the other unit refuses, and the undo fails.
    for scattered in [false, true] {
        let world = World::new(2);
        let (_, old) = world.attached(0);
        let (_, new) = world.attached(1);
        if scattered {
            world.memory.scatter();
        }
        let runs = if scattered { 4 } else { 1 };
        world.units[0].0.refuse(0, REFUSED);
        world.units[1].0.refuse(runs, Refusal { left: Left::Unchanged, ..Refusal::FOREVER });
        assert_eq!(world.container.map_dma(&request(AT, 4)), Err(MapDmaError::Io));
        assert_eq!(world.reaches(0, old, AT), None);
        assert!(world.reaches(1, new, AT).is_some(), "the unit did not let go");
        ends(&world, 4, &[0, 1]);
        assert_eq!(world.reaches(1, new, AT), None);
    }
}

#[test]
fn an_undo_that_is_refused_once_unpins_once() {
    // The drain that follows tries again, and the unit obeys.
    let world = World::new(2);
    world.attached(0);
    world.attached(1);
    world.units[0].0.refuse(0, REFUSED);
    world.units[1].0.refuse(1, REFUSED);
    assert_eq!(world.container.map_dma(&request(AT, 4)), Err(MapDmaError::Io));
    assert_eq!((world.memory.pins(), world.container.mapping_count()), (0, 0));
    world.container.check_invariants().unwrap();
    world.units.iter().for_each(|(unit, _)| assert_eq!(unit.refuse_none(), 1));
    world.container.map_dma(&request(AT, 4)).unwrap();
    assert_eq!(world.memory.pins(), 4);
}

#[test]
fn any_of_three_units_that_dies_keeps_the_pages() {
    for silent in 0..3 {
        let world = World::new(3);
        let ends_at: Vec<_> = (0..3).map(|unit| world.attached(unit).1).collect();
        world.units[silent].0.refuse(0, Refusal::SILENCE);
        assert_eq!(world.container.map_dma(&request(AT, 2)), Err(MapDmaError::Io));
        assert!(world.reaches(silent, ends_at[silent], AT).is_some());
        ends(&world, 2, &[silent]);
        for (unit, endpoint) in ends_at.into_iter().enumerate() {
            assert_eq!(world.reaches(unit, endpoint, AT), None);
        }
    }
}

#[test]
fn a_container_that_ends_leaves_them_pinned() {
    let world = World::new(1);
    let (group, endpoint) = world.attached(0);
    world.units[0].0.refuse(0, Refusal::SILENCE);
    assert_eq!(world.container.map_dma(&request(AT, 4)), Err(MapDmaError::Io));
    drop(world.container.detach_group(group));
    assert!(world.reaches(0, endpoint, AT).is_some(), "the unit did not let go");
    assert_eq!(world.memory.pins(), 4, "a leak is preferred to memory that a device reaches");
}

#[test]
fn a_group_that_leaves_takes_no_trace_of_them_along() {
    // Any of three units dies, at a map or at an unmap; then the groups of the others leave, the newest
    // first: the pages are still found, and the unmap is not reported as done.
    for dead in 0..3 {
        for at_map in [true, false] {
            let world = World::new(3);
            let groups: Vec<_> = (0..3).map(|unit| world.attached(unit)).collect();
            if at_map {
                world.units[dead].0.refuse(0, Refusal::SILENCE);
                assert_eq!(world.container.map_dma(&request(AT, 2)), Err(MapDmaError::Io));
            } else {
                world.container.map_dma(&request(AT, 2)).unwrap();
                world.units[dead]
                    .0
                    .refuse(0, Refusal { left: Left::Unchanged, ..Refusal::FOREVER });
                world.container.unmap_dma(&UnmapDma::All).unwrap_err();
            }
            for (unit, (group, _)) in
                groups.iter().enumerate().rev().filter(|(unit, _)| *unit != dead)
            {
                drop(world.container.detach_group(*group).expect("it is attached"));
                assert!(world.reaches(dead, groups[dead].1, AT).is_some(), "unit {unit}");
                let failed = world.container.unmap_dma(&UnmapDma::All).unwrap_err();
                assert_eq!((failed.error, failed.unmapped.bytes), (UnmapDmaError::Io, 0));
                assert_eq!(world.memory.pins(), 2);
            }
            assert!(world.units[dead].0.refuse_none() > 0);
            world.container.unmap_dma(&UnmapDma::All).unwrap();
            assert_eq!((world.memory.pins(), world.container.mapping_count()), (0, 0));
        }
    }
}
