//! The bits of one mapping, one per tracking granule. No lock: part of `State::dirty`.
//!
//! Storage is never shifted: what a reader wants at another position is put together word by word
//! (rule T1-441, W-11).

use crate::addr::Iova;
use crate::error::OutOfMemory;
use crate::pool::{Pool, PoolVec};

/// More pages than this are not tracked in one mapping (rules T1-275, T1-433).
pub(super) const MAX_BITS: u64 = (1 << 31) - 1;

/// Bits from the address of bit 0 on. A mapping of at most 64 pages needs no memory of its own.
pub(super) struct Bitmap {
    /// The address that bit 0 stands for: where the mapping began when it was made.
    pub(super) base: Iova,
    words: Words,
}

enum Words {
    One(u64),
    Many(PoolVec<u64>),
}

impl Bitmap {
    /// Clean bits.
    pub(super) fn new(pool: &'static Pool, base: Iova, bits: u64) -> Result<Self, OutOfMemory> {
        let words = if bits <= 64 {
            Words::One(0)
        } else {
            let count = usize::try_from(bits.div_ceil(64)).map_err(|_| OutOfMemory)?;
            let mut words = PoolVec::new(pool);
            words.reserve(count)?;
            for _ in 0..count {
                words.push(0)?;
            }
            Words::Many(words)
        };
        Ok(Self { base, words })
    }

    fn words(&self) -> &[u64] {
        match &self.words {
            Words::One(word) => core::slice::from_ref(word),
            Words::Many(words) => words,
        }
    }

    fn words_mut(&mut self) -> &mut [u64] {
        match &mut self.words {
            Words::One(word) => core::slice::from_mut(word),
            Words::Many(words) => words,
        }
    }

    fn word(&self, index: u64) -> u64 {
        let found = usize::try_from(index).ok().and_then(|index| self.words().get(index));
        found.copied().unwrap_or(0)
    }

    /// `count` bits (1 to 64) from bit `first` on, in the low bits.
    pub(super) fn read(&self, first: u64, count: u64) -> u64 {
        let (index, shift) = (first / 64, first % 64);
        let low = self.word(index) >> shift;
        let high = if shift == 0 { 0 } else { self.word(index + 1) << (64 - shift) };
        (low | high) & mask(count)
    }

    /// Sets, or clears, bits `first` to `last`.
    pub(super) fn fill(&mut self, first: u64, last: u64, dirty: bool) {
        for index in first / 64..=last / 64 {
            let low = first.saturating_sub(index * 64).min(63);
            let high = (last - index * 64).min(63);
            let bits = mask(high - low + 1) << low;
            let place = usize::try_from(index).ok();
            if let Some(word) = place.and_then(|index| self.words_mut().get_mut(index)) {
                *word = if dirty { *word | bits } else { *word & !bits };
            }
        }
    }

    /// Sets those of the `count` bits from `first` on that are set in the low bits of `bits`.
    pub(super) fn merge(&mut self, first: u64, count: u64, bits: u64) {
        for n in (0..count).filter(|n| bits >> n & 1 != 0) {
            self.fill(first + n, first + n, true);
        }
    }
}

/// The low `count` bits, at most 64.
pub(super) const fn mask(count: u64) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    static POOL: Pool = Pool::heap();

    #[test]
    fn every_window_of_every_pattern_reads_back() {
        // T1-435, T1-437, T1-441: against a plain row of bools
        for bits in [1, 5, 63, 64, 65, 127, 128, 129, 200] {
            let mut map = Bitmap::new(&POOL, Iova(0), bits).unwrap();
            let mut plain = std::vec![false; 320];
            let mut seed = bits;
            for _ in 0..40 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (a, b) = ((seed >> 20) % bits, (seed >> 40) % bits);
                let (first, last, dirty) = (a.min(b), a.max(b), seed >> 63 == 0);
                map.fill(first, last, dirty);
                plain[first as usize..=last as usize].fill(dirty);
                for start in 0..bits {
                    for count in [1, 7, 63, 64] {
                        let want = (0..count).filter(|n| plain[(start + n) as usize]);
                        let want = want.fold(0_u64, |sum, n| sum | 1 << n);
                        assert_eq!(map.read(start, count), want, "{bits} {start} {count}");
                    }
                }
            }
            map.fill(0, bits - 1, false);
            map.merge(bits / 2, 64, 1 | 1 << 63);
            assert_eq!(map.read(bits / 2, 64) & 1, 1);
        }
    }
}
