//! Dirty bitmaps in user memory: what they have to be, and their words (rules T1-425, T1-426, T1-435).
//!
//! Which bits go where is the container's to say (rules T1-436 to T1-439).

use super::errno::Errno;
use super::layout::BitmapStruct;
use super::user::{UserFault, UserMemory, place};
use crate::container::report::check_size;
use crate::container::{BitmapFault, DirtyBitmap};

/// A bitmap of the user's that passed the checks of rules T1-425 and T1-426.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bitmap {
    /// What a bit stands for, in bytes; not 0. Whether it is the granule of the tracking is for the
    /// backend to check (rules T1-360, T1-427).
    pub page_size: u64,
    /// The size of the bitmap in bytes: enough for the range, at most
    /// [`MAX_DIRTY_BITMAP`](crate::container::MAX_DIRTY_BITMAP).
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
        check_size(size, pgsize, bytes)?;
        Ok(Self { page_size: pgsize, bytes, address: data })
    }
}

/// How many words go to user memory at a time.
const WORDS: usize = 32;

/// A [`Bitmap`] with the memory it is in: little-endian words, at any address.
///
/// If user memory faults, what was written before stays, as in Linux (rules T1-374, T1-447).
#[derive(Debug)]
pub struct UserBitmap<'a, U: UserMemory + ?Sized> {
    user: &'a U,
    bitmap: Bitmap,
}

impl<'a, U: UserMemory + ?Sized> UserBitmap<'a, U> {
    /// The words of `bitmap`, which is in the memory of `user`.
    #[must_use]
    pub const fn new(user: &'a U, bitmap: Bitmap) -> Self {
        Self { user, bitmap }
    }

    /// Where `words` words from `index` on lie, if they all belong to the bitmap.
    fn address(&self, index: u64, words: usize) -> Result<u64, BitmapFault> {
        let end = index.checked_add(words as u64).and_then(|end| end.checked_mul(8));
        if end.is_none_or(|end| end > self.bitmap.bytes) {
            return Err(BitmapFault);
        }
        Ok(place(self.bitmap.address, index * 8)?)
    }
}

impl<U: UserMemory + ?Sized> DirtyBitmap for UserBitmap<'_, U> {
    fn bytes(&self) -> u64 {
        self.bitmap.bytes
    }

    fn load(&mut self, index: u64) -> Result<u64, BitmapFault> {
        let mut word = [0; 8];
        self.user.read(self.address(index, 1)?, &mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    fn store(&mut self, index: u64, words: &[u64]) -> Result<(), BitmapFault> {
        self.address(index, words.len())?; // all of them, before the first is written
        for (index, words) in (index..).step_by(WORDS).zip(words.chunks(WORDS)) {
            let mut piece = [[0; 8]; WORDS];
            for (to, word) in piece.iter_mut().zip(words) {
                *to = word.to_le_bytes();
            }
            let bytes = piece.as_flattened().get(..words.len() * 8).ok_or(BitmapFault)?;
            self.user.write(self.address(index, words.len())?, bytes)?;
        }
        Ok(())
    }
}

impl From<UserFault> for BitmapFault {
    fn from(_: UserFault) -> Self {
        Self
    }
}
