//! The test device `edu` (1234:11e8): the smallest thing that does DMA, and the probe that it makes.
//!
//! Two engines. The DMA engine copies up to 4095 bytes between memory and a buffer of its own; it
//! takes 100 ms, so a transfer is started first and awaited later, and several devices can work at
//! the same time. The interrupt is the other one: with message-signalled interrupts on, raising it
//! writes four bytes to the message address at once, through the IOMMU.
//!
//! No lock: a device has one user at a time.

use core::sync::atomic::{Ordering, fence};

use super::msi::Msi;
use super::{Broken, LEN, Probe};
use crate::addr::Iova;
use crate::pci::PciConfig;
use crate::platform::Platform;
use crate::virtio::transport::MmioRegion;

/// PCI vendor and device id.
pub const IDS: (u16, u16) = (0x1234, 0x11e8);

/// The most bytes of one transfer. One more would end at the end of the device's buffer, where
/// QEMU 7.2 aborts.
pub const MAX_TRANSFER: usize = 4095;

const ID: usize = 0x00;
const RAISE: usize = 0x60;
const ACKNOWLEDGE: usize = 0x64;
const SOURCE: usize = 0x80;
const DESTINATION: usize = 0x88;
const COUNT: usize = 0x90;
const COMMAND: usize = 0x98;
const COMMAND_START: u32 = 1;
const COMMAND_TO_MEMORY: u32 = 2;
const EXPECTED_ID: u32 = 0x0100_00ed;
const DEVICE_BUFFER: u64 = 0x4_0000;

/// One device.
#[derive(Clone, Copy, Debug)]
pub struct Edu<C: PciConfig> {
    registers: MmioRegion,
    config: C,
}

/// Which way a transfer goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The device reads memory into its buffer.
    FromMemory,
    /// The device writes its buffer to memory.
    ToMemory,
}

/// Why a transfer did not take place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EduError {
    /// Longer than [`MAX_TRANSFER`], or empty.
    BadLength,
    /// The device did not finish in time.
    TimedOut,
    /// The device has no message-signalled interrupt.
    NoMsi,
}

impl<C: PciConfig> Edu<C> {
    /// Takes the device whose BAR 0 is `registers`; `None` if it is something else.
    #[must_use]
    pub fn new(registers: MmioRegion, config: C) -> Option<Self> {
        (registers.read_u32(ID) == EXPECTED_ID).then_some(Self { registers, config })
    }

    /// Starts a transfer of `len` bytes between the device's buffer and bus address `address`.
    ///
    /// # Errors
    ///
    /// `BadLength`; nothing was started.
    pub fn start(&self, direction: Direction, address: u64, len: usize) -> Result<(), EduError> {
        if len == 0 || len > MAX_TRANSFER {
            return Err(EduError::BadLength);
        }
        let (source, destination, command) = match direction {
            Direction::FromMemory => (address, DEVICE_BUFFER, COMMAND_START),
            Direction::ToMemory => (DEVICE_BUFFER, address, COMMAND_START | COMMAND_TO_MEMORY),
        };
        self.registers.write_u64(SOURCE, source);
        self.registers.write_u64(DESTINATION, destination);
        self.registers.write_u64(COUNT, len as u64);
        fence(Ordering::SeqCst); // what the CPU wrote comes before the device looks
        self.registers.write_u32(COMMAND, command);
        Ok(())
    }

    /// Waits for the transfer to end, as it does also when the IOMMU refused it.
    ///
    /// # Errors
    ///
    /// `TimedOut` when it has not ended at `deadline_ns` of `clock`.
    pub fn finish(&self, clock: impl Fn() -> u64, deadline_ns: u64) -> Result<(), EduError> {
        while self.registers.read_u32(COMMAND) & COMMAND_START != 0 {
            if clock() > deadline_ns {
                return Err(EduError::TimedOut);
            }
            core::hint::spin_loop();
        }
        fence(Ordering::SeqCst); // what the device wrote comes before the CPU looks
        Ok(())
    }

    /// Writes the 32-bit value `data` to bus address `address`, at once, by raising an interrupt.
    ///
    /// # Errors
    ///
    /// `NoMsi`.
    pub fn poke(&self, address: u64, data: u16) -> Result<(), EduError> {
        if !Msi::find(&self.config).is_some_and(|msi| msi.set(address, data)) {
            return Err(EduError::NoMsi);
        }
        self.ring();
        Ok(())
    }

    /// Raises the interrupt once: with message-signalled interrupts on, a write.
    pub fn ring(&self) {
        fence(Ordering::SeqCst); // as in `start` and `finish`
        self.registers.write_u32(RAISE, 1);
        self.registers.write_u32(ACKNOWLEDGE, 1);
        fence(Ordering::SeqCst);
    }
}

/// How long a transfer of the probe may take, in nanoseconds.
const TRANSFER_LIMIT_NS: u64 = 2_000_000_000;

/// The DMA engine of an `edu` as a probe: it writes, and reads.
#[derive(Clone, Copy, Debug)]
pub struct EduProbe<'p, C: PciConfig, P: Platform + ?Sized> {
    edu: Edu<C>,
    platform: &'p P,
    address_bits: u32,
}

impl<'p, C: PciConfig, P: Platform + ?Sized> EduProbe<'p, C, P> {
    /// A probe over `edu`, which has nothing else to do. `platform` is asked for the time alone.
    ///
    /// `address_bits` is what the device emits: 28 as it is made, or what its `dma_mask` says.
    #[must_use]
    pub const fn new(edu: Edu<C>, platform: &'p P, address_bits: u32) -> Self {
        Self { edu, platform, address_bits }
    }

    fn transfer(&self, direction: Direction, at: Iova) -> Result<(), Broken> {
        let broken = |_| Broken("its DMA engine does not finish");
        self.edu.start(direction, at.0, LEN).map_err(broken)?;
        let deadline = self.platform.now_ns().saturating_add(TRANSFER_LIMIT_NS);
        self.edu.finish(|| self.platform.now_ns(), deadline).map_err(broken)
    }
}

impl<C: PciConfig, P: Platform + ?Sized> Probe for EduProbe<'_, C, P> {
    fn write(&mut self, to: Iova) -> Result<(), Broken> {
        self.transfer(Direction::ToMemory, to)
    }

    fn read(&mut self, from: Iova) -> Result<bool, Broken> {
        self.transfer(Direction::FromMemory, from).map(|()| true)
    }

    fn address_bits(&self) -> u32 {
        self.address_bits
    }
}
