//! Spare runs against a space in which each granule is marked, and their limits.

use proptest::prelude::*;

use super::super::marks::{Marks, PAGE, pool, range};
use super::super::record::Direction;
use super::*;
use crate::pool::Usage;
use crate::prot::Prot;

fn addresses(pool: &'static Pool, first: u64, last: u64) -> Option<Addresses> {
    IovaAllocator::new(pool, range(first, last), PAGE).map(Addresses::new)
}

/// Takes `count` granules that end at or below `limit`.
fn take(addresses: &mut Addresses, count: u64, limit: u64) -> Result<IovaRange, IovaError> {
    let (direction, prot) = (Direction::Bidirectional, Prot::RW);
    let wish = Wish { owner: 1, len: count * PAGE, direction, prot, limits: [None; 2] };
    let taken = addresses.take(&wish, Iova(limit), &mut Parts::new(addresses.pool()));
    if let Ok(taken) = taken {
        let (place, record) = addresses.get_mut(taken.first()).unwrap();
        assert_eq!((place, record.owner, record.state == State::Busy), (taken, 1, true));
    }
    taken
}

#[derive(Clone, Debug)]
enum Step {
    Take { count: u64, limit: u64 },
    Release { pick: usize },
    Remove { pick: usize },
    Reserve { first: u64, bytes: u64 },
    Trim,
    FailTake { count: u64 },
}

fn steps() -> impl Strategy<Value = std::vec::Vec<Step>> {
    let count = prop_oneof![8 => 1..=3_u64, 1 => 1..=40_u64];
    let limit = prop_oneof![3 => Just(u64::MAX), 1 => 0..PAGE * 200];
    let step = prop_oneof![
        10 => (count.clone(), limit).prop_map(|(count, limit)| Step::Take { count, limit }),
        9 => any::<usize>().prop_map(|pick| Step::Release { pick }),
        1 => any::<usize>().prop_map(|pick| Step::Remove { pick }),
        1 => (0..PAGE * 200, 1..PAGE * 5)
            .prop_map(|(first, bytes)| Step::Reserve { first, bytes }),
        1 => Just(Step::Trim),
        1 => count.prop_map(|count| Step::FailTake { count }),
    ];
    proptest::collection::vec(step, 1..160)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// C-212, C-216, C-217, C-218: what is handed out is free, whole and below the limit; a refusal
    /// means that there is no room, spare runs counted as room.
    #[test]
    fn a_spare_run_is_free_in_every_respect(
        first in 0..PAGE * 3,
        granules in 4..160_u64,
        steps in steps(),
    ) {
        let pool = pool();
        let last = first + granules * PAGE;
        let mut addresses = addresses(pool, first, last).unwrap();
        let mut marks = Marks::new(first, last);
        let mut live = std::vec::Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Take { count, limit } => {
                    let room = marks.find_below(count, limit);
                    match take(&mut addresses, count, limit) {
                        Ok(given) => {
                            let at = given.first().0 / PAGE;
                            prop_assert!(marks.is_free(at, count), "{given:?} is taken");
                            prop_assert_eq!(given.len(), Some(count * PAGE));
                            prop_assert!(given.last().0 <= limit);
                            prop_assert!(at.is_multiple_of(count.next_power_of_two()));
                            marks.mark(at, count, Some(number as u32));
                            live.push(given);
                        }
                        Err(error) => {
                            prop_assert_eq!((error, room), (IovaError::NoSpace, None));
                        }
                    }
                }
                Step::Release { pick } | Step::Remove { pick } if !live.is_empty() => {
                    let given: IovaRange = live.swap_remove(pick % live.len());
                    if matches!(step, Step::Release { .. }) {
                        pool.refuse_nth(0, true);
                        addresses.release(given.first());
                        prop_assert_eq!(pool.refuse_none(), 0, "giving back asks for no memory");
                    } else {
                        prop_assert!(addresses.remove(given.first()).is_some());
                    }
                    marks.mark(given.first().0 / PAGE, given.len().unwrap() / PAGE, None);
                }
                Step::Release { .. } | Step::Remove { .. } => {}
                Step::Reserve { first, bytes } => {
                    addresses.reserve(range(first, first + bytes - 1)).unwrap();
                    marks.reserve(first, bytes);
                }
                Step::Trim => {
                    addresses.trim();
                    prop_assert!(!addresses.trim(), "all went");
                    prop_assert_eq!(addresses.iovas.len(), live.len());
                }
                Step::FailTake { count } => {
                    // No node is to be had: a spare run, or an ordinary error.
                    pool.refuse_nth(0, true);
                    let taken = take(&mut addresses, count, u64::MAX);
                    let met = pool.refuse_none();
                    match taken {
                        Ok(given) => {
                            prop_assert_eq!(met, 0);
                            marks.mark(given.first().0 / PAGE, count, Some(number as u32));
                            live.push(given);
                        }
                        Err(IovaError::OutOfMemory) => prop_assert!(met > 0),
                        Err(error) => {
                            let room = marks.find_below(count, u64::MAX);
                            prop_assert_eq!((error, room), (IovaError::NoSpace, None));
                        }
                    }
                }
            }
            prop_assert_eq!(addresses.len(), live.len());
            let chains = addresses.spare.iter().zip(1_u64..);
            for (spare, count) in chains.map(|(spare, count)| (*spare, count)).collect::<std::vec::Vec<_>>() {
                let (mut at, mut seen) = (spare.newest, 0);
                while let Some(first) = at {
                    let (run, record) = addresses.get_mut(first).unwrap();
                    prop_assert_eq!(run.len(), Some(count * PAGE), "a chain is of one length");
                    at = record.state.next();
                    seen += 1;
                }
                prop_assert_eq!(seen, spare.count);
            }
        }
        drop(addresses);
        prop_assert_eq!(pool.usage(), Usage::default());
    }
}

#[test]
fn so_many_of_each_length_are_kept_and_no_longer_ones() {
    // C-217
    let pool = pool();
    let mut addresses = addresses(pool, 0, u64::MAX).unwrap();
    for (count, kept) in [(1, 128), (3, 128), (32, 128), (33, 0)] {
        let taken: std::vec::Vec<_> =
            (0..200).map(|_| take(&mut addresses, count, u64::MAX).unwrap()).collect();
        taken.iter().for_each(|taken| addresses.release(taken.first()));
        assert_eq!((addresses.len(), addresses.iovas.len()), (0, kept), "{count} granules");
        addresses.trim();
        assert_eq!(pool.usage(), Usage::default());
    }
}

#[test]
fn the_newest_is_next_and_one_above_the_limit_waits() {
    // C-217: "used only if it ends at or below the limit"
    let mut addresses = addresses(pool(), 0, u64::MAX).unwrap();
    let high = take(&mut addresses, 2, u64::MAX).unwrap();
    let low = take(&mut addresses, 2, 0xffff_ffff).unwrap();
    let three = take(&mut addresses, 3, u64::MAX).unwrap();
    [low, high, three].iter().for_each(|taken| addresses.release(taken.first()));
    let limit = high.last().0 - 1;
    let other = take(&mut addresses, 2, limit).unwrap();
    assert!(other.last().0 <= limit && other != low, "the newest is above: a search");
    assert_eq!(take(&mut addresses, 2, u64::MAX), Ok(high));
    assert_eq!(take(&mut addresses, 2, low.last().0), Ok(low), "exactly at the limit");
    assert_eq!(take(&mut addresses, 3, u64::MAX), Ok(three));
    assert_eq!(addresses.iovas.len(), addresses.len(), "none is left");
}

#[test]
fn spare_runs_go_where_they_are_in_the_way() {
    let pool = pool();
    let mut addresses = addresses(pool, 0, 16 * PAGE - 1).unwrap();
    let all: std::vec::Vec<_> =
        (0..15).map(|_| take(&mut addresses, 1, u64::MAX).unwrap()).collect();
    all.iter().for_each(|taken| addresses.release(taken.first()));
    assert_eq!(addresses.iovas.len(), 15, "the space is full of them");
    let eight = take(&mut addresses, 8, u64::MAX).unwrap();
    assert_eq!(eight, range(8 * PAGE, 16 * PAGE - 1));
    assert_eq!(take(&mut addresses, 8, u64::MAX), Err(IovaError::NoSpace), "of no use this time");
    // One node is refused: that of a spare run does.
    let one = take(&mut addresses, 1, u64::MAX).unwrap();
    addresses.release(one.first());
    pool.refuse_nth(0, false);
    assert_eq!(take(&mut addresses, 2, u64::MAX), Ok(range(6 * PAGE, 8 * PAGE - 1)));
    assert_eq!(pool.refuse_none(), 1);
    assert_eq!((addresses.len(), addresses.iovas.len()), (2, 2));
    // What is reserved is not among them.
    let one = take(&mut addresses, 1, u64::MAX).unwrap();
    addresses.release(one.first());
    addresses.reserve(one).unwrap();
    assert_ne!(take(&mut addresses, 1, u64::MAX).unwrap(), one);
}
