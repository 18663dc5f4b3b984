//! virtio-mmio, version 2. virtio 1.2 §4.2.
//!
//! Names of registers are those of the specification. No lock, see the trait.

use super::{InterruptStatus, MmioRegion, QueueSetup, Transport, TransportError};
use crate::virtio::DeviceStatus;

const MAGIC_VALUE: usize = 0x000;
const VERSION: usize = 0x004;
const DEVICE_ID: usize = 0x008;
const DEVICE_FEATURES: usize = 0x010;
const DEVICE_FEATURES_SEL: usize = 0x014;
const DRIVER_FEATURES: usize = 0x020;
const DRIVER_FEATURES_SEL: usize = 0x024;
const QUEUE_SEL: usize = 0x030;
const QUEUE_NUM_MAX: usize = 0x034;
const QUEUE_NUM: usize = 0x038;
const QUEUE_READY: usize = 0x044;
const QUEUE_NOTIFY: usize = 0x050;
const INTERRUPT_STATUS: usize = 0x060;
const INTERRUPT_ACK: usize = 0x064;
const STATUS: usize = 0x070;
const QUEUE_DESC: usize = 0x080;
const QUEUE_DRIVER: usize = 0x090;
const QUEUE_DEVICE: usize = 0x0a0;
const CONFIG_GENERATION: usize = 0x0fc;
const CONFIG: usize = 0x100;

/// "virt", little endian.
const MAGIC: u32 = 0x7472_6976;

/// A device behind virtio-mmio registers.
#[derive(Debug)]
pub struct MmioTransport {
    registers: MmioRegion,
    device_id: u32,
}

impl MmioTransport {
    /// Looks at `registers` and takes the device behind them. Writes nothing.
    ///
    /// # Errors
    ///
    /// `NotVirtio`, `Legacy`, `UnknownVersion`, `NoDevice`: what the registers say. `TooSmall`: the
    /// region ends before the configuration space.
    pub fn new(registers: MmioRegion) -> Result<Self, TransportError> {
        if registers.len() < CONFIG {
            return Err(TransportError::TooSmall);
        }
        if registers.read_u32(MAGIC_VALUE) != MAGIC {
            return Err(TransportError::NotVirtio);
        }
        match registers.read_u32(VERSION) {
            1 => return Err(TransportError::Legacy),
            2 => {}
            version => return Err(TransportError::UnknownVersion(version)),
        }
        match registers.read_u32(DEVICE_ID) {
            0 => Err(TransportError::NoDevice),
            device_id => Ok(Self { registers, device_id }),
        }
    }
}

impl Transport for MmioTransport {
    fn device_id(&self) -> u32 {
        self.device_id
    }

    fn status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_retain(self.registers.read_u32(STATUS) as u8)
    }

    fn set_status(&self, status: DeviceStatus) {
        self.registers.write_u32(STATUS, status.bits().into());
    }

    fn device_features(&mut self) -> u64 {
        self.registers.write_u32(DEVICE_FEATURES_SEL, 0);
        let low = self.registers.read_u32(DEVICE_FEATURES);
        self.registers.write_u32(DEVICE_FEATURES_SEL, 1);
        let high = self.registers.read_u32(DEVICE_FEATURES);
        u64::from(high) << 32 | u64::from(low)
    }

    fn set_driver_features(&mut self, features: u64) {
        self.registers.write_u32(DRIVER_FEATURES_SEL, 0);
        self.registers.write_u32(DRIVER_FEATURES, features as u32);
        self.registers.write_u32(DRIVER_FEATURES_SEL, 1);
        self.registers.write_u32(DRIVER_FEATURES, (features >> 32) as u32);
    }

    fn queue_max(&mut self, queue: u16) -> u16 {
        self.registers.write_u32(QUEUE_SEL, queue.into());
        u16::try_from(self.registers.read_u32(QUEUE_NUM_MAX)).unwrap_or(u16::MAX)
    }

    fn enable_queue(&mut self, queue: u16, setup: &QueueSetup) -> Result<(), TransportError> {
        if setup.size > self.queue_max(queue) || self.registers.read_u32(QUEUE_READY) != 0 {
            return Err(TransportError::NoQueue(queue));
        }
        self.registers.write_u32(QUEUE_NUM, setup.size.into());
        self.registers.write_u64(QUEUE_DESC, setup.descriptors.0);
        self.registers.write_u64(QUEUE_DRIVER, setup.available.0);
        self.registers.write_u64(QUEUE_DEVICE, setup.used.0);
        self.registers.write_u32(QUEUE_READY, 1);
        Ok(())
    }

    fn notify(&self, queue: u16) {
        self.registers.write_u32(QUEUE_NOTIFY, queue.into());
    }

    fn config_generation(&self) -> u32 {
        self.registers.read_u32(CONFIG_GENERATION)
    }

    fn config_read_u8(&self, offset: u16) -> u8 {
        self.registers.read_u8(CONFIG + usize::from(offset))
    }

    fn config_read_u32(&self, offset: u16) -> u32 {
        self.registers.read_u32(CONFIG + usize::from(offset))
    }

    fn config_write_u8(&self, offset: u16, value: u8) {
        self.registers.write_u8(CONFIG + usize::from(offset), value);
    }

    fn take_interrupt(&self) -> InterruptStatus {
        let pending = self.registers.read_u32(INTERRUPT_STATUS);
        self.registers.write_u32(INTERRUPT_ACK, pending);
        InterruptStatus::from_bits_truncate(pending as u8)
    }
}
