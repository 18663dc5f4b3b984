//! `Owned`: a box whose making can fail.

use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::Pool;
use crate::error::OutOfMemory;

/// One value in pool memory, with one owner.
pub struct Owned<T: ?Sized> {
    value: NonNull<T>,
    pool: &'static Pool,
    owns: PhantomData<T>,
}

// SAFETY: an `Owned` is the only path to its value, as a `T` by itself would be.
unsafe impl<T: ?Sized + Send> Send for Owned<T> {}
// SAFETY: a shared `Owned` gives out `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for Owned<T> {}

impl<T> Owned<T> {
    /// Moves `value` into memory of `pool`.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; the value is dropped.
    pub fn new(pool: &'static Pool, value: T) -> Result<Self, OutOfMemory> {
        let memory = pool.allocate(Layout::new::<T>())?.cast::<T>();
        // SAFETY: the memory fits the layout of `T` and is ours alone.
        unsafe { memory.write(value) };
        Ok(Self { value: memory, pool, owns: PhantomData })
    }

    /// Widens the type: `owned.unsize(|value| value)` makes an `Owned<dyn Trait>`.
    ///
    /// `widen` must return the pointer it was given; the usual closure lets the compiler coerce it.
    pub fn unsize<U: ?Sized>(self, widen: fn(*mut T) -> *mut U) -> Owned<U> {
        let pool = self.pool;
        let thin = self.value;
        let wide = NonNull::new(widen(thin.as_ptr()));
        match wide {
            Some(wide) if core::ptr::addr_eq(wide.as_ptr(), thin.as_ptr()) => {
                core::mem::forget(self);
                Owned { value: wide, pool, owns: PhantomData }
            }
            _ => panic!("unsize: the closure returned another pointer"),
        }
    }

    /// Moves the value out and frees its place.
    pub fn into_inner(self) -> T {
        // SAFETY: `self` owns the value and is forgotten below, so it is read once.
        let value = unsafe { self.value.read() };
        let (memory, pool) = (self.value, self.pool);
        core::mem::forget(self);
        // SAFETY: `new` got the memory from this pool with this layout; the value has moved out.
        unsafe { pool.release(memory.cast(), Layout::new::<T>()) };
        value
    }
}

impl<T: ?Sized> Deref for Owned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the value was written by `new` and lives until `self` is dropped.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ?Sized> DerefMut for Owned<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { self.value.as_mut() }
    }
}

impl<T: ?Sized> Drop for Owned<T> {
    fn drop(&mut self) {
        let layout = Layout::for_value::<T>(self);
        // SAFETY: the value is alive and dropped here only.
        unsafe { self.value.drop_in_place() };
        // SAFETY: `new` got the memory from this pool with this layout; nothing refers to it.
        unsafe { self.pool.release(self.value.cast(), layout) };
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Owned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
