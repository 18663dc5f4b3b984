//! Removals. They only free: a child that fell below the least is merged with a sibling if both fit
//! into one node, otherwise takes items from it; an empty node is freed, and a root with one child
//! gives way to it.
//!
//! The entry is taken out of its leaf first; only if the leaf got too small, a second walk down mends
//! the path to it.

use super::Spare;
use super::node::{Entry, Found, Inner, Kids, LEAF_MIN, Node, descend_mut};
use crate::addr::{Iova, IovaRange};

/// Takes out the entry that begins exactly at `first`.
#[inline(always)] // who drops what is taken out pays for no copy
pub(super) fn remove<V>(
    root: &mut Option<Node<V>>,
    spare: &mut Spare<V>,
    first: Iova,
) -> Option<Entry<V>> {
    let leaf = descend_mut(root.as_mut()?, first, false)?.leaf;
    let taken = leaf.take(leaf.find(first)?)?;
    if leaf.len() < LEAF_MIN {
        mend_path(root, spare, first);
    }
    Some(taken)
}

/// Takes out every entry that begins in `range` and that `goes` names, leaf by leaf, ascending; how
/// many.
pub(super) fn remove_if<V>(
    root: &mut Option<Node<V>>,
    spare: &mut Spare<V>,
    range: IovaRange,
    goes: &mut impl FnMut(IovaRange, &mut V) -> bool,
) -> usize {
    let mut count = 0;
    let mut at = Some(range.first());
    while let Some(from) = at {
        let found = root.as_mut().and_then(|root| descend_mut(root, from, false));
        let Some(Found { leaf, next }) = found else { break };
        let mut place = leaf.find(from).unwrap_or_else(|| leaf.count_up_to(from));
        let before = leaf.len();
        // What goes is mostly a row, which is moved over at once.
        let mut row = place..place;
        while let Some((entry, value)) = leaf.get_mut(place) {
            if entry.first() > range.last() {
                break;
            }
            place += 1;
            if goes(entry, value) {
                row.end = place;
            } else {
                place = row.start + 1;
                leaf.cut_row(row);
                row = place..place;
            }
        }
        leaf.cut_row(row);
        count += before - leaf.len();
        if leaf.len() < before && leaf.len() < LEAF_MIN {
            mend_path(root, spare, from);
        }
        at = next.filter(|next| *next <= range.last());
    }
    count
}

/// Restores the bounds of the nodes on the path to the leaf for `at`.
#[inline(always)]
fn mend_path<V>(root: &mut Option<Node<V>>, spare: &mut Spare<V>, at: Iova) {
    match root {
        Some(Node::Inner(_)) => mend_inner(root, at),
        Some(Node::Leaf(leaf)) if leaf.len() == 0 => {
            if let Some(Node::Leaf(leaf)) = root.take() {
                spare.put(leaf);
            }
        }
        _ => {}
    }
}

/// As [`mend_path`], below a root with children.
#[inline(never)]
fn mend_inner<V>(root: &mut Option<Node<V>>, at: Iova) {
    if let Some(Node::Inner(inner)) = root {
        mend_below(inner, at, true);
    }
    while let Some(Node::Inner(inner)) = root
        && inner.len() <= 1
    {
        *root = (inner.len() == 1).then(|| inner.take(0));
    }
}

fn mend_below<V>(inner: &mut Inner<V>, at: Iova, edge: bool) {
    let i = inner.route(at);
    let child_edge = edge && i + 1 == inner.len();
    if let Kids::Inners(row) = &mut inner.kids
        && let Some(child) = row.get_mut(i)
    {
        mend_below(child, at, child_edge);
    }
    mend(inner, i, child_edge);
}

/// Restores the bounds of child `i` after it lost items.
fn mend<V>(inner: &mut Inner<V>, i: usize, child_edge: bool) {
    let (most, least) = inner.kids.bounds();
    let Some(len) = inner.kids.len_of(i).filter(|len| *len < least) else { return };
    if len == 0 {
        drop(inner.take(i));
        return;
    }
    let pair = |low: usize| Some((inner.kids.len_of(low)? + inner.kids.len_of(low + 1)?, low));
    let pairs = [i.checked_sub(1), Some(i)].into_iter().flatten().filter_map(pair);
    // The pair with the fewest items: what fits into one node is then found.
    let Some((items, low)) = pairs.min() else { return };
    if items <= most {
        inner.share_out(low, items);
    } else if !child_edge {
        inner.share_out(low, items / 2);
    }
}
