//! The board: what must be known before the device tree can be read. Everything else is read there.

use aarch64_rt::{InitialPagetable, initial_pagetable};

/// Where QEMU puts the device tree for an ELF image.
pub(crate) const DEVICE_TREE: usize = 0x4000_0000;
/// QEMU pads the tree to this many bytes.
pub(crate) const DEVICE_TREE_LEN: usize = 0x10_0000;
/// Everything of the image lies below this address; see `memory.ld`.
pub const IMAGE_END: usize = 0x4200_0000;
/// What QEMU has for a firmware.
pub(crate) const FW_CFG: usize = 0x0902_0000;
/// The PL011 UART.
pub(crate) const UART: usize = 0x0900_0000;

/// A level 1 block of 1 GiB: valid, access flag set.
const BLOCK: usize = 1 | 1 << 10;
/// Device-nGnRE (attribute 0 of the entry code's MAIR), never executed.
const DEVICE: usize = BLOCK | 0b11 << 53;
/// Normal write-back memory (attribute 1), inner shareable.
const NORMAL: usize = BLOCK | 1 << 2 | 0b11 << 8;

const GIB: usize = 1 << 30;
/// RAM is mapped up to here.
pub const MAPPED_END: usize = 4 * GIB;
/// The high configuration space lies at 256.25 GiB.
const HIGH_ECAM: usize = 256;

// One to one: 1 GiB of devices, 3 GiB of RAM, and the GiB of the high configuration space.
initial_pagetable!({
    let mut table = [0; 512];
    table[0] = DEVICE;
    table[1] = NORMAL | GIB;
    table[2] = NORMAL | (2 * GIB);
    table[3] = NORMAL | (3 * GIB);
    table[HIGH_ECAM] = DEVICE | (HIGH_ECAM * GIB);
    InitialPagetable(table)
});
