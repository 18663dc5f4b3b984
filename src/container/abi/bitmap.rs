//! Dirty bitmaps in user memory: the check of their size, and writing bits at any place.
//!
//! Rules T1-425, T1-426, T1-432, T1-435, T1-437.

use super::errno::Errno;
use super::layout::BitmapStruct;
use super::user::{UserFault, UserMemory, place};

/// The largest bitmap, in bytes: 2^31 pages (rules T1-432, T1-448).
pub(super) const MAX_BYTES: u64 = 1 << 28;

/// A bitmap of the user's that passed the checks of rules T1-425 and T1-426.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bitmap {
    /// What a bit stands for, in bytes; not 0. Whether it is the granule of the tracking is for the
    /// backend to check (rules T1-360, T1-427).
    pub page_size: u64,
    /// The size of the bitmap in bytes: enough for the range, at most 2^28.
    pub bytes: u64,
    /// Where it lies in user memory.
    pub address: u64,
}

impl Bitmap {
    /// Checks a bitmap for a range of `size` bytes. `EINVAL`.
    pub(super) fn check(
        user: &(impl UserMemory + ?Sized),
        bitmap: &BitmapStruct,
        size: u64,
    ) -> Result<Self, Errno> {
        let BitmapStruct { pgsize, size: bytes, data } = *bitmap;
        if !user.is_user_range(data, bytes) {
            return Err(Errno::INVAL);
        }
        // A page size of 0 has no lowest bit (W-17): the shift fails.
        let pages = size.checked_shr(pgsize.trailing_zeros()).unwrap_or(0);
        if pages == 0 || bytes == 0 || bytes > MAX_BYTES || bytes < pages.div_ceil(64) * 8 {
            return Err(Errno::INVAL);
        }
        Ok(Self { page_size: pgsize, bytes, address: data })
    }
}

/// How many words go to user memory at a time.
const WORDS: usize = 32;

/// Where a backend puts dirty bits.
pub trait DirtySink {
    /// Takes `count` bits that begin at bit `first` of the answer: bit 0 is the first page of the
    /// request. `bits` has them from its bit 0 on, 64 to a word; missing words count as 0, bits
    /// beyond `count` are ignored.
    ///
    /// A mapping may come in pieces, ascending.
    ///
    /// # Errors
    ///
    /// [`UserFault`]: they could not be written, or don't fit.
    fn put(&mut self, first: u64, count: u64, bits: &[u64]) -> Result<(), UserFault>;
}

/// Writes bits into a [`Bitmap`] of the user's.
///
/// If user memory faults, what was written before stays, as in Linux (rules T1-374, T1-447).
#[derive(Debug)]
pub struct UserBitmap<'a, U: UserMemory + ?Sized> {
    user: &'a U,
    bitmap: Bitmap,
}

impl<'a, U: UserMemory + ?Sized> UserBitmap<'a, U> {
    /// A writer for `bitmap`, which is in the memory of `user`.
    #[must_use]
    pub const fn new(user: &'a U, bitmap: Bitmap) -> Self {
        Self { user, bitmap }
    }

    fn address(&self, word: u64, words: u64) -> Result<u64, UserFault> {
        let first = word.checked_mul(8).ok_or(UserFault)?;
        let last = words.checked_mul(8).and_then(|len| first.checked_add(len));
        if last.is_none_or(|last| last > self.bitmap.bytes) {
            return Err(UserFault);
        }
        place(self.bitmap.address, first)
    }
}

impl<U: UserMemory + ?Sized> DirtySink for UserBitmap<'_, U> {
    /// Writes `count` bits from bit `first` on: the bits below `first` in its word stay as the user
    /// has them, those above the last bit in its word become 0 (rule T1-437).
    fn put(&mut self, first: u64, count: u64, bits: &[u64]) -> Result<(), UserFault> {
        if count == 0 {
            return Ok(());
        }
        let (word, shift) = (first / 64, first % 64);
        let words = count.checked_add(shift).ok_or(UserFault)?.div_ceil(64);
        self.address(word, words)?;
        // What the word before left over: at first the bits that stay.
        let mut carry = 0_u64;
        if shift > 0 {
            let mut kept = [0; 8];
            self.user.read(self.address(word, 1)?, &mut kept)?;
            carry = u64::from_le_bytes(kept) & !(u64::MAX << shift);
        }
        let mut piece = [[0_u8; 8]; WORDS];
        let mut done = 0_u64;
        while done < words {
            let len = (words - done).min(WORDS as u64);
            for (to, index) in piece.iter_mut().zip(done..done + len) {
                let source = word_of(bits, count, index);
                let value = carry | (source << shift);
                carry = if shift == 0 { 0 } else { source >> (64 - shift) };
                *to = value.to_le_bytes();
            }
            let bytes = piece.as_flattened().get(..len as usize * 8).ok_or(UserFault)?;
            self.user.write(self.address(word + done, len)?, bytes)?;
            done += len;
        }
        Ok(())
    }
}

/// Word `index` of `count` bits: what is beyond them, or missing, is 0.
fn word_of(bits: &[u64], count: u64, index: u64) -> u64 {
    let word = usize::try_from(index).ok().and_then(|index| bits.get(index)).copied().unwrap_or(0);
    match count.saturating_sub(index.saturating_mul(64)) {
        0 => 0,
        left @ 1..64 => word & !(u64::MAX << left),
        _ => word,
    }
}
