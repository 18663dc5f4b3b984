//! From the PVH entry (32-bit protected mode, paging off, no stack) to 64-bit Rust.
//!
//! The page tables are data of the image. 2 MiB pages, one to one: RAM below 2 GiB cached, devices
//! from there to 4 GiB uncached. Only the pages of the image can be executed; the page before it is
//! not mapped, so a stack that grows too far faults.
#![expect(unsafe_code, reason = "entry code, and symbols that the linker resolves")]

use core::arch::global_asm;

use crate::{board, clock, exceptions, logger, pvh};

/// Bytes of stack, first in the image.
const STACK_LEN: usize = 0x4_0000;
/// The size of a page.
const PAGE: usize = 0x20_0000;

global_asm!(
    // The note with the entry's physical address: owner "Xen", type 18 (XEN_ELFNOTE_PHYS32_ENTRY).
    ".section .note.pvh, \"a\", @note",
    ".balign 4",
    ".long 4, 4, 18",
    ".asciz \"Xen\"",
    ".long pvh_entry",
    ".section .stack.boot, \"aw\", @nobits",
    ".balign 16",
    ".skip {stack}",
    "stack_top:",
    ".section .data.tables, \"aw\"",
    ".balign 4096",
    "table_4: .quad table_3 + 3",
    ".skip 511 * 8",
    "table_3: .quad table_2 + 3, table_2 + 0x1003, table_2 + 0x2003, table_2 + 0x3003",
    ".skip 508 * 8",
    // Bits: 0 present, 1 writable, 3 write-through, 4 uncached, 7 a page, 63 not to be executed.
    "table_2: .set page, 0",
    ".rept 2048",
    ".if page + 1 == {first}",
    ".quad 0",
    ".elseif page >= {first} && page < {end}",
    ".quad page * {page_len} + 0x83",
    ".elseif page < {devices}",
    ".quad page * {page_len} + 0x83 + (1 << 63)",
    ".else",
    ".quad page * {page_len} + 0x9b + (1 << 63)",
    ".endif",
    ".set page, page + 1",
    ".endr",
    ".balign 8",
    // Code at 8, data at 16: as in the table of `exceptions`.
    "gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff",
    "gdt_pointer: .word 23",
    ".long gdt",
    ".section .text.entry, \"ax\"",
    ".code32",
    ".global pvh_entry",
    "pvh_entry:",
    "cli",
    "cld",
    "mov esi, ebx", // start info
    "mov edi, offset bss_begin",
    "mov ecx, offset bss_end",
    "sub ecx, edi",
    "xor eax, eax",
    "rep stosb",
    "lgdt [gdt_pointer]",
    "mov eax, offset table_4",
    "mov cr3, eax",
    "mov eax, cr4",
    "or eax, 1 << 5", // PAE
    "mov cr4, eax",
    "mov ecx, 0xc0000080", // EFER: LME, NXE
    "rdmsr",
    "or eax, 1 << 8 | 1 << 11",
    "wrmsr",
    "mov eax, cr0",
    "and eax, 0x9fffffff",    // caches on: CD and NW clear
    "or eax, 1 << 31 | 1 << 16", // PG, WP
    "mov cr0, eax",
    // A far return into the 64-bit segment.
    "mov esp, offset stack_top",
    "push 8",
    "mov eax, offset start_64",
    "push eax",
    "retf",
    ".code64",
    "start_64:",
    "mov ax, 16",
    "mov ds, ax",
    "mov es, ax",
    "mov ss, ax",
    "xor eax, eax",
    "mov fs, ax",
    "mov gs, ax",
    "mov rsp, offset stack_top",
    "xor ebp, ebp",
    "mov edi, esi",
    "call {start}",
    "ud2",
    stack = const STACK_LEN,
    page_len = const PAGE,
    first = const board::IMAGE_START / PAGE,
    end = const board::IMAGE_END / PAGE,
    devices = const board::DEVICES / PAGE,
    start = sym start,
);

unsafe extern "C" {
    safe fn image_main(info: u64) -> !;
}

extern "C" fn start(info: u64) -> ! {
    logger::init();
    exceptions::init();
    clock::init();
    pvh::keep(info);
    image_main(info)
}
