//! Dirty pages (rules C-193 to C-197, D-31).

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::domain::{DomainOptions, PagingDomain};
use iommu::driver::{Capabilities, DomainFeatures};
use iommu::error::DirtyError;
use iommu::fault::Access;
use iommu::group::Attachment;
use iommu::pool::Shared;
use iommu::prot::Prot;
use iommu::sim::{Refusal, SimConfig};

use crate::fixture::{World, claim, pages};

/// A domain that can track, sixteen pages mapped from 0x10000 on, and a device on it.
fn tracked() -> (World, Shared<PagingDomain>, Attachment) {
    let capabilities = Capabilities::DIRTY_TRACKING;
    let world = World::with(SimConfig { capabilities, ..SimConfig::default() });
    let options = DomainOptions { features: DomainFeatures::DIRTY_TRACKING, ..Default::default() };
    let domain = PagingDomain::with_options(&world.instance, world.pool, &options).unwrap();
    domain.map(pages(0x1_0000, 16), PhysAddr(0x10_0000), Prot::RW).unwrap();
    let attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    (world, domain, attached)
}

fn write(world: &World, iova: u64) {
    assert!(world.reaches(8, iova, Access::WRITE).is_some());
}

fn read(domain: &PagingDomain, clear: bool) -> u64 {
    let mut bitmap = [0];
    domain.read_dirty(pages(0x1_0000, 16), 0x1000, clear, &mut bitmap).unwrap();
    bitmap[0]
}

#[test]
fn writes_are_reported_once_reads_never() {
    // C-194, C-195
    let (world, domain, _attached) = tracked();
    write(&world, 0x1_0000);
    assert_eq!(read(&domain, true), 0, "not tracked yet");
    domain.set_dirty_tracking(true).unwrap();
    assert_eq!(read(&domain, true), 0, "what was written before is not reported");
    assert!(world.reaches(8, 0x1_1000, Access::READ).is_some());
    write(&world, 0x1_2ffc);
    write(&world, 0x1_f000);
    assert_eq!(read(&domain, false), 1 << 2 | 1 << 15, "without clearing");
    assert_eq!(read(&domain, true), 1 << 2 | 1 << 15);
    assert_eq!(read(&domain, true), 0, "cleared");
    write(&world, 0x1_2000);
    assert_eq!(read(&domain, true), 1 << 2, "the bit sets again: the clear was synchronised");
    domain.set_dirty_tracking(false).unwrap();
    write(&world, 0x1_3000);
    assert!(!domain.is_tracking_dirty());
    domain.set_dirty_tracking(true).unwrap();
    assert_eq!(read(&domain, false), 0);
}

#[test]
fn a_bitmap_is_filled_in_its_own_page_size_and_only_for_its_range() {
    let (world, domain, _attached) = tracked();
    domain.set_dirty_tracking(true).unwrap();
    for page in [0, 3, 4, 15] {
        write(&world, 0x1_0000 + page * 0x1000);
    }
    let mut bitmap = [1 << 63];
    domain.read_dirty(pages(0x1_0000, 16), 0x4000, false, &mut bitmap).unwrap();
    assert_eq!(bitmap[0], 1 << 63 | 0b1011, "16 KiB a bit, and old bits stay");
    let mut bitmap = [0];
    domain.read_dirty(pages(0x1_3000, 2), 0x1000, true, &mut bitmap).unwrap();
    assert_eq!(bitmap[0], 0b11);
    assert_eq!(read(&domain, true), 1 | 1 << 15, "the others were not cleared");
}

#[test]
fn wrong_arguments_read_and_clear_nothing() {
    // C-196
    let (world, domain, _attached) = tracked();
    domain.set_dirty_tracking(true).unwrap();
    write(&world, 0x1_0000);
    let odd = IovaRange::new(Iova(0x1_0000), Iova(0x1_07ff)).unwrap();
    for (range, page_size, words) in [
        (pages(0x1_0000, 16), 0, 1),
        (pages(0x1_0000, 16), 0x3000, 1),
        (pages(0x1_0000, 16), 0x800, 1),
        (pages(0x1_1000, 8), 0x4000, 1),
        (odd, 0x1000, 1),
        (pages(0x1_0000, 16), 0x1000, 0),
        (pages(0x1_0000, 17), 0x1000, 1),
        (pages(0xf000, 2), 0x1000, 1),
        (pages(0x2_0000, 1), 0x1000, 1),
        (IovaRange::ALL, 1 << 63, 1),
    ] {
        let mut bitmap = vec![0; words];
        let refused = domain.read_dirty(range, page_size, true, &mut bitmap);
        assert_eq!(refused, Err(DirtyError::InvalidArg), "{range:?} {page_size:#x} {words}");
        assert!(bitmap.iter().all(|word| *word == 0));
    }
    assert_eq!(read(&domain, true), 1);
}

#[test]
fn a_hole_between_two_mappings_is_refused() {
    let (_world, domain, _attached) = tracked();
    domain.map(pages(0x2_1000, 1), PhysAddr(0), Prot::RW).unwrap();
    let mut bitmap = [0];
    let refused = domain.read_dirty(pages(0x1_f000, 3), 0x1000, true, &mut bitmap);
    assert_eq!(refused, Err(DirtyError::InvalidArg));
}

#[test]
fn a_domain_without_the_option_has_none_of_it() {
    // C-193, C-197
    let world = World::new();
    let domain = world.domain();
    assert_eq!(domain.set_dirty_tracking(true), Err(DirtyError::Unsupported));
    let read = domain.read_dirty(pages(0, 1), 0x1000, true, &mut [0]);
    assert_eq!(read, Err(DirtyError::Unsupported));
}

#[test]
fn a_failure_is_passed_on_and_leaves_the_mode() {
    // C-194; C-196: the inner error is not lost
    let (world, domain, _attached) = tracked();
    for nth in [0, 1] {
        world.sim.refuse(nth, Refusal::ONCE);
        assert_eq!(domain.set_dirty_tracking(true), Err(DirtyError::Io), "at {nth}");
        assert_eq!((world.sim.refuse_none(), domain.is_tracking_dirty()), (1, false));
        write(&world, 0x1_0000);
    }
    domain.set_dirty_tracking(true).unwrap();
    domain.set_dirty_tracking(true).expect("idempotent, and no request");
    write(&world, 0x1_0000);
    world.sim.refuse(0, Refusal::ONCE);
    let refused = domain.read_dirty(pages(0x1_0000, 1), 0x1000, true, &mut [0]);
    assert_eq!((refused, world.sim.refuse_none()), (Err(DirtyError::Io), 1));
    assert_eq!(read(&domain, true), 1, "nothing was lost");
}
