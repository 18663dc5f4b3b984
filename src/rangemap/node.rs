//! The nodes of the tree, their bounds, and the moves of rows between siblings.
//!
//! Every node except those on the right edge (the root and the last child of each edge node) holds
//! at least [`LEAF_MIN`] or [`INNER_MIN`] items; an edge node holds at least one. So appending may
//! leave full nodes behind, and no interior node is nearly empty. The least is below half, so that
//! a removal right after a split does not merge the two again.

use heapless::Vec;

use crate::addr::{Iova, IovaRange};
use crate::pool::Owned;

/// Entries in a full leaf.
pub(super) const LEAF_MAX: usize = 16;
/// Entries in a leaf off the right edge, at least.
pub(super) const LEAF_MIN: usize = LEAF_MAX * 7 / 16;
/// Children of a full inner node.
pub(super) const INNER_MAX: usize = 32;
/// Children of an inner node off the right edge, at least.
pub(super) const INNER_MIN: usize = INNER_MAX * 7 / 16;
/// Inner nodes on a path, at most: with the minima above, no memory holds a higher tree.
pub(super) const HEIGHT_MAX: usize = 14;

/// An entry of the map.
pub(super) type Entry<V> = (IovaRange, V);

/// A row of entries, ascending.
pub(super) type Leaf<V> = Vec<Entry<V>, LEAF_MAX>;

/// A row of children, ascending; all of the same height.
pub(super) struct Inner<V> {
    pub(super) slots: Vec<Slot<V>, INNER_MAX>,
}

/// A child, and the lowest address of its entries.
pub(super) struct Slot<V> {
    pub(super) first: Iova,
    pub(super) child: Node<V>,
}

/// A node; never empty between calls.
pub(super) enum Node<V> {
    Leaf(Owned<Leaf<V>>),
    Inner(Owned<Inner<V>>),
}

impl<V> Node<V> {
    /// The number of entries or children.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.len(),
            Self::Inner(inner) => inner.slots.len(),
        }
    }

    /// The most and the least (off the right edge) that a node of this kind holds.
    pub(super) const fn bounds(&self) -> (usize, usize) {
        match self {
            Self::Leaf(_) => (LEAF_MAX, LEAF_MIN),
            Self::Inner(_) => (INNER_MAX, INNER_MIN),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() == self.bounds().0
    }

    /// The lowest address; `None` in an empty node.
    pub(super) fn first(&self) -> Option<Iova> {
        match self {
            Self::Leaf(leaf) => leaf.first().map(|(range, _)| range.first()),
            Self::Inner(inner) => inner.slots.first().map(|slot| slot.first),
        }
    }
}

impl<V> Inner<V> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new() }
    }

    /// The child for `at`: the last that begins at or below it, else the first.
    pub(super) fn route(&self, at: Iova) -> usize {
        self.slots.partition_point(|slot| slot.first <= at).saturating_sub(1)
    }

    /// Notes the lowest address of child `i` again.
    pub(super) fn refresh(&mut self, i: usize) {
        if let Some(slot) = self.slots.get_mut(i)
            && let Some(first) = slot.child.first()
        {
            slot.first = first;
        }
    }

    /// The items of children `i` and `i + 1` together, if both are there.
    pub(super) fn pair_len(&self, i: usize) -> Option<usize> {
        Some(self.slots.get(i)?.child.len() + self.slots.get(i + 1)?.child.len())
    }

    /// Moves items between children `i` and `i + 1` until the left one has `left_len`; a right
    /// child left empty is freed.
    pub(super) fn share_out(&mut self, i: usize, left_len: usize) {
        let Some([left, right]) = self.slots.get_mut(i..i + 2) else { return };
        match (&mut left.child, &mut right.child) {
            (Node::Leaf(left), Node::Leaf(right)) => shift(left, right, left_len),
            (Node::Inner(left), Node::Inner(right)) => {
                shift(&mut left.slots, &mut right.slots, left_len);
            }
            _ => unreachable!("siblings have the same height"),
        }
        if right.child.len() == 0 {
            self.slots.remove(i + 1);
        } else {
            self.refresh(i + 1);
        }
        self.refresh(i);
    }
}

/// The place in `leaf` of the lowest entry that contains `at` or lies above it.
pub(super) fn reaching<V>(leaf: &Leaf<V>, at: Iova) -> usize {
    leaf.partition_point(|(range, _)| range.last() < at)
}

/// Cuts the lower end off the entry that begins at `first`, and notes the new keys on the path.
pub(super) fn trim_front<V>(node: &mut Node<V>, first: Iova, new_first: Iova) -> bool {
    match node {
        Node::Leaf(leaf) => {
            let found = leaf.binary_search_by_key(&first, |(range, _)| range.first()).ok();
            let Some((range, _)) = found.and_then(|i| leaf.get_mut(i)) else { return false };
            let cut = IovaRange::new(new_first, range.last()).filter(|_| first <= new_first);
            cut.map(|cut| *range = cut).is_some()
        }
        Node::Inner(inner) => {
            let i = inner.route(first);
            let Some(slot) = inner.slots.get_mut(i) else { return false };
            let done = trim_front(&mut slot.child, first, new_first);
            inner.refresh(i);
            done
        }
    }
}

/// Puts `item` into a row that has room.
pub(super) fn place<T, const N: usize>(row: &mut Vec<T, N>, at: usize, item: T) {
    let refused = row.insert(at, item).is_err();
    assert!(!refused, "a row has room when an item comes");
}

/// Moves items between two neighbouring rows until `left` has `left_len`.
fn shift<T, const N: usize>(left: &mut Vec<T, N>, right: &mut Vec<T, N>, left_len: usize) {
    if left_len >= left.len() {
        let count = left_len - left.len();
        left.extend(right.drain(..count));
    } else {
        let count = left.len() - left_len;
        right.extend(left.drain(left_len..));
        right.rotate_right(count);
    }
}

/// Splits the full row `left` around an item that belongs at `at`; the upper part goes to `right`,
/// which is empty. `keep` leaves `left` full if the item comes last.
pub(super) fn split<T, const N: usize>(
    left: &mut Vec<T, N>,
    right: &mut Vec<T, N>,
    at: usize,
    item: T,
    keep: bool,
) {
    if keep && at == left.len() {
        return place(right, 0, item);
    }
    let half = left.len() / 2;
    right.extend(left.drain(half..));
    if at <= half { place(left, at, item) } else { place(right, at - half, item) }
}
