//! Unmaps that share one invalidation (rules C-181 to C-186, D-23).

use iommu::addr::PhysAddr;
use iommu::driver::{Capabilities, Health};
use iommu::error::{MapError, UnmapError};
use iommu::fault::Access;
use iommu::prot::Prot;
use iommu::sim::{Call, Refusal, SimConfig};

use crate::fixture::{World, claim, pages};

/// A unit that keeps using what was unmapped until it is told to forget it.
fn lazy() -> World {
    let capabilities = Capabilities::DEFERRED_UNMAP;
    World::with(SimConfig { capabilities, ..SimConfig::default() })
}

fn syncs(world: &World) -> usize {
    world.sim.take_log().iter().filter(|call| matches!(call, Call::Sync { .. })).count()
}

#[test]
fn an_ordinary_unmap_ends_before_it_returns() {
    // C-180: the control of everything below
    let world = lazy();
    let domain = world.domain();
    let _attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    domain.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    assert_eq!(domain.unmap(pages(0x1000, 1)), Ok(0x1000));
    assert_eq!(world.reaches(8, 0x1000, Access::READ), None);
    assert_eq!(syncs(&world), 1);
}

#[test]
fn many_unmaps_share_one_invalidation_and_end_with_it() {
    let world = lazy();
    let domain = world.domain();
    let _attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    for n in 1..=10 {
        domain.map(pages(n * 0x2000, 1), PhysAddr(n * 0x10_0000), Prot::RW).unwrap();
    }
    let mut unmaps = domain.defer_unmaps();
    for n in 1..=10 {
        assert_eq!(unmaps.unmap(pages(n * 0x2000, 1)), Ok(0x1000));
    }
    assert_eq!(unmaps.bytes(), 10 * 0x1000);
    assert_eq!(domain.mapping_count(), 0, "the record is ahead of the unit");
    assert!(world.reaches(8, 0x2000, Access::READ).is_some(), "the unit was not told yet");
    assert_eq!(syncs(&world), 0);
    assert_eq!(unmaps.sync(), Ok(10 * 0x1000));
    for n in 1..=10 {
        assert_eq!(world.reaches(8, n * 0x2000, Access::READ), None);
    }
    assert_eq!(syncs(&world), 1);
}

#[test]
fn dropping_the_value_synchronises() {
    let world = lazy();
    let domain = world.domain();
    let _attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    domain.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    let mut unmaps = domain.defer_unmaps();
    unmaps.unmap(pages(0x1000, 1)).unwrap();
    assert!(world.reaches(8, 0x1000, Access::READ).is_some());
    drop(unmaps);
    assert_eq!(world.reaches(8, 0x1000, Access::READ), None);
    drop(domain.defer_unmaps());
    assert_eq!(syncs(&world), 1, "nothing was due the second time");
}

#[test]
fn an_iova_is_not_used_again_before_the_old_translation_is_gone() {
    // C-181: else the device would reach the new memory through the old translation, or the
    // old memory although the record says the new one
    let world = lazy();
    let domain = world.domain();
    let _attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    domain.map(pages(0x1000, 2), PhysAddr(0xa000), Prot::RW).unwrap();
    let mut unmaps = domain.defer_unmaps();
    unmaps.unmap(pages(0x1000, 2)).unwrap();
    domain.map(pages(0x9000, 1), PhysAddr(0xc000), Prot::RW).unwrap();
    assert!(world.reaches(8, 0x1000, Access::READ).is_some(), "elsewhere nothing is due");
    domain.map(pages(0x1000, 1), PhysAddr(0xb000), Prot::RW).unwrap();
    assert_eq!(world.reaches(8, 0x1000, Access::READ), Some(PhysAddr(0xb000)));
    assert_eq!(world.reaches(8, 0x2000, Access::READ), None, "all that was due has ended");
    assert_eq!(unmaps.sync(), Ok(0x2000), "and this finds nothing left to do");
    assert_eq!(syncs(&world), 1);
    assert_eq!(world.reaches(8, 0x1000, Access::READ), Some(PhysAddr(0xb000)));
}

#[test]
fn two_series_on_one_domain_end_together() {
    let world = lazy();
    let domain = world.domain();
    let _attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    domain.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    domain.map(pages(0x5000, 1), PhysAddr(0xb000), Prot::RW).unwrap();
    let (mut one, mut two) = (domain.defer_unmaps(), domain.defer_unmaps());
    one.unmap(pages(0x1000, 1)).unwrap();
    two.unmap(pages(0x5000, 1)).unwrap();
    assert_eq!(one.sync(), Ok(0x1000));
    assert_eq!(world.reaches(8, 0x1000, Access::READ), None);
    assert_eq!(world.reaches(8, 0x5000, Access::READ), None);
    assert_eq!(two.sync(), Ok(0x1000));
    assert_eq!(syncs(&world), 1);
}

#[test]
fn a_wrong_range_removes_nothing() {
    let world = lazy();
    let domain = world.domain();
    domain.map(pages(0x1000, 2), PhysAddr(0xa000), Prot::RW).unwrap();
    let mut unmaps = domain.defer_unmaps();
    assert_eq!(unmaps.unmap(pages(0x1000, 1)), Err(UnmapError::InvalidArg));
    assert_eq!((unmaps.bytes(), domain.mapping_count()), (0, 1));
    assert_eq!(unmaps.sync(), Ok(0));
}

#[test]
fn a_unit_that_does_not_confirm_says_so_and_the_memory_stays_out_of_use() {
    let world = lazy();
    let domain = world.domain();
    let _attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    for refused_by_map in [false, true] {
        domain.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
        let mut unmaps = domain.defer_unmaps();
        unmaps.unmap(pages(0x1000, 1)).unwrap();
        world.sim.refuse(0, Refusal::ONCE);
        if refused_by_map {
            let again = domain.map(pages(0x1000, 1), PhysAddr(0xb000), Prot::RW);
            assert_eq!(again, Err(MapError::Io));
            assert_eq!(domain.mapping_count(), 0, "nothing of the map is left");
            assert_eq!(unmaps.sync(), Ok(0x1000), "it is tried again, and this time confirmed");
        } else {
            assert_eq!(unmaps.sync(), Err(UnmapError::Io));
        }
        assert_eq!(world.sim.refuse_none(), 1);
        assert_eq!(world.instance.health(), Health::Poisoned);
    }
}
