//! The board: what must be known before the firmware's tables can be read.

/// Where an image begins; see `memory.ld`.
pub(crate) const IMAGE_START: usize = 0x40_0000;
/// Everything of the image lies below this address; see `memory.ld`.
pub const IMAGE_END: usize = 0x200_0000;
/// From here to 4 GiB there are devices, mapped uncached; RAM that the images use lies below.
pub(crate) const DEVICES: usize = 0x8000_0000;
/// RAM is mapped up to here.
pub const MAPPED_END: usize = DEVICES;
/// The first serial port.
pub(crate) const UART: u16 = 0x3f8;
/// QEMU's `isa-debug-exit`, as the machine line places it.
pub(crate) const EXIT: u16 = 0xf4;
/// Where BARs are placed, up to the interrupt controllers.
pub(crate) const PCI_WINDOW: u64 = 0xc000_0000;
/// The end of that.
pub(crate) const PCI_WINDOW_END: u64 = 0xfec0_0000;
