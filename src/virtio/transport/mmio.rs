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

#[cfg(test)]
mod tests {
    use super::super::plain_registers;
    use super::*;
    use crate::addr::PhysAddr;

    fn slot(version: u32, device_id: u32) -> MmioRegion {
        let registers = plain_registers(0x200);
        registers.write_u32(MAGIC_VALUE, MAGIC);
        registers.write_u32(VERSION, version);
        registers.write_u32(DEVICE_ID, device_id);
        registers
    }

    fn error(registers: MmioRegion) -> Option<TransportError> {
        MmioTransport::new(registers).err()
    }

    #[test]
    fn what_is_no_modern_device_is_refused_by_name() {
        assert_eq!(error(slot(1, 23)), Some(TransportError::Legacy));
        assert_eq!(error(slot(3, 23)), Some(TransportError::UnknownVersion(3)));
        assert_eq!(error(slot(2, 0)), Some(TransportError::NoDevice));
        assert_eq!(error(plain_registers(0x200)), Some(TransportError::NotVirtio));
        assert_eq!(error(plain_registers(0xff)), Some(TransportError::TooSmall));
        assert_eq!(MmioTransport::new(slot(2, 23)).map(|found| found.device_id()), Ok(23));
    }

    #[test]
    fn a_queue_is_set_up_in_the_registers_of_the_specification() {
        let registers = slot(2, 23);
        registers.write_u32(QUEUE_NUM_MAX, 256);
        let mut transport = MmioTransport::new(registers).unwrap();
        let setup = QueueSetup {
            size: 256,
            descriptors: PhysAddr(0x1_0000_2000),
            available: PhysAddr(0x1_0000_3000),
            used: PhysAddr(0x1_0000_4000),
        };
        assert_eq!(transport.queue_max(1), 256);
        transport.enable_queue(1, &setup).unwrap();
        // virtio 1.2 §4.2.2: selector, size, three addresses, ready.
        let written = [0x30, 0x38, 0x80, 0x84, 0x90, 0xa0, 0xa4, 0x44];
        let wanted = [1, 256, 0x2000, 1, 0x3000, 0x4000, 1, 1];
        assert_eq!(written.map(|offset| registers.read_u32(offset)), wanted);
        assert_eq!(transport.enable_queue(1, &setup), Err(TransportError::NoQueue(1)), "in use");
        let large = QueueSetup { size: 512, ..setup };
        registers.write_u32(QUEUE_READY, 0);
        assert_eq!(transport.enable_queue(0, &large), Err(TransportError::NoQueue(0)));
        transport.notify(1);
        assert_eq!(registers.read_u32(0x50), 1);
    }

    #[test]
    fn an_interrupt_is_acknowledged_as_it_was_read() {
        let registers = slot(2, 23);
        let transport = MmioTransport::new(registers).unwrap();
        for (bits, told) in [
            (0, InterruptStatus::empty()),
            (1, InterruptStatus::QUEUE),
            (2, InterruptStatus::CONFIG),
            (3, InterruptStatus::all()),
            (0xfffc, InterruptStatus::empty()),
        ] {
            registers.write_u32(INTERRUPT_STATUS, bits);
            assert_eq!(transport.take_interrupt(), told);
            assert_eq!(registers.read_u32(INTERRUPT_ACK), bits, "all that was read");
        }
    }

    #[test]
    fn fields_of_the_configuration_start_at_0x100() {
        let registers = slot(2, 23);
        registers.write_u32(0x120, 512);
        let transport = MmioTransport::new(registers).unwrap();
        assert_eq!(transport.config_read_u32(32), 512);
        transport.config_write_u8(36, 9);
        assert_eq!((registers.read_u8(0x124), transport.config_read_u8(36)), (9, 9));
        assert_eq!(transport.config_read_u32(u16::MAX), u32::MAX, "outside");
    }
}
