//! Exceptions: none is expected, so each tells what happened and ends the image. They run on a stack
//! of their own, so that even an overflow of the first one is told.
#![expect(unsafe_code, reason = "assembly that makes a call of a trap")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::{exit, logger};

/// The exit code of an image that took an exception.
const EXCEPTION: u8 = 102;
const STACK_LEN: usize = 0x1_0000;

global_asm!(
    ".section .stack.traps, \"aw\", @nobits",
    ".balign 16",
    ".skip {stack}",
    ".global trap_stack_top",
    "trap_stack_top:",
    ".section .text.traps, \"ax\"",
    // The interrupted stack pointer is an argument; the own stack stays for a trap in the report.
    ".macro trap_taken mode",
    "mv a0, sp",
    "csrr sp, \\mode\\()scratch",
    "csrr a1, \\mode\\()cause",
    "csrr a2, \\mode\\()epc",
    "csrr a3, \\mode\\()tval",
    "call {report}",
    "unimp",
    ".endm",
    ".global machine_trap_taken",
    ".balign 4",
    "machine_trap_taken:",
    "trap_taken m",
    ".global supervisor_trap_taken",
    ".balign 4",
    "supervisor_trap_taken:",
    "trap_taken s",
    stack = const STACK_LEN,
    report = sym report,
);

extern "C" fn report(sp: u64, cause: u64, at: u64, address: u64) -> ! {
    static REPORTED: AtomicBool = AtomicBool::new(false);
    if REPORTED.swap(true, Ordering::Relaxed) {
        exit(EXCEPTION); // the report itself failed
    }
    // SAFETY: this function does not return, so what the trap interrupted does not go on.
    unsafe { logger::break_locks() };
    defmt::error!(
        "panicked: {=str} (cause {=u64:#x}), at {=u64:#x}, stack {=u64:#x}, address {=u64:#x}",
        name(cause),
        cause,
        at,
        sp,
        address
    );
    exit(EXCEPTION)
}

fn name(cause: u64) -> &'static str {
    const INTERRUPT: u64 = 1 << 63;
    match cause {
        _ if cause & INTERRUPT != 0 => "interrupt",
        0 => "misaligned instruction",
        1 => "instruction access fault",
        2 => "invalid instruction",
        3 => "breakpoint",
        4 => "misaligned load",
        5 => "load access fault",
        6 => "misaligned store",
        7 => "store access fault",
        12 => "instruction page fault",
        13 => "load page fault",
        15 => "store page fault",
        _ => "exception",
    }
}
