//! The board: what must be known before the device tree can be read. Everything else is read there.

/// Everything of the image lies below this address; see `memory.ld`.
pub const IMAGE_END: usize = 0x8200_0000;
/// Every address stands for itself, so RAM ends where the board ends it; the device tree lies below 3 GiB.
pub const MAPPED_END: usize = 0xc000_0000;
/// The UART, a 16550.
pub(crate) const UART: usize = 0x1000_0000;
/// The device that ends the machine.
pub(crate) const EXIT: usize = 0x10_0000;
/// Counts of the clock per second.
pub(crate) const CLOCK_HZ: u64 = 10_000_000;
/// The longest device tree that is read.
pub(crate) const MAX_TREE: usize = 0x10_0000;
