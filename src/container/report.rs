//! Reading dirty bits into the caller's bitmap, with the container unlocked while it is written.
//!
//! `Container::state` is held while up to 64 words are put together, and cleared; the caller's
//! memory is touched after that, because it may fault, block, or belong to a provider that calls
//! back (rule T1-582).

use heapless::Vec;

use super::bitmap::mask;
use super::state::State;
use super::{Container, DirtyError, Memory};
use crate::addr::{Iova, IovaRange};
use crate::sync::RawLock;

/// The largest bitmap that a request may bring, in bytes (rules T1-432, T1-448).
pub const MAX_DIRTY_BITMAP: u64 = 1 << 28;

/// Words that are put together under one hold of the lock.
const CHUNK: usize = 64;

/// The caller's bitmap: little-endian words of 64 bits, which may lie in a user's memory.
///
/// Called without any lock held; it may block and may call back into the container.
pub trait DirtyBitmap {
    /// Its size in bytes.
    fn bytes(&self) -> u64;

    /// Reads the word at `index`.
    ///
    /// # Errors
    ///
    /// [`BitmapFault`]: it is not there.
    fn load(&mut self, index: u64) -> Result<u64, BitmapFault>;

    /// Writes words from `index` on.
    ///
    /// # Errors
    ///
    /// [`BitmapFault`]: one of them is not there; how many were written does not matter.
    fn store(&mut self, index: u64, words: &[u64]) -> Result<(), BitmapFault>;
}

/// The caller's bitmap can't be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BitmapFault;

impl<B: DirtyBitmap + ?Sized> DirtyBitmap for &mut B {
    fn bytes(&self) -> u64 {
        (**self).bytes()
    }

    fn load(&mut self, index: u64) -> Result<u64, BitmapFault> {
        (**self).load(index)
    }

    fn store(&mut self, index: u64, words: &[u64]) -> Result<(), BitmapFault> {
        (**self).store(index, words)
    }
}

impl DirtyBitmap for [u64] {
    fn bytes(&self) -> u64 {
        size_of_val(self) as u64
    }

    fn load(&mut self, index: u64) -> Result<u64, BitmapFault> {
        let index = usize::try_from(index).map_err(|_| BitmapFault)?;
        self.get(index).copied().map(u64::from_le).ok_or(BitmapFault)
    }

    fn store(&mut self, index: u64, words: &[u64]) -> Result<(), BitmapFault> {
        let index = usize::try_from(index).map_err(|_| BitmapFault)?;
        let place = self.get_mut(index..).and_then(|rest| rest.get_mut(..words.len()));
        for (place, word) in place.ok_or(BitmapFault)?.iter_mut().zip(words) {
            *place = word.to_le();
        }
        Ok(())
    }
}

/// Which pages, and what a bit stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirtyRange {
    /// The first byte.
    pub iova: u64,
    /// How many bytes; not 0.
    pub size: u64,
    /// The bytes that one bit stands for: the granule of the tracking.
    pub page_size: u64,
}

/// A part of the caller's bitmap, put together.
struct Chunk {
    /// Where in the caller's bitmap.
    index: u64,
    /// The recorded bits, where they belong in the caller's words.
    words: Vec<u64, CHUNK>,
    /// So many low bits of the first word are the caller's.
    shift: u64,
    /// How many bits there are.
    count: u64,
    /// All of them are reported as dirty, whatever is recorded.
    all: bool,
    /// The addresses that the bits stand for.
    range: IovaRange,
    /// The mapping.
    mapping: IovaRange,
    serial: u64,
}

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Reads which pages were written since they were last read, and forgets it.
    ///
    /// Bit i stands for the page at `iova` + i * `page_size`. While a group with an IOMMU never
    /// pinned a page, every page it can reach counts as dirty (rule T1-436, W-22). The caller's
    /// bitmap should be zero: words of holes are not written (rule T1-438).
    ///
    /// # Errors
    ///
    /// As [`DirtyError`], in the order of rules T1-416 to T1-430. After `Fault` the mappings before
    /// the failing one have been read; no dirty page of that one is forgotten (rule T1-447).
    pub fn read_dirty(
        &self,
        request: &DirtyRange,
        bitmap: &mut (impl DirtyBitmap + ?Sized),
    ) -> Result<(), DirtyError> {
        self.only_v2()?;
        let DirtyRange { iova, size, page_size } = *request;
        if size == 0 {
            return Err(DirtyError::InvalidArg);
        }
        let range = IovaRange::from_len(Iova(iova), size).ok_or(DirtyError::Overflow)?;
        check_size(size, page_size, bitmap.bytes())?;
        {
            let state = self.state.lock();
            let low = page_size.wrapping_sub(1);
            if page_size != state.dirty_granule()
                || (iova | size) & low != 0
                || state.dirty.is_none()
                || state.cuts(range)
            {
                return Err(DirtyError::InvalidArg);
            }
        }
        let mut next = Some(range.first());
        while let Some(at) = next {
            let mut state = self.state.lock();
            if state.dirty.as_ref().is_none_or(|dirty| dirty.granule != page_size) {
                return Err(DirtyError::InvalidArg); // another call ended tracking
            }
            let Some(chunk) = state.next_chunk(range, at) else { return Ok(()) };
            state.clear(&chunk);
            drop(state);
            if let Err(fault) = deliver(&chunk, bitmap) {
                self.state.lock().restore(&chunk);
                return Err(fault);
            }
            next = chunk.range.last().checked_add(1);
        }
        Ok(())
    }

    /// Writes the bits of one mapping without forgetting them: it is about to go (rule T1-446).
    pub(super) fn report_mapping(
        &self,
        request: IovaRange,
        mapping: IovaRange,
        bitmap: &mut dyn DirtyBitmap,
    ) -> Result<(), DirtyError> {
        let mut next = Some(mapping.first());
        while let Some(at) = next.filter(|at| mapping.contains(*at)) {
            let chunk = self.state.lock().next_chunk(request, at);
            let Some(chunk) = chunk.filter(|chunk| chunk.mapping == mapping) else { break };
            deliver(&chunk, bitmap)?;
            next = chunk.range.last().checked_add(1);
        }
        Ok(())
    }
}

/// Rule T1-432: the size of a bitmap for `size` bytes of memory.
pub(super) fn check_size(size: u64, page_size: u64, bytes: u64) -> Result<(), DirtyError> {
    if page_size == 0 {
        return Err(DirtyError::InvalidArg); // W-17
    }
    let pages = size >> page_size.trailing_zeros();
    let small = bytes < pages.div_ceil(64).saturating_mul(8);
    let wrong = pages == 0 || bytes == 0 || bytes > MAX_DIRTY_BITMAP || small;
    if wrong { Err(DirtyError::InvalidArg) } else { Ok(()) }
}

fn deliver(chunk: &Chunk, bitmap: &mut (impl DirtyBitmap + ?Sized)) -> Result<(), DirtyError> {
    let mut words = chunk.words.clone();
    let (mut low, mut left) = (chunk.shift, chunk.count);
    for word in words.iter_mut().filter(|_| chunk.all) {
        let count = left.min(64 - low);
        *word = mask(count) << low;
        left -= count;
        low = 0;
    }
    if chunk.shift > 0 {
        let old = bitmap.load(chunk.index).map_err(|BitmapFault| DirtyError::Fault)?;
        if let Some(first) = words.first_mut() {
            *first |= old & mask(chunk.shift);
        }
    }
    bitmap.store(chunk.index, &words).map_err(|BitmapFault| DirtyError::Fault)
}

impl<R: RawLock> State<R> {
    /// The bits of the first mapping from `at` on, as many as a chunk holds (rules T1-435 to T1-437).
    fn next_chunk(&self, request: IovaRange, at: Iova) -> Option<Chunk> {
        let dirty = self.dirty.as_ref()?;
        let (mapping, bitmap) = dirty.bitmaps.first_from(at)?;
        let first = mapping.first().max(at).max(request.first());
        if first > request.last() {
            return None;
        }
        let found = self.mappings.get(mapping.first())?.1;
        let all = found.mapped && self.non_pinned_groups() > 0;
        let place = dirty.bit(request.first(), first);
        let (index, shift) = (place / 64, place % 64);
        let room = (CHUNK as u64 * 64 - shift - 1).saturating_mul(dirty.granule);
        let most = first.0.saturating_add(room).saturating_add(dirty.granule - 1);
        let last = mapping.last().min(request.last()).min(Iova(most));
        let range = IovaRange::new(first, last)?;
        let mut source = dirty.bit(bitmap.base, first);
        let count = dirty.bit(bitmap.base, last) - source + 1;
        let mut left = count;
        let mut low = shift;
        let mut words = Vec::new();
        while left > 0 {
            let count = left.min(64 - low);
            words.push(bitmap.read(source, count) << low).ok()?;
            source += count;
            left -= count;
            low = 0;
        }
        Some(Chunk { index, words, shift, count, all, range, mapping, serial: found.serial })
    }

    /// Forgets what a chunk says, but for pages that are pinned (rule T1-439).
    fn clear(&mut self, chunk: &Chunk) {
        let Some(dirty) = &mut self.dirty else { return };
        let granule = dirty.granule;
        if let Some((_, bitmap)) = dirty.bitmaps.get_mut(chunk.mapping.first()) {
            let bit = |at: Iova| (at.0 - bitmap.base.0) / granule;
            let (first, last) = (bit(chunk.range.first()), bit(chunk.range.last()));
            bitmap.fill(first, last, false);
        }
        self.mark_pins(chunk.range);
    }

    /// Takes a chunk back that the caller could not be given. Of the chunks of its mapping that it
    /// was given it is not known what they said: they count as dirty.
    fn restore(&mut self, chunk: &Chunk) {
        let serial = self.mappings.get(chunk.mapping.first()).map(|(_, mapping)| mapping.serial);
        if serial != Some(chunk.serial) {
            return;
        }
        let Some(dirty) = &mut self.dirty else { return };
        let granule = dirty.granule;
        let Some((_, bitmap)) = dirty.bitmaps.get_mut(chunk.mapping.first()) else { return };
        let bit = |at: Iova| (at.0 - bitmap.base.0) / granule;
        let (mut first, last) = (bit(chunk.range.first()), bit(chunk.range.last()));
        let begin = bit(chunk.mapping.first());
        if begin < first {
            bitmap.fill(begin, first - 1, true);
        }
        let mut low = chunk.shift;
        for word in &chunk.words {
            let count = (last - first + 1).min(64 - low);
            bitmap.merge(first, count, word >> low);
            first += count;
            low = 0;
        }
    }
}
