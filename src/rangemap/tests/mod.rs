//! Tests of the map, against a `BTreeMap` and with a pool that refuses.

mod rows;

use std::boxed::Box;
use std::collections::BTreeMap;
use std::format;
use std::rc::Rc;
use std::vec::Vec;

use proptest::prelude::*;

use super::node::{Inner, Kids, Leaf, Node};
use super::{InsertError, RangeMap};
use crate::addr::{Iova, IovaRange};
use crate::pool::{Pool, Usage};

/// A pool of its own, so that tests that run at once don't count each other's nodes.
fn pool() -> &'static Pool {
    Box::leak(Box::new(Pool::heap()))
}

fn range(first: u64, last: u64) -> IovaRange {
    IovaRange::new(Iova(first), Iova(last)).unwrap()
}

fn page(n: u64) -> IovaRange {
    range(n << 12, (n << 12) + 0xfff)
}

/// What a walk over all nodes has seen.
#[derive(Default)]
struct Seen {
    entries: usize,
    nodes: usize,
    leaf_depth: Option<usize>,
    last: Option<Iova>,
}

impl Seen {
    fn leaf<V>(&mut self, leaf: &Leaf<V>, depth: usize) {
        assert_eq!(*self.leaf_depth.get_or_insert(depth), depth, "equal depth");
        self.nodes += 1;
        self.entries += leaf.len();
        for (range, _) in (0..).map_while(|place| leaf.get(place)) {
            assert!(self.last.is_none_or(|last| last < range.first()), "order at {range:?}");
            self.last = Some(range.last());
        }
    }

    fn inner<V>(&mut self, inner: &Inner<V>, depth: usize, edge: bool, low: Option<Iova>) {
        let (most, least) = inner.kids.bounds();
        self.nodes += 1;
        for i in 0..inner.len() {
            let edge = edge && i + 1 == inner.len();
            let len = inner.kids.len_of(i).unwrap();
            let least = if edge { 1 } else { least };
            assert!((least..=most).contains(&len), "{len} items at depth {depth}");
            let key = inner.key(i).unwrap();
            assert!(self.last.is_none_or(|last| last < key), "a key after what lies before it");
            assert!(low.is_none_or(|low| low <= key), "a key in its parent's range");
            match &inner.kids {
                Kids::Leaves(row) => {
                    assert!(key <= row[i].first(), "a key before what lies after it");
                    self.leaf(&row[i], depth + 1);
                }
                Kids::Inners(row) => self.inner(&row[i], depth + 1, edge, Some(key)),
            }
        }
        assert_eq!(inner.key(inner.len()), None);
    }
}

/// A walk over all nodes that checks every bound; returns the number of nodes.
fn check<V>(map: &RangeMap<V>) -> usize {
    let mut seen = Seen::default();
    match &map.root {
        None => {}
        Some(Node::Leaf(leaf)) => seen.leaf(leaf, 0),
        Some(Node::Inner(inner)) => {
            assert!(inner.len() > 1, "a root with one child");
            seen.inner(inner, 0, true, None);
        }
    }
    assert_eq!(seen.entries, map.len());
    seen.nodes
}

fn entries<V: Copy>(map: &RangeMap<V>) -> Vec<(IovaRange, V)> {
    map.iter().map(|(range, value)| (range, *value)).collect()
}

/// A plain generator (xorshift), so that the large tests need no dependency and repeat.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn shuffle<T>(&mut self, row: &mut [T]) {
        for i in (1..row.len()).rev() {
            let other = self.below(i as u64 + 1) as usize;
            row.swap(i, other);
        }
    }
}

#[test]
fn an_empty_map_answers() {
    let pool = pool();
    let mut map = RangeMap::<u8>::new(pool);
    assert!(map.is_empty() && map.get(Iova(0)).is_none() && map.get_mut(Iova(0)).is_none());
    assert!(map.first_from(Iova(0)).is_none() && !map.overlaps(IovaRange::ALL));
    assert_eq!(map.iter().count(), 0);
    assert_eq!(map.remove(Iova(0)), None);
    map.clear();
    assert_eq!(pool.usage(), Usage::default());
    assert_eq!(format!("{map:?}"), "RangeMap { len: 0, .. }");
}

#[test]
fn the_last_byte_of_the_space_is_an_ordinary_address() {
    let mut map = RangeMap::new(pool());
    map.insert(range(u64::MAX, u64::MAX), 1).unwrap();
    map.insert(range(0, 0), 2).unwrap();
    map.insert(range(1, u64::MAX - 1), 3).unwrap();
    check(&map);
    assert_eq!(map.get(Iova(u64::MAX)), Some((range(u64::MAX, u64::MAX), &1)));
    assert_eq!(map.first_from(Iova(u64::MAX)).map(|(_, v)| *v), Some(1));
    assert_eq!(map.get(Iova(u64::MAX - 1)).map(|(_, v)| *v), Some(3));
    assert_eq!(map.overlapping(IovaRange::ALL).count(), 3);
    assert_eq!(map.insert(IovaRange::ALL, 4), Err(InsertError::Overlap));
    assert_eq!(map.remove(Iova(u64::MAX)), Some((range(u64::MAX, u64::MAX), 1)));
    assert!(map.first_from(Iova(u64::MAX)).is_none());
}

#[test]
fn the_whole_space_is_one_entry() {
    let mut map = RangeMap::new(pool());
    map.insert(IovaRange::ALL, 7).unwrap();
    for at in [0, 1, 1 << 40, u64::MAX] {
        assert_eq!(map.get(Iova(at)), Some((IovaRange::ALL, &7)));
        assert_eq!(map.insert(range(at, at), 8), Err(InsertError::Overlap));
    }
    *map.get_mut(Iova(5)).unwrap().1 = 9;
    assert_eq!(map.remove(Iova(1)), None);
    assert_eq!(map.remove(Iova(0)), Some((IovaRange::ALL, 9)));
}

#[test]
fn neighbours_that_touch_stay_apart() {
    let mut map = RangeMap::new(pool());
    for n in 0..1000 {
        map.insert(page(n), n).unwrap();
    }
    check(&map);
    for n in 0..1000 {
        let page = page(n);
        assert_eq!(map.get(page.first()), Some((page, &n)));
        assert_eq!(map.get(page.last()), Some((page, &n)));
        assert_eq!(map.overlapping(page).count(), 1);
        let both = range(page.first().0, page.last().0 + 1);
        assert_eq!(map.overlapping(both).count(), if n < 999 { 2 } else { 1 });
        assert_eq!(map.insert(range(page.last().0, page.last().0), 0), Err(InsertError::Overlap));
    }
    assert_eq!(map.remove(Iova(0x1001)), None, "inside an entry is not its beginning");
}

#[test]
fn a_walk_that_ended_stays_ended() {
    let mut map = RangeMap::new(pool());
    for n in 0..100 {
        map.insert(page(n), n).unwrap();
    }
    let mut walk = map.overlapping(range(0, 0x1fff));
    assert_eq!(walk.by_ref().count(), 2);
    assert_eq!(walk.next(), None);
    let mut all = map.iter();
    assert_eq!(all.by_ref().count(), 100);
    assert_eq!(all.next(), None);
}

#[test]
fn errors_have_words() {
    assert_eq!(format!("{}", InsertError::Overlap), "an entry overlaps the range");
    let error: &dyn core::error::Error = &InsertError::from(crate::error::OutOfMemory);
    assert_eq!(format!("{error}"), "no memory for a node");
}

#[test]
fn values_need_not_be_copies_and_are_dropped_once() {
    let pool = pool();
    let value = Rc::new(());
    let mut map = RangeMap::new(pool);
    for n in 0..1000 {
        map.insert(page(n * 7 % 1000), value.clone()).unwrap();
    }
    assert_eq!(map.insert(page(3), value.clone()), Err(InsertError::Overlap));
    assert_eq!(Rc::strong_count(&value), 1001);
    for n in 0..500 {
        drop(map.remove(page(n).first()).unwrap());
    }
    assert_eq!(Rc::strong_count(&value), 501);
    map.clear();
    assert!(map.is_empty());
    assert_eq!((Rc::strong_count(&value), pool.usage()), (1, Usage::default()));
    for n in 0..100 {
        map.insert(page(n), value.clone()).unwrap();
    }
    drop(map);
    assert_eq!((Rc::strong_count(&value), pool.usage()), (1, Usage::default()));
}

#[test]
fn a_refused_node_leaves_the_map_unchanged() {
    let pool = pool();
    let mut map = RangeMap::new(pool);
    // Grow until one insert would split every level of a tree of three (100,000 entries); each insert before it is
    // tried with every allocation refused in turn.
    let (mut n, mut deepest, mut refusals) = (0, 0, 0);
    while deepest < 4 {
        let mut met = 0;
        loop {
            let (before, root) = (pool.usage(), map.root.as_ref().map(Node::len));
            pool.refuse_nth(met, true);
            let outcome = map.insert(page(n), n);
            if pool.refuse_none() == 0 {
                outcome.unwrap();
                break;
            }
            met += 1;
            refusals += 1;
            assert_eq!(outcome, Err(InsertError::OutOfMemory));
            assert_eq!((pool.usage(), map.root.as_ref().map(Node::len)), (before, root));
            assert!(!map.overlaps(page(n)));
            if met > 1 {
                check(&map);
                assert!(map.iter().map(|(_, n)| *n).eq(0..n));
            }
        }
        deepest = deepest.max(met);
        n += 1;
    }
    assert!(refusals > 100, "only {refusals} refusals");
    check(&map);
}

#[test]
fn a_refused_split_in_the_middle_leaves_the_map_unchanged() {
    for seed in 1..20 {
        let pool = pool();
        let mut map = RangeMap::new(pool);
        let mut random = Random(seed);
        let mut met = [0; 3];
        for _ in 0..16_000 {
            let new = page(random.below(1 << 40));
            if map.overlaps(new) {
                continue;
            }
            for nth in 0.. {
                let before = (pool.usage(), (nth > 0).then(|| entries(&map)));
                pool.refuse_nth(nth, false);
                let outcome = map.insert(new, 1);
                if pool.refuse_none() == 0 {
                    outcome.unwrap();
                    break;
                }
                met[nth.min(2) as usize] += 1;
                assert_eq!(outcome, Err(InsertError::OutOfMemory));
                assert!(map.get(new.first()).is_none());
                assert_eq!(before.0, pool.usage());
                assert!(before.1.is_none_or(|before| before == entries(&map)));
            }
        }
        assert!(met[0] > 100 && met[1] > 5 && met[2] > 0, "{met:?}");
        check(&map);
        drop(map);
        assert_eq!(pool.usage(), Usage::default());
    }
}

#[test]
fn removals_need_no_memory() {
    let pool = pool();
    let mut random = Random(11);
    let mut order: Vec<u64> = (0..20_000).collect();
    let mut map = RangeMap::new(pool);
    for clear in [false, true] {
        random.shuffle(&mut order);
        for &n in &order {
            map.insert(page(n), n).unwrap();
        }
        check(&map);
        pool.refuse_nth(0, true);
        if clear {
            map.clear();
        } else {
            random.shuffle(&mut order);
            for (i, &n) in order.iter().enumerate() {
                assert_eq!(map.remove(page(n).first()), Some((page(n), n)));
                if i % 500 == 0 {
                    check(&map);
                }
            }
        }
        assert_eq!(pool.refuse_none(), 0, "nothing was asked for");
        assert!(map.is_empty());
        assert_eq!(pool.usage(), Usage::default());
    }
}

/// Bytes of pool memory per entry, in tenths, after a check of the whole tree.
fn tenths_per_entry<V>(map: &RangeMap<V>) -> usize {
    assert_eq!(map.pool.usage().nodes, check(map));
    map.pool.usage().bytes * 10 / map.len()
}

#[test]
fn an_entry_costs_little_more_than_its_bytes() {
    const N: u64 = 100_000;
    type Value = [u64; 2];
    let value: Value = [0; 2];
    let report = |what: &str, map: &RangeMap<Value>, most: usize| {
        let tenths = tenths_per_entry(map);
        std::println!("{what}: {}.{} bytes per entry", tenths / 10, tenths % 10);
        assert!(tenths <= most * 10, "{what}: {tenths} tenths of a byte per entry");
    };

    let mut map = RangeMap::new(pool());
    for n in 0..N {
        map.insert(page(n), value).unwrap();
    }
    report("ascending", &map, 36);

    map.clear();
    for n in (0..N).rev() {
        map.insert(page(n), value).unwrap();
    }
    report("descending", &map, 48);

    map.clear();
    let mut random = Random(5);
    let mut order: Vec<u64> = (0..N).collect();
    random.shuffle(&mut order);
    for &n in &order {
        map.insert(page(n), value).unwrap();
    }
    report("random", &map, 48);

    // Half of the entries replaced by others, again and again.
    for _ in 0..10 {
        random.shuffle(&mut order);
        for &n in &order[..order.len() / 2] {
            assert!(map.remove(page(n).first()).is_some());
        }
        for &n in &order[..order.len() / 2] {
            map.insert(page(n), value).unwrap();
        }
    }
    report("churn", &map, 54);
    random.shuffle(&mut order);
    for &n in &order[1000..] {
        assert!(map.remove(page(n).first()).is_some());
    }
    report("1% left at random", &map, 64);

    map.clear();
    for n in 0..N {
        map.insert(page(n), value).unwrap();
    }
    for n in (0..N).filter(|n| n % 16 != 0) {
        assert!(map.remove(page(n).first()).is_some());
    }
    report("one of 16 left", &map, 72);
}

#[test]
fn a_million_entries_make_a_low_tree() {
    let mut map = RangeMap::new(pool());
    for n in 0..1_000_000_u64 {
        // A multiplication by an odd number permutes the 20-bit numbers.
        map.insert(page(n.wrapping_mul(0x9_e377) & 0xf_ffff), n).unwrap();
    }
    check(&map);
    let mut height = 0;
    let Some(Node::Inner(root)) = &map.root else { unreachable!() };
    let mut inner = root;
    while let Kids::Inners(row) = &inner.kids {
        height += 1;
        inner = &row[0];
    }
    assert!(height <= 3, "{height} inner nodes below the root");
    for n in (0..1_000_000_u64).step_by(997) {
        let page = page(n.wrapping_mul(0x9_e377) & 0xf_ffff);
        assert_eq!(map.get(page.last()), Some((page, &n)));
        assert_eq!(map.remove(page.first()), Some((page, n)));
    }
    check(&map);
}

/// What the map does, done to a `BTreeMap` by the lowest address.
#[derive(Default)]
struct Model(BTreeMap<u64, (IovaRange, u32)>);

impl Model {
    fn overlapping(&self, range: IovaRange) -> Vec<(IovaRange, u32)> {
        self.0.values().copied().filter(|(r, _)| r.overlaps(range)).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64, u64),
    /// Inserts one after another, upwards or downwards.
    Run(u64, u8, bool),
    Remove(u64),
    /// Removes all entries that overlap.
    Unmap(u64, u64),
    /// Removes entries that begin in the range: all, or those that a number picks.
    RemoveIf(u64, u64, u64),
    Change(u64),
    /// Changes all entries that overlap, or so many of them.
    ChangeAll(u64, u64, u8),
    Cut(u64, u64),
    Query(u64, u64),
    Clear,
}

/// Addresses of a small space, so that steps meet each other; and its top end at `u64::MAX`.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![9 => 0..6000_u64, 1 => (0..40_u64).prop_map(|below| u64::MAX - below)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (address(), 0..4_u64).prop_map(|(at, span)| Step::Insert(at, span)),
        4 => (address(), 1..60_u8, any::<bool>()).prop_map(|(at, n, up)| Step::Run(at, n, up)),
        6 => address().prop_map(Step::Remove),
        2 => (address(), 0..300_u64).prop_map(|(at, span)| Step::Unmap(at, span)),
        3 => (address(), 0..300_u64, prop_oneof![Just(u64::MAX), any::<u64>()])
            .prop_map(|(at, span, picks)| Step::RemoveIf(at, span, picks)),
        1 => address().prop_map(Step::Change),
        1 => (address(), 0..300_u64, 1..50_u8).prop_map(|(at, n, most)| Step::ChangeAll(at, n, most)),
        2 => (address(), 0..3_u64).prop_map(|(at, by)| Step::Cut(at, by)),
        2 => (address(), prop_oneof![0..500_u64, Just(u64::MAX)])
            .prop_map(|(at, span)| Step::Query(at, span)),
        1 => (0..50_u8).prop_map(|n| if n == 0 { Step::Clear } else { Step::Query(0, 10) }),
    ]
}

fn insert_both(map: &mut RangeMap<u32>, model: &mut Model, at: u64, span: u64, value: u32) {
    let range = range(at, at.saturating_add(span));
    let free = model.overlapping(range).is_empty();
    assert_eq!(map.overlaps(range), !free);
    if free {
        assert_eq!(map.insert(range, value), Ok(()));
        model.0.insert(at, (range, value));
    } else {
        assert_eq!(map.insert(range, value), Err(InsertError::Overlap));
    }
}

fn apply(map: &mut RangeMap<u32>, model: &mut Model, step: &Step, value: u32) {
    match *step {
        Step::Insert(at, span) => insert_both(map, model, at, span, value),
        Step::Run(at, n, up) => {
            for i in 0..u64::from(n) {
                let at = if up { at.saturating_add(2 * i) } else { at.saturating_sub(2 * i) };
                insert_both(map, model, at, 1, value);
            }
        }
        Step::Remove(at) => {
            // The entry at the address, if there is one; else none begins there.
            let at = map.get(Iova(at)).map_or(at, |(range, _)| range.first().0);
            assert_eq!(map.remove(Iova(at)), model.0.remove(&at));
        }
        Step::Unmap(at, span) => {
            for entry in model.overlapping(range(at, at.saturating_add(span))) {
                let first = entry.0.first();
                assert_eq!(map.remove(first), Some(entry));
                model.0.remove(&first.0);
                check(map);
            }
        }
        Step::RemoveIf(at, span, picks) => {
            let inside = range(at, at.saturating_add(span));
            let goes = |entry: IovaRange| picks >> (entry.first().0 % 64) & 1 == 1;
            let (mut seen, mut expected) = (Vec::new(), Vec::new());
            model.0.retain(|_, (entry, value)| {
                let begins = inside.contains(entry.first());
                if begins {
                    *value += 1;
                    expected.push(*entry);
                }
                !begins || !goes(*entry)
            });
            map.remove_if(inside, |entry, value| {
                *value += 1;
                seen.push(entry);
                goes(entry)
            });
            assert_eq!(seen, expected);
        }
        Step::ChangeAll(at, span, most) => {
            let range = range(at, at.saturating_add(span));
            let mut left = usize::from(most);
            map.for_each_mut(range, |entry, ours| {
                assert!(entry.overlaps(range));
                *ours = value;
                left -= 1;
                left > 0
            });
            let theirs = model.0.values_mut().filter(|(entry, _)| entry.overlaps(range));
            theirs.take(most.into()).for_each(|(_, theirs)| *theirs = value);
        }
        Step::Cut(at, by) => {
            let Some((entry, value)) =
                model.0.values().find(|(r, _)| r.contains(Iova(at))).copied()
            else {
                assert!(!map.trim_front(Iova(at), Iova(at.saturating_add(by))));
                return;
            };
            let new = entry.first().0.saturating_add(by);
            let cut = IovaRange::new(Iova(new), entry.last());
            assert_eq!(map.trim_front(entry.first(), Iova(new)), cut.is_some());
            if let Some(cut) = cut {
                model.0.remove(&entry.first().0);
                model.0.insert(new, (cut, value));
            }
        }
        Step::Change(at) => {
            let model = model.0.values_mut().find(|(range, _)| range.contains(Iova(at)));
            match (map.get_mut(Iova(at)), model) {
                (Some((range, ours)), Some((expected, theirs))) => {
                    assert_eq!((range, *ours), (*expected, *theirs));
                    (*ours, *theirs) = (value, value);
                }
                (None, None) => {}
                other => panic!("{other:?}"),
            }
        }
        Step::Query(at, span) => {
            let range = range(at, at.saturating_add(span));
            let found: Vec<_> = map.overlapping(range).map(|(r, v)| (r, *v)).collect();
            assert_eq!(found, model.overlapping(range));
            let at = Iova(at);
            let expected = model.0.values().find(|(r, _)| r.contains(at));
            assert_eq!(map.get(at), expected.map(|(r, v)| (*r, v)));
            let expected = model.0.values().find(|(r, _)| r.last() >= at);
            assert_eq!(map.first_from(at), expected.map(|(r, v)| (*r, v)));
        }
        Step::Clear => {
            map.clear();
            model.0.clear();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_map_does_as_a_btreemap(steps in proptest::collection::vec(step(), 1..400)) {
        let pool = pool();
        let mut map = RangeMap::new(pool);
        let mut model = Model::default();
        for (i, step) in steps.iter().enumerate() {
            apply(&mut map, &mut model, step, i as u32);
            prop_assert_eq!(pool.usage().nodes, check(&map));
            prop_assert_eq!(map.len(), model.0.len());
            prop_assert!(entries(&map).iter().eq(model.0.values()));
        }
        drop(map);
        prop_assert_eq!(pool.usage(), Usage::default());
    }
}

#[test]
fn the_lower_end_of_an_entry_can_be_cut_off_without_memory() {
    let pool = pool();
    let mut map = RangeMap::new(pool);
    for n in 0..200 {
        map.insert(page(2 * n), n).unwrap();
    }
    pool.refuse_nth(0, true);
    for n in 0..200 {
        let (first, cut) = (page(2 * n).first(), Iova(((2 * n) << 12) + 0x800));
        assert!(map.trim_front(first, cut));
        assert!(!map.trim_front(first, cut), "no entry begins there any more");
        assert!(!map.trim_front(cut, page(2 * n + 1).first()), "nothing would be left");
        assert!(!map.trim_front(cut, first), "it never grows");
        assert_eq!((map.get(first), map.get(cut).map(|(_, n)| *n)), (None, Some(n)));
    }
    check(&map);
    assert_eq!(pool.refuse_none(), 0);
}
