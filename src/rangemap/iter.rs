//! The ascending walk: the current leaf, and where the next one begins, to which it walks down anew.

use super::node::{Leaf, Node, descend};
use crate::addr::{Iova, IovaRange};

/// Entries from an address on, up to another, ascending.
pub(super) struct Iter<'a, V> {
    root: Option<&'a Node<V>>,
    leaf: Option<&'a Leaf<V>>,
    /// The next entry in the leaf.
    place: usize,
    /// Where the leaf after it begins.
    next: Option<Iova>,
    /// Entries that begin above it are not given.
    last: Iova,
}

impl<'a, V> Iter<'a, V> {
    /// Starts at the lowest entry that contains `from` or lies above it.
    #[inline]
    pub(super) fn new(root: Option<&'a Node<V>>, from: Iova, last: Iova) -> Self {
        let found = root.and_then(|root| descend(root, from));
        let place = found.as_ref().map_or(0, |found| found.leaf.reaching(from));
        let next = found.as_ref().and_then(|found| found.next);
        Self { root, leaf: found.map(|found| found.leaf), place, next, last }
    }
}

impl<'a, V> Iterator for Iter<'a, V> {
    type Item = (IovaRange, &'a V);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.leaf?.get(self.place) {
                self.place += 1;
                if entry.0.first() <= self.last {
                    return Some(entry);
                }
                self.leaf = None;
                return None;
            }
            let next = self.next.filter(|next| *next <= self.last);
            let found = next.and_then(|next| descend(self.root?, next));
            let (leaf, next) = found.map_or((None, None), |found| (Some(found.leaf), found.next));
            (self.leaf, self.place, self.next) = (leaf, 0, next);
        }
    }
}
