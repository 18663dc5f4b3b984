//! The ascending walk: a stack of what is left of each node on the path.

use core::slice;

use super::node::{Entry, HEIGHT_MAX, Node, Slot, reaching};
use crate::addr::{Iova, IovaRange};

/// Entries from an address on, up to another, ascending.
pub(super) struct Iter<'a, V> {
    /// Of each inner node on the path, the children still to come; the root's first.
    path: heapless::Vec<slice::Iter<'a, Slot<V>>, HEIGHT_MAX>,
    /// The entries of the current leaf still to come.
    leaf: slice::Iter<'a, Entry<V>>,
    /// Entries that begin above it are not given.
    last: Iova,
}

impl<'a, V> Iter<'a, V> {
    /// Starts at the lowest entry that contains `from` or lies above it.
    pub(super) fn new(root: Option<&'a Node<V>>, from: Iova, last: Iova) -> Self {
        let mut iter = Self { path: heapless::Vec::new(), leaf: [].iter(), last };
        if let Some(root) = root {
            iter.descend(root, from);
        }
        iter
    }

    /// Walks down from `node` to the leaf for `from`.
    fn descend(&mut self, mut node: &'a Node<V>, from: Iova) {
        loop {
            match node {
                Node::Leaf(leaf) => {
                    self.leaf = leaf[reaching(leaf, from)..].iter();
                    return;
                }
                Node::Inner(inner) => {
                    let mut rest = inner.slots[inner.route(from)..].iter();
                    let Some(slot) = rest.next() else { return };
                    let refused = self.path.push(rest).is_err();
                    assert!(!refused, "inserts bound the height");
                    node = &slot.child;
                }
            }
        }
    }
}

impl<'a, V> Iterator for Iter<'a, V> {
    type Item = (IovaRange, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((range, value)) = self.leaf.next() {
                if range.first() <= self.last {
                    return Some((*range, value));
                }
                self.path.clear();
                self.leaf = [].iter();
                return None;
            }
            match self.path.last_mut()?.next() {
                Some(slot) => self.descend(&slot.child, Iova(0)),
                None => drop(self.path.pop()),
            }
        }
    }
}
