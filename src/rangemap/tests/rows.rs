//! Entries that come as a row, and the leaf that an empty map keeps.

use super::*;

/// A row of ranges that mostly ascend: a step back now and then, and a touch or an overlap.
fn row() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let step = prop_oneof![8 => 0..6_u64, 1 => 0..400_u64];
    proptest::collection::vec((step, 0..4_u64, prop::bool::weighted(0.05)), 0..300).prop_map(
        |steps| {
            let mut at = 0_u64;
            let place = |(step, span, back): (u64, u64, bool)| {
                at = if back { at.saturating_sub(step * 9) } else { at + step };
                let first = at;
                at += span;
                (first, at)
            };
            steps.into_iter().map(place).collect()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_row_is_what_its_entries_are_one_by_one(there in row(), row in row(), refuse in 0..12_u64) {
        let (rows, singles) = (pool(), pool());
        let (mut map, mut expected) = (RangeMap::new(rows), RangeMap::new(singles));
        for (n, (first, last)) in there.iter().enumerate() {
            let one = map.insert(range(*first, *last), n);
            prop_assert_eq!(one, expected.insert(range(*first, *last), n));
        }
        let ranges = || row.iter().enumerate().map(|(n, (first, last))| (range(*first, *last), n));
        rows.refuse_nth(refuse, true);
        singles.refuse_nth(refuse, true);
        let added = map.insert_each(ranges());
        let one_by_one = ranges().enumerate().try_for_each(|(n, (range, value))| {
            expected.insert(range, value).map_err(|error| (n, error))
        });
        rows.refuse_none();
        singles.refuse_none();
        prop_assert_eq!(added, one_by_one);
        prop_assert_eq!(entries(&map), entries(&expected));
        prop_assert_eq!((check(&map), rows.usage()), (check(&expected), singles.usage()));
    }
}

#[test]
fn a_row_stops_at_the_first_entry_that_overlaps() {
    let mut map = RangeMap::new(pool());
    map.insert(page(40), 0).unwrap();
    let row = (30..50).map(|n| (page(n), 1));
    assert_eq!(map.insert_each(row), Err((10, InsertError::Overlap)));
    assert_eq!((map.len(), check(&map)), (11, 1));
    assert_eq!(map.insert_each(core::iter::empty()), Ok(()));
}

#[test]
fn a_kept_leaf_makes_the_next_entry_free_of_nodes() {
    let pool = pool();
    let mut map = RangeMap::keeping_a_leaf(pool);
    assert_eq!((map.has_node(), pool.usage().nodes), (false, 0));
    map.insert(page(1), 1).unwrap();
    assert_eq!(map.remove(page(1).first()), Some((page(1), 1)));
    assert_eq!((map.has_node(), map.is_empty(), pool.usage().nodes), (true, true, 1));
    assert_eq!((map.get(page(1).first()), map.iter().count(), check(&map)), (None, 0, 0));
    assert_eq!(map.insert_each(core::iter::empty()), Ok(()), "and it stays kept");

    pool.refuse_nth(0, true);
    map.insert(page(2), 2).unwrap();
    map.remove_if(IovaRange::ALL, |_, _| true);
    map.insert_each((0..32).map(|n| (page(n), 3))).unwrap();
    assert_eq!((pool.refuse_none(), check(&map), pool.usage().nodes), (0, 1, 1));

    map.insert(page(40), 4).unwrap(); // a tree
    assert_eq!(pool.usage().nodes, 3);
    map.remove_if(IovaRange::ALL, |_, _| true);
    assert!(map.is_empty() && pool.usage().nodes <= 1);
    map.insert(page(1), 1).unwrap();
    map.remove(page(1).first()).unwrap();
    map.shed();
    assert_eq!((map.has_node(), pool.usage().nodes), (false, 0));
    map.insert(page(1), 1).unwrap();
    map.clear();
    assert_eq!(pool.usage().nodes, 0);

    let mut frugal = RangeMap::new(pool);
    frugal.insert(page(1), 1).unwrap();
    frugal.remove(page(1).first()).unwrap();
    assert_eq!((frugal.has_node(), pool.usage().nodes), (false, 0), "only if it was asked for");
}
