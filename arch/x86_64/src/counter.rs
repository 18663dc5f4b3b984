//! Instructions retired: the cost of a piece of code, exact and the same in every run under QEMU's
//! `-icount shift=0`, where the time stamp counter counts them. Without `-icount` it counts time.
#![expect(unsafe_code, reason = "the time stamp counter needs assembly")]

use core::arch::asm;

/// Does nothing: the counter runs from reset on.
pub fn start() {}

/// Instructions, modulo 2^32: subtract with `wrapping_sub`.
#[must_use]
pub fn instructions() -> u32 {
    ticks() as u32
}

/// The time stamp counter.
pub(crate) fn ticks() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter. No `nomem`: what is measured must not move across the read.
    unsafe {
        asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}
