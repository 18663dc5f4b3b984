//! The tree under the allocator: taken runs of granules by address, and how much room is between.
//!
//! An AVL tree of what is taken. Each node also knows the free gap right below it, and each subtree
//! the largest aligned block that any of its gaps holds, so that the highest gap for a request is
//! found on one way down. Taken runs are kept, not free ones, because then giving a run back frees
//! a node and never needs one. `RangeMap` can't say where there is room, hence a tree of its own.
//!
//! All numbers are granules, runs are closed at both ends. No lock: that of the owner.

use core::cmp::Ordering;

use crate::pool::Owned;

/// A subtree.
pub(super) type Tree<V> = Option<Owned<Node<V>>>;

/// A run that is taken.
pub(super) struct Node<V> {
    /// Its first granule.
    pub(super) first: u64,
    /// Its last granule.
    pub(super) last: u64,
    /// Where the free gap below begins; `first` if there is none.
    pub(super) gap: u64,
    /// The size class of the largest aligned block in the gap; see [`class`].
    own: u8,
    /// The same of any gap of the subtree.
    best: u8,
    height: u8,
    left: Tree<V>,
    right: Tree<V>,
    /// Whose it is; `None` for reserved runs.
    pub(super) value: Option<V>,
}

/// One more than the logarithm of the largest block of 2^n granules at a multiple of 2^n that lies
/// in `first..=last`; 0 if the run is empty.
pub(super) fn class(first: u64, last: u64) -> u8 {
    let Some(count) = last.checked_sub(first).and_then(|span| span.checked_add(1)) else {
        return 0;
    };
    let order = count.ilog2();
    let low = (1_u64 << order) - 1;
    // A run of `count` granules always holds an aligned block of half that power of two.
    let end = first.checked_add(low).map(|up| up | low);
    let fits = end.is_some_and(|end| end <= last);
    if fits || order == 0 { order as u8 + 1 } else { order as u8 }
}

/// The class of blocks that a request for `count` granules asks for. `count` is at most 2^63.
pub(super) fn wanted(count: u64) -> u8 {
    count.next_power_of_two().trailing_zeros() as u8 + 1
}

/// The highest aligned place for `count` granules in `first..=last`, if the run holds a whole block
/// of their class.
pub(super) fn place(first: u64, last: u64, count: u64) -> Option<u64> {
    if class(first, last) < wanted(count) {
        return None;
    }
    let top = last.checked_sub(count - 1)?;
    Some(top & !(count.next_power_of_two() - 1))
}

impl<V> Node<V> {
    pub(super) fn new(first: u64, last: u64, value: Option<V>) -> Self {
        Self { first, last, gap: first, own: 0, best: 0, height: 1, left: None, right: None, value }
    }

    /// Says where the gap below begins; [`update`](Self::update) is due.
    fn set_gap(&mut self, gap: u64) {
        self.gap = gap;
        self.own = self.first.checked_sub(1).map_or(0, |last| class(gap, last));
    }

    fn update(&mut self) {
        let below = [&self.left, &self.right].map(|side| side.as_ref().map_or(0, |n| n.best));
        self.best = self.own.max(below[0]).max(below[1]);
        self.height = 1 + height(&self.left).max(height(&self.right));
    }
}

/// Nodes that are in no tree, the newest first.
pub(super) struct Chain<V> {
    head: Tree<V>,
}

impl<V> Chain<V> {
    pub(super) fn new() -> Self {
        Self { head: None }
    }

    pub(super) fn push(&mut self, mut node: Owned<Node<V>>) {
        node.right = self.head.take();
        self.head = Some(node);
    }

    pub(super) fn pop(&mut self) -> Tree<V> {
        let mut node = self.head.take()?;
        self.head = node.right.take();
        Some(node)
    }
}

impl<V> Drop for Chain<V> {
    /// One by one: a chain may be longer than a stack is deep.
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

fn height<V>(tree: &Tree<V>) -> u8 {
    tree.as_ref().map_or(0, |node| node.height)
}

/// The highest aligned place for `count` granules that ends at or below `limit`, in a gap below
/// some node. O(log n): only the gap that `limit` cuts can disappoint.
pub(super) fn find<V>(tree: &Tree<V>, count: u64, limit: u64) -> Option<u64> {
    let node = tree.as_ref().filter(|node| node.best >= wanted(count))?;
    if node.last < limit
        && let Some(found) = find(&node.right, count, limit)
    {
        return Some(found);
    }
    let last = node.first.checked_sub(1)?.min(limit);
    place(node.gap, last, count).or_else(|| find(&node.left, count, limit))
}

/// The lowest node that contains `at` or lies above it.
pub(super) fn reaching<V>(tree: &Tree<V>, at: u64) -> Option<&Node<V>> {
    let node = tree.as_ref()?;
    if node.last < at {
        return reaching(&node.right, at);
    }
    reaching(&node.left, at).or(Some(node))
}

/// The node that contains `at`.
pub(super) fn containing<V>(tree: &mut Tree<V>, at: u64) -> Option<&mut Node<V>> {
    let node = tree.as_mut()?;
    if at < node.first {
        containing(&mut node.left, at)
    } else if at > node.last {
        containing(&mut node.right, at)
    } else {
        Some(node)
    }
}

/// Puts a node in that overlaps none, and lies in the gap of the lowest node above: the gap is split.
/// `gap` is where the gap above the highest node begins. Whether there is a node above.
pub(super) fn insert<V>(tree: &mut Tree<V>, mut new: Owned<Node<V>>, gap: u64) -> bool {
    let last = new.last;
    let Some(node) = tree else {
        new.set_gap(gap);
        new.update();
        *tree = Some(new);
        return false;
    };
    let is_above = node.first > new.first;
    let mut found = if is_above {
        let gap = node.gap;
        insert(&mut node.left, new, gap)
    } else {
        insert(&mut node.right, new, gap)
    };
    if is_above && !found {
        node.set_gap(last + 1); // it lies below `node.first`
        found = true;
    }
    balance(tree);
    found
}

/// Takes out the node that begins at `first`; its gap and its granules go to the gap of the lowest
/// node above. Whether there is one comes with it.
pub(super) fn remove<V>(tree: &mut Tree<V>, first: u64) -> Option<(Owned<Node<V>>, bool)> {
    let node = tree.as_mut()?;
    let taken = match first.cmp(&node.first) {
        Ordering::Less => {
            let (taken, found) = remove(&mut node.left, first)?;
            if !found {
                node.set_gap(taken.gap);
            }
            (taken, true)
        }
        Ordering::Greater => remove(&mut node.right, first)?,
        Ordering::Equal => {
            let (gap, mut left, mut right) = (node.gap, node.left.take(), node.right.take());
            let found = widen_lowest(&mut right, gap);
            let heir = match right {
                None => left,
                Some(right) => match remove_last(&mut left) {
                    None => Some(right),
                    Some(mut heir) => {
                        heir.left = left;
                        heir.right = Some(right);
                        Some(heir)
                    }
                },
            };
            (core::mem::replace(tree, heir)?, found)
        }
    };
    balance(tree);
    Some(taken)
}

/// Lets the gap of the lowest node begin at `gap`; whether there is a node.
fn widen_lowest<V>(tree: &mut Tree<V>, gap: u64) -> bool {
    let Some(node) = tree else { return false };
    if !widen_lowest(&mut node.left, gap) {
        node.set_gap(gap);
    }
    node.update();
    true
}

fn remove_last<V>(tree: &mut Tree<V>) -> Tree<V> {
    let node = tree.as_mut()?;
    let taken = if node.right.is_some() {
        remove_last(&mut node.right)
    } else {
        let left = node.left.take();
        core::mem::replace(tree, left)
    };
    balance(tree);
    taken
}

/// Brings what the root knows of its children up to date, and their heights to within one.
fn balance<V>(tree: &mut Tree<V>) {
    let Some(node) = tree else { return };
    let (left, right) = (height(&node.left), height(&node.right));
    if left > right + 1 {
        if node.left.as_ref().is_some_and(|child| height(&child.right) > height(&child.left)) {
            rotate_left(&mut node.left);
        }
        rotate_right(tree);
    } else if right > left + 1 {
        if node.right.as_ref().is_some_and(|child| height(&child.left) > height(&child.right)) {
            rotate_right(&mut node.right);
        }
        rotate_left(tree);
    } else {
        node.update();
    }
}

fn rotate_right<V>(tree: &mut Tree<V>) {
    let Some(mut old) = tree.take() else { return };
    let Some(mut new) = old.left.take() else {
        *tree = Some(old);
        return;
    };
    old.left = new.right.take();
    old.update();
    new.right = Some(old);
    new.update();
    *tree = Some(new);
}

fn rotate_left<V>(tree: &mut Tree<V>) {
    let Some(mut old) = tree.take() else { return };
    let Some(mut new) = old.right.take() else {
        *tree = Some(old);
        return;
    };
    old.right = new.left.take();
    old.update();
    new.left = Some(old);
    new.update();
    *tree = Some(new);
}

/// Panics unless order, balance and what the nodes know of their subtrees hold. For tests.
#[cfg(test)]
pub(super) fn check<V>(tree: &Tree<V>) {
    fn walk<V>(tree: &Tree<V>, before: &mut Option<u64>) -> (u8, u8) {
        let Some(node) = tree else { return (0, 0) };
        let (left, left_best) = walk(&node.left, before);
        assert!(node.first <= node.last && before.is_none_or(|last| last < node.first));
        assert!(node.gap <= node.first && before.is_none_or(|last| node.gap == last + 1));
        *before = Some(node.last);
        let (right, right_best) = walk(&node.right, before);
        let gap = if node.first == 0 { 0 } else { class(node.gap, node.first - 1) };
        assert!(left.abs_diff(right) <= 1, "unbalanced");
        assert_eq!(node.height, 1 + left.max(right));
        assert_eq!(node.own, gap);
        assert_eq!(node.best, gap.max(left_best).max(right_best));
        (node.height, node.best)
    }
    walk(tree, &mut None);
}
