//! The memory and the clock of the fake machine. Under the machine's lock.
#![expect(unsafe_code, reason = "stands for a device that reads and writes memory by address")]

use core::num::NonZeroUsize;
use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;

use super::FakeMachine;
use crate::addr::PhysAddr;
use crate::error::OutOfMemory;
use crate::platform::{DmaPages, PAGE_SIZE, Platform};

/// Heap-backed DMA pages; the address that the device uses is the CPU's.
#[derive(Default)]
pub(super) struct Memory {
    live: BTreeMap<u64, Block>,
    /// How many allocations are left before one is refused.
    pub(super) refuse_after: Option<usize>,
}

struct Block {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a `Memory` is the owner of its blocks, which aren't tied to a thread.
unsafe impl Send for Memory {}

impl Memory {
    pub(super) fn pages(&self) -> usize {
        self.live.values().map(|block| block.layout.size() / PAGE_SIZE).sum()
    }

    /// Copies what the device finds at `at`.
    ///
    /// # Panics
    ///
    /// Where no page is live: the driver gave the device a wrong address, or freed too early.
    pub(super) fn read(&self, at: u64, out: &mut [u8]) {
        let from = self.place(at, out.len());
        // SAFETY: `place` found `out.len()` bytes inside a live block; `out` is another object.
        unsafe { from.copy_to_nonoverlapping(NonNull::from(&mut *out).cast(), out.len()) };
    }

    /// Writes as the device. Panics as [`read`](Self::read) does.
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) {
        let to = self.place(at, bytes.len());
        // SAFETY: `place` found `bytes.len()` bytes inside a live block, and no reference to DMA
        // memory exists; `bytes` is another object.
        unsafe { to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    }

    pub(super) fn read_u16(&self, at: u64) -> u16 {
        let mut bytes = [0; 2];
        self.read(at, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    fn place(&self, at: u64, len: usize) -> NonNull<u8> {
        let block = self.live.range(..=at).next_back();
        let found = block.and_then(|(first, block)| {
            let offset = usize::try_from(at - first).ok()?;
            (offset.checked_add(len)? <= block.layout.size()).then_some((block.base, offset))
        });
        let Some((base, offset)) = found else {
            panic!("the device was sent to {at:#x}, {len} bytes: no DMA memory is there")
        };
        // SAFETY: `offset` is inside the block, checked above.
        unsafe { base.add(offset) }
    }

    fn alloc(&mut self, pages: NonZeroUsize) -> Result<DmaPages, OutOfMemory> {
        if let Some(left) = &mut self.refuse_after {
            *left = left.checked_sub(1).ok_or(OutOfMemory)?;
        }
        let size = pages.get().checked_mul(PAGE_SIZE).ok_or(OutOfMemory)?;
        let layout = Layout::from_size_align(size, PAGE_SIZE).map_err(|_| OutOfMemory)?;
        // SAFETY: the size is a positive number of pages.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(OutOfMemory)?;
        let address = base.addr().get() as u64;
        self.live.insert(address, Block { base, layout });
        Ok(DmaPages { cpu: base, device: PhysAddr(address), pages })
    }

    fn free(&mut self, memory: &DmaPages) {
        let block = self.live.remove(&memory.device.0).expect("these pages are not live");
        assert_eq!(block.base, memory.cpu, "the CPU address belongs to other pages");
        assert_eq!(block.layout.size(), memory.pages.get() * PAGE_SIZE, "another number of pages");
        // SAFETY: `alloc` got the block with this layout, and it was live until now.
        unsafe { dealloc(block.base.as_ptr(), block.layout) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for block in self.live.values() {
            // SAFETY: `alloc` got the block with this layout; the machine ends, and with it
            // whoever had the pages.
            unsafe { dealloc(block.base.as_ptr(), block.layout) };
        }
    }
}

// SAFETY: the pages are zeroed, of the heap, contiguous, and nobody else's until they are freed;
// CPU and "device" are the same threads, so they are coherent.
unsafe impl Platform for FakeMachine {
    fn alloc_dma(&self, pages: NonZeroUsize) -> Result<DmaPages, OutOfMemory> {
        self.state().memory.alloc(pages)
    }

    unsafe fn free_dma(&self, memory: DmaPages) {
        let mut state = self.state();
        assert!(!state.device.is_running(), "memory was freed under a running device");
        state.memory.free(&memory);
    }

    fn now_ns(&self) -> u64 {
        self.state().tick()
    }

    fn page_size(&self) -> u64 {
        self.state().device.config.system_page
    }
}
