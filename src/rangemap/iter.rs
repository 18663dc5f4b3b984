//! The ascending walk: the current leaf, and where the next one begins, to which it walks down anew.

use super::node::{self, Node, Row, descend};
use crate::addr::{Iova, IovaRange};

/// Entries from an address on, up to another, ascending.
pub(super) struct Iter<'a, V> {
    root: Option<&'a Node<V>>,
    /// What is left of the current leaf.
    row: Row<'a, V>,
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
        let (row, next) = match found {
            Some(found) => (found.leaf.row(found.leaf.reaching(from)), found.next),
            None => (node::no_row(), None),
        };
        Self { root, row, next, last }
    }

    /// Goes on to the leaf that comes next; `false`: there is none, or it begins too far up.
    #[inline(never)]
    fn turn(&mut self) -> bool {
        let next = self.next.filter(|next| *next <= self.last);
        let Some(found) = next.and_then(|next| descend(self.root?, next)) else { return false };
        (self.row, self.next) = (found.leaf.row(0), found.next);
        true
    }
}

impl<'a, V> Iterator for Iter<'a, V> {
    type Item = (IovaRange, &'a V);

    #[inline(always)] // of 45 instructions per entry, 15 are left
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(((first, last), value)) = self.row.next() {
                if *first <= self.last.0 {
                    return Some((IovaRange::ordered(Iova(*first), Iova(*last)), value));
                }
                (self.row, self.next) = (node::no_row(), None);
                return None;
            }
            if !self.turn() {
                return None;
            }
        }
    }
}
