//! The little that a driver needs of PCI configuration space.
//!
//! Enumeration, BAR assignment and mapping are the host's. A driver reads the capabilities of one
//! function, and turns its decoding and bus mastering on.
//!
//! No lock: the host's implementation orders its own accesses.

use core::fmt;

use crate::error::errno;

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

const COMMAND: u16 = 0x04;
const COMMAND_BUS_MASTER: u16 = 1 << 2;

/// A function could do DMA before the IOMMU blocked it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct EarlyMaster {
    /// Its bus, device and function as a requester id.
    pub function: u16,
}

/// Looks whether a function may do DMA: whether its bus mastering is on. Ask every function before the
/// IOMMU is started, and [`stop_dma`] those that may, or what they did until then is anybody's guess.
///
/// # Errors
///
/// [`EarlyMaster`]: it may.
pub fn check_no_dma<C: PciConfig + ?Sized>(function: u16, config: &C) -> Result<(), EarlyMaster> {
    match config.read_u16(COMMAND) & COMMAND_BUS_MASTER {
        0 => Ok(()),
        _ => Err(EarlyMaster { function }),
    }
}

/// Turns the bus mastering of a function off; its driver turns it on again, and so does the PCI
/// transport of the IOMMU itself.
pub fn stop_dma<C: PciConfig + ?Sized>(config: &C) {
    let command = config.read_u16(COMMAND);
    config.write_u16(COMMAND, command & !COMMAND_BUS_MASTER);
}

impl EarlyMaster {
    /// The stable errno, `EBUSY`.
    #[must_use]
    pub const fn errno(self) -> i32 {
        errno::EBUSY
    }
}

impl fmt::Display for EarlyMaster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bus, device, function) =
            (self.function >> 8, self.function >> 3 & 0x1f, self.function & 7);
        write!(
            f,
            "function {bus:02x}:{device:02x}.{function} is bus master before the IOMMU blocks it, and may \
             have reached any memory: turn its bus mastering off at boot (`pci::stop_dma`), start the \
             IOMMU, and let its driver turn it on after the attach"
        )
    }
}

impl core::error::Error for EarlyMaster {}

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use std::string::ToString;

    use super::*;

    struct Command(Cell<u16>);

    impl PciConfig for Command {
        fn read_u8(&self, _: u16) -> u8 {
            0xff
        }

        fn read_u16(&self, offset: u16) -> u16 {
            if offset == COMMAND { self.0.get() } else { 0xffff }
        }

        fn read_u32(&self, _: u16) -> u32 {
            u32::MAX
        }

        fn write_u16(&self, offset: u16, value: u16) {
            assert_eq!(offset, COMMAND);
            self.0.set(value);
        }
    }

    #[test]
    fn a_function_that_may_do_dma_early_is_named_with_the_fix() {
        let config = Command(Cell::new(0x0407));
        let error = check_no_dma(0x0112, &config).unwrap_err();
        assert_eq!((error, error.errno()), (EarlyMaster { function: 0x0112 }, 16));
        let text = error.to_string();
        assert!(text.contains("01:02.2") && text.contains("pci::stop_dma"), "{text}");
        stop_dma(&config);
        assert_eq!(config.0.get(), 0x0403, "nothing else changes");
        assert_eq!(check_no_dma(0x0112, &config), Ok(()));
    }
}
