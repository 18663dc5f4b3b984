//! Exceptions: none is expected, so each tells what happened and ends the image. They run on a stack
//! of their own, so that even an overflow of the first one is told.
#![expect(unsafe_code, reason = "assembly that makes a call of a trap")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, Ordering};

use riscv::register::{mcause, mepc, mtval};

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
    ".global trap_taken",
    ".balign 4",
    "trap_taken:",
    // The interrupted stack pointer is the argument; the own stack stays for a trap in the report.
    "mv a0, sp",
    "csrr sp, mscratch",
    "call {report}",
    "unimp",
    stack = const STACK_LEN,
    report = sym report,
);

extern "C" fn report(sp: u64) -> ! {
    static REPORTED: AtomicBool = AtomicBool::new(false);
    if REPORTED.swap(true, Ordering::Relaxed) {
        exit(EXCEPTION); // the report itself failed
    }
    // SAFETY: this function does not return, so what the trap interrupted does not go on.
    unsafe { logger::break_locks() };
    let cause = mcause::read();
    defmt::error!(
        "panicked: {=str} (cause {=usize:#x}), at {=usize:#x}, stack {=u64:#x}, address {=usize:#x}",
        name(cause.code(), cause.is_interrupt()),
        cause.bits(),
        mepc::read(),
        sp,
        mtval::read()
    );
    exit(EXCEPTION)
}

fn name(code: usize, is_interrupt: bool) -> &'static str {
    match code {
        _ if is_interrupt => "interrupt",
        0 => "misaligned instruction",
        1 => "instruction access fault",
        2 => "invalid instruction",
        3 => "breakpoint",
        4 => "misaligned load",
        5 => "load access fault",
        6 => "misaligned store",
        7 => "store access fault",
        _ => "exception",
    }
}
