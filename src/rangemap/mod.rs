//! An ordered map from disjoint ranges of IOVAs to values.
//!
//! Here live the mappings of a domain and those of a container. The map is a B+tree: the entries
//! lie in leaves, the inner nodes hold only where each child begins. A B+tree because a million
//! mappings are ordinary: searches stay logarithmic, an entry costs little more than its own bytes,
//! and a walk over a range reads whole rows. Nodes come from a [`Pool`], so an insert can run out of
//! memory; it then changes nothing. Removals only free. A map can be told to keep its last leaf when
//! it gets empty ([`RangeMap::keeping_a_leaf`]), so that an entry that comes and goes costs no node.
//!
//! No lock is taken: the lock of the map's owner guards it.
//!
//! | file | what |
//! |---|---|
//! | `node.rs` | nodes, how they are searched, and how rows move between them |
//! | `insert.rs` | inserts into a full leaf: even out with siblings, or split |
//! | `remove.rs` | removals: merge, even out, collapse the root |
//! | `iter.rs` | the ascending walk |

mod insert;
mod iter;
mod node;
mod remove;
#[cfg(test)]
mod tests;

use core::fmt;

use self::iter::Iter;
use self::node::{Found, Leaf, Node};
use crate::addr::{Iova, IovaRange};
use crate::error::OutOfMemory;
use crate::pool::{Owned, Pool};

/// Why an insert was refused; the map is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InsertError {
    /// Some entry overlaps the range.
    Overlap,
    /// No memory for a node.
    OutOfMemory,
}

impl fmt::Display for InsertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overlap => "an entry overlaps the range",
            Self::OutOfMemory => "no memory for a node",
        })
    }
}

impl core::error::Error for InsertError {}

impl From<OutOfMemory> for InsertError {
    fn from(OutOfMemory: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// An ordered map from disjoint, closed ranges of IOVAs to values; n is the number of entries.
///
/// ```
/// use iommu::addr::{Iova, IovaRange};
/// use iommu::pool::Pool;
/// use iommu::rangemap::{InsertError, RangeMap};
/// static POOL: Pool = Pool::heap();
/// let mut map = RangeMap::new(&POOL);
/// let page = IovaRange::from_len(Iova(0x1000), 0x1000).unwrap();
/// assert_eq!(map.insert(page, 'a'), Ok(()));
/// assert_eq!(map.insert(IovaRange::ALL, 'b'), Err(InsertError::Overlap));
/// assert_eq!(map.get(Iova(0x1fff)), Some((page, &'a')));
/// assert_eq!(map.remove(Iova(0x1000)), Some((page, 'a')));
/// ```
pub struct RangeMap<V> {
    pool: &'static Pool,
    root: Option<Node<V>>,
    len: usize,
    spare: Spare<V>,
}

/// The leaf that an empty map keeps.
enum Spare<V> {
    /// It is freed.
    Never,
    /// It is kept; there is none, or it is in use.
    Wanted,
    Kept(Owned<Leaf<V>>),
}

impl<V> Spare<V> {
    /// Gives the leaf away, if one is kept.
    #[inline]
    fn take(&mut self) -> Option<Owned<Leaf<V>>> {
        match core::mem::replace(self, Self::Wanted) {
            Self::Kept(leaf) => Some(leaf),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Keeps an empty leaf, or frees it.
    #[inline]
    fn put(&mut self, leaf: Owned<Leaf<V>>) {
        if matches!(self, Self::Wanted) {
            *self = Self::Kept(leaf);
        }
    }
}

impl<V> RangeMap<V> {
    /// An empty map whose nodes will come from `pool`; allocates nothing.
    #[must_use]
    pub const fn new(pool: &'static Pool) -> Self {
        Self { pool, root: None, len: 0, spare: Spare::Never }
    }

    /// As [`new`](Self::new), but a node stays with the map once it had an entry, for the next one.
    /// [`shed`](Self::shed) frees it.
    #[must_use]
    pub const fn keeping_a_leaf(pool: &'static Pool) -> Self {
        Self { pool, root: None, len: 0, spare: Spare::Wanted }
    }

    /// Whether the map has a node: it has an entry, or keeps a leaf.
    #[inline]
    #[must_use]
    pub const fn has_node(&self) -> bool {
        self.root.is_some() || matches!(self.spare, Spare::Kept(_))
    }

    /// Frees the node that an empty map keeps.
    pub fn shed(&mut self) {
        if let Spare::Kept(_) = self.spare {
            self.spare = Spare::Wanted;
        }
    }

    /// The number of entries, in O(1).
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the map has no entry, in O(1).
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an entry, in O(log n).
    ///
    /// # Errors
    ///
    /// [`InsertError::Overlap`] if some entry shares an address with `range`, otherwise
    /// [`InsertError::OutOfMemory`] if a node is needed and the pool has none. The map is
    /// unchanged and `value` is dropped.
    #[inline]
    pub fn insert(&mut self, range: IovaRange, value: V) -> Result<(), InsertError> {
        if self.root.is_none() {
            self.root = self.spare.take().map(Node::Leaf);
        }
        let at = range.first();
        if let Some(Found { leaf, next }) =
            self.root.as_mut().and_then(|root| node::descend_mut(root, at, true))
        {
            let place = leaf.count_up_to(at);
            if leaf.takes(place, range, next) {
                leaf.place(place, (range, value));
                self.len += 1;
                return Ok(());
            }
        }
        self.insert_otherwise(range, value)
    }

    /// Adds entries, in O(log n) each, but in O(1) for one that goes right behind the one before.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert), with how many entries were added before; they stay.
    #[inline]
    pub(crate) fn insert_each(
        &mut self,
        mut entries: impl Iterator<Item = (IovaRange, V)>,
    ) -> Result<(), (usize, InsertError)> {
        let before = self.len;
        let mut pending = entries.next();
        while let Some((range, value)) = pending {
            self.insert(range, value).map_err(|error| (self.len - before, error))?;
            pending = entries.next();
            if let Some(entry) = pending {
                pending = self.fill_leaf(range, entry, &mut entries);
            }
        }
        Ok(())
    }

    /// Adds entries that ascend right behind the one at `before`, as long as its leaf takes them.
    /// Returns the first that it does not.
    fn fill_leaf(
        &mut self,
        before: IovaRange,
        mut entry: (IovaRange, V),
        entries: &mut impl Iterator<Item = (IovaRange, V)>,
    ) -> Option<(IovaRange, V)> {
        let root = self.root.as_mut();
        let found = root.and_then(|root| node::descend_mut(root, before.first(), false));
        let Some(Found { leaf, next }) = found else { return Some(entry) };
        let mut place = leaf.count_up_to(before.first());
        let mut last = before.last();
        while entry.0.first() > last && leaf.takes(place, entry.0, next) {
            last = entry.0.last();
            leaf.place(place, entry);
            self.len += 1;
            place += 1;
            entry = entries.next()?;
        }
        Some(entry)
    }

    /// Adds an entry that overlaps one, or for which its leaf has no room, or that reaches over where
    /// the next leaf begins.
    #[cold]
    fn insert_otherwise(&mut self, range: IovaRange, value: V) -> Result<(), InsertError> {
        if self.overlaps(range) {
            return Err(InsertError::Overlap);
        }
        let found = self.root.as_ref().and_then(|root| node::descend(root, range.first()));
        let next = found.and_then(|found| found.next).filter(|next| *next <= range.last());
        node::raise_keys(self.root.as_mut(), next, range.last());
        insert::insert(&mut self.root, self.pool, (range, value))?;
        self.len += 1;
        Ok(())
    }

    /// The entry whose range contains `at`, in O(log n).
    #[inline]
    #[must_use]
    pub fn get(&self, at: Iova) -> Option<(IovaRange, &V)> {
        let leaf = node::descend(self.root.as_ref()?, at)?.leaf;
        leaf.get(leaf.reaching(at)).filter(|(range, _)| range.contains(at))
    }

    /// As [`get`](Self::get), with the value to change.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, at: Iova) -> Option<(IovaRange, &mut V)> {
        let leaf = node::descend_mut(self.root.as_mut()?, at, false)?.leaf;
        leaf.get_mut(leaf.reaching(at)).filter(|(range, _)| range.contains(at))
    }

    /// The lowest entry that contains `at` or lies above it, in O(log n).
    #[inline]
    #[must_use]
    pub fn first_from(&self, at: Iova) -> Option<(IovaRange, &V)> {
        Iter::new(self.root.as_ref(), at, Iova(u64::MAX)).next()
    }

    /// Whether some entry shares an address with `range`, in O(log n).
    #[inline]
    #[must_use]
    pub fn overlaps(&self, range: IovaRange) -> bool {
        let found = self.root.as_ref().and_then(|root| node::descend(root, range.first()));
        let Some(Found { leaf, next }) = found else { return false };
        match leaf.get(leaf.reaching(range.first())) {
            Some((entry, _)) => entry.first() <= range.last(),
            // A leaf may begin above where its parent says.
            None if next.is_some_and(|next| next <= range.last()) => {
                self.overlapping(range).next().is_some()
            }
            None => false,
        }
    }

    /// The entries that share an address with `range`, ascending, in O(log n + k) for k of them.
    #[inline]
    pub fn overlapping(&self, range: IovaRange) -> impl Iterator<Item = (IovaRange, &V)> {
        Iter::new(self.root.as_ref(), range.first(), range.last())
    }

    /// Calls `each` for every entry that shares an address with `range`, ascending, with its value
    /// to change, until it answers `false`; in O(log n + k) for k of them.
    pub fn for_each_mut(
        &mut self,
        range: IovaRange,
        mut each: impl FnMut(IovaRange, &mut V) -> bool,
    ) {
        let mut at = Some(range.first());
        while let Some(from) = at
            && let Some(Found { leaf, next }) =
                self.root.as_mut().and_then(|root| node::descend_mut(root, from, false))
        {
            let mut place = leaf.reaching(from);
            while let Some((entry, value)) = leaf.get_mut(place) {
                if entry.first() > range.last() || !each(entry, value) {
                    return;
                }
                place += 1;
            }
            at = next.filter(|next| *next <= range.last());
        }
    }

    /// All entries, ascending, in O(n).
    pub fn iter(&self) -> impl Iterator<Item = (IovaRange, &V)> {
        self.overlapping(IovaRange::ALL)
    }

    /// Takes out the entry that begins exactly at `first`, in O(log n). Never allocates.
    #[inline]
    pub fn remove(&mut self, first: Iova) -> Option<(IovaRange, V)> {
        let taken = remove::remove(&mut self.root, &mut self.spare, first)?;
        self.len -= 1;
        Some(taken)
    }

    /// Looks at every entry that begins in `range`, once each, ascending, and drops those for which
    /// `goes` answers `true`; in O(log n + k) for k of them. Never allocates.
    pub fn remove_if(&mut self, range: IovaRange, mut goes: impl FnMut(IovaRange, &mut V) -> bool) {
        self.len -= remove::remove_if(&mut self.root, &mut self.spare, range, &mut goes);
    }

    /// Cuts the lower end off the entry that begins exactly at `first`, so that it begins at
    /// `new_first`, in O(log n). Never allocates.
    ///
    /// Returns whether it did: there is such an entry, and `new_first` lies inside it.
    pub fn trim_front(&mut self, first: Iova, new_first: Iova) -> bool {
        let found = self.root.as_mut().and_then(|root| node::descend_mut(root, first, false));
        found.is_some_and(|Found { leaf, .. }| leaf.trim_front(first, new_first))
    }

    /// Drops all entries and frees all nodes, in O(n). Never allocates.
    pub fn clear(&mut self) {
        self.len = 0;
        self.root = None;
        self.shed();
    }
}

impl<V> fmt::Debug for RangeMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeMap").field("len", &self.len).finish_non_exhaustive()
    }
}
