//! The heap of the images: `linked_list_allocator` as the global allocator.
#![expect(unsafe_code, reason = "hands a region of memory to the allocator")]

use linked_list_allocator::LockedHeap;

#[global_allocator]
static HEAP: LockedHeap = LockedHeap::empty();

/// Gives the heap its memory. Call it once, before anything is allocated.
///
/// # Safety
///
/// The `len` bytes from `start` on are mapped memory that nothing else uses, for good.
pub unsafe fn init(start: usize, len: usize) {
    let start = core::ptr::with_exposed_provenance_mut(start);
    // SAFETY: the caller's promise, and it calls once.
    unsafe { HEAP.lock().init(start, len) };
}

/// Bytes in use.
#[must_use]
pub fn used() -> usize {
    HEAP.lock().used()
}
