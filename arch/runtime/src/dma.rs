//! Memory for DMA, counted, and the `Platform` of an identity-mapped image.
#![expect(unsafe_code, reason = "hands out memory that devices reach, and promises facts about it")]

use core::num::NonZeroUsize;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use heapless::Vec;
use iommu::addr::PhysAddr;
use iommu::error::OutOfMemory;
use iommu::platform::{DmaPages, PAGE_SIZE, Platform};
use spin::Mutex;

/// The most pages that a pool may have: 16 MiB.
const MAX_PAGES: usize = 4096;

/// Identity-mapped pages, first fit, and the clock: all that the crate asks of the machine.
pub struct Machine {
    pool: Mutex<Pages>,
    clock: fn() -> u64,
    /// By how much our clock is ahead of that one.
    ahead_ns: AtomicU64,
}

struct Pages {
    base: usize,
    taken: Vec<bool, MAX_PAGES>,
}

impl Machine {
    /// A machine without memory for DMA. `clock` gives nanoseconds.
    #[must_use]
    pub const fn new(clock: fn() -> u64) -> Self {
        let pool = Mutex::new(Pages { base: 0, taken: Vec::new() });
        Self { pool, clock, ahead_ns: AtomicU64::new(0) }
    }

    /// Gives the pool its memory: whole pages inside the region, at most 16 MiB. Returns how many.
    ///
    /// # Safety
    ///
    /// The `len` bytes from `start` on are RAM, mapped one to one and coherent with devices, and
    /// nothing else uses them, for good. Called once.
    pub unsafe fn give(&self, start: usize, len: usize) -> usize {
        let base = start.next_multiple_of(PAGE_SIZE);
        let pages = len.saturating_sub(base - start) / PAGE_SIZE;
        let mut pool = self.pool.lock();
        pool.base = base;
        while pool.taken.len() < pages && pool.taken.push(false).is_ok() {}
        pool.taken.len()
    }

    /// The first page that is handed out.
    #[must_use]
    pub fn first_in_use(&self) -> Option<PhysAddr> {
        let pool = self.pool.lock();
        let first = pool.taken.iter().position(|taken| *taken)?;
        Some(PhysAddr((pool.base + first * PAGE_SIZE) as u64))
    }

    /// Lets time pass for those who look at this clock: for tests of waits that end.
    pub fn pass(&self, ns: u64) {
        self.ahead_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// How many pages are handed out.
    #[must_use]
    pub fn pages_in_use(&self) -> usize {
        self.pool.lock().taken.iter().filter(|taken| **taken).count()
    }
}

// SAFETY: RAM is mapped one to one as normal cacheable memory and the devices of the machine snoop
// it; a page is handed out once until it is freed; the clock counts up.
unsafe impl Platform for Machine {
    fn alloc_dma(&self, pages: NonZeroUsize) -> Result<DmaPages, OutOfMemory> {
        let count = pages.get();
        let mut pool = self.pool.lock();
        let free = |run: &[bool]| run.iter().all(|taken| !taken);
        let first = pool.taken.windows(count).position(free).ok_or(OutOfMemory)?;
        for taken in pool.taken.iter_mut().skip(first).take(count) {
            *taken = true;
        }
        let address = pool.base + first * PAGE_SIZE;
        let start = core::ptr::with_exposed_provenance_mut::<u8>(address);
        let cpu = NonNull::new(start).ok_or(OutOfMemory)?;
        // SAFETY: the pages are mapped RAM, and were marked as taken above: nothing uses them.
        unsafe { cpu.write_bytes(0, count * PAGE_SIZE) };
        Ok(DmaPages { cpu, device: PhysAddr(address as u64), pages })
    }

    unsafe fn free_dma(&self, memory: DmaPages) {
        let mut pool = self.pool.lock();
        let first = memory.cpu.addr().get().saturating_sub(pool.base) / PAGE_SIZE;
        for taken in pool.taken.iter_mut().skip(first).take(memory.pages.get()) {
            *taken = false;
        }
    }

    fn now_ns(&self) -> u64 {
        (self.clock)() + self.ahead_ns.load(Ordering::Relaxed)
    }

    fn phys_of(&self, cpu: NonNull<u8>) -> Option<PhysAddr> {
        Some(PhysAddr(cpu.addr().get() as u64))
    }
}

/// Words that are filled or compared at a time.
const LINE: usize = 8;
const _: () = assert!(PAGE_SIZE.is_multiple_of(size_of::<[u64; LINE]>()));

/// Pages that an image shares with a device, given back on drop. Accesses are volatile: a device
/// may write at any moment.
pub struct Buffer {
    machine: &'static Machine,
    pages: DmaPages,
}

impl Buffer {
    /// Takes `pages` zeroed pages of `machine`.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when the pool has no such run.
    pub fn new(machine: &'static Machine, pages: usize) -> Result<Self, OutOfMemory> {
        let pages = machine.alloc_dma(NonZeroUsize::new(pages).ok_or(OutOfMemory)?)?;
        Ok(Self { machine, pages })
    }

    /// Where it is.
    #[must_use]
    pub fn phys(&self) -> PhysAddr {
        self.pages.device
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages.pages.get() * PAGE_SIZE
    }

    /// Never: a buffer has at least a page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Reads the byte at `offset`.
    ///
    /// # Panics
    ///
    /// When `offset` is outside.
    #[must_use]
    pub fn read(&self, offset: usize) -> u8 {
        // SAFETY: `at` checked the offset; the page is ours until `self` is dropped.
        unsafe { self.at(offset).read_volatile() }
    }

    /// Writes the byte at `offset`.
    ///
    /// # Panics
    ///
    /// When `offset` is outside.
    pub fn write(&self, offset: usize, value: u8) {
        // SAFETY: as in `read`.
        unsafe { self.at(offset).write_volatile(value) };
    }

    /// Fills the buffer with one value.
    pub fn fill(&self, value: u8) {
        let word = u64::from_ne_bytes([value; 8]);
        for place in self.lines().flatten() {
            // SAFETY: `lines` gives aligned words inside the pages, which are ours until `self` is
            // dropped.
            unsafe { place.write_volatile(word) };
        }
    }

    /// Fills the buffer with bytes that tell their place, different for each `seed`.
    pub fn fill_pattern(&self, seed: u8) {
        for offset in 0..self.len() {
            self.write(offset, pattern(seed, offset));
        }
    }

    /// Whether the `len` bytes from `offset` on are those of [`fill_pattern`](Self::fill_pattern)
    /// from `source` on.
    #[must_use]
    pub fn has_pattern(&self, offset: usize, len: usize, seed: u8, source: usize) -> bool {
        (0..len).all(|at| self.read(offset + at) == pattern(seed, source + at))
    }

    /// Whether every byte is `value`.
    #[must_use]
    pub fn is_filled(&self, value: u8) -> bool {
        let word = u64::from_ne_bytes([value; 8]);
        self.lines().all(|line| {
            // SAFETY: as in `fill`.
            let other = line.map(|place| unsafe { place.read_volatile() } ^ word);
            other == [0; LINE]
        })
    }

    /// The buffer in pieces of `LINE` words. Cases fill and search all their memory for each access
    /// that they judge: byte by byte that is most of what a run takes where instructions are slow.
    fn lines(&self) -> impl Iterator<Item = [NonNull<u64>; LINE]> {
        let count = self.len() / size_of::<[u64; LINE]>();
        let first = self.pages.cpu.cast::<u64>();
        // SAFETY: whole lines fill whole pages, so each word of each is inside the pages.
        let place = move |word: usize| unsafe { first.add(word) };
        (0..count).map(move |line| core::array::from_fn(|at| place(line * LINE + at)))
    }

    fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.len(), "offset {offset} is outside the buffer");
        // SAFETY: the offset is inside the pages, checked above.
        unsafe { self.pages.cpu.add(offset) }
    }
}

fn pattern(seed: u8, offset: usize) -> u8 {
    seed.wrapping_add((offset as u8).wrapping_mul(31)).wrapping_add((offset >> 8) as u8)
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let DmaPages { cpu, device, pages } = self.pages;
        // SAFETY: the pages came from this machine; the tests end their DMA, or block it, before.
        unsafe { self.machine.free_dma(DmaPages { cpu, device, pages }) };
    }
}
