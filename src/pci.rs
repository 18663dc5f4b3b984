//! The little that a driver needs of PCI configuration space.
//!
//! Enumeration, BAR assignment and mapping are the host's. A driver reads the capabilities of one
//! function, and turns its decoding and bus mastering on.
//!
//! No lock: the host's implementation orders its own accesses.

/// Configuration space of one PCI function.
///
/// Offsets are multiples of the access width; those that lie beyond the space the host can reach
/// read as all ones.
pub trait PciConfig {
    /// Reads a byte.
    fn read_u8(&self, offset: u16) -> u8;
    /// Reads two bytes.
    fn read_u16(&self, offset: u16) -> u16;
    /// Reads four bytes.
    fn read_u32(&self, offset: u16) -> u32;
    /// Writes two bytes.
    fn write_u16(&self, offset: u16, value: u16);
}

impl<C: PciConfig + ?Sized> PciConfig for &C {
    fn read_u8(&self, offset: u16) -> u8 {
        (**self).read_u8(offset)
    }

    fn read_u16(&self, offset: u16) -> u16 {
        (**self).read_u16(offset)
    }

    fn read_u32(&self, offset: u16) -> u32 {
        (**self).read_u32(offset)
    }

    fn write_u16(&self, offset: u16, value: u16) {
        (**self).write_u16(offset, value);
    }
}

const _: Option<&dyn PciConfig> = None; // the trait stays object safe
