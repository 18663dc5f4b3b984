//! For tests: a space in which each granule is marked, and every search looks at all of them.

use crate::addr::{Iova, IovaRange};
use crate::pool::Pool;

/// The granule.
pub const PAGE: u64 = 0x1000;

pub fn range(first: u64, last: u64) -> IovaRange {
    IovaRange::new(Iova(first), Iova(last)).unwrap()
}

/// A pool that counts for one test.
pub fn pool() -> &'static Pool {
    std::boxed::Box::leak(std::boxed::Box::new(Pool::heap()))
}

/// Granules, marked one by one: who has each.
pub struct Marks {
    taken: std::vec::Vec<Option<u32>>,
}

/// The mark of reserved granules.
const RESERVED: u32 = u32::MAX;

impl Marks {
    /// An empty space from byte `first` to byte `last`; what is below, and the first granule, is
    /// reserved.
    pub fn new(first: u64, last: u64) -> Self {
        let mut marks = Self { taken: std::vec![None; ((last + 1) / PAGE) as usize] };
        marks.mark(0, first.div_ceil(PAGE).max(1), Some(RESERVED));
        marks
    }

    pub fn is_free(&self, first: u64, count: u64) -> bool {
        (first..first + count).all(|at| self.taken.get(at as usize) == Some(&None))
    }

    /// Gaps from the top down, cut at the limit, by looking at every granule.
    fn find(&self, count: u64, limit: u64) -> Option<u64> {
        let block = count.next_power_of_two();
        let end = self.taken.len() as u64;
        let mut top = (limit + 1).min(end);
        while top > 0 {
            if !self.is_free(top - 1, 1) {
                top -= 1;
                continue;
            }
            let mut low = top - 1;
            while low > 0 && self.is_free(low - 1, 1) {
                low -= 1;
            }
            let fits =
                |start: &u64, count: u64| start.is_multiple_of(block) && start + count <= top;
            if (low..top).any(|start| fits(&start, block)) {
                return (low..top).rev().find(|start| fits(start, count));
            }
            top = low;
        }
        None
    }

    pub fn mark(&mut self, first: u64, count: u64, who: Option<u32>) {
        for at in first..first + count {
            self.taken[at as usize] = who;
        }
    }

    /// As [`find`](Self::find) with a limit in bytes, which leaves the granule out that it cuts.
    pub fn find_below(&self, count: u64, limit: u64) -> Option<u64> {
        match limit {
            u64::MAX => self.find(count, 1 << 40),
            _ => self.find(count, ((limit + 1) / PAGE).checked_sub(1)?),
        }
    }

    /// Reserves what is free of the granules that `bytes` bytes from `first` on touch.
    pub fn reserve(&mut self, first: u64, bytes: u64) {
        for at in first / PAGE..=(first + bytes - 1) / PAGE {
            if self.is_free(at, 1) {
                self.mark(at, 1, Some(RESERVED));
            }
        }
    }
}
