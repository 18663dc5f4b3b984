//! Translation in supervisor mode: every address stands for itself, but the page below the stack,
//! which stands for nothing. Machine mode has physical memory protection for that and runs without.
#![expect(unsafe_code, reason = "turns translation on, and names a symbol of the entry code")]

use core::sync::atomic::{AtomicU64, Ordering};

use riscv::asm::sfence_vma_all;
use riscv::register::satp::{self, Mode};

use crate::entry::GUARD_LEN;

const PAGE: u64 = GUARD_LEN as u64;
const ENTRIES: u64 = 512;
/// Bytes behind one entry of each level.
const MEGAPAGE: u64 = PAGE * ENTRIES;
const GIGAPAGE: u64 = MEGAPAGE * ENTRIES;
/// Valid, and neither readable nor executable: the next level.
const NEXT: u64 = 1;
/// Valid, readable, writable, executable, accessed, dirty.
const LEAF: u64 = 0xcf;

#[repr(C, align(4096))]
struct Table([AtomicU64; ENTRIES as usize]);

impl Table {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; ENTRIES as usize])
    }

    fn address(&'static self) -> u64 {
        core::ptr::from_ref(self).expose_provenance() as u64
    }

    /// Lets the first `count` entries stand for themselves, from `base` on.
    fn fill(&self, base: u64, step: u64, count: u64) {
        for (entry, at) in self.0.iter().zip(0..count) {
            entry.store(to(base + at * step, LEAF), Ordering::Relaxed);
        }
    }

    /// Replaces the entry for `address`.
    fn put(&self, address: u64, step: u64, value: u64) {
        if let Some(entry) = self.0.get((address / step % ENTRIES) as usize) {
            entry.store(value, Ordering::Relaxed);
        }
    }
}

/// The entry for what lies at a physical address: its page number begins at bit 10.
fn to(address: u64, flags: u64) -> u64 {
    ((address / PAGE) << 10) | flags
}

static ROOT: Table = Table::new();
static MIDDLE: Table = Table::new();
static LAST: Table = Table::new();

unsafe extern "C" {
    static stack_guard: u8;
}

/// Turns translation on. Called once, in supervisor mode.
pub(crate) fn enable() {
    let guard = (&raw const stack_guard).addr() as u64;
    // The lower half; addresses of the other are not those of memory.
    ROOT.fill(0, GIGAPAGE, ENTRIES / 2);
    ROOT.put(guard, GIGAPAGE, to(MIDDLE.address(), NEXT));
    MIDDLE.fill(guard / GIGAPAGE * GIGAPAGE, MEGAPAGE, ENTRIES);
    MIDDLE.put(guard, MEGAPAGE, to(LAST.address(), NEXT));
    LAST.fill(guard / MEGAPAGE * MEGAPAGE, PAGE, ENTRIES);
    LAST.put(guard, PAGE, 0);
    // SAFETY: the tables map the code that runs, its data and every device to themselves, and stay as
    // they are for good.
    unsafe { satp::set(Mode::Sv39, 0, (ROOT.address() / PAGE) as usize) };
    sfence_vma_all();
}
