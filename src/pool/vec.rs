//! `PoolVec`: a growing row of plain values whose growth can fail.

use core::alloc::Layout;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::Pool;
use crate::error::OutOfMemory;

/// A row of `Copy` values in pool memory. Grows by doubling; removing never allocates.
pub struct PoolVec<T: Copy> {
    values: NonNull<T>,
    len: usize,
    capacity: usize,
    pool: &'static Pool,
}

// SAFETY: a `PoolVec` is the only path to its values.
unsafe impl<T: Copy + Send> Send for PoolVec<T> {}
// SAFETY: a shared `PoolVec` gives out `&[T]` only.
unsafe impl<T: Copy + Sync> Sync for PoolVec<T> {}

impl<T: Copy> PoolVec<T> {
    /// An empty row; allocates nothing.
    #[must_use]
    pub const fn new(pool: &'static Pool) -> Self {
        Self { values: NonNull::dangling(), len: 0, capacity: 0, pool }
    }

    /// Makes room for `more` further values, so that as many pushes can't fail.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; the row is as it was.
    pub fn reserve(&mut self, more: usize) -> Result<(), OutOfMemory> {
        let needed = self.len.checked_add(more).ok_or(OutOfMemory)?;
        if needed <= self.capacity {
            return Ok(());
        }
        let capacity = needed.max(self.capacity.saturating_mul(2)).max(4);
        let layout = Layout::array::<T>(capacity).map_err(|_| OutOfMemory)?;
        let memory = self.pool.allocate(layout)?.cast::<T>();
        // SAFETY: `len` values are initialised in the old place and fit the new, separate one.
        unsafe { memory.copy_from_nonoverlapping(self.values, self.len) };
        self.free();
        self.values = memory;
        self.capacity = capacity;
        Ok(())
    }

    /// Appends a value.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; the row is as it was.
    pub fn push(&mut self, value: T) -> Result<(), OutOfMemory> {
        self.insert(self.len, value)
    }

    /// Inserts a value at `index` (at most the length; a larger one counts as the length).
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; the row is as it was.
    pub fn insert(&mut self, index: usize, value: T) -> Result<(), OutOfMemory> {
        self.reserve(1)?;
        let index = index.min(self.len);
        // SAFETY: `index <= len`, and `reserve` made room for one more value after `len`.
        let place = unsafe { self.values.add(index) };
        // SAFETY: as above: the place after is still inside the capacity.
        let after = unsafe { place.add(1) };
        // SAFETY: the values from `index` on move up by one, into the room that was reserved.
        unsafe { after.copy_from(place, self.len - index) };
        // SAFETY: the place is inside the capacity; a `Copy` value needs no drop.
        unsafe { place.write(value) };
        self.len += 1;
        Ok(())
    }

    /// Removes and returns the value at `index`, keeping the order of the others.
    pub fn remove(&mut self, index: usize) -> Option<T> {
        let value = *self.get(index)?;
        self.copy_within(index + 1.., index);
        self.len -= 1;
        Some(value)
    }

    /// Shortens the row to `len` values; longer is ignored.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    fn free(&mut self) {
        // `Layout::array` gave this layout before, so it does again.
        if let Ok(layout) = Layout::array::<T>(self.capacity)
            && self.capacity > 0
        {
            // SAFETY: `reserve` got the memory from this pool with this layout; it is replaced or
            // dropped right after.
            unsafe { self.pool.release(self.values.cast(), layout) };
        }
    }
}

impl<T: Copy> Deref for PoolVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` values from `values` on are initialised and owned by `self`.
        unsafe { core::slice::from_raw_parts(self.values.as_ptr(), self.len) }
    }
}

impl<T: Copy> DerefMut for PoolVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.values.as_ptr(), self.len) }
    }
}

impl<T: Copy> Drop for PoolVec<T> {
    fn drop(&mut self) {
        self.free();
    }
}

impl<T: Copy + fmt::Debug> fmt::Debug for PoolVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static POOL: Pool = Pool::heap();

    #[test]
    fn grows_keeps_order_and_survives_a_refused_growth() {
        let mut row = PoolVec::new(&POOL);
        for value in 0..4 {
            row.push(value).unwrap();
        }
        POOL.refuse_nth(0, false);
        assert_eq!(row.push(9), Err(OutOfMemory));
        assert_eq!(POOL.refuse_none(), 1);
        row.insert(1, 8).unwrap();
        assert_eq!(&*row, &[0, 8, 1, 2, 3]);
        assert_eq!(row.remove(0), Some(0));
        assert_eq!(row.remove(9), None);
        assert_eq!(&*row, &[8, 1, 2, 3]);
        drop(row);
        assert_eq!(POOL.usage(), Default::default());
    }
}
