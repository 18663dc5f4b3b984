//! The nodes of the tree: rows of items, how a row is searched, and the moves between siblings.
//!
//! A row lies in columns (all first addresses, all last ones, all values), so that a search reads
//! neighbouring words, and places without an item hold the key [`NONE`], so that it needs no length.
//!
//! Every node except those on the right edge (the root and the last child of each edge node) holds
//! at least [`LEAF_MIN`] or [`INNER_MIN`] items; an edge node holds at least one. So appending may
//! leave full nodes behind, and no interior node is nearly empty. The least is below half, so that
//! a removal right after a split does not merge the two again.
//!
//! The key of a child parts it from the child before: no entry of the child begins below it, every
//! entry of the child before does. It need not be the address of an entry, so removals, and cuts at
//! the lower end, leave it alone.

use core::{iter, slice};

use heapless::Vec;

use crate::addr::{Iova, IovaRange};
use crate::pool::Owned;

/// Entries in a full leaf.
pub(super) const LEAF_MAX: usize = 32;
/// Entries in a leaf off the right edge, at least.
pub(super) const LEAF_MIN: usize = LEAF_MAX * 7 / 16;
/// Children of a full inner node.
pub(super) const INNER_MAX: usize = 64;
/// Children of an inner node off the right edge, at least.
pub(super) const INNER_MIN: usize = INNER_MAX * 7 / 16;

/// The key of a place without an item. An item may have it too, so a search ends at the length.
const NONE: u64 = u64::MAX;

/// An entry of the map.
pub(super) type Entry<V> = (IovaRange, V);

/// A row of entries, ascending.
pub(super) struct Leaf<V> {
    firsts: [u64; LEAF_MAX],
    lasts: [u64; LEAF_MAX],
    values: Vec<V, LEAF_MAX>,
}

/// A row of children, ascending; all of the same height.
pub(super) struct Inner<V> {
    keys: [u64; INNER_MAX],
    pub(super) kids: Kids<V>,
}

/// The children of an inner node. One tag for all, so that each is only a pointer.
pub(super) enum Kids<V> {
    Leaves(Vec<Owned<Leaf<V>>, INNER_MAX>),
    Inners(Vec<Owned<Inner<V>>, INNER_MAX>),
}

/// Some entries of a leaf: where each begins, where it ends, its value.
pub(super) type Row<'a, V> =
    iter::Zip<iter::Zip<slice::Iter<'a, u64>, slice::Iter<'a, u64>>, slice::Iter<'a, V>>;

/// No entries.
pub(super) fn no_row<'a, V>() -> Row<'a, V> {
    [].iter().zip(&[]).zip(&[])
}

/// A child on its way into a node.
pub(super) enum Node<V> {
    Leaf(Owned<Leaf<V>>),
    Inner(Owned<Inner<V>>),
}

/// How many of the keys of a row are at or below `at`, without a branch per key.
#[inline(always)]
fn count_up_to<const N: usize>(keys: &[u64; N], len: usize, at: u64) -> usize {
    const { assert!(N.is_power_of_two()) };
    let mut count = 0;
    let mut step = N / 2;
    while step > 0 {
        // `count` is a sum of larger powers of two, so this place is in the row.
        count += if keys[count + step - 1] <= at { step } else { 0 };
        step /= 2;
    }
    count += usize::from(keys[count] <= at);
    count.min(len)
}

/// Makes room at `place` for a key, in a row of `len` keys that is not full.
#[inline]
fn open<const N: usize>(keys: &mut [u64; N], len: usize, place: usize, key: u64) {
    if place < len {
        keys.copy_within(place..len, place + 1);
    }
    keys[place] = key;
}

/// Takes the keys of `gone` out of a row of `len` keys.
#[inline]
fn close<const N: usize>(keys: &mut [u64; N], len: usize, gone: core::ops::Range<usize>) {
    if gone.end < len {
        keys.copy_within(gone.end..len, gone.start);
    }
    keys[len - gone.len()..len].fill(NONE);
}

/// As [`close`] for one key, without a call if it is the last.
#[inline(always)]
fn close_one<const N: usize>(keys: &mut [u64; N], len: usize, gone: usize) {
    if gone + 1 < len {
        keys.copy_within(gone + 1..len, gone);
    }
    keys[len - 1] = NONE;
}

/// Moves keys between two neighbouring rows of these lengths until `left` has `want`.
fn shift_keys<const N: usize>(
    left: &mut [u64; N],
    right: &mut [u64; N],
    (left_len, right_len): (usize, usize),
    want: usize,
) {
    if want >= left_len {
        let count = want - left_len;
        left[left_len..want].copy_from_slice(&right[..count]);
        close(right, right_len, 0..count);
    } else {
        let count = left_len - want;
        right.copy_within(..right_len, count);
        right[..count].copy_from_slice(&left[want..left_len]);
        left[want..left_len].fill(NONE);
    }
}

/// Moves items between two neighbouring rows until `left` has `want`.
fn shift<T, const N: usize>(left: &mut Vec<T, N>, right: &mut Vec<T, N>, want: usize) {
    if want >= left.len() {
        let count = want - left.len();
        left.extend(right.drain(..count));
    } else {
        let count = left.len() - want;
        right.extend(left.drain(want..));
        right.rotate_right(count);
    }
}

#[inline(always)]
fn put<T, const N: usize>(row: &mut Vec<T, N>, place: usize, item: T) {
    let refused = if place == row.len() {
        row.push(item).is_err() // without a call to move nothing
    } else {
        row.insert(place, item).is_err()
    };
    assert!(!refused, "a row has room when an item comes");
}

impl<V> Leaf<V> {
    pub(super) const fn new() -> Self {
        Self { firsts: [NONE; LEAF_MAX], lasts: [NONE; LEAF_MAX], values: Vec::new() }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.len() == LEAF_MAX
    }

    /// The lowest address; that of an empty leaf is the highest there is.
    #[inline]
    pub(super) fn first(&self) -> Iova {
        Iova(self.firsts[0])
    }

    /// How many entries begin at or below `at`.
    #[inline]
    pub(super) fn count_up_to(&self, at: Iova) -> usize {
        count_up_to(&self.firsts, self.len(), at.0)
    }

    /// The place of the lowest entry that contains `at` or lies above it.
    #[inline]
    pub(super) fn reaching(&self, at: Iova) -> usize {
        let above = self.count_up_to(at);
        match above.checked_sub(1) {
            Some(below) if self.lasts[below] >= at.0 => below,
            _ => above,
        }
    }

    /// The place of the entry that begins exactly at `first`.
    #[inline(always)]
    pub(super) fn find(&self, first: Iova) -> Option<usize> {
        let place = self.count_up_to(first).checked_sub(1)?;
        (self.firsts[place] == first.0).then_some(place)
    }

    /// Whether an entry can be put at `place`, where it would go: there is room, it overlaps no
    /// neighbour, and ends before the next leaf begins.
    #[inline]
    pub(super) fn takes(&self, place: usize, range: IovaRange, next: Option<Iova>) -> bool {
        let clear_below =
            place.checked_sub(1).is_none_or(|before| self.lasts[before] < range.first().0);
        let clear_above = place >= self.len() || range.last().0 < self.firsts[place];
        !self.is_full() && clear_below && clear_above && next.is_none_or(|next| range.last() < next)
    }

    #[inline]
    pub(super) fn range(&self, place: usize) -> Option<IovaRange> {
        let (first, last) = (self.firsts.get(place)?, self.lasts.get(place)?);
        Some(IovaRange::ordered(Iova(*first), Iova(*last)))
    }

    /// The entries from `place` on.
    #[inline]
    pub(super) fn row(&self, place: usize) -> Row<'_, V> {
        let values = self.values.get(place..).unwrap_or_default();
        let firsts = self.firsts.get(place..self.len()).unwrap_or_default();
        let lasts = self.lasts.get(place..self.len()).unwrap_or_default();
        firsts.iter().zip(lasts).zip(values)
    }

    #[inline]
    pub(super) fn get(&self, place: usize) -> Option<(IovaRange, &V)> {
        let value = self.values.get(place)?;
        Some((self.range(place)?, value))
    }

    #[inline]
    pub(super) fn get_mut(&mut self, place: usize) -> Option<(IovaRange, &mut V)> {
        let range = self.range(place)?;
        Some((range, self.values.get_mut(place)?))
    }

    /// Puts an entry into a leaf that has room.
    #[inline(always)] // in the loop over a row of entries: 20 instructions less per entry
    pub(super) fn place(&mut self, place: usize, (range, value): Entry<V>) {
        let len = self.len();
        put(&mut self.values, place, value);
        open(&mut self.firsts, len, place, range.first().0);
        open(&mut self.lasts, len, place, range.last().0);
    }

    #[inline(always)]
    pub(super) fn take(&mut self, place: usize) -> Option<Entry<V>> {
        let range = self.range(place).filter(|_| place < self.len())?;
        let len = self.len();
        let value = if place + 1 == len { self.values.pop()? } else { self.values.remove(place) };
        close_one(&mut self.firsts, len, place);
        close_one(&mut self.lasts, len, place);
        Some((range, value))
    }

    /// Drops the entries at `places`.
    pub(super) fn cut_row(&mut self, places: core::ops::Range<usize>) {
        if !places.is_empty() {
            let len = self.len();
            if places.len() == 1 {
                drop(self.values.remove(places.start)); // cheaper than a drain
            } else {
                drop(self.values.drain(places.clone()));
            }
            close(&mut self.firsts, len, places.clone());
            close(&mut self.lasts, len, places);
        }
    }

    /// Cuts the lower end off the entry that begins at `first`.
    pub(super) fn trim_front(&mut self, first: Iova, new_first: Iova) -> bool {
        let Some(place) = self.find(first) else { return false };
        let inside = first <= new_first && new_first.0 <= self.lasts[place];
        if inside {
            self.firsts[place] = new_first.0;
        }
        inside
    }

    /// Moves entries between `self` and its right neighbour until `self` has `want`.
    pub(super) fn share(&mut self, right: &mut Self, want: usize) {
        let lens = (self.len(), right.len());
        shift_keys(&mut self.firsts, &mut right.firsts, lens, want);
        shift_keys(&mut self.lasts, &mut right.lasts, lens, want);
        shift(&mut self.values, &mut right.values, want);
    }
}

impl<V> Inner<V> {
    /// A node without children, for children of the height of those of `like`.
    pub(super) const fn new(kids: Kids<V>) -> Self {
        Self { keys: [NONE; INNER_MAX], kids }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.kids.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() == INNER_MAX
    }

    /// The key of the first child.
    pub(super) fn first(&self) -> Iova {
        Iova(self.keys[0])
    }

    /// The child for `at`: the last whose key is at or below it, else the first.
    #[inline]
    pub(super) fn route(&self, at: Iova) -> usize {
        count_up_to(&self.keys, self.len(), at.0).saturating_sub(1)
    }

    /// The key of a child.
    #[inline]
    pub(super) fn key(&self, i: usize) -> Option<Iova> {
        self.keys.get(i).filter(|_| i < self.len()).map(|key| Iova(*key))
    }

    fn set_key(&mut self, i: usize, key: Iova) {
        self.keys[i] = key.0;
    }

    /// Notes where `count` children from `from` on begin, after entries moved between them. The key of
    /// the first one stays: it may be lower than its lowest entry.
    pub(super) fn note_keys(&mut self, from: usize, count: usize) {
        if let Kids::Leaves(row) = &self.kids {
            for (key, leaf) in self.keys.iter_mut().zip(row).skip(from).take(count).skip(1) {
                *key = leaf.first().0;
            }
        }
    }

    /// Widens the first child so that it may hold an entry at `at`.
    #[inline]
    pub(super) fn admit(&mut self, at: Iova) {
        self.keys[0] = self.keys[0].min(at.0);
    }

    /// Puts a child into a node that has room.
    pub(super) fn place(&mut self, i: usize, key: Iova, child: Node<V>) {
        let len = self.len();
        match (&mut self.kids, child) {
            (Kids::Leaves(row), Node::Leaf(child)) => put(row, i, child),
            (Kids::Inners(row), Node::Inner(child)) => put(row, i, child),
            _ => unreachable!("siblings have the same height"),
        }
        open(&mut self.keys, len, i, key.0);
    }

    /// Takes a child out.
    pub(super) fn take(&mut self, i: usize) -> Node<V> {
        close(&mut self.keys, self.kids.len(), i..i + 1);
        match &mut self.kids {
            Kids::Leaves(row) => Node::Leaf(row.remove(i)),
            Kids::Inners(row) => Node::Inner(row.remove(i)),
        }
    }

    /// Splits the full node around a child that belongs at `i`; the upper part goes to `right`, which
    /// is empty. `keep` leaves `self` full if the child comes last.
    pub(super) fn split(
        &mut self,
        right: &mut Self,
        i: usize,
        (key, child): (Iova, Node<V>),
        keep: bool,
    ) {
        if keep && i == self.len() {
            return right.place(0, key, child);
        }
        let half = self.len() / 2;
        self.share(right, half);
        if i <= half { self.place(i, key, child) } else { right.place(i - half, key, child) }
    }

    /// Moves children between `self` and its right neighbour until `self` has `want`.
    fn share(&mut self, right: &mut Self, want: usize) {
        let lens = (self.len(), right.len());
        shift_keys(&mut self.keys, &mut right.keys, lens, want);
        match (&mut self.kids, &mut right.kids) {
            (Kids::Leaves(left), Kids::Leaves(right)) => shift(left, right, want),
            (Kids::Inners(left), Kids::Inners(right)) => shift(left, right, want),
            _ => unreachable!("siblings have the same height"),
        }
    }

    /// Moves items between children `i` and `i + 1` until the left one has `want`; a right child
    /// left empty is freed.
    pub(super) fn share_out(&mut self, i: usize, want: usize) {
        let right = match &mut self.kids {
            Kids::Leaves(row) => {
                let Some([left, right]) = row.get_mut(i..i + 2) else { return };
                left.share(right, want);
                (right.len() > 0).then(|| right.first())
            }
            Kids::Inners(row) => {
                let Some([left, right]) = row.get_mut(i..i + 2) else { return };
                left.share(right, want);
                (right.len() > 0).then(|| right.first())
            }
        };
        match right {
            Some(first) => self.set_key(i + 1, first),
            None => drop(self.take(i + 1)),
        }
    }
}

impl<V> Kids<V> {
    /// No children, of the height of those of `self`.
    pub(super) const fn none_like(&self) -> Self {
        match self {
            Self::Leaves(_) => Self::Leaves(Vec::new()),
            Self::Inners(_) => Self::Inners(Vec::new()),
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Leaves(row) => row.len(),
            Self::Inners(row) => row.len(),
        }
    }

    /// How many items child `i` has.
    pub(super) fn len_of(&self, i: usize) -> Option<usize> {
        match self {
            Self::Leaves(row) => row.get(i).map(|child| child.len()),
            Self::Inners(row) => row.get(i).map(|child| child.len()),
        }
    }

    /// The most and the least (off the right edge) that a child holds.
    pub(super) const fn bounds(&self) -> (usize, usize) {
        match self {
            Self::Leaves(_) => (LEAF_MAX, LEAF_MIN),
            Self::Inners(_) => (INNER_MAX, INNER_MIN),
        }
    }
}

impl<V> Node<V> {
    /// A node for children like `self`, without any.
    pub(super) const fn parent(&self) -> Inner<V> {
        Inner::new(match self {
            Self::Leaf(_) => Kids::Leaves(Vec::new()),
            Self::Inner(_) => Kids::Inners(Vec::new()),
        })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.len(),
            Self::Inner(inner) => inner.len(),
        }
    }

    pub(super) fn first(&self) -> Iova {
        match self {
            Self::Leaf(leaf) => leaf.first(),
            Self::Inner(inner) => inner.first(),
        }
    }
}

/// A leaf, and where the leaf after it begins: no entry lies between its last one and that.
pub(super) struct Found<L> {
    pub(super) leaf: L,
    pub(super) next: Option<Iova>,
}

/// The leaf for `at`.
#[inline]
pub(super) fn descend<V>(root: &Node<V>, at: Iova) -> Option<Found<&Leaf<V>>> {
    let mut next = None;
    let mut inner = match root {
        Node::Leaf(leaf) => return Some(Found { leaf, next }),
        Node::Inner(inner) => inner,
    };
    loop {
        let i = inner.route(at);
        next = inner.key(i + 1).or(next);
        match &inner.kids {
            Kids::Leaves(row) => return Some(Found { leaf: row.get(i)?, next }),
            Kids::Inners(row) => inner = row.get(i)?,
        }
    }
}

/// As [`descend`], to change the leaf. With `admit` the leaf may get an entry at `at`.
#[inline]
pub(super) fn descend_mut<V>(
    root: &mut Node<V>,
    at: Iova,
    admit: bool,
) -> Option<Found<&mut Leaf<V>>> {
    let mut next = None;
    let mut inner = match root {
        Node::Leaf(leaf) => return Some(Found { leaf, next }),
        Node::Inner(inner) => inner,
    };
    loop {
        if admit {
            inner.admit(at);
        }
        let i = inner.route(at);
        next = inner.key(i + 1).or(next);
        match &mut inner.kids {
            Kids::Leaves(row) => return Some(Found { leaf: row.get_mut(i)?, next }),
            Kids::Inners(row) => inner = row.get_mut(i)?,
        }
    }
}

/// Moves the key `next`, below which nothing is left, to behind `last`: an entry that ends there is
/// about to come before it. No entry of the child begins at or below `last`.
pub(super) fn raise_keys<V>(root: Option<&mut Node<V>>, next: Option<Iova>, last: Iova) {
    let (Some(Node::Inner(inner)), Some(next), Some(above)) = (root, next, last.checked_add(1))
    else {
        return;
    };
    let mut inner = inner;
    loop {
        let i = inner.route(next);
        let key = inner.keys[i];
        if key >= next.0 {
            inner.keys[i] = key.max(above.0);
        }
        match &mut inner.kids {
            Kids::Inners(row) if i < row.len() => inner = &mut row[i],
            _ => return,
        }
    }
}
