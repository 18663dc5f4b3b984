//! Mapping of scatter lists (rules C-173, C-174).

use iommu::addr::{Iova, PhysAddr};
use iommu::domain::Chunk;
use iommu::error::MapError;
use iommu::fault::Access;
use iommu::prot::Prot;
use iommu::sim::{Call, Refusal, SimConfig};

use crate::fixture::{World, claim, pages};

fn chunk(phys: u64, len: u64) -> Chunk {
    Chunk { phys: PhysAddr(phys), len }
}

fn maps(world: &World) -> usize {
    world.sim.take_log().iter().filter(|call| matches!(call, Call::Map { .. })).count()
}

#[test]
fn chunks_follow_one_another_and_neighbours_in_memory_join() {
    let world = World::new();
    let domain = world.domain();
    let _attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    let list = [
        chunk(0xa000, 0x1000),
        chunk(0xb000, 0x2000),
        chunk(0x3000, 0x1000),
        chunk(0x2000, 0x1000),
    ];
    let _ = world.sim.take_log();
    let before = world.instance.counters();
    assert_eq!(domain.map_chunks(Iova(0x10_0000), &list, Prot::RW), Ok(pages(0x10_0000, 5)));
    assert_eq!(maps(&world), 3, "the first two are one run; the last two go backwards");
    assert_eq!(world.instance.counters().since(&before).notifies, 1);
    for (iova, phys) in
        [(0x10_0000, 0xa000), (0x10_2fff, 0xcfff), (0x10_3000, 0x3000), (0x10_4000, 0x2000)]
    {
        assert_eq!(world.reaches(8, iova, Access::WRITE), Some(PhysAddr(phys)));
    }
    assert_eq!(world.reaches(8, 0x10_5000, Access::READ), None);
    assert_eq!(domain.unmap(pages(0x10_0000, 5)), Ok(0x5000));
}

#[test]
fn wrong_lists_map_nothing() {
    let narrow = SimConfig { aperture: pages(0, 0x100), ..SimConfig::default() };
    let world = World::with(narrow);
    let domain = world.domain();
    let _attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    domain.map(pages(0x9000, 1), PhysAddr(0), Prot::READ).unwrap();
    let before = (world.sim.digest(), world.pool.usage());
    let good = chunk(0xa000, 0x1000);
    for (iova, list, prot, error) in [
        (0x1000, vec![], Prot::RW, MapError::InvalidArg),
        (0x1000, vec![good, chunk(0, 0)], Prot::RW, MapError::InvalidArg),
        (0x1000, vec![good, chunk(0x800, 0x1000)], Prot::RW, MapError::InvalidArg),
        (0x1000, vec![good, chunk(0, 0x1800)], Prot::RW, MapError::InvalidArg),
        (0x1800, vec![good], Prot::RW, MapError::InvalidArg),
        (0x1000, vec![good], Prot::CACHE, MapError::InvalidArg),
        (0x1000, vec![good, chunk(!0xfff, 0x2000)], Prot::RW, MapError::Overflow),
        (!0xfff, vec![good, good], Prot::RW, MapError::Range),
        (0x1000, vec![chunk(0, 0x1000), chunk(0, !0xfff)], Prot::RW, MapError::Overflow),
        (0xf_f000, vec![good, good], Prot::RW, MapError::Range),
        (0x7000, vec![good, good, good], Prot::RW, MapError::Exists),
    ] {
        let refused = domain.map_chunks(Iova(iova), &list, prot);
        assert_eq!(refused, Err(error), "{iova:#x} {list:?}");
        assert_eq!((world.sim.digest(), world.pool.usage()), before);
    }
}

#[test]
fn the_last_chunk_may_end_the_space() {
    let all = SimConfig { aperture: iommu::addr::IovaRange::ALL, ..SimConfig::default() };
    let world = World::with(all);
    let domain = world.domain();
    let list = [chunk(0xa000, 0x1000), chunk(0xf000, 0x1000)];
    domain.map_chunks(Iova(!0x1fff), &list, Prot::RW).unwrap();
    assert_eq!(domain.iova_to_phys(Iova(u64::MAX)), Some(PhysAddr(0xffff)));
    let beyond = domain.map_chunks(Iova(!0x2fff), &[list[0], list[0], list[0], list[0]], Prot::RW);
    assert_eq!(beyond, Err(MapError::Overflow));
}

#[test]
fn a_long_list_is_all_or_nothing_wherever_it_fails() {
    // C-174: 200 runs are four batches
    let list: Vec<_> = (0..200).map(|n| chunk(n * 0x2000, 0x1000)).collect();
    for nth in [0, 63, 64, 130, 199] {
        let world = World::new();
        let domain = world.domain();
        let _attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
        let before = (world.sim.digest(), world.pool.usage());
        world.sim.refuse(nth, Refusal::ONCE);
        assert_eq!(domain.map_chunks(Iova(0x10_0000), &list, Prot::RW), Err(MapError::Io));
        assert_eq!(world.sim.refuse_none(), 1);
        assert_eq!((world.sim.digest(), world.pool.usage()), before, "refused at {nth}");
        domain.map_chunks(Iova(0x10_0000), &list, Prot::RW).expect("the retry succeeds");
        assert_eq!(
            world.reaches(8, 0x10_0000 + 199 * 0x1000, Access::READ),
            Some(PhysAddr(199 * 0x2000))
        );
    }
}
