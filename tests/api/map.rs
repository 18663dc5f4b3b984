//! map, map_runs, unmap, iova_to_phys: arguments, exactness, and what the unit translates.

use iommu::addr::{Iova, IovaRange, PageSizes, PhysAddr};
use iommu::driver::Run;
use iommu::error::{MapError, UnmapError};
use iommu::fault::Access;
use iommu::prot::Prot;
use iommu::sim::{Refusal, SimConfig};

use crate::fixture::{World, claim, pages};

#[test]
fn wrong_arguments_are_refused_before_anything_is_sent() {
    // C-159, C-161, C-162, C-163, D-24
    let world = World::new();
    let domain = world.domain();
    let attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    let _ = world.sim.take_log();
    let map = |range, phys, prot| domain.map(range, PhysAddr(phys), prot);
    let half = IovaRange::from_len(Iova(0x1000), 0x800).unwrap();
    let odd = IovaRange::from_len(Iova(0x1800), 0x1000).unwrap();
    assert_eq!(map(half, 0, Prot::RW), Err(MapError::InvalidArg));
    assert_eq!(map(odd, 0, Prot::RW), Err(MapError::InvalidArg));
    assert_eq!(map(pages(0x1000, 1), 0x800, Prot::RW), Err(MapError::InvalidArg));
    assert_eq!(map(pages(0x1000, 1), 0, Prot::empty()), Err(MapError::InvalidArg));
    assert_eq!(map(pages(0x1000, 1), 0, Prot::CACHE), Err(MapError::InvalidArg));
    let both = Prot::READ | Prot::MMIO | Prot::CACHE;
    assert_eq!(map(pages(0x1000, 1), 0, both), Err(MapError::InvalidArg));
    assert_eq!(map(pages(0x1000, 2), !0xfff, Prot::RW), Err(MapError::Overflow));
    assert_eq!(map(pages(1 << 48, 1), 0, Prot::RW), Err(MapError::Range));
    assert_eq!(map(IovaRange::ALL, 0, Prot::RW), Err(MapError::Range));
    assert_eq!(domain.map_runs(&[]), Err(MapError::InvalidArg));
    assert_eq!(domain.unmap(odd), Err(UnmapError::InvalidArg));
    assert_eq!((world.sim.take_log(), domain.mapping_count()), (vec![], 0));
    drop(attached);
}

#[test]
fn a_unit_with_large_pages_only_says_so() {
    let page_sizes = PageSizes::from_bits(1 << 16).unwrap();
    let world = World::with(SimConfig { page_sizes, ..SimConfig::default() });
    let domain = world.domain();
    assert_eq!(domain.geometry().page_sizes.granule(), 0x1_0000);
    assert_eq!(domain.map(pages(0, 1), PhysAddr(0), Prot::RW), Err(MapError::InvalidArg));
    domain.map(pages(0, 16), PhysAddr(0), Prot::RW).unwrap();
}

#[test]
fn overlap_is_refused_and_the_old_mapping_untouched() {
    // C-169, C-264
    let world = World::new();
    let domain = world.domain();
    let attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    domain.map(pages(0x4000, 2), PhysAddr(0xa000), Prot::RW).unwrap();
    let before = world.sim.digest();
    for (first, count) in [(0x4000, 2), (0x3000, 2), (0x5000, 4), (0x0, 64), (0x5000, 1)] {
        let refused = domain.map(pages(first, count), PhysAddr(0), Prot::RW);
        assert_eq!(refused, Err(MapError::Exists));
    }
    let run = |first| Run { range: pages(first, 2), phys: PhysAddr(0), prot: Prot::READ };
    assert_eq!(domain.map_runs(&[run(0x8000), run(0x9000)]), Err(MapError::Exists));
    assert_eq!((world.sim.digest(), domain.mapping_count()), (before, 1));
    drop(attached);
}

#[test]
fn permissions_and_edges_are_the_units() {
    let world = World::new();
    let domain = world.domain();
    let attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    domain.map(pages(0x4000, 1), PhysAddr(0), Prot::READ).unwrap();
    domain.map(pages(0x5000, 1), PhysAddr(0x9000), Prot::WRITE).unwrap();
    assert_eq!(world.reaches(8, 0x4000, Access::READ), Some(PhysAddr(0)), "D-20: 0 is an address");
    assert_eq!(world.reaches(8, 0x4000, Access::WRITE), None);
    assert_eq!(world.reaches(8, 0x5fff, Access::WRITE), Some(PhysAddr(0x9fff)));
    assert_eq!(world.reaches(8, 0x5fff, Access::READ), None);
    assert_eq!(world.reaches(8, 0x6000, Access::WRITE), None);
    assert_eq!(domain.iova_to_phys(Iova(0x4123)), Some(PhysAddr(0x123)));
    assert_eq!(domain.iova_to_phys(Iova(0x3fff)), None);
    drop(attached);
}

#[test]
fn unmap_is_exact_spans_holes_and_never_cuts() {
    // C-179, C-265, C-267, D-22
    let world = World::new();
    let domain = world.domain();
    let attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    for first in [0x1000, 0x3000, 0x7000] {
        domain.map(pages(first, 2), PhysAddr(first), Prot::RW).unwrap();
    }
    assert_eq!(domain.unmap(pages(0x2000, 1)), Err(UnmapError::InvalidArg));
    assert_eq!(domain.unmap(pages(0x1000, 3)), Err(UnmapError::InvalidArg));
    assert_eq!(domain.unmap(pages(0x4000, 8)), Err(UnmapError::InvalidArg));
    assert_eq!(domain.mapping_count(), 3);
    let before = world.instance.counters();
    assert_eq!(domain.unmap(pages(0, 16)), Ok(0x6000));
    let sent = world.instance.counters().since(&before);
    assert_eq!((sent.unmap, sent.notifies), (2, 1), "neighbours go in one request");
    assert_eq!(domain.unmap(pages(0, 16)), Ok(0));
    assert_eq!(world.reaches(8, 0x3000, Access::READ), None);
    drop(attached);
}

#[test]
fn a_mapping_may_end_at_the_last_byte_of_the_space() {
    // D-27, T1-032
    let aperture = IovaRange::ALL;
    let world = World::with(SimConfig { aperture, ..SimConfig::default() });
    let domain = world.domain();
    let last = IovaRange::new(Iova(!0xfff), Iova(u64::MAX)).unwrap();
    domain.map(last, PhysAddr(0x7000), Prot::RW).unwrap();
    assert_eq!(domain.iova_to_phys(Iova(u64::MAX)), Some(PhysAddr(0x7fff)));
    let attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    assert_eq!(world.reaches(8, u64::MAX, Access::WRITE), Some(PhysAddr(0x7fff)));
    assert_eq!(domain.unmap(IovaRange::ALL), Ok(0x1000));
    drop(attached);
}

#[test]
fn a_batch_of_runs_is_one_notify_and_all_or_nothing() {
    // C-167, C-174, C-263
    let world = World::new();
    let domain = world.domain();
    let attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    let runs: Vec<_> = (0..50)
        .map(|n| Run { range: pages(n * 0x2000, 1), phys: PhysAddr(n << 16), prot: Prot::RW })
        .collect();
    let before = world.sim.digest();
    for refused in 0..50 {
        world.sim.refuse(refused, Refusal::ONCE);
        assert_eq!(domain.map_runs(&runs), Err(MapError::Io));
        assert_eq!(world.sim.refuse_none(), 1);
        assert_eq!((world.sim.digest(), domain.mapping_count()), (before.clone(), 0));
    }
    let before = world.instance.counters();
    domain.map_runs(&runs).unwrap();
    let sent = world.instance.counters().since(&before);
    assert_eq!((sent.map, sent.notifies), (50, 1));
    drop(attached);
}

#[test]
fn an_unmap_that_is_not_confirmed_keeps_the_record_and_poisons() {
    let world = World::new();
    let domain = world.domain();
    let attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    domain.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    world.sim.refuse(0, Refusal::ONCE);
    assert_eq!(domain.unmap(pages(0x1000, 1)), Err(UnmapError::Io));
    assert_eq!(domain.iova_to_phys(Iova(0x1000)), Some(PhysAddr(0xa000)));
    assert_eq!(world.instance.health(), iommu::driver::Health::Poisoned);
    drop(attached);
}

#[test]
fn a_range_that_is_named_twice_counts_and_goes_once() {
    // D-22
    let world = World::new();
    let domain = world.domain();
    let _attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    for n in 0..3 {
        domain.map(pages(0x1000 + n * 0x1000, 1), PhysAddr(n << 16), Prot::RW).unwrap();
    }
    let before = world.instance.counters();
    let ranges = [pages(0x1000, 2), pages(0x2000, 2), pages(0x1000, 1), pages(0x8000, 1)];
    assert_eq!(domain.unmap_ranges(&ranges), Ok(0x3000));
    let sent = world.instance.counters().since(&before);
    assert_eq!(sent.unmap, 1, "neighbours in one request");
    assert_eq!(domain.mapping_count(), 0);
}
