//! Instructions retired: the cost of a piece of code, exact and the same in every run under QEMU's
//! `-icount shift=0`. Without `-icount` the event is not counted and stays 0.
#![expect(unsafe_code, reason = "the registers of the performance monitor need assembly")]

use core::arch::asm;

/// Event "instruction architecturally executed" (Arm ARM, INST_RETIRED).
const INST_RETIRED: u64 = 0x08;
/// PMCR_EL0: enable (E) and 64-bit cycle count (LC).
const PMCR_ENABLE: u64 = 1 | 1 << 6;

/// Starts event counter 0. Call it once, before [`instructions`].
pub fn start() {
    // SAFETY: only configures a counter that nothing else uses; no memory is touched.
    unsafe {
        asm!(
            "msr pmevtyper0_el0, {event}",
            "msr pmcntenset_el0, {one}",
            "msr pmcr_el0, {enable}",
            "isb",
            event = in(reg) INST_RETIRED,
            one = in(reg) 1_u64,
            enable = in(reg) PMCR_ENABLE,
            options(nostack, nomem, preserves_flags),
        );
    }
}

/// Instructions since [`start`], modulo 2^32: subtract with `wrapping_sub`.
#[must_use]
pub fn instructions() -> u32 {
    let count: u64;
    // SAFETY: reads a counter. No `nomem`: what is measured must not move across the read.
    unsafe {
        asm!("isb", "mrs {}, pmevcntr0_el0", out(reg) count, options(nostack, preserves_flags));
    }
    count as u32
}
