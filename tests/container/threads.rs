//! Several threads on one container: nothing is lost, leaked or left reachable.

use std::sync::atomic::{AtomicBool, Ordering};

use iommu::container::{MapDma, UnmapDma, UnmapDmaError, UnmapFailed};
use iommu::prot::Prot;

use crate::fixture::{PAGE, World};

const ROUNDS: u64 = 300;

#[test]
fn maps_unmaps_attaches_and_detaches_at_the_same_time() {
    // T1-580 to T1-583
    for scattered in [false, true] {
        let world = World::new(2);
        if scattered {
            world.memory.scatter();
        }
        let fixed = world.group(0);
        let groups = [world.group(0), world.group(1), world.group(1)];
        let endpoints: Vec<_> = groups.iter().map(|(_, endpoint)| *endpoint).collect();
        let (base, base_endpoint) = fixed;
        world.container.attach_group(base).unwrap();
        let busy = AtomicBool::new(true);
        std::thread::scope(|scope| {
            let container = &world.container;
            let movers: Vec<_> = groups
                .into_iter()
                .map(|(mut ownership, _)| {
                    scope.spawn(move || {
                        for _ in 0..ROUNDS {
                            let id = ownership.group().id();
                            container.attach_group(ownership).expect("nothing is in the way");
                            ownership = container.detach_group(id).expect("it is attached");
                        }
                        ownership
                    })
                })
                .collect();
            let mappers: Vec<_> = (0..3_u64)
                .map(|lane| {
                    scope.spawn(move || {
                        for round in 0..ROUNDS {
                            let iova = (lane << 32) + (round % 7) * 0x10_0000;
                            let size = (1 + round % 100) * PAGE;
                            let request = MapDma { iova, vaddr: iova, size, prot: Prot::RW };
                            container.map_dma(&request).expect("the lane is its own");
                            let unmap = UnmapDma::Range { iova, size };
                            assert_eq!(
                                container.unmap_dma(&unmap).map(|gone| gone.bytes),
                                Ok(size)
                            );
                        }
                    })
                })
                .collect();
            // One more that unmaps what is anyone's, and meets mappings at work.
            let meddler = scope.spawn(|| {
                while busy.load(Ordering::Relaxed) {
                    let request = UnmapDma::Range { iova: 7 << 32, size: PAGE };
                    match container.unmap_dma(&request) {
                        Ok(_) | Err(UnmapFailed { error: UnmapDmaError::Busy, .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    let map = MapDma { iova: 7 << 32, vaddr: 0, size: PAGE, prot: Prot::READ };
                    let _ = container.map_dma(&map);
                }
            });
            for mapper in mappers {
                mapper.join().unwrap();
            }
            for mover in movers {
                drop(mover.join().unwrap());
            }
            busy.store(false, Ordering::Relaxed);
            meddler.join().unwrap();
        });
        let last = world.container.unmap_dma(&UnmapDma::All).unwrap().bytes;
        assert!(last <= PAGE);
        assert_eq!((world.memory.pins(), world.container.mapping_count()), (0, 0));
        assert_eq!(world.container.free_mappings(), 65_535);
        assert_eq!(world.container.group_count(), 1);
        for (unit, endpoint) in [(0, base_endpoint), (0, endpoints[0]), (1, endpoints[1])] {
            for lane in 0..8 {
                assert_eq!(world.reaches(unit, endpoint, lane << 32), None);
            }
        }
    }
}

#[test]
fn the_last_group_may_come_and_go_while_memory_is_mapped() {
    // T1-212, T1-232: attach pins what is there, detach takes it away, maps and unmaps go on.
    let world = World::new(1);
    world.memory.scatter();
    let (ownership, endpoint) = world.group(0);
    std::thread::scope(|scope| {
        let container = &world.container;
        let mover = scope.spawn(move || {
            let mut ownership = ownership;
            for _ in 0..ROUNDS {
                let id = ownership.group().id();
                container.attach_group(ownership).expect("nothing is in the way");
                ownership = container.detach_group(id).expect("it is attached");
            }
        });
        let mappers: Vec<_> = (0..2_u64)
            .map(|lane| {
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let iova = (lane << 32) + (round % 3) * 0x10_0000;
                        let size = (1 + round % 70) * PAGE;
                        let request = MapDma { iova, vaddr: iova, size, prot: Prot::RW };
                        container.map_dma(&request).expect("the lane is its own");
                        // The last detach may have removed it, or an attach may be pinning it.
                        let unmap = UnmapDma::Range { iova, size };
                        loop {
                            match container.unmap_dma(&unmap) {
                                Ok(gone) => break assert!(gone.bytes == size || gone.bytes == 0),
                                Err(UnmapFailed { error: UnmapDmaError::Busy, .. }) => {
                                    std::thread::yield_now();
                                }
                                Err(error) => panic!("{error}"),
                            }
                        }
                    }
                })
            })
            .collect();
        mover.join().unwrap();
        for mapper in mappers {
            mapper.join().unwrap();
        }
    });
    world.container.unmap_dma(&UnmapDma::All).unwrap();
    assert_eq!((world.memory.pins(), world.container.mapping_count()), (0, 0));
    assert_eq!(world.container.free_mappings(), 65_535);
    assert_eq!(world.reaches(0, endpoint, 0), None);
}
