//! The container: maps and unmaps against groups that come and go (rules T1-580 to T1-583).

use iommu::container::{MapDmaError, UnmapDma, UnmapDmaError};

use crate::owner::{Session, place, request};
use crate::world::*;

/// Both ways: a provider that looks at nothing, and one that calls back.
const BOTH: [bool; 2] = [false, true];

#[test]
fn map_against_the_first_attach() {
    for calls_back in BOTH {
        explore_within(4, &format!("container: map, first attach ({calls_back})"), move |world| {
            let (session, group) = (Session::open(world, calls_back), world.device(1));
            session.map(OTHER);
            let mapper = session.spawn(|session| session.map(PAGE));
            session.attach(&group);
            assert_eq!(session.read(1, OTHER), Some(place(OTHER)));
            mapper.join().unwrap();
            session.check(&[PAGE, OTHER], &[1], &[]);
            session.close();
        });
    }
}

#[test]
fn unmap_against_the_first_attach() {
    for calls_back in BOTH {
        explore_within(
            4,
            &format!("container: unmap, first attach ({calls_back})"),
            move |world| {
                let (session, group) = (Session::open(world, calls_back), world.device(1));
                session.map(PAGE);
                session.map(OTHER);
                let unmapper = session.spawn(|session| {
                    let gone = session.try_unmap(PAGE);
                    if gone.is_some() {
                        assert_eq!(session.read(1, PAGE), None, "its memory may be used again");
                    }
                    gone
                });
                session.attach(&group);
                let left = match unmapper.join().unwrap() {
                    Some(0x1000) => vec![OTHER],
                    None => vec![PAGE, OTHER],
                    other => panic!("it was mapped: {other:?}"),
                };
                session.check(&left, &[1], &[]);
                session.close();
            },
        );
    }
}

#[test]
fn map_and_unmap_against_the_detach_of_the_last_group() {
    for calls_back in BOTH {
        let name = format!("container: map and unmap, last detach ({calls_back})");
        explore_within(4, &name, move |world| {
            let (session, group) = (Session::open(world, calls_back), world.device(1));
            let id = session.attach(&group);
            session.map(OTHER);
            let mapper = session.spawn(|session| {
                session.map(PAGE);
                session.try_unmap(OTHER)
            });
            session.detach(id);
            assert_eq!((session.read(1, PAGE), session.read(1, OTHER)), (None, None));
            mapper.join().unwrap();
            // The detach took what was there at its time along (T1-232).
            let left = session.container.mapping_count();
            assert!(left <= 2);
            session.container.check_invariants().unwrap();
            assert_eq!(session.owner.held(), (0, 0));
            session.container.unmap_dma(&UnmapDma::All).unwrap();
            session.close();
        });
    }
}

#[test]
fn map_and_unmap_against_a_second_group_of_the_unit() {
    explore("container: map and unmap, second attach", |world| {
        let (session, group) = (Session::open(world, false), world.device(2));
        session.attach(&world.device(1));
        session.map(OTHER);
        let mapper = session.spawn(|session| {
            session.map(PAGE);
            assert_eq!(session.read(1, PAGE), Some(place(PAGE)));
            session.unmap(OTHER);
            assert_eq!((session.read(1, OTHER), session.read(2, OTHER)), (None, None));
        });
        session.attach(&group);
        mapper.join().unwrap();
        session.check(&[PAGE], &[1, 2], &[]);
        session.close();
    });
}

#[test]
fn map_and_unmap_against_a_group_behind_another_unit() {
    explore("container: map and unmap, attach at another unit", |world| {
        let session = Session::open(world, false);
        session.attach(&world.device(1));
        session.map(OTHER);
        let group = world.device_at_second(9);
        let mapper = session.spawn(|session| {
            session.map(PAGE);
            session.unmap(OTHER);
            assert_eq!(session.read(1, OTHER), None);
            assert_eq!(session.world.second.0.read(9, OTHER), None);
        });
        session.attach(&group);
        mapper.join().unwrap();
        session.check(&[PAGE], &[1], &[9]);
        session.close();
    });
}

#[test]
fn maps_against_a_unit_that_leaves() {
    explore("container: map and unmap, detach of one of two units", |world| {
        let session = Session::open(world, false);
        session.attach(&world.device(1));
        let other = session.attach(&world.device_at_second(9));
        session.map(OTHER);
        let mapper = session.spawn(|session| {
            session.map(PAGE);
            session.unmap(OTHER);
        });
        session.detach(other);
        assert_eq!(world.second.0.read(9, PAGE), None);
        mapper.join().unwrap();
        session.check(&[PAGE], &[1], &[]);
        session.close();
    });
}

#[test]
fn two_groups_come_at_once() {
    for (n, first_unit) in [true, false].into_iter().enumerate() {
        explore(&format!("container: attach, attach ({n})"), move |world| {
            let session = Session::open(world, true);
            session.map(PAGE);
            let (one, other) = if first_unit {
                (world.device(1), world.device(2))
            } else {
                (world.device(1), world.device_at_second(9))
            };
            let joiner = session.spawn(move |session| session.attach(&other));
            session.attach(&one);
            joiner.join().unwrap();
            let both: (&[u32], &[u32]) = if first_unit { (&[1, 2], &[]) } else { (&[1], &[9]) };
            session.check(&[PAGE], both.0, both.1);
            assert_eq!(session.container.domain_count(), if first_unit { 1 } else { 2 });
            session.close();
        });
    }
}

#[test]
fn one_group_comes_while_another_leaves() {
    explore_within(3, "container: attach, detach, map", |world| {
        let session = Session::open(world, false);
        let gone = session.attach(&world.device(1));
        session.map(PAGE);
        let group = world.device(2);
        let joiner = session.spawn(move |session| session.attach(&group));
        let mapper = session.spawn(|session| session.map(OTHER));
        session.detach(gone);
        assert_eq!(session.read(1, PAGE), None);
        joiner.join().unwrap();
        mapper.join().unwrap();
        // If it left last in between, the mappings of that time are gone.
        let left: Vec<_> =
            [PAGE, OTHER].into_iter().filter(|iova| session.read(2, *iova).is_some()).collect();
        session.check(&left, &[2], &[]);
        session.close();
    });
}

#[test]
fn map_against_map_and_unmap_of_the_same_page() {
    explore_within(3, "container: map, map and unmap of one page", |world| {
        let session = Session::open(world, true);
        session.attach(&world.device(1));
        let mapper = || session.spawn(|session| session.container.map_dma(&request(PAGE)));
        let (one, other) = (mapper(), mapper());
        let gone = session.try_unmap(PAGE);
        if gone == Some(0x1000) {
            // One of them may have mapped it after.
            let mapped = join(one, other);
            let count = [mapped.0, mapped.1].iter().filter(|done| done.is_ok()).count();
            let left: &[u64] = if count == 2 { &[PAGE] } else { &[] };
            session.check(left, &[1], &[]);
        } else {
            let mapped = join(one, other);
            assert!(matches!(
                mapped,
                (Ok(()), Err(MapDmaError::Exists)) | (Err(MapDmaError::Exists), Ok(()))
            ));
            session.check(&[PAGE], &[1], &[]);
        }
        session.close();
    });
}

#[test]
fn two_unmaps_of_everything() {
    explore("container: unmap all, unmap all", |world| {
        let session = Session::open(world, true);
        session.attach(&world.device(1));
        session.map(PAGE);
        session.map(OTHER);
        let all = |session: &Session| match session.container.unmap_dma(&UnmapDma::All) {
            Ok(gone) => gone.bytes,
            Err(failed) => {
                assert_eq!(failed.error, UnmapDmaError::Busy);
                failed.unmapped.bytes
            }
        };
        let other = session.spawn(all);
        let mine = all(&session);
        assert_eq!(mine + other.join().unwrap(), 0x2000);
        session.check(&[], &[1], &[]);
        session.close();
    });
}

#[test]
fn a_map_that_fails_against_an_attach() {
    // T1-283: the mapping is undone, wherever it was already.
    explore("container: map that is refused, second attach", |world| {
        let (session, group) = (Session::open(world, true), world.device_at_second(9));
        session.attach(&world.device(1));
        session.map(OTHER);
        session.owner.refuse();
        let mapper = session.spawn(|session| {
            let failed = session.container.map_dma(&request(PAGE));
            assert_eq!(failed, Err(MapDmaError::Fault));
        });
        session.attach(&group);
        mapper.join().unwrap();
        session.check(&[OTHER], &[1], &[9]);
        session.close();
    });
}

#[test]
fn a_provider_that_blocks_stops_nobody_else() {
    // T1-582: a map that waits for its memory holds no lock that another call needs.
    explore("container: blocked map; map, unmap, attach, detach", |world| {
        let (session, group) = (Session::open(world, false), world.device(2));
        session.attach(&world.device(1));
        session.map(OTHER);
        let gate = session.owner.hold_up();
        let mapper = session.spawn(|session| session.map(PAGE));
        session.unmap(OTHER);
        let id = session.attach(&group);
        session.detach(id);
        assert_eq!(session.read(1, PAGE), None);
        let busy = session.try_unmap(PAGE);
        assert!(matches!(busy, None | Some(0)));
        drop(gate);
        mapper.join().unwrap();
        session.check(&[PAGE], &[1], &[]);
        session.close();
    });
}

#[test]
fn an_attach_that_blocks_stops_no_map() {
    // T1-583: the first attach pins; who unmaps meanwhile is told so.
    explore("container: blocked attach; unmap, dirty tracking", |world| {
        let (session, group) = (Session::open(world, false), world.device(1));
        session.map(PAGE);
        session.map(OTHER);
        let gate = session.owner.hold_up();
        let joiner = session.spawn(move |session| session.attach(&group));
        let gone = session.try_unmap(OTHER);
        session.container.start_dirty_tracking().unwrap();
        session.container.stop_dirty_tracking().unwrap();
        drop(gate);
        joiner.join().unwrap();
        let left: &[u64] = if gone.is_some() { &[PAGE] } else { &[PAGE, OTHER] };
        session.check(left, &[1], &[]);
        session.close();
    });
}

#[test]
fn hot_add_against_map_and_unmap() {
    // T1-042, C-148
    explore("container: hot-add, map and unmap", |world| {
        let session = Session::open(world, false);
        session.attach(&world.device(1));
        session.map(OTHER);
        let adder = spawn({
            let world = world.clone();
            move || drop(world.device_with(2, Some(1)))
        });
        session.map(PAGE);
        session.unmap(OTHER);
        adder.join().unwrap();
        session.check(&[PAGE], &[1, 2], &[]);
        session.close();
    });
}
