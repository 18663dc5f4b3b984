//! The allocator against one that marks granules, and at the edges of the space.

use proptest::prelude::*;

use super::super::marks::{Marks, PAGE, pool, range};
use super::super::tree;
use super::*;
use crate::pool::Usage;

#[derive(Clone, Debug)]
enum Step {
    Alloc { bytes: u64, limit: u64 },
    Free { pick: usize },
    Reserve { first: u64, bytes: u64 },
    FailAlloc { bytes: u64 },
    FailReserve { first: u64, bytes: u64, nth: u64 },
}

fn steps() -> impl Strategy<Value = std::vec::Vec<Step>> {
    let bytes = prop_oneof![1..=PAGE * 3, 1..=PAGE * 40];
    let place = 0..PAGE * 200;
    let step = prop_oneof![
        5 => (bytes.clone(), prop_oneof![Just(u64::MAX), 0..PAGE * 200])
            .prop_map(|(bytes, limit)| Step::Alloc { bytes, limit }),
        4 => any::<usize>().prop_map(|pick| Step::Free { pick }),
        1 => (place.clone(), 1..PAGE * 20)
            .prop_map(|(first, bytes)| Step::Reserve { first, bytes }),
        1 => bytes.prop_map(|bytes| Step::FailAlloc { bytes }),
        1 => (place, 1..PAGE * 60, 0..6_u64)
            .prop_map(|(first, bytes, nth)| Step::FailReserve { first, bytes, nth }),
    ];
    proptest::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// C-211 to C-213, C-216, C-218: every answer is that of the model, and out of space or memory
    /// changes nothing.
    #[test]
    fn answers_are_those_of_the_model(
        first in 0..PAGE * 3,
        granules in 1..160_u64,
        cut in 0..PAGE,
        steps in steps(),
    ) {
        let pool = pool();
        let last = first + granules * PAGE + cut;
        let Some(mut iovas) = IovaAllocator::<u32>::new(pool, range(first, last), PAGE) else {
            // Not one whole granule, but for the first of the space.
            prop_assert!((last + 1) / PAGE <= first.div_ceil(PAGE).max(1));
            return Ok(());
        };
        let mut marks = Marks::new(first, last);
        let mut live = std::vec::Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            let number = number as u32;
            match step {
                Step::Alloc { bytes, limit } => {
                    let count = bytes.div_ceil(PAGE);
                    let expected = marks.find_below(count, limit);
                    match iovas.alloc(bytes, Iova(limit), number) {
                        Ok(given) => {
                            prop_assert_eq!(Some(given.first().0 / PAGE), expected);
                            prop_assert_eq!(given.len(), Some(count * PAGE));
                            prop_assert!(given.last().0 <= limit);
                            marks.mark(given.first().0 / PAGE, count, Some(number));
                            live.push((given, number));
                        }
                        Err(error) => {
                            prop_assert_eq!(error, (IovaError::NoSpace, number));
                            prop_assert_eq!(expected, None);
                        }
                    }
                }
                Step::Free { pick } if !live.is_empty() => {
                    let (given, value) = live.swap_remove(pick % live.len());
                    let inside = Iova(given.first().0 + 1);
                    prop_assert_eq!(iovas.remove(inside), None);
                    prop_assert_eq!(iovas.get_mut(given.last()), Some((given, &mut value.clone())));
                    prop_assert_eq!(iovas.remove(given.first()), Some((given, value)));
                    prop_assert_eq!(iovas.remove(given.first()), None);
                    marks.mark(given.first().0 / PAGE, given.len().unwrap() / PAGE, None);
                }
                Step::Free { .. } => {}
                Step::Reserve { first, bytes } => {
                    let _ = iovas.reserve(range(first, first + bytes - 1));
                    marks.reserve(first, bytes);
                }
                Step::FailAlloc { bytes } => {
                    let expected = marks.find_below(bytes.div_ceil(PAGE), u64::MAX);
                    pool.refuse_nth(0, true);
                    let refused = iovas.alloc(bytes, Iova(u64::MAX), number).unwrap_err();
                    pool.refuse_none();
                    let error = match expected {
                        Some(_) => IovaError::OutOfMemory,
                        None => IovaError::NoSpace,
                    };
                    prop_assert_eq!(refused, (error, number));
                }
                Step::FailReserve { first, bytes, nth } => {
                    let before = pool.usage();
                    pool.refuse_nth(nth, true);
                    let answer = iovas.reserve(range(first, first + bytes - 1));
                    if pool.refuse_none() > 0 {
                        prop_assert_eq!(answer, Err(OutOfMemory));
                        prop_assert_eq!(pool.usage(), before);
                    } else {
                        marks.reserve(first, bytes);
                    }
                }
            }
            tree::check(&iovas.taken);
            prop_assert_eq!(iovas.len(), live.len());
        }
        let mut walked = std::vec::Vec::new();
        let mut at = Iova(0);
        while let Some((given, value)) = iovas.first_from(at) {
            walked.push((given, *value));
            at = Iova(given.last().0 + 1);
        }
        live.sort_by_key(|(given, _)| given.first());
        prop_assert_eq!(walked, live);
        drop(iovas);
        prop_assert_eq!(pool.usage(), Usage::default());
    }
}

#[test]
fn the_whole_64_bit_space_has_edges_that_hold() {
    let pool = pool();
    let mut iovas = IovaAllocator::new(pool, IovaRange::ALL, PAGE).unwrap();
    assert_eq!(iovas.span(), range(PAGE, u64::MAX));
    let top = iovas.alloc(1, Iova(u64::MAX), ()).unwrap();
    assert_eq!(top, range(u64::MAX - (PAGE - 1), u64::MAX));
    let half = iovas.alloc(1 << 62, Iova(u64::MAX), ()).unwrap();
    assert_eq!(half, range(0x8000_0000_0000_0000, 0xbfff_ffff_ffff_ffff));
    assert_eq!(iovas.alloc(1 << 63, Iova(u64::MAX), ()), Err((IovaError::NoSpace, ())));
    assert_eq!(iovas.alloc(u64::MAX, Iova(u64::MAX), ()), Err((IovaError::NoSpace, ())));
    assert_eq!(iovas.alloc(0, Iova(u64::MAX), ()), Err((IovaError::InvalidArg, ())));
    assert_eq!(iovas.alloc(1, Iova(2 * PAGE - 2), ()), Err((IovaError::NoSpace, ())));
    assert_eq!(iovas.alloc(1, Iova(2 * PAGE - 1), ()), Ok(range(PAGE, 2 * PAGE - 1)), "C-211");
    iovas.reserve(IovaRange::ALL).unwrap();
    assert_eq!(iovas.alloc(1, Iova(u64::MAX), ()), Err((IovaError::NoSpace, ())));
    assert_eq!(iovas.remove(Iova(2 * PAGE)), None, "what is reserved is nobody's");
    assert_eq!(iovas.remove(top.first()), Some((top, ())));
    assert_eq!(iovas.alloc(5, Iova(u64::MAX), ()), Ok(top), "it was taken when all was reserved");
    // Granules of one byte: as many as there are addresses.
    let mut bytes = IovaAllocator::new(pool, IovaRange::ALL, 1).unwrap();
    assert_eq!(bytes.alloc(1 << 63, Iova(u64::MAX), 'a'), Ok(range(1 << 63, u64::MAX)));
    assert_eq!(
        bytes.alloc((1 << 63) + 1, Iova(u64::MAX), 'b').unwrap_err().0,
        IovaError::InvalidArg
    );
    assert_eq!(bytes.alloc(1, Iova(u64::MAX), 'c'), Ok(range((1 << 63) - 1, (1 << 63) - 1)));
    assert!(IovaAllocator::<()>::new(pool, range(0, 0x1fff), 0x1800).is_none(), "C-210");
    assert!(IovaAllocator::<()>::new(pool, range(0, 0xfff), PAGE).is_none());
    assert!(IovaAllocator::<()>::new(pool, range(0x1001, 0x2ffe), PAGE).is_none());
    assert!(IovaAllocator::<()>::new(pool, range(u64::MAX - 5, u64::MAX), PAGE).is_none());
}

#[test]
fn an_empty_space_is_filled_from_the_top_and_a_full_one_says_so() {
    // C-213; out of space is an ordinary error, and what is given back is found again
    let pool = pool();
    let mut iovas = IovaAllocator::new(pool, range(0, 16 * PAGE - 1), PAGE).unwrap();
    let given: std::vec::Vec<_> =
        (0..15).map(|n| iovas.alloc(PAGE, Iova(u64::MAX), n).unwrap()).collect();
    let firsts: std::vec::Vec<_> = given.iter().map(|range| range.first().0 / PAGE).collect();
    assert_eq!(firsts, (1..16).rev().collect::<std::vec::Vec<_>>());
    assert_eq!(iovas.alloc(1, Iova(u64::MAX), 99), Err((IovaError::NoSpace, 99)));
    assert_eq!(iovas.remove(given[7].first()).unwrap().1, 7);
    assert_eq!(iovas.alloc(PAGE + 1, Iova(u64::MAX), 99), Err((IovaError::NoSpace, 99)));
    assert_eq!(iovas.alloc(PAGE, Iova(u64::MAX), 7), Ok(given[7]));
}
