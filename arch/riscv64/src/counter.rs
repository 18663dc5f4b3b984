//! Instructions retired: the cost of a piece of code, exact and the same in every run under QEMU's
//! `-icount shift=0`. Without `-icount` the counter follows the host's time.
#![expect(unsafe_code, reason = "what is measured must not move across the read of the counter")]

use core::arch::asm;

/// Does nothing: the counter runs from reset on.
pub fn start() {}

/// Instructions, modulo 2^32: subtract with `wrapping_sub`.
#[must_use]
pub fn instructions() -> u32 {
    let count: u64;
    // SAFETY: reads a counter, which firmware lets supervisor mode read. No `nomem`: what is measured must not move across the read.
    unsafe { asm!("csrr {}, instret", out(reg) count, options(nostack, preserves_flags)) };
    count as u32
}
