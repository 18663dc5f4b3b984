//! Exceptions: none is expected, so each tells what happened and ends the image. They run on a stack
//! of their own, so that even an overflow of the first one is told.
#![expect(
    unsafe_code,
    reason = "descriptor tables, and assembly that makes a call of an exception"
)]

use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Once;
use x86_64::instructions::tables::{lidt, load_tss};
use x86_64::registers::control::Cr2;
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;
use x86_64::{PrivilegeLevel, VirtAddr};

use crate::{exit, logger};

/// The exit code of an image that took an exception.
const EXCEPTION: u8 = 102;
/// How many vectors the architecture keeps for exceptions.
const VECTORS: usize = 32;
/// The distance of the entries in `exception_vectors`.
const VECTOR_LEN: u64 = 16;
const STACK_LEN: usize = 0x1_0000;
/// Selector of the 64-bit code segment: the first after the null one, as in the entry code.
const CODE: u16 = 8;
/// Present, 64-bit interrupt gate.
const INTERRUPT_GATE: u16 = 0x8e00;
/// Stack 1 of the task state segment.
const STACK_1: u16 = 1;

global_asm!(
    ".section .text.vectors, \"ax\"",
    ".balign 16",
    ".global exception_vectors",
    "exception_vectors: .set vector, 0",
    ".rept 32",
    ".balign 16",
    // The CPU pushes an error code for some; a zero for the others makes the frames alike.
    ".if vector != 8 && vector != 10 && vector != 11 && vector != 12 && vector != 13 && vector != 14 && vector != 17 && vector != 21 && vector != 29 && vector != 30",
    "push 0",
    ".endif",
    "push vector",
    "jmp taken",
    ".set vector, vector + 1",
    ".endr",
    "taken:",
    "cld",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {report}",
    "ud2",
    ".section .stack.exceptions, \"aw\", @nobits",
    ".balign 16",
    ".skip {stack}",
    ".global exception_stack_top",
    "exception_stack_top:",
    report = sym report,
    stack = const STACK_LEN,
);

// Places, not values: only their addresses are used.
unsafe extern "C" {
    safe static exception_vectors: u8;
    safe static exception_stack_top: u8;
}

/// An entry of the interrupt descriptor table.
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    low: u16,
    selector: u16,
    options: u16,
    middle: u16,
    high: u32,
    zero: u32,
}

/// What lies on the stack when `report` is called: our number, and what the CPU pushed.
#[repr(C)]
struct Frame {
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

static GATES: Once<[Gate; VECTORS]> = Once::new();
static TSS: Once<TaskStateSegment> = Once::new();
static GDT: Once<GlobalDescriptorTable> = Once::new();

/// Loads the descriptor tables. From here on an exception is told.
pub fn init() {
    let tss = TSS.call_once(|| {
        let mut tss = TaskStateSegment::new();
        tss.interrupt_stack_table[0] = VirtAddr::from_ptr(&raw const exception_stack_top);
        tss
    });
    let mut selector = None;
    let gdt = GDT.call_once(|| {
        let mut table = GlobalDescriptorTable::new();
        table.append(Descriptor::kernel_code_segment());
        table.append(Descriptor::kernel_data_segment());
        selector = Some(table.append(Descriptor::tss_segment(tss)));
        table
    });
    gdt.load();
    if let Some(selector) = selector {
        debug_assert_eq!(selector.rpl(), PrivilegeLevel::Ring0);
        // SAFETY: the selector is that of the task state segment in the table just loaded.
        unsafe { load_tss(selector) };
    }
    let first = VirtAddr::from_ptr(&raw const exception_vectors).as_u64();
    let gates = GATES.call_once(|| core::array::from_fn(|n| gate(first + n as u64 * VECTOR_LEN)));
    let base = VirtAddr::from_ptr(gates);
    let limit = (size_of_val(gates) - 1) as u16;
    // SAFETY: the table is static, and each gate leads to code that never returns.
    unsafe { lidt(&DescriptorTablePointer { limit, base }) };
}

fn gate(handler: u64) -> Gate {
    Gate {
        low: handler as u16,
        selector: CODE,
        options: INTERRUPT_GATE | STACK_1,
        middle: (handler >> 16) as u16,
        high: (handler >> 32) as u32,
        zero: 0,
    }
}

extern "C" fn report(frame: &Frame) -> ! {
    static REPORTED: AtomicBool = AtomicBool::new(false);
    if REPORTED.swap(true, Ordering::Relaxed) {
        exit(EXCEPTION); // the report itself failed
    }
    // SAFETY: this function does not return, so what the exception interrupted does not go on.
    unsafe { logger::break_locks() };
    let Frame { vector, error, rip, rsp, .. } = frame;
    defmt::error!(
        "panicked: {=str} (vector {=u64}), error code {=u64:#x}, at {=u64:#x}, stack {=u64:#x}, address {=u64:#x}",
        name(*vector),
        *vector,
        *error,
        *rip,
        *rsp,
        Cr2::read_raw()
    );
    exit(EXCEPTION)
}

fn name(vector: u64) -> &'static str {
    match vector {
        0 => "division by zero",
        2 => "non-maskable interrupt",
        3 => "breakpoint",
        6 => "invalid instruction",
        7 => "floating point instruction",
        8 => "double fault",
        12 => "stack segment fault",
        13 => "general protection fault",
        14 => "page fault",
        17 => "alignment check",
        18 => "machine check",
        _ => "exception",
    }
}
