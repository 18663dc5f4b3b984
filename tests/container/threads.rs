//! Several threads on one container: nothing is lost, leaked or left reachable.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use iommu::addr::IovaRange;
use iommu::container::*;
use iommu::prot::Prot;

use crate::fixture::{PAGE, World};

const ROUNDS: u64 = 300;
/// Longer than anything takes that is not stuck.
const LIMIT: Duration = Duration::from_secs(60);

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

#[test]
fn a_provider_that_blocks_stops_nobody_else() {
    // T1-582, T1-583: it blocks in the pin of a map and in that of an attach until another thread has
    // used everything else of the container. With any lock held this would hang.
    let world = World::new(1);
    let (container, memory) = (&world.container, world.memory);
    let id = EmulatedId(1);
    container.register_device(crate::pins::nobody()).unwrap();
    container.attach_emulated(id).unwrap();
    let page = |iova| MapDma { iova, vaddr: iova, size: PAGE, prot: Prot::RW };
    let (ownership, endpoint) = world.group(0);
    let mut ownership = Some(ownership);
    container.map_dma(&page(0x10_0000)).unwrap();
    for attach in [true, false] {
        let (enter, entered) = mpsc::channel();
        let (release, released) = mpsc::channel();
        let released = Mutex::new(released);
        let first = AtomicBool::new(true);
        memory.hook(move || {
            if first.swap(false, Ordering::Relaxed) {
                enter.send(()).unwrap();
                released.lock().unwrap().recv_timeout(LIMIT).expect("nobody was stopped");
            }
        });
        let group = if attach { ownership.take() } else { None };
        std::thread::scope(|scope| {
            let blocked = scope.spawn(move || match group {
                Some(group) => {
                    container.attach_group(group).map_err(|refused| refused.error.errno())
                }
                None => container.map_dma(&page(0x20_0000)).map_err(|error| error.errno()),
            });
            entered.recv_timeout(LIMIT).expect("the provider was called");
            container.map_dma(&page(0x30_0000)).unwrap();
            container.pin_pages(id, 0x30_0000, Prot::RW, &mut [None]).unwrap();
            container.dma_write(0x30_0000, &[1]).unwrap();
            container.start_dirty_tracking().unwrap();
            let request = DirtyRange { iova: 0x30_0000, size: PAGE, page_size: PAGE };
            container.read_dirty(&request, [0].as_mut_slice()).unwrap();
            container.stop_dirty_tracking().unwrap();
            container.unpin_pages(0x30_0000, 1);
            let range = UnmapDma::Range { iova: 0x30_0000, size: PAGE };
            assert_eq!(container.unmap_dma(&range).unwrap().bytes, PAGE);
            container.for_each_window(drop);
            container.info().unwrap();
            // What is being built is not there yet for others, and they are told so at once.
            let at = if attach { 0x10_0000 } else { 0x20_0000 };
            let busy = container.unmap_dma(&UnmapDma::Range { iova: at, size: PAGE }).unwrap_err();
            assert_eq!(busy.error, UnmapDmaError::Busy);
            let pinned = container.pin_pages(id, at, Prot::RW, &mut [None]);
            assert_eq!(pinned, Err(PinPagesError::Busy));
            assert_eq!(container.map_dma(&page(at)), Err(MapDmaError::Exists), "T1-583");
            release.send(()).unwrap();
            blocked.join().unwrap().unwrap();
        });
        memory.unhook();
    }
    assert!(world.reaches(0, endpoint, 0x10_0000).is_some());
    assert_eq!((memory.pins(), memory.charged()), (2, 2));
    container.check_invariants().unwrap();
}

#[test]
fn a_map_is_built_anew_if_all_groups_change_meanwhile() {
    // T1-037, T1-232: at the n-th pin of a map the last group leaves, and another one comes.
    const PAGES: u64 = 100;
    for unit in [0, 1] {
        for n in [0, 1, 64, PAGES - 1] {
            let world: &'static World = Box::leak(Box::new(World::new(2)));
            world.memory.scatter();
            let (leaves, left) = world.attached(0);
            let (comes, endpoint) = world.group(unit);
            let comes = Mutex::new((0, Some(comes)));
            world.memory.hook(move || {
                let next = {
                    let (calls, comes) = &mut *comes.lock().unwrap();
                    *calls += 1;
                    // A pin and a charge for each page.
                    comes.take_if(|_| *calls == 2 * n + 1)
                };
                if let Some(ownership) = next {
                    drop(world.container.detach_group(leaves).unwrap());
                    world.container.attach_group(ownership).unwrap();
                }
            });
            let size = PAGES * PAGE;
            world.container.map_dma(&MapDma { iova: 0, vaddr: 0, size, prot: Prot::RW }).unwrap();
            world.memory.unhook();
            for page in [0, 63, 64, PAGES - 1] {
                assert_eq!(world.reaches(unit, endpoint, page * PAGE), Some(page * PAGE * 16));
                assert_eq!(world.reaches(0, left, page * PAGE), None);
            }
            assert_eq!((world.memory.pins(), world.memory.charged()), (PAGES, PAGES));
            world.container.check_invariants().unwrap();
        }
    }
}

#[test]
fn pins_copies_and_dirty_reads_while_groups_and_mappings_come_and_go() {
    // T1-045, T1-319, T1-436, T1-495: in the end nothing is pinned, charged or on record
    let world: &'static World = Box::leak(Box::new(World::new(2)));
    let container = &world.container;
    world.memory.scatter();
    container.register_device(LetGo).unwrap();
    container.attach_emulated(EmulatedId(1)).unwrap();
    let groups = [world.group(0).0, world.group(1).0];
    std::thread::scope(|scope| {
        for mut ownership in groups {
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let id = ownership.group().id();
                    container.attach_group(ownership).expect("nothing is in the way");
                    ownership = container.detach_group(id).expect("it is attached");
                }
            });
        }
        for lane in 0..2_u64 {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let iova = (lane << 32) + (round % 3) * 0x10_0000;
                    let size = (1 + round % 70) * PAGE;
                    container
                        .map_dma(&MapDma { iova, vaddr: iova, size, prot: Prot::RW })
                        .expect("the lane is its own");
                    let unmap = UnmapDma::Range { iova, size };
                    let mut bytes = 0;
                    loop {
                        match container.unmap_dma(&unmap) {
                            Ok(gone) => break assert_eq!(bytes + gone.bytes, size),
                            Err(failed) => {
                                assert_eq!(failed.error, UnmapDmaError::Busy);
                                bytes += failed.unmapped.bytes;
                                std::thread::yield_now();
                            }
                        }
                    }
                }
            });
        }
        scope.spawn(move || {
            for round in 0..ROUNDS * 4 {
                let iova = ((round % 2) << 32) + (round % 3) * 0x10_0000 + (round % 5) * PAGE;
                if container.pin_pages(EmulatedId(1), iova, Prot::RW, &mut [None; 3]).is_ok() {
                    container.unpin_pages(iova, 3);
                }
                let _ = container.dma_write(iova, &[1, 2, 3]);
                if round % 16 == 0 {
                    container.start_dirty_tracking().unwrap();
                }
                let request = DirtyRange { iova: 0, size: 1 << 33, page_size: PAGE };
                let _ = container.read_dirty(&request, vec![0; 1 << 15].as_mut_slice());
                if round % 16 == 9 {
                    container.stop_dirty_tracking().unwrap();
                }
            }
        });
    });
    container.check_invariants().unwrap();
    let state = (container.mapping_count(), container.pinned_pages(), container.free_mappings());
    assert_eq!(state, (0, 0, 65_535));
    assert_eq!((world.memory.pins(), world.memory.charged()), (0, 0));
}

struct LetGo;

impl PinHolder for LetGo {
    fn dma_unmap(&self, _range: IovaRange) {
        std::thread::yield_now(); // the other thread lets go by itself
    }
}
