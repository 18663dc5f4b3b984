//! `StaticPool`: a pool over a static buffer, for images without a global allocator.

use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use linked_list_allocator::Heap;

use super::{Pool, PoolSource};
use crate::sync::{Mutex, RawLock, SpinLock};

/// Memory for the nodes of a [`Pool`], in a static of `BYTES` bytes (64 at least).
///
/// ```
/// use iommu::pool::{Pool, StaticPool};
/// static NODES: StaticPool<{ 16 << 10 }> = StaticPool::new();
/// static POOL: Pool = NODES.pool();
/// assert_eq!(POOL.usage().bytes, 0);
/// ```
///
/// Nodes are found first fit, in blocks of multiples of 16 bytes (of 8 on 32-bit targets). A pool
/// that is full answers [`OutOfMemory`](crate::error::OutOfMemory), an ordinary error; what is freed
/// is joined with its neighbours and used again.
///
/// # How large
///
/// On 64-bit targets, rounded up; `tests/api/fixed.rs` measures them:
///
/// | what | bytes |
/// |---|---|
/// | a virtio-iommu under management | 8192 |
/// | a device with one endpoint, in a group of its own | 2048 |
/// | a domain | 2048 |
/// | a mapping, of thousands | 48 |
///
/// So 64 KiB serve one IOMMU with 8 devices, each on a domain of its own with a few dozen mappings.
///
/// Lock: its own, a leaf; `R` is the raw lock, for hosts that call from interrupt handlers.
pub struct StaticPool<const BYTES: usize, R: RawLock = SpinLock> {
    heap: Mutex<R, Heap>,
    memory: UnsafeCell<Memory<BYTES>>,
}

/// Aligned as any node needs it.
#[repr(C, align(64))]
struct Memory<const BYTES: usize>(MaybeUninit<[u8; BYTES]>);

/// A [`StaticPool`] that is known to stay where it is: only reached from `&'static`.
#[repr(transparent)]
struct Pinned<const BYTES: usize, R: RawLock>(StaticPool<BYTES, R>);

// SAFETY: `memory` is only touched by the heap, under its lock, and by the owners of what the heap
// handed out, which don't overlap.
unsafe impl<const BYTES: usize, R: RawLock> Sync for StaticPool<BYTES, R> {}

impl<const BYTES: usize> StaticPool<BYTES> {
    /// An unused buffer, with the default lock.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_lock()
    }
}

impl<const BYTES: usize, R: RawLock> StaticPool<BYTES, R> {
    /// An unused buffer, with the host's own lock.
    #[must_use]
    pub const fn with_lock() -> Self {
        const { assert!(BYTES >= 64, "a pool of less than 64 bytes holds nothing") };
        let memory = UnsafeCell::new(Memory(MaybeUninit::uninit()));
        Self { heap: Mutex::const_new(R::INIT, Heap::empty()), memory }
    }

    /// A pool whose nodes come from here.
    #[must_use]
    pub const fn pool(&'static self) -> Pool {
        let here = core::ptr::from_ref(self).cast::<Pinned<BYTES, R>>();
        // SAFETY: `Pinned` is transparent over `Self`, and `self` lives for ever.
        Pool::new(unsafe { &*here })
    }

    /// Bytes in use, rounding included. [`Pool::usage`] counts what was asked for.
    #[must_use]
    pub fn used(&self) -> usize {
        self.heap.lock().used()
    }
}

// SAFETY: the heap hands out memory of `memory` that fits the layout, and each byte once until it is
// released.
unsafe impl<const BYTES: usize, R: RawLock> PoolSource for Pinned<BYTES, R> {
    fn allocate(&self, layout: Layout) -> Option<NonNull<u8>> {
        if layout.size() > BYTES || layout.align() > align_of::<Memory<BYTES>>() {
            return None; // rounding such a size up could overflow in the heap
        }
        let mut heap = self.0.heap.lock();
        if heap.size() == 0 {
            // SAFETY: `memory` is used for this alone; it does not move, because `self` is only
            // reached from a `&'static StaticPool`; and the heap is empty, so this happens once.
            unsafe { heap.init(self.0.memory.get().cast(), BYTES) };
        }
        heap.allocate_first_fit(layout).ok()
    }

    unsafe fn release(&self, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.0.heap.lock().deallocate(memory, layout) };
    }
}

impl<const BYTES: usize> Default for StaticPool<BYTES> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const BYTES: usize, R: RawLock> fmt::Debug for StaticPool<BYTES, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticPool({} of {BYTES} bytes)", self.used())
    }
}
