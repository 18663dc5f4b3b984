//! From the first instruction (machine mode, no stack) to Rust.
#![expect(unsafe_code, reason = "entry code, and symbols that the linker resolves")]

use core::arch::global_asm;

use crate::{firmware, logger};

/// Bytes of stack.
const STACK_LEN: usize = 0x4_0000;
/// Bytes below the stack that can't be accessed.
const GUARD_LEN: usize = 0x1000;

global_asm!(
    ".section .stack.boot, \"aw\", @nobits",
    ".balign 4096",
    "stack_guard:",
    ".skip {guard} + {stack}",
    "stack_top:",
    ".section .text.entry, \"ax\"",
    ".global image_entry",
    "image_entry:",
    "csrw mie, zero",
    // No relaxation before the global pointer is there.
    ".option push",
    ".option norelax",
    "la gp, __global_pointer$",
    ".option pop",
    "la t0, trap_taken",
    "csrw mtvec, t0",
    "la t0, trap_stack_top",
    "csrw mscratch, t0",
    "la t0, bss_begin",
    "la t1, bss_end",
    "1: bgeu t0, t1, 2f",
    "sd zero, 0(t0)",
    "addi t0, t0, 8",
    "j 1b",
    "2:",
    // Ordinary code may use floating point registers: mstatus.FS = initial.
    "li t0, 1 << 13",
    "csrs mstatus, t0",
    // A locked entry without rights holds for machine mode too: 4 KiB as a naturally aligned power of
    // two. Everything else is not matched and stays allowed.
    "la t0, stack_guard",
    "srli t0, t0, 2",
    "ori t0, t0, {guard} / 8 - 1",
    "csrw pmpaddr0, t0",
    "li t0, 0x98",
    "csrw pmpcfg0, t0",
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

extern "C" fn start(hart: u64, tree: u64) -> ! {
    logger::init();
    firmware::keep(tree);
    image_main(hart, tree)
}
