//! The clock of the machine. Under `-icount shift=0` an instruction takes one nanosecond, so it counts
//! instructions, to one tick.
#![expect(unsafe_code, reason = "counters need assembly")]

use core::arch::asm;

/// Ticks since some moment.
#[cfg(target_arch = "x86_64")]
pub fn ticks() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter. No `nomem`: what is measured must not move across the read.
    unsafe {
        asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Nanoseconds per tick. QEMU's time stamp counter follows its virtual clock under `-icount`.
#[cfg(target_arch = "x86_64")]
pub fn tick_ns() -> u64 {
    1
}

/// Ticks since some moment.
#[cfg(target_arch = "aarch64")]
pub fn ticks() -> u64 {
    let count: u64;
    // SAFETY: reads a counter, which Linux opens to programs. No `nomem`: what is measured must not
    // move across the read.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) count, options(nostack, preserves_flags)) }
    count
}

/// Nanoseconds per tick.
#[cfg(target_arch = "aarch64")]
pub fn tick_ns() -> u64 {
    let hz: u64;
    // SAFETY: reads a constant, which Linux opens to programs.
    unsafe { asm!("mrs {}, cntfrq_el0", out(reg) hz, options(nostack, nomem, preserves_flags)) }
    1_000_000_000 / hz.max(1)
}
