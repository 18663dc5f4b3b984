//! `Shared`: a counted pointer whose making can fail.

use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering, fence};

use super::Pool;
use crate::error::OutOfMemory;

/// One value in pool memory, with counted owners. What `Arc` is, except that making one can fail
/// and that there is no weak count.
pub struct Shared<T> {
    inner: NonNull<Inner<T>>,
    owns: PhantomData<Inner<T>>,
}

#[repr(C)] // `value` is found from its address again in `from_raw`
struct Inner<T> {
    count: AtomicUsize,
    pool: &'static Pool,
    value: T,
}

// SAFETY: owners on several threads share `&T` and the last one drops the `T`.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as for `Send`: a `&Shared<T>` can be cloned into an owner.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Moves `value` into memory of `pool`.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; the value is dropped.
    pub fn new(pool: &'static Pool, value: T) -> Result<Self, OutOfMemory> {
        let memory = pool.allocate(Layout::new::<Inner<T>>())?.cast::<Inner<T>>();
        // SAFETY: the memory fits the layout of `Inner<T>` and is ours alone.
        unsafe { memory.write(Inner { count: AtomicUsize::new(1), pool, value }) };
        Ok(Self { inner: memory, owns: PhantomData })
    }

    /// Whether both are owners of the same value.
    #[must_use]
    pub fn ptr_eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }

    /// How many owners there are at this moment; for tests and diagnosis.
    #[must_use]
    pub fn owners(&self) -> usize {
        self.inner().count.load(Ordering::Relaxed)
    }

    fn inner(&self) -> &Inner<T> {
        // SAFETY: `Inner` lives while an owner does, and `self` is one.
        unsafe { self.inner.as_ref() }
    }

    /// Turns this owner into a pointer to the value; the count stays.
    pub(crate) fn into_raw(self) -> *const T {
        // SAFETY: the field of a live `Inner`; no reference narrows what the pointer may reach.
        let value = unsafe { &raw const (*self.inner.as_ptr()).value };
        core::mem::forget(self);
        value
    }

    /// Turns a pointer from [`into_raw`](Self::into_raw) back into an owner.
    ///
    /// # Safety
    ///
    /// `value` came from `into_raw` and is passed here once.
    pub(crate) unsafe fn from_raw(value: *const T) -> Self {
        let offset = core::mem::offset_of!(Inner<T>, value);
        // SAFETY: `into_raw` made `value` from an `Inner`, which begins `offset` bytes before.
        let inner = unsafe { value.byte_sub(offset) };
        // SAFETY: a pointer into a live allocation is not null.
        let inner = unsafe { NonNull::new_unchecked(inner.cast_mut().cast::<Inner<T>>()) };
        Self { inner, owns: PhantomData }
    }

    /// Makes another owner from a reference to a value that is known to be in a `Shared`.
    ///
    /// # Safety
    ///
    /// `value` came from [`into_raw`](Self::into_raw) and that owner is still alive.
    pub(crate) unsafe fn clone_raw(value: *const T) -> Self {
        // SAFETY: the caller's promise; the owner that the pointer stands for is not dropped here.
        let owner = core::mem::ManuallyDrop::new(unsafe { Self::from_raw(value) });
        Self::clone(&owner)
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        let before = self.inner().count.fetch_add(1, Ordering::Relaxed);
        // As in `Arc`: more owners than memory could hold means the count is corrupt, and going on
        // would free a value in use. Unreachable without 2^63 forgotten clones.
        assert!(before <= isize::MAX as usize, "Shared: owner count overflow");
        Self { inner: self.inner, owns: PhantomData }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner().value
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        if self.inner().count.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire); // the other owners' last accesses come before the drop
        let pool = self.inner().pool;
        // SAFETY: this was the last owner, so nobody else reaches the value.
        unsafe { self.inner.drop_in_place() };
        // SAFETY: `new` got the memory from this pool with this layout; nothing refers to it.
        unsafe { pool.release(self.inner.cast(), Layout::new::<Inner<T>>()) };
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static POOL: Pool = Pool::heap();

    #[test]
    fn the_last_owner_frees_and_a_refusal_is_an_error() {
        let first = Shared::new(&POOL, [7_u8; 40]).unwrap();
        let second = first.clone();
        assert!(first.ptr_eq(&second));
        drop(first);
        assert_eq!((second[39], POOL.usage().nodes), (7, 1));
        let raw = second.into_raw();
        // SAFETY: `raw` came from `into_raw` one line above, and is used once.
        drop(unsafe { Shared::from_raw(raw) });
        assert_eq!(POOL.usage(), Default::default());

        POOL.refuse_nth(1, false);
        let kept = Shared::new(&POOL, 1_u32).unwrap();
        assert_eq!(Shared::new(&POOL, 2_u32).err(), Some(OutOfMemory));
        assert_eq!(POOL.refuse_none(), 1);
        drop(kept);
        assert_eq!(POOL.usage(), Default::default());
    }
}
