//! From the first instruction (machine or supervisor mode, no stack) to Rust.
#![expect(unsafe_code, reason = "entry code, and symbols that the linker resolves")]

use core::arch::global_asm;

use crate::{firmware, logger, translation};

/// Bytes of stack.
const STACK_LEN: usize = 0x4_0000;
/// Bytes below the stack that can't be accessed.
pub(crate) const GUARD_LEN: usize = 0x1000;

global_asm!(
    ".section .stack.boot, \"aw\", @nobits",
    ".balign 4096",
    ".global stack_guard",
    "stack_guard:",
    ".skip {guard} + {stack}",
    "stack_top:",
    ".section .text.entry, \"ax\"",
    ".global image_entry",
    "image_entry:",
    // No relaxation before the global pointer is there.
    ".option push",
    ".option norelax",
    "la gp, __global_pointer$",
    ".option pop",
    "csrw sie, zero",
    // No register tells the mode, but only machine mode can read `mstatus`: in supervisor mode that
    // is an invalid instruction, which the firmware hands to us.
    "la t0, 1f",
    "csrw stvec, t0",
    "csrr t0, mstatus",
    // Machine mode.
    "li a2, 0",
    "csrw mie, zero",
    "la t0, machine_trap_taken",
    "csrw mtvec, t0",
    "la t0, trap_stack_top",
    "csrw mscratch, t0",
    // A locked entry without rights holds for machine mode too: 4 KiB as a naturally aligned power of
    // two. Everything else is not matched and stays allowed.
    "la t0, stack_guard",
    "srli t0, t0, 2",
    "ori t0, t0, {guard} / 8 - 1",
    "csrw pmpaddr0, t0",
    "li t0, 0x98",
    "csrw pmpcfg0, t0",
    "j 2f",
    ".balign 4",
    "1:",
    // Supervisor mode; its guard is a matter of page tables.
    "li a2, 1",
    "la t0, supervisor_trap_taken",
    "csrw stvec, t0",
    "la t0, trap_stack_top",
    "csrw sscratch, t0",
    "2:",
    "la t0, bss_begin",
    "la t1, bss_end",
    "3: bgeu t0, t1, 4f",
    "sd zero, 0(t0)",
    "addi t0, t0, 8",
    "j 3b",
    "4:",
    // Ordinary code may use floating point registers: FS = initial, the same bits in `mstatus`.
    "li t0, 1 << 13",
    "csrs sstatus, t0",
    "la sp, stack_top",
    "li ra, 0",
    "call {start}",
    "unimp",
    stack = const STACK_LEN,
    guard = const GUARD_LEN,
    start = sym start,
);

unsafe extern "C" {
    safe fn image_main(hart: u64, tree: u64) -> !;
}

extern "C" fn start(hart: u64, tree: u64, is_supervisor: u64) -> ! {
    let is_supervisor = is_supervisor != 0;
    logger::init(is_supervisor);
    if is_supervisor {
        translation::enable();
    }
    firmware::keep(tree);
    image_main(hart, tree)
}
