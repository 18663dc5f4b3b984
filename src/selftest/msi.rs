//! The message-signalled interrupt of a PCI function, and the probe that it makes: a write of four
//! bytes to any address. No lock: nobody else may touch the function's capability meanwhile.

use core::fmt;
use core::sync::atomic::{Ordering, fence};

use super::{Broken, Probe};
use crate::addr::Iova;
use crate::pci::PciConfig;

const STATUS: u16 = 0x06;
const STATUS_HAS_CAPABILITIES: u16 = 1 << 4;
const FIRST_CAPABILITY: u16 = 0x34;
const MSI: u8 = 0x05;
/// 192 bytes hold no more capabilities of 4 bytes each; a longer list is a loop.
const MAX_CAPABILITIES: usize = 48;
// The capability, PCI 3.0 §6.8.1.
const CONTROL: u16 = 2;
const CONTROL_ENABLE: u16 = 1;
const CONTROL_64_BIT: u16 = 1 << 7;
const ADDRESS: u16 = 4;

/// The capability "message-signalled interrupts" of a function.
#[derive(Clone, Copy, Debug)]
pub struct Msi<C: PciConfig> {
    config: C,
    at: u16,
}

impl<C: PciConfig> Msi<C> {
    /// Finds the capability; `None` if the function has none.
    #[must_use]
    pub fn find(config: C) -> Option<Self> {
        if config.read_u16(STATUS) & STATUS_HAS_CAPABILITIES == 0 {
            return None;
        }
        let mut at = config.read_u8(FIRST_CAPABILITY) & !3;
        for _ in 0..MAX_CAPABILITIES {
            if at < 0x40 {
                return None;
            }
            if config.read_u8(at.into()) == MSI {
                return Some(Self { config, at: at.into() });
            }
            at = config.read_u8(u16::from(at) + 1) & !3;
        }
        None
    }

    /// Makes the interrupt a write of the 32-bit value `data` to `address`, and enables it. `false`: the
    /// function emits 32-bit addresses only, and nothing was changed.
    #[must_use]
    pub fn set(&self, address: u64, data: u16) -> bool {
        let control = self.read(CONTROL);
        let is_wide = control & CONTROL_64_BIT != 0;
        if address >> 32 != 0 && !is_wide {
            return false;
        }
        self.write(CONTROL, control & !CONTROL_ENABLE);
        let words = if is_wide { 4 } else { 2 };
        for (word, offset) in (0..words).zip((ADDRESS..).step_by(2)) {
            self.write(offset, (address >> (16 * word)) as u16);
        }
        self.write(self.data(), data);
        self.write(CONTROL, control | CONTROL_ENABLE);
        true
    }

    /// How many bits of an address it emits.
    #[must_use]
    pub fn address_bits(&self) -> u32 {
        if self.read(CONTROL) & CONTROL_64_BIT != 0 { 64 } else { 32 }
    }

    /// The offset of the data register.
    fn data(&self) -> u16 {
        if self.read(CONTROL) & CONTROL_64_BIT != 0 { 12 } else { 8 }
    }

    fn read(&self, offset: u16) -> u16 {
        self.config.read_u16(self.at + offset)
    }

    fn write(&self, offset: u16, value: u16) {
        self.config.write_u16(self.at + offset, value);
    }
}

/// A probe that writes by an interrupt message: any device with MSI that the host can make raise its
/// interrupt.
///
/// A message is a write of four bytes, at an address of the host's choice, which goes through the
/// IOMMU as any other. The probe can't read. On drop the capability is as it was.
pub struct Doorbell<C: PciConfig, F: FnMut()> {
    msi: Msi<C>,
    ring: F,
    /// Control, address and data as they were.
    saved: [u16; 6],
}

/// What the message says; any value but a fill of the self-test.
const DATA: u16 = 0x5aa5;

impl<C: PciConfig, F: FnMut()> Doorbell<C, F> {
    /// A probe over the function of `config`. `ring` makes the device raise its interrupt, and returns
    /// when it did.
    ///
    /// # Errors
    ///
    /// [`Broken`]: the function has no such capability.
    pub fn new(config: C, ring: F) -> Result<Self, Broken> {
        let msi = Msi::find(config).ok_or(Broken("it has no message-signalled interrupt"))?;
        let mut saved = [0; 6];
        for (place, offset) in saved.iter_mut().zip((CONTROL..).step_by(2)) {
            *place = msi.read(offset);
        }
        Ok(Self { msi, ring, saved })
    }
}

impl<C: PciConfig, F: FnMut()> Probe for Doorbell<C, F> {
    fn write(&mut self, to: Iova) -> Result<(), Broken> {
        if !self.msi.set(to.0, DATA) {
            return Err(Broken("its interrupt has no 64-bit address"));
        }
        fence(Ordering::SeqCst); // what the CPU wrote comes before the device writes
        (self.ring)();
        fence(Ordering::SeqCst);
        Ok(())
    }

    fn address_bits(&self) -> u32 {
        self.msi.address_bits()
    }
}

impl<C: PciConfig, F: FnMut()> Drop for Doorbell<C, F> {
    fn drop(&mut self) {
        let [control, values @ ..] = self.saved;
        self.msi.write(CONTROL, control & !CONTROL_ENABLE);
        let end = self.msi.data() + 2;
        for (value, offset) in values.into_iter().zip((ADDRESS..end).step_by(2)) {
            self.msi.write(offset, value);
        }
        self.msi.write(CONTROL, control);
    }
}

impl<C: PciConfig, F: FnMut()> fmt::Debug for Doorbell<C, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorbell").field("at", &self.msi.at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use core::cell::RefCell;
    use std::string::ToString;

    use super::*;

    /// Configuration space of one function, without registers behind it.
    struct Space(RefCell<[u8; 256]>);

    impl Space {
        /// With a capability of another kind at 0x40, and MSI at 0x50.
        fn new(control: u16) -> Self {
            let mut bytes = [0; 256];
            bytes[6] = 1 << 4;
            bytes[0x34] = 0x40;
            bytes[0x40..0x42].copy_from_slice(&[0x10, 0x50]);
            bytes[0x50..0x52].copy_from_slice(&[MSI, 0]);
            bytes[0x52..0x54].copy_from_slice(&control.to_le_bytes());
            Self(RefCell::new(bytes))
        }

        fn change(self, at: usize, value: u8) -> Self {
            self.0.borrow_mut()[at] = value;
            self
        }
    }

    impl PciConfig for Space {
        fn read_u8(&self, offset: u16) -> u8 {
            self.0.borrow()[usize::from(offset)]
        }

        fn read_u16(&self, offset: u16) -> u16 {
            u16::from_le_bytes([self.read_u8(offset), self.read_u8(offset + 1)])
        }

        fn read_u32(&self, offset: u16) -> u32 {
            u32::from(self.read_u16(offset)) | u32::from(self.read_u16(offset + 2)) << 16
        }

        fn write_u16(&self, offset: u16, value: u16) {
            let at = usize::from(offset);
            self.0.borrow_mut()[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
    }

    #[test]
    fn the_message_is_written_where_the_capability_has_it() {
        let wide = Space::new(0x80);
        let msi = Msi::find(&wide).unwrap();
        assert_eq!(msi.address_bits(), 64);
        assert!(msi.set(0x1234_5678_9abc_def0, 0x5aa5));
        assert_eq!((wide.read_u32(0x54), wide.read_u32(0x58)), (0x9abc_def0, 0x1234_5678));
        assert_eq!((wide.read_u16(0x5c), wide.read_u16(0x52)), (0x5aa5, 0x81));

        let narrow = Space::new(0);
        let msi = Msi::find(&narrow).unwrap();
        assert_eq!(msi.address_bits(), 32);
        assert!(!msi.set(1 << 32, 1));
        assert_eq!(narrow.read_u16(0x52), 0, "nothing was changed");
        assert!(msi.set(0xffff_fff0, 7));
        assert_eq!((narrow.read_u32(0x54), narrow.read_u16(0x58)), (0xffff_fff0, 7));
    }

    #[test]
    fn no_capability_and_lists_without_an_end_are_none() {
        assert!(Msi::find(Space::new(0).change(6, 0)).is_none(), "no list");
        assert!(Msi::find(Space::new(0).change(0x41, 0)).is_none(), "it ends before");
        assert!(Msi::find(Space::new(0).change(0x41, 0x40)).is_none(), "a loop");
        assert!(Msi::find(Space::new(0).change(0x41, 0x20)).is_none(), "into the header");
        let error = Doorbell::new(Space::new(0).change(6, 0), || ()).err().unwrap();
        assert!(error.to_string().contains("no message-signalled interrupt"));
    }

    #[test]
    fn a_doorbell_leaves_the_capability_as_it_was() {
        let space = Space::new(0x80);
        assert!(Msi::find(&space).unwrap().set(0xfee0_0000, 0x31));
        let before = *space.0.borrow();
        let mut rung = 0;
        let mut doorbell = Doorbell::new(&space, || rung += 1).unwrap();
        assert_eq!(doorbell.write(Iova(0x10_0000)), Ok(()));
        assert_eq!((space.read_u32(0x54), doorbell.address_bits()), (0x10_0000, 64));
        drop(doorbell);
        assert_eq!((*space.0.borrow(), rung), (before, 1));
        let narrow = Space::new(0);
        let mut doorbell = Doorbell::new(&narrow, || ()).unwrap();
        assert!(doorbell.write(Iova(1 << 32)).is_err());
    }
}
