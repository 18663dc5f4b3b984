//! Where every node of the crate comes from, and goes back to.
//!
//! A [`Pool`] hands out memory fallibly and counts it, so that "out of memory" is an ordinary
//! error and "nothing leaked" a number to compare. On it stand three owners: [`Owned`] (one
//! owner), [`Shared`] (counted owners) and [`PoolVec`] (a growing row). Undo paths only free.
//!
//! No lock: the counters are atomics that stand alone; the source locks itself.
#![expect(unsafe_code, reason = "hands out raw memory and takes it back")]

mod fixed;
mod owned;
mod shared;
mod vec;

use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

pub use fixed::StaticPool;
pub use owned::Owned;
pub use shared::Shared;
pub use vec::PoolVec;

use crate::error::OutOfMemory;

/// A source of memory that a host brings: a slab, an arena. [`StaticPool`] is a ready one.
///
/// # Safety
///
/// `allocate` returns memory that fits the layout and that nothing else uses until it is passed to
/// `release` with the same layout.
pub unsafe trait PoolSource: Sync {
    /// Returns memory for `layout` (never of size 0), or `None`.
    fn allocate(&self, layout: Layout) -> Option<NonNull<u8>>;

    /// Takes memory back.
    ///
    /// # Safety
    ///
    /// `memory` came from this source's `allocate` with the same `layout` and is not used again.
    unsafe fn release(&self, memory: NonNull<u8>, layout: Layout);
}

/// A counted source of nodes. Lives as long as the program: the nodes point back to it.
///
/// ```
/// use iommu::pool::Pool;
/// static POOL: Pool = Pool::heap();
/// assert_eq!(POOL.usage().nodes, 0);
/// ```
pub struct Pool {
    source: Source,
    nodes: AtomicUsize,
    bytes: AtomicUsize,
    #[cfg(any(test, feature = "sim"))]
    fault: fault::Plan,
}

enum Source {
    #[cfg(any(test, feature = "alloc"))]
    Heap,
    Host(&'static dyn PoolSource),
}

/// What is in use at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Live allocations.
    pub nodes: usize,
    /// Their bytes, as asked for; what the source adds is not counted.
    pub bytes: usize,
}

impl Pool {
    /// A pool over the program's global allocator.
    #[cfg(any(test, feature = "alloc"))]
    #[must_use]
    pub const fn heap() -> Self {
        Self::over(Source::Heap)
    }

    /// A pool over a source that the host brings; no global allocator is needed.
    #[must_use]
    pub const fn new(source: &'static dyn PoolSource) -> Self {
        Self::over(Source::Host(source))
    }

    const fn over(source: Source) -> Self {
        Self {
            source,
            nodes: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            #[cfg(any(test, feature = "sim"))]
            fault: fault::Plan::new(),
        }
    }

    /// What is in use now. Compare before and after to find a leak.
    pub fn usage(&self) -> Usage {
        Usage {
            nodes: self.nodes.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    fn allocate(&self, layout: Layout) -> Result<NonNull<u8>, OutOfMemory> {
        #[cfg(any(test, feature = "sim"))]
        if self.fault.refuses() {
            return Err(OutOfMemory);
        }
        if layout.size() == 0 {
            return Ok(NonNull::without_provenance(
                core::num::NonZeroUsize::new(layout.align()).ok_or(OutOfMemory)?,
            ));
        }
        let memory = match self.source {
            #[cfg(any(test, feature = "alloc"))]
            Source::Heap => {
                // SAFETY: the size is not 0, checked above.
                NonNull::new(unsafe { alloc::alloc::alloc(layout) })
            }
            Source::Host(source) => source.allocate(layout),
        }
        .ok_or(OutOfMemory)?;
        self.nodes.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(layout.size(), Ordering::Relaxed);
        Ok(memory)
    }

    /// # Safety
    ///
    /// `memory` came from this pool's `allocate` with the same `layout` and is not used again.
    unsafe fn release(&self, memory: NonNull<u8>, layout: Layout) {
        if layout.size() == 0 {
            return;
        }
        self.nodes.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(layout.size(), Ordering::Relaxed);
        match self.source {
            #[cfg(any(test, feature = "alloc"))]
            Source::Heap => {
                // SAFETY: the caller's promise; the heap gave it, because the source never changes.
                unsafe { alloc::alloc::dealloc(memory.as_ptr(), layout) }
            }
            Source::Host(source) => {
                // SAFETY: the caller's promise; this source gave it, because it never changes.
                unsafe { source.release(memory, layout) }
            }
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({:?})", self.usage())
    }
}

/// Fault injection: lets a test refuse the n-th allocation, or all from there on.
#[cfg(any(test, feature = "sim"))]
mod fault {
    use core::sync::atomic::{AtomicU64, Ordering};

    use super::Pool;

    /// Counts down to the refusal. `u64::MAX` in `left` means never.
    pub(super) struct Plan {
        left: AtomicU64,
        then_all: core::sync::atomic::AtomicBool,
        met: AtomicU64,
    }

    impl Plan {
        pub(super) const fn new() -> Self {
            Self {
                left: AtomicU64::new(u64::MAX),
                then_all: core::sync::atomic::AtomicBool::new(false),
                met: AtomicU64::new(0),
            }
        }

        pub(super) fn refuses(&self) -> bool {
            let step = |left: u64| match left {
                u64::MAX => None,
                0 if self.then_all.load(Ordering::Relaxed) => Some(0),
                0 => Some(u64::MAX),
                left => Some(left - 1),
            };
            let refused =
                self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step) == Ok(0);
            if refused {
                self.met.fetch_add(1, Ordering::Relaxed);
            }
            refused
        }
    }

    impl Pool {
        /// Refuses the `n`-th allocation from now (0 is the next one); with `then_all` all later
        /// ones too. Feature `sim`.
        pub fn refuse_nth(&self, n: u64, then_all: bool) {
            self.fault.met.store(0, Ordering::Relaxed);
            self.fault.then_all.store(then_all, Ordering::Relaxed);
            self.fault.left.store(n, Ordering::Relaxed);
        }

        /// Ends the plan of [`refuse_nth`](Self::refuse_nth) and returns how many allocations it
        /// refused. Feature `sim`.
        pub fn refuse_none(&self) -> u64 {
            self.fault.left.store(u64::MAX, Ordering::Relaxed);
            self.fault.met.swap(0, Ordering::Relaxed)
        }
    }
}
