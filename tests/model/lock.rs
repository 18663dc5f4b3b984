//! The raw lock of the model. loom blocks a thread that finds it held, and sees a deadlock.
#![expect(unsafe_code, reason = "a raw lock, for lock_api")]

use std::cell::UnsafeCell;
use std::mem;
use std::sync::OnceLock;

use loom::sync::{Mutex, MutexGuard};

/// A loom mutex behind the interface of a raw one.
///
/// `RawMutex::INIT` is a constant, and a loom mutex can't be made in one, nor outside of a run. So
/// it is made when the lock is first taken. The model stays true:
///
/// - each lock belongs to one run, since every scenario makes its own world in it;
/// - all threads of a run are coroutines of one thread, which change only when they take a lock, so
///   none can come between "not there yet" and "made";
/// - a lock that is free from the start and one that is made free when first taken behave alike,
///   and the same choices make the same locks in the same order, so a run can be repeated.
pub struct LoomLock {
    mutex: OnceLock<Mutex<()>>,
    /// While the lock is held: loom's guard, which frees it. Borrows from `mutex`.
    guard: UnsafeCell<Option<MutexGuard<'static, ()>>>,
}

// SAFETY: the threads of a model are coroutines of one thread; `guard` is touched by the holder.
unsafe impl Send for LoomLock {}
// SAFETY: as for `Send`.
unsafe impl Sync for LoomLock {}

impl LoomLock {
    fn mutex(&self) -> &Mutex<()> {
        self.mutex.get_or_init(|| Mutex::new(()))
    }

    /// Keeps the guard until `unlock`.
    fn keep<'a>(&'a self, guard: MutexGuard<'a, ()>) {
        // SAFETY: only the lifetime changes. The guard goes with `unlock`, and until then the lock
        // is borrowed by who holds it, so it is neither moved nor dropped.
        let guard = unsafe { mem::transmute::<MutexGuard<'a, ()>, MutexGuard<'static, ()>>(guard) };
        // SAFETY: the caller has just taken the lock, so no other thread is at the cell.
        unsafe { *self.guard.get() = Some(guard) };
    }
}

// SAFETY: loom's mutex excludes; what comes after `lock` is undone by `unlock` alone.
unsafe impl lock_api::RawMutex for LoomLock {
    const INIT: Self = Self { mutex: OnceLock::new(), guard: UnsafeCell::new(None) };
    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        // loom's `lock` always answers `Ok`.
        self.keep(self.mutex().lock().expect("loom does not poison"));
    }

    fn try_lock(&self) -> bool {
        self.mutex().try_lock().map(|guard| self.keep(guard)).is_ok()
    }

    unsafe fn unlock(&self) {
        // SAFETY: the caller holds the lock, so no other thread is at the cell.
        drop(unsafe { (*self.guard.get()).take() });
    }
}
