//! Inserts into a leaf that is full: room is made among its neighbours, or one leaf more is made.
//!
//! A full leaf first evens out with three neighbours, if they have some room; if not, the four become
//! five. So leaves stay three quarters full whatever the order of inserts. At the right edge a
//! new leaf takes what comes and the old ones stay full, so ascending inserts fill every node.
//!
//! A first walk down finds which nodes must split; a second one allocates the new nodes on its way
//! down and changes the tree on its way up, when nothing can fail any more.

use heapless::Vec;

use super::node::{Entry, Inner, Kids, LEAF_MAX, Leaf, Node};
use crate::addr::Iova;
use crate::error::OutOfMemory;
use crate::pool::{Owned, Pool};

/// So many leaves, at most, even out with each other.
const WINDOW: usize = 4;
/// They do if they have so many free places together; for fewer it would be done again too soon.
const SPILL_ROOM: usize = LEAF_MAX / 4;

/// A child that was split off, with its key.
type New<V> = Option<(Iova, Node<V>)>;
/// Neighbouring leaves, a new one included.
type Leaves<'a, V> = Vec<&'a mut Leaf<V>, { WINDOW + 1 }>;

/// Adds an entry that overlaps none. On failure no entry is changed.
pub(super) fn insert<V>(
    root: &mut Option<Node<V>>,
    pool: &'static Pool,
    entry: Entry<V>,
) -> Result<(), OutOfMemory> {
    let Some(node) = root else {
        let mut leaf = Owned::new(pool, Leaf::new())?;
        leaf.place(0, entry);
        *root = Some(Node::Leaf(leaf));
        return Ok(());
    };
    let splits_from = splits_from(node, entry.0.first());
    let top = if splits_from == 0 { Some(Owned::new(pool, node.parent())?) } else { None };
    let new = match node {
        Node::Leaf(leaf) if !leaf.is_full() => {
            place(leaf, entry);
            None
        }
        Node::Leaf(leaf) => {
            let mut right = Owned::new(pool, Leaf::new())?;
            if leaf.count_up_to(entry.0.first()) < LEAF_MAX {
                leaf.share(&mut right, LEAF_MAX / 2);
                place_among(&mut [leaf, &mut right], entry);
            } else {
                right.place(0, entry);
            }
            Some((right.first(), Node::Leaf(right)))
        }
        Node::Inner(inner) => insert_below(inner, pool, splits_from, true, entry)?,
    };
    let Some((key, upper)) = new else { return Ok(()) };
    let (Some(mut top), Some(lower)) = (top, root.take()) else {
        unreachable!("a root splits as planned");
    };
    top.place(0, lower.first(), lower);
    top.place(1, key, upper);
    *root = Some(Node::Inner(top));
    Ok(())
}

/// The depth from which all nodes on the path of `at` split; beyond the leaf if none does.
fn splits_from<V>(root: &Node<V>, at: Iova) -> usize {
    let mut inner = match root {
        Node::Leaf(leaf) => return if leaf.is_full() { 0 } else { 1 },
        Node::Inner(inner) => inner,
    };
    let (mut depth, mut from) = (0, 0);
    loop {
        if !inner.is_full() {
            from = depth + 1;
        }
        depth += 1;
        let i = inner.route(at);
        match &inner.kids {
            Kids::Leaves(row) if row[i].is_full() && window(inner, i).is_err() => return from,
            Kids::Leaves(_) => return depth + 1,
            Kids::Inners(row) => inner = &row[i],
        }
    }
}

/// The leaves around leaf `i` that have the most room: where they begin. `Err`: it isn't worth it.
fn window<V>(inner: &Inner<V>, i: usize) -> Result<usize, usize> {
    let width = inner.len().min(WINDOW);
    let starts = i.saturating_sub(width - 1)..=i.min(inner.len() - width);
    let items = |from: usize| -> usize {
        (from..from + width).filter_map(|leaf| inner.kids.len_of(leaf)).sum()
    };
    let best = starts.map(|from| (items(from), from)).min();
    match best {
        Some((items, from)) if items + SPILL_ROOM <= width * LEAF_MAX => Ok(from),
        Some((_, from)) => Err(from),
        None => Err(i),
    }
}

/// Adds the entry below `inner`, whose depth is `splits_from` levels above the first to split.
/// Returns the new right sibling if `inner` itself was split.
fn insert_below<V>(
    inner: &mut Inner<V>,
    pool: &'static Pool,
    splits_from: usize,
    edge: bool,
    entry: Entry<V>,
) -> Result<New<V>, OutOfMemory> {
    let at = entry.0.first();
    let spare = if splits_from == 0 {
        Some(Owned::new(pool, Inner::new(inner.kids.none_like()))?)
    } else {
        None
    };
    let i = inner.route(at);
    let child_edge = edge && i + 1 == inner.len();
    let (room, from) = match window(inner, i) {
        Ok(from) => (true, from),
        Err(from) => (false, from),
    };
    let width = inner.len().min(WINDOW);
    let (new, place_of_new) = match &mut inner.kids {
        Kids::Inners(row) => {
            let below = splits_from.saturating_sub(1);
            (insert_below(&mut row[i], pool, below, child_edge, entry)?, i + 1)
        }
        Kids::Leaves(row) if !row[i].is_full() => {
            place(&mut row[i], entry);
            return Ok(None);
        }
        // It comes last of all: the leaves before stay full.
        Kids::Leaves(row) if !room && child_edge && row[i].count_up_to(at) == LEAF_MAX => {
            let mut leaf = Owned::new(pool, Leaf::new())?;
            leaf.place(0, entry);
            (Some((at, Node::Leaf(leaf))), i + 1)
        }
        Kids::Leaves(row) => {
            let mut leaf = if room { None } else { Some(Owned::new(pool, Leaf::new())?) };
            let window = row.iter_mut().skip(from).take(width).map(|leaf| &mut **leaf);
            let mut leaves: Leaves<'_, V> = window.chain(leaf.as_deref_mut()).collect();
            spread(&mut leaves);
            place_among(&mut leaves, entry);
            drop(leaves);
            (leaf.map(|leaf| (leaf.first(), Node::Leaf(leaf))), from + width)
        }
    };
    inner.note_keys(from, width);
    let Some((key, child)) = new else { return Ok(None) };
    let Some(mut upper) = spare else {
        inner.place(place_of_new, key, child);
        return Ok(None);
    };
    inner.split(&mut upper, place_of_new, (key, child), edge);
    Ok(Some((upper.first(), Node::Inner(upper))))
}

/// Evens out neighbouring leaves.
fn spread<V>(leaves: &mut [&mut Leaf<V>]) {
    let total: usize = leaves.iter().map(|leaf| leaf.len()).sum();
    let count = leaves.len();
    // What moves to the right goes first, from the right on, so that it finds room; the rest after.
    for _ in 0..count {
        let mut want = total;
        for border in (1..count).rev() {
            want -= share_of(total, count, border);
            let have = leaves[..border].iter().map(|leaf| leaf.len()).sum();
            if have != want {
                move_over(leaves, border, have, want);
            }
        }
    }
}

/// How many of `total` items the leaf at `place` of `count` gets.
const fn share_of(total: usize, count: usize, place: usize) -> usize {
    total / count + if place < total % count { 1 } else { 0 }
}

/// Moves entries over the border before leaf `border`: `have` lie before it, `want` should.
fn move_over<V>(leaves: &mut [&mut Leaf<V>], border: usize, have: usize, want: usize) {
    let [.., left, right] = &mut leaves[..=border] else { return };
    let len = if have > want {
        left.len() - (have - want).min(left.len()).min(LEAF_MAX - right.len())
    } else {
        left.len() + (want - have).min(right.len()).min(LEAF_MAX - left.len())
    };
    left.share(right, len);
}

/// Puts an entry into the one of neighbouring leaves with room that it belongs into.
fn place_among<V>(leaves: &mut [&mut Leaf<V>], entry: Entry<V>) {
    let above = leaves.iter().skip(1).take_while(|leaf| leaf.first() <= entry.0.first()).count();
    place(leaves[above], entry);
}

fn place<V>(leaf: &mut Leaf<V>, entry: Entry<V>) {
    leaf.place(leaf.count_up_to(entry.0.first()), entry);
}
