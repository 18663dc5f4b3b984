//! The IOVA allocator: which addresses of a domain are taken, and the highest free ones.

#[cfg(test)]
mod tests;

use core::fmt;

use super::tree::{self, Chain, Node, Tree};
use crate::addr::{Iova, IovaRange};
use crate::error::OutOfMemory;
use crate::pool::{Owned, Pool};

/// Why no addresses were handed out; nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IovaError {
    /// The length is 0 or more than half the address space.
    InvalidArg,
    /// No free aligned block of that size ends at or below the limit.
    NoSpace,
    /// No memory for a node.
    OutOfMemory,
}

impl fmt::Display for IovaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidArg => "no such length",
            Self::NoSpace => "no free block of that size below the limit",
            Self::OutOfMemory => "no memory for a node",
        })
    }
}

impl core::error::Error for IovaError {}

/// Hands out I/O virtual addresses, each run with a value of its owner (Linux: `struct
/// iova_domain`).
///
/// - Every run is whole granules, and begins at a multiple of its length rounded up to a power of
///   two (rule C-212).
/// - The highest free block of that size at or below the limit is taken, so addresses go from the
///   top down (C-213, without the cached position: the search is logarithmic from anywhere). Of a
///   length that is no power of two only the run itself is taken, not the whole block.
/// - The first granule of the space, and what is [reserved](Self::reserve), is never handed out
///   (C-211, C-218).
///
/// `n` is the number of runs. Giving back never allocates. No lock: the owner's guards it.
///
/// ```
/// use iommu::{addr::*, dma::{IovaAllocator, IovaError}, pool::Pool};
/// static POOL: Pool = Pool::heap();
/// let aperture = IovaRange::new(Iova(0), Iova(0xffff_ffff)).unwrap();
/// let mut iovas = IovaAllocator::new(&POOL, aperture, 0x1000).unwrap();
/// let msi = IovaRange::new(Iova(0xfee0_0000), Iova(0xfeef_ffff)).unwrap();
/// iovas.reserve(msi)?;
///
/// let limit = Iova(0xfeff_ffff); // a device with odd limits
/// let three = iovas.alloc(0x3000, limit, "three pages").map_err(|(error, _)| error)?;
/// assert_eq!(three, IovaRange::from_len(Iova(0xfeff_c000), 0x3000).unwrap());
/// let many = iovas.alloc(0x10_0000, limit, "a MiB").map_err(|(error, _)| error)?;
/// assert_eq!(many.last(), Iova(0xfedf_ffff), "below the reserved region");
/// assert_eq!(iovas.alloc(0x1000, Iova(0xfff), "").unwrap_err().0, IovaError::NoSpace);
/// assert_eq!(iovas.remove(three.first()), Some((three, "three pages")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct IovaAllocator<V = ()> {
    pool: &'static Pool,
    taken: Tree<V>,
    /// What may be handed out, in granules.
    lowest: u64,
    highest: u64,
    /// Where the gap above the highest node begins, if there is one.
    top: Option<u64>,
    /// The logarithm of the granule.
    shift: u32,
    len: usize,
}

impl<V> IovaAllocator<V> {
    /// An allocator of the whole granules in `aperture`, the first granule of the space excepted.
    /// `granule` is in bytes. Allocates nothing.
    ///
    /// `None`: the granule is no power of two, or nothing is left (rules C-210, C-211).
    #[must_use]
    pub fn new(pool: &'static Pool, aperture: IovaRange, granule: u64) -> Option<Self> {
        if !granule.is_power_of_two() {
            return None;
        }
        let shift = granule.trailing_zeros();
        let low = granule - 1;
        let lowest = aperture.first().checked_add(low).map_or(u64::MAX, |up| up.0 >> shift).max(1);
        // The last whole granule: the one that the last byte ends, or the one before.
        let cut = aperture.last().0 & low != low;
        let highest = (aperture.last().0 >> shift).checked_sub(u64::from(cut))?;
        if lowest > highest {
            return None;
        }
        Some(Self { pool, taken: None, lowest, highest, top: Some(lowest), shift, len: 0 })
    }

    /// Where the nodes come from.
    pub(super) fn pool(&self) -> &'static Pool {
        self.pool
    }

    /// The logarithm of the granule.
    pub(super) fn shift(&self) -> u32 {
        self.shift
    }

    /// The number of runs that are handed out, in O(1).
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none is, in O(1).
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What may be handed out at all.
    #[must_use]
    pub fn span(&self) -> IovaRange {
        self.bytes(self.lowest, self.highest)
    }

    /// Takes `len` bytes, rounded up to whole granules, that end at or below `limit`, in O(log n).
    ///
    /// # Errors
    ///
    /// [`IovaError`], and the value back.
    pub fn alloc(&mut self, len: u64, limit: Iova, value: V) -> Result<IovaRange, (IovaError, V)> {
        let low = (1_u64 << self.shift) - 1;
        let count = (len >> self.shift) + u64::from(len & low != 0);
        if count == 0 || count > 1 << 63 {
            return Err((IovaError::InvalidArg, value));
        }
        let Some(first) = self.find(count, limit) else {
            return Err((IovaError::NoSpace, value));
        };
        let last = first + (count - 1);
        let mut node = match Owned::new(self.pool, Node::new(first, last, None)) {
            Ok(node) => node,
            Err(OutOfMemory) => return Err((IovaError::OutOfMemory, value)),
        };
        node.value = Some(value);
        self.put(node);
        self.len += 1;
        Ok(self.bytes(first, last))
    }

    /// Makes sure that nothing in `range`, rounded out to granules, is handed out from now on, in
    /// O(k log n) for k free gaps in it. What is taken already stays, and is not reserved once it
    /// was given back. Reservations may overlap (rule C-218).
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; nothing was reserved.
    pub fn reserve(&mut self, range: IovaRange) -> Result<(), OutOfMemory> {
        let last = (range.last().0 >> self.shift).min(self.highest);
        let mut from = Some((range.first().0 >> self.shift).max(self.lowest));
        // All nodes first: then nothing can fail any more.
        let mut nodes = Chain::new();
        while let Some((first, end)) = from.and_then(|from| self.gap(from, last)) {
            nodes.push(Owned::new(self.pool, Node::new(first, end, None))?);
            from = end.checked_add(1);
        }
        while let Some(node) = nodes.pop() {
            self.put(node);
        }
        Ok(())
    }

    /// The run that contains `iova`, in O(log n).
    #[must_use]
    pub fn get_mut(&mut self, iova: Iova) -> Option<(IovaRange, &mut V)> {
        let shift = self.shift;
        let node = tree::containing(&mut self.taken, iova.0 >> shift)?;
        Some((bytes(shift, node.first, node.last), node.value.as_mut()?))
    }

    /// The lowest run that contains `iova` or lies above it, in O(log n) if few are reserved.
    #[must_use]
    pub fn first_from(&self, iova: Iova) -> Option<(IovaRange, &V)> {
        let mut at = iova.0 >> self.shift;
        loop {
            let node = tree::reaching(&self.taken, at)?;
            if let Some(value) = &node.value {
                return Some((self.bytes(node.first, node.last), value));
            }
            at = node.last.checked_add(1)?;
        }
    }

    /// Gives back the run that begins at `first`, in O(log n). Never allocates.
    pub fn remove(&mut self, first: Iova) -> Option<(IovaRange, V)> {
        let mut node = self.take_out(first)?;
        let range = self.bytes(node.first, node.last);
        node.value.take().map(|value| (range, value))
    }

    /// As [`remove`](Self::remove), and the value goes to a chain, in the node that it has.
    pub(super) fn remove_to(&mut self, first: Iova, chain: &mut Chain<V>) {
        if let Some(node) = self.take_out(first) {
            chain.push(node);
        }
    }

    fn take_out(&mut self, first: Iova) -> Option<Owned<Node<V>>> {
        let start = first.0 >> self.shift;
        let node = tree::containing(&mut self.taken, start)?;
        node.value.as_ref()?; // reserved runs stay
        if node.first != start || first.0 & ((1 << self.shift) - 1) != 0 {
            return None;
        }
        let (node, has_above) = tree::remove(&mut self.taken, start)?;
        if !has_above {
            self.top = Some(node.gap);
        }
        self.len -= 1;
        Some(node)
    }

    /// The highest place for `count` granules that end at or below `limit`.
    fn find(&self, count: u64, limit: Iova) -> Option<u64> {
        // The last granule that ends at or below the limit.
        let limit = match limit.0.checked_add(1) {
            Some(end) => (end >> self.shift).checked_sub(1)?,
            None => u64::MAX >> self.shift,
        };
        let limit = limit.min(self.highest);
        let above = self.top.filter(|top| *top <= limit);
        let above = above.and_then(|top| tree::place(top, limit, count));
        above.or_else(|| tree::find(&self.taken, count, limit))
    }

    /// Puts a node into the gap that it lies in.
    fn put(&mut self, node: Owned<Node<V>>) {
        let (first, last) = (node.first, node.last);
        let gap = self.top.unwrap_or(first);
        if !tree::insert(&mut self.taken, node, gap) {
            self.top = last.checked_add(1).filter(|top| *top <= self.highest);
        }
    }

    /// The lowest free granules in `from..=last`.
    fn gap(&self, from: u64, last: u64) -> Option<(u64, u64)> {
        let mut from = from;
        loop {
            let node = tree::reaching(&self.taken, from);
            match node {
                Some(node) if node.first <= from => from = node.last.checked_add(1)?,
                _ => {
                    let end = node.and_then(|node| node.first.checked_sub(1)).unwrap_or(last);
                    return (from <= last).then_some((from, end.min(last)));
                }
            }
        }
    }

    fn bytes(&self, first: u64, last: u64) -> IovaRange {
        bytes(self.shift, first, last)
    }
}

fn bytes(shift: u32, first: u64, last: u64) -> IovaRange {
    let last = last << shift | ((1 << shift) - 1);
    IovaRange::new(Iova(first << shift), Iova(last)).unwrap_or(IovaRange::ALL)
}

impl<V> fmt::Debug for IovaAllocator<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IovaAllocator")
            .field("span", &self.span())
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
