//! Maps that the unit may have made without saying so: the record keeps what a device may reach.

use iommu::addr::{Iova, PhysAddr};
use iommu::domain::PagingDomain;
use iommu::driver::{Health, Left, Run};
use iommu::error::MapError;
use iommu::fault::Access;
use iommu::group::Attachment;
use iommu::pool::Shared;
use iommu::prot::Prot;
use iommu::sim::{Call, Refusal};

use crate::fixture::{World, claim, pages, scattered};

/// Every request fails, and the unit does nothing of it.
const DEAF: Refusal = Refusal { left: Left::Unchanged, ..Refusal::FOREVER };

fn attached() -> (World, Shared<PagingDomain>, Attachment) {
    let world = World::new();
    let domain = world.domain();
    let attachment = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    (world, domain, attachment)
}

/// The unit is poisoned, page `reached` is the device's, and the record says so, until the unit obeys.
fn keeps(world: &World, domain: &PagingDomain, reached: u64, mappings: usize) {
    assert_eq!(world.instance.health(), Health::Poisoned);
    let at = reached * 0x1000;
    assert!(world.reaches(8, at, Access::READ).is_some(), "the unit did it");
    assert!(domain.iova_to_phys(Iova(at)).is_some(), "it is in the record");
    assert_eq!(domain.mapping_count(), mappings);
    let all = pages(0, 0x1000);
    assert_eq!(domain.map(pages(at, 1), PhysAddr(0), Prot::RW), Err(MapError::Exists));
    world.sim.refuse_none();
    assert_eq!(domain.unmap(all), Ok(mappings as u64 * 0x1000));
    assert_eq!(world.reaches(8, at, Access::READ), None);
}

#[test]
fn runs_stay_in_the_record() {
    for silent in [0, 2] {
        let (world, domain, _attached) = attached();
        let run = |n: u64| Run {
            range: pages(2 * n * 0x1000, 1),
            phys: PhysAddr(n << 16),
            prot: Prot::RW,
        };
        let runs = [0, 1, 2, 3].map(run);
        world.sim.refuse(silent, Refusal::SILENCE);
        assert_eq!(domain.map_runs(&runs), Err(MapError::Unconfirmed));
        keeps(&world, &domain, 2 * silent, 4);
    }
}

#[test]
fn a_list_stays_in_the_record_whichever_batch_was_not_answered() {
    // 128 in a batch
    for silent in [0, 127, 128, 150] {
        let (world, domain, _attached) = attached();
        world.sim.refuse(silent, Refusal::SILENCE);
        let mapped = domain.map_chunks(Iova(0), &scattered(200), Prot::RW);
        assert_eq!(mapped, Err(MapError::Unconfirmed));
        keeps(&world, &domain, silent, 200);
    }
}

#[test]
fn what_a_unit_does_not_take_back_stays_in_the_record() {
    // The second of a batch is refused, and the undo of the first; then the same of the second batch.
    for refused in [1, 128, 140] {
        let (world, domain, _attached) = attached();
        world.sim.refuse(refused, DEAF);
        let mapped = domain.map_chunks(Iova(0), &scattered(200), Prot::RW);
        assert_eq!(mapped, Err(MapError::Unconfirmed));
        keeps(&world, &domain, 0, 200);
        // With a unit that lets go it is an ordinary refusal.
        world.sim.refuse(refused, Refusal { then_all: false, ..DEAF });
        let mapped = domain.map_chunks(Iova(0), &scattered(200), Prot::RW);
        assert_eq!((mapped, domain.mapping_count()), (Err(MapError::Io), 0));
        world.sim.refuse_none();
    }
}

#[test]
fn of_a_started_map_what_was_sent_stays_in_the_record() {
    // 64 go together: none of them, or the first 64, are with the unit when it dies.
    for (silent, sent) in [(0, 64), (63, 64), (70, 128)] {
        let (world, domain, _attached) = attached();
        world.sim.refuse(silent, Refusal::SILENCE);
        let map = PagingDomain::start_map_chunks(&domain, Iova(0), &scattered(150), Prot::RW);
        assert_eq!(map.unwrap().wait(), Err(MapError::Unconfirmed));
        keeps(&world, &domain, silent, sent);
    }
}

#[test]
fn nobody_attached_nothing_to_confirm() {
    let world = World::new();
    let domain = world.domain();
    world.sim.refuse(0, Refusal::SILENCE);
    assert_eq!(domain.map(pages(0, 1), PhysAddr(0), Prot::RW), Ok(()));
    assert_eq!(world.sim.refuse_none(), 0);
}

#[test]
fn a_started_map_that_was_refused_has_nothing_to_take_back() {
    // No room to start it: whoever waits does it, and it is refused.
    let (world, domain, _attached) = attached();
    world.sim.hold(0);
    let map = PagingDomain::start_map(&domain, pages(0, 1), PhysAddr(0), Prot::RW).unwrap();
    let _ = world.sim.take_log();
    world.sim.refuse(0, Refusal::ONCE);
    assert_eq!((map.wait(), world.sim.refuse_none()), (Err(MapError::Io), 1));
    assert_eq!(domain.mapping_count(), 0);
    let unmaps = world.sim.take_log().into_iter().filter(|call| matches!(call, Call::Unmap { .. }));
    assert_eq!(unmaps.count(), 0);
    // The same with a unit that dies over it.
    let map = PagingDomain::start_map(&domain, pages(0, 1), PhysAddr(0), Prot::RW).unwrap();
    world.sim.refuse(0, Refusal::SILENCE);
    assert_eq!(map.wait(), Err(MapError::Unconfirmed));
    keeps(&world, &domain, 0, 1);
}
