//! virtio over PCI, modern devices. virtio 1.2 §4.1.
//!
//! The capability list is the device's word: the walk is bounded, foreign and empty capabilities
//! are skipped, and every region must lie inside its BAR. No lock, see the trait.

use heapless::Vec;

use super::{InterruptStatus, MAX_QUEUES, MmioRegion, QueueSetup, Transport, TransportError};
use crate::pci::PciConfig;
use crate::virtio::DeviceStatus;

const PCI_VENDOR: u16 = 0x00;
const PCI_DEVICE: u16 = 0x02;
const PCI_COMMAND: u16 = 0x04;
const PCI_STATUS: u16 = 0x06;
const PCI_CAP_PTR: u16 = 0x34;
const PCI_COMMAND_MEMORY: u16 = 1 << 1;
const PCI_COMMAND_MASTER: u16 = 1 << 2;
const PCI_STATUS_CAP_LIST: u16 = 1 << 4;
const PCI_CAP_VENDOR: u8 = 0x09;

const VIRTIO_VENDOR: u16 = 0x1af4;
/// Modern devices: 0x1040 plus the virtio device id.
const VIRTIO_DEVICES: core::ops::RangeInclusive<u16> = 0x1040..=0x107f;
/// Devices in transitional numbering. None of them is an IOMMU.
const TRANSITIONAL_DEVICES: core::ops::RangeInclusive<u16> = 0x1000..=0x103f;

const CAP_COMMON: u8 = 1;
const CAP_NOTIFY: u8 = 2;
const CAP_ISR: u8 = 3;
const CAP_DEVICE: u8 = 4;

/// 192 bytes hold no more capabilities of 4 bytes each; a longer list is a loop.
const MAX_CAPABILITIES: usize = 48;

// struct virtio_pci_common_cfg, virtio 1.2 §4.1.4.3
const DEVICE_FEATURE_SELECT: usize = 0;
const DEVICE_FEATURE: usize = 4;
const DRIVER_FEATURE_SELECT: usize = 8;
const DRIVER_FEATURE: usize = 12;
const DEVICE_STATUS: usize = 20;
const CONFIG_GENERATION: usize = 21;
const QUEUE_SELECT: usize = 22;
const QUEUE_SIZE: usize = 24;
const QUEUE_ENABLE: usize = 28;
const QUEUE_NOTIFY_OFF: usize = 30;
const QUEUE_DESC: usize = 32;
const QUEUE_DRIVER: usize = 40;
const QUEUE_DEVICE: usize = 48;
const COMMON_LEN: usize = 56;

/// The six BARs of a function, those of them that the host mapped.
pub type Bars = [Option<MmioRegion>; 6];

/// A region that a capability describes. virtio 1.2 §4.1.4.
#[derive(Clone, Copy, Debug)]
struct Capability {
    kind: u8,
    bar: u8,
    offset: u32,
    len: u32,
    /// `notify_off_multiplier`; for [`CAP_NOTIFY`] only.
    multiplier: u32,
}

/// A device behind a PCI function.
#[derive(Debug)]
pub struct PciTransport {
    device_id: u32,
    common: MmioRegion,
    notify: MmioRegion,
    multiplier: u32,
    isr: MmioRegion,
    device: MmioRegion,
    /// The notify register of each queue, found once so that a notify is one access.
    doorbells: [Option<MmioRegion>; MAX_QUEUES],
}

impl PciTransport {
    /// The BARs that must be mapped for [`new`](Self::new): bit n for BAR n.
    ///
    /// # Errors
    ///
    /// `NotVirtio`, `Legacy`, `NoCapability`, `BadCapabilities`: what the function says.
    pub fn needed_bars(config: &impl PciConfig) -> Result<u8, TransportError> {
        device_id(config)?;
        let capabilities = capabilities(config)?;
        let mut needed = 0;
        for kind in [CAP_COMMON, CAP_NOTIFY, CAP_ISR, CAP_DEVICE] {
            needed |= 1 << find(&capabilities, kind)?.bar;
        }
        Ok(needed)
    }

    /// Takes the device of a function: turns decoding on, resets the device, turns bus mastering
    /// on, in this order, so that nothing left from an earlier driver reaches memory.
    ///
    /// The reset isn't waited for; the driver resets again with a limit. `bars` are the mapped
    /// BARs, see [`needed_bars`](Self::needed_bars).
    ///
    /// # Errors
    ///
    /// `NotVirtio`, `Legacy`, `NoCapability`, `BadCapabilities`: what the function says.
    /// `OutsideBar`: a region is not inside its BAR, or that BAR isn't in `bars`.
    pub fn new(config: &impl PciConfig, bars: &Bars) -> Result<Self, TransportError> {
        let device_id = device_id(config)?;
        let capabilities = capabilities(config)?;
        let region = |kind, len| {
            let found = find(&capabilities, kind)?;
            let mapped = bars.get(usize::from(found.bar)).copied().flatten();
            let part = mapped.and_then(|bar| bar.part(found.offset as usize, found.len as usize));
            match part {
                Some(part) if part.len() >= len => Ok((part, found.multiplier)),
                _ => Err(TransportError::OutsideBar(found.bar)),
            }
        };
        let (common, _) = region(CAP_COMMON, COMMON_LEN)?;
        let (notify, multiplier) = region(CAP_NOTIFY, 2)?;
        let (isr, _) = region(CAP_ISR, 1)?;
        let (device, _) = region(CAP_DEVICE, 1)?;
        let command = config.read_u16(PCI_COMMAND) | PCI_COMMAND_MEMORY;
        config.write_u16(PCI_COMMAND, command);
        common.write_u8(DEVICE_STATUS, 0);
        config.write_u16(PCI_COMMAND, command | PCI_COMMAND_MASTER);
        let doorbells = [None; MAX_QUEUES];
        Ok(Self { device_id, common, notify, multiplier, isr, device, doorbells })
    }

    fn doorbell(&self) -> Option<MmioRegion> {
        let offset = u32::from(self.common.read_u16(QUEUE_NOTIFY_OFF));
        let offset = offset.checked_mul(self.multiplier)?;
        self.notify.part(usize::try_from(offset).ok()?, 2)
    }
}

impl Transport for PciTransport {
    fn device_id(&self) -> u32 {
        self.device_id
    }

    fn status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_retain(self.common.read_u8(DEVICE_STATUS))
    }

    fn set_status(&self, status: DeviceStatus) {
        self.common.write_u8(DEVICE_STATUS, status.bits());
    }

    fn device_features(&mut self) -> u64 {
        self.common.write_u32(DEVICE_FEATURE_SELECT, 0);
        let low = self.common.read_u32(DEVICE_FEATURE);
        self.common.write_u32(DEVICE_FEATURE_SELECT, 1);
        let high = self.common.read_u32(DEVICE_FEATURE);
        u64::from(high) << 32 | u64::from(low)
    }

    fn set_driver_features(&mut self, features: u64) {
        self.common.write_u32(DRIVER_FEATURE_SELECT, 0);
        self.common.write_u32(DRIVER_FEATURE, features as u32);
        self.common.write_u32(DRIVER_FEATURE_SELECT, 1);
        self.common.write_u32(DRIVER_FEATURE, (features >> 32) as u32);
    }

    fn queue_max(&mut self, queue: u16) -> u16 {
        self.common.write_u16(QUEUE_SELECT, queue);
        self.common.read_u16(QUEUE_SIZE)
    }

    fn enable_queue(&mut self, queue: u16, setup: &QueueSetup) -> Result<(), TransportError> {
        if setup.size > self.queue_max(queue) || self.common.read_u16(QUEUE_ENABLE) != 0 {
            return Err(TransportError::NoQueue(queue));
        }
        let doorbell = self.doorbell().ok_or(TransportError::NoQueue(queue))?;
        let place = self.doorbells.get_mut(usize::from(queue));
        *place.ok_or(TransportError::NoQueue(queue))? = Some(doorbell);
        self.common.write_u16(QUEUE_SIZE, setup.size);
        self.common.write_u64(QUEUE_DESC, setup.descriptors.0);
        self.common.write_u64(QUEUE_DRIVER, setup.available.0);
        self.common.write_u64(QUEUE_DEVICE, setup.used.0);
        self.common.write_u16(QUEUE_ENABLE, 1);
        Ok(())
    }

    fn notify(&self, queue: u16) {
        if let Some(Some(doorbell)) = self.doorbells.get(usize::from(queue)) {
            doorbell.write_u16(0, queue);
        }
    }

    fn config_generation(&self) -> u32 {
        self.common.read_u8(CONFIG_GENERATION).into()
    }

    fn config_read_u8(&self, offset: u16) -> u8 {
        self.device.read_u8(offset.into())
    }

    fn config_read_u32(&self, offset: u16) -> u32 {
        self.device.read_u32(offset.into())
    }

    fn config_write_u8(&self, offset: u16, value: u8) {
        self.device.write_u8(offset.into(), value);
    }

    fn take_interrupt(&self) -> InterruptStatus {
        // Reading clears it and lowers the line (virtio 1.2 §4.1.4.5).
        InterruptStatus::from_bits_truncate(self.isr.read_u8(0))
    }
}

fn device_id(config: &impl PciConfig) -> Result<u32, TransportError> {
    let device = config.read_u16(PCI_DEVICE);
    if config.read_u16(PCI_VENDOR) != VIRTIO_VENDOR {
        return Err(TransportError::NotVirtio);
    }
    if TRANSITIONAL_DEVICES.contains(&device) {
        return Err(TransportError::Legacy);
    }
    if !VIRTIO_DEVICES.contains(&device) {
        return Err(TransportError::NotVirtio);
    }
    Ok(u32::from(device - VIRTIO_DEVICES.start()))
}

/// The first capability of a kind: the one that the device prefers (virtio 1.2 §4.1.4.1).
fn find(all: &[Capability], kind: u8) -> Result<Capability, TransportError> {
    let found = all.iter().find(|one| one.kind == kind);
    found.copied().ok_or(TransportError::NoCapability(kind))
}

fn capabilities(
    config: &impl PciConfig,
) -> Result<Vec<Capability, MAX_CAPABILITIES>, TransportError> {
    let mut found = Vec::new();
    if config.read_u16(PCI_STATUS) & PCI_STATUS_CAP_LIST == 0 {
        return Ok(found);
    }
    let mut next = config.read_u8(PCI_CAP_PTR) & !3;
    for _ in 0..MAX_CAPABILITIES {
        if next == 0 {
            return Ok(found);
        }
        if next < 0x40 {
            return Err(TransportError::BadCapabilities); // inside the header
        }
        let at = u16::from(next);
        if let Some(one) = capability(config, at) {
            found.push(one).map_err(|_| TransportError::BadCapabilities)?;
        }
        next = config.read_u8(at + 1) & !3;
    }
    if next == 0 { Ok(found) } else { Err(TransportError::BadCapabilities) }
}

/// Reads the capability at `at`; `None` if it is foreign, truncated, of no length, or of no BAR.
fn capability(config: &impl PciConfig, at: u16) -> Option<Capability> {
    if config.read_u8(at) != PCI_CAP_VENDOR {
        return None;
    }
    let kind = config.read_u8(at + 3);
    let size = if kind == CAP_NOTIFY { 20 } else { 16 };
    if u16::from(config.read_u8(at + 2)) < size || at + size > 0x100 {
        return None;
    }
    let bar = config.read_u8(at + 4);
    let len = config.read_u32(at + 12);
    if bar > 5 || len == 0 {
        return None; // virtio 1.2 §4.1.4: reserved BAR values are to be ignored
    }
    let multiplier = if kind == CAP_NOTIFY { config.read_u32(at + 16) } else { 0 };
    Some(Capability { kind, bar, offset: config.read_u32(at + 8), len, multiplier })
}

#[cfg(test)]
mod tests {
    use core::cell::RefCell;
    use std::vec::Vec;

    use super::super::plain_registers;
    use super::*;
    use crate::addr::PhysAddr;

    /// 256 bytes of configuration space, and a log of what was written.
    struct Function {
        space: Vec<u8>,
        written: RefCell<Vec<(u16, u16)>>,
    }

    impl PciConfig for Function {
        fn read_u8(&self, offset: u16) -> u8 {
            self.space.get(usize::from(offset)).copied().unwrap_or(0xff)
        }

        fn read_u16(&self, offset: u16) -> u16 {
            u16::from_le_bytes([self.read_u8(offset), self.read_u8(offset + 1)])
        }

        fn read_u32(&self, offset: u16) -> u32 {
            u32::from(self.read_u16(offset + 2)) << 16 | u32::from(self.read_u16(offset))
        }

        fn write_u16(&self, offset: u16, value: u16) {
            self.written.borrow_mut().push((offset, value));
        }
    }

    impl Function {
        /// A function with these ids and no capability.
        fn new(vendor: u16, device: u16) -> Self {
            let mut space = std::vec![0; 256];
            space[0..2].copy_from_slice(&vendor.to_le_bytes());
            space[2..4].copy_from_slice(&device.to_le_bytes());
            space[6] = 0x10; // capability list
            Self { space, written: RefCell::default() }
        }

        /// QEMU's virtio-iommu-pci, as measured: foreign and empty capabilities among the others.
        fn iommu() -> Self {
            let mut function = Self::new(0x1af4, 0x1057);
            function.space[0x34] = 0x98;
            function.capability(0x98, 0x84, 9, 20, 5, 0, 0, 0); // config access: no length
            function.capability(0x84, 0x70, 9, 20, CAP_NOTIFY, 4, 0x3000, 0x1000);
            function.space[0x84 + 16] = 4;
            function.capability(0x70, 0x60, 9, 16, CAP_DEVICE, 4, 0x2000, 0x1000);
            function.capability(0x60, 0x50, 9, 16, CAP_ISR, 4, 0x1000, 0x1000);
            function.capability(0x50, 0x40, 9, 16, CAP_COMMON, 4, 0, 0x1000);
            function.capability(0x40, 0, 0x10, 0, 0, 0, 0, 0); // PCI Express
            function
        }

        #[expect(clippy::too_many_arguments, reason = "the fields of the capability, in order")]
        fn capability(
            &mut self,
            at: usize,
            next: u8,
            id: u8,
            size: u8,
            kind: u8,
            bar: u8,
            offset: u32,
            len: u32,
        ) {
            self.space[at..at + 5].copy_from_slice(&[id, next, size, kind, bar]);
            self.space[at + 8..at + 12].copy_from_slice(&offset.to_le_bytes());
            self.space[at + 12..at + 16].copy_from_slice(&len.to_le_bytes());
        }
    }

    fn bar4() -> (Bars, MmioRegion) {
        let registers = plain_registers(0x4000);
        ([None, None, None, None, Some(registers), None], registers)
    }

    fn error(function: &Function) -> TransportError {
        PciTransport::new(function, &bar4().0).expect_err("this function must be refused")
    }

    #[test]
    fn the_function_of_qemu_is_taken() {
        let (function, (bars, registers)) = (Function::iommu(), bar4());
        registers.write_u8(DEVICE_STATUS, 0xf);
        assert_eq!(PciTransport::needed_bars(&function), Ok(1 << 4));
        let mut transport = PciTransport::new(&function, &bars).unwrap();
        assert_eq!(transport.device_id(), 23);
        assert_eq!(registers.read_u8(DEVICE_STATUS), 0, "reset");
        let command = function.written.take();
        assert_eq!(command, [(4, 2), (4, 6)], "decoding, then, after the reset, bus mastering");

        registers.write_u16(QUEUE_SIZE, 256);
        registers.write_u16(QUEUE_NOTIFY_OFF, 3);
        let setup = QueueSetup {
            size: 128,
            descriptors: PhysAddr(0x1_0000_2000),
            available: PhysAddr(0x3000),
            used: PhysAddr(0x4000),
        };
        transport.enable_queue(1, &setup).unwrap();
        // virtio 1.2 §4.1.4.3, offsets by hand
        assert_eq!((registers.read_u16(22), registers.read_u16(24)), (1, 128));
        let addresses = [32, 36, 40, 48].map(|offset| registers.read_u32(offset));
        assert_eq!(addresses, [0x2000, 1, 0x3000, 0x4000]);
        assert_eq!(registers.read_u16(28), 1);
        registers.write_u16(0x3000 + 3 * 4, 0xffff);
        transport.notify(1);
        assert_eq!(registers.read_u16(0x3000 + 3 * 4), 1, "offset 3 times the multiplier 4");
        transport.notify(0); // never enabled: no register, nothing happens

        registers.write_u8(0x2000 + 36, 1);
        assert_eq!(transport.config_read_u8(36), 1);
        for (bits, told) in [
            (0, InterruptStatus::empty()),
            (1, InterruptStatus::QUEUE),
            (2, InterruptStatus::CONFIG),
            (3, InterruptStatus::all()),
            (0xfc, InterruptStatus::empty()),
        ] {
            registers.write_u8(0x1000, bits);
            assert_eq!(transport.take_interrupt(), told);
        }
    }

    #[test]
    fn other_functions_are_refused_by_name() {
        assert_eq!(error(&Function::new(0x8086, 0x1057)), TransportError::NotVirtio);
        assert_eq!(error(&Function::new(0x1af4, 0x1004)), TransportError::Legacy);
        assert_eq!(error(&Function::new(0x1af4, 0x1110)), TransportError::NotVirtio);
        assert_eq!(error(&Function::new(0x1af4, 0x1057)), TransportError::NoCapability(1));
        assert_eq!(error(&Function::new(0xffff, 0xffff)), TransportError::NotVirtio);
    }

    #[test]
    fn a_list_that_loops_or_leaves_the_space_ends() {
        let mut function = Function::iommu();
        function.space[0x41] = 0x98;
        assert_eq!(error(&function), TransportError::BadCapabilities, "a loop");
        function.space[0x41] = 0x10;
        assert_eq!(error(&function), TransportError::BadCapabilities, "into the header");
        function.space[0x41] = 0xfc; // fits 4 bytes: too short for a virtio capability
        function.space[0xfc..].copy_from_slice(&[9, 0, 16, CAP_COMMON]);
        assert!(PciTransport::new(&function, &bar4().0).is_ok());
    }

    #[test]
    fn a_capability_of_no_length_is_skipped() {
        let mut function = Function::iommu();
        function.space[0x98 + 3] = CAP_COMMON;
        assert!(PciTransport::new(&function, &bar4().0).is_ok());
    }

    #[test]
    fn regions_stay_inside_their_bar() {
        for (at, offset, len) in [
            (0x50, 0x3fff_u32, 0x1000_u32), // reaches over the end
            (0x50, u32::MAX, u32::MAX),
            (0x50, 0, 55), // shorter than the common configuration
            (0x84, 0x4000, 0x1000),
            (0x60, 0x4000, 1),
        ] {
            let mut function = Function::iommu();
            function.space[at + 8..at + 12].copy_from_slice(&offset.to_le_bytes());
            function.space[at + 12..at + 16].copy_from_slice(&len.to_le_bytes());
            assert_eq!(error(&function), TransportError::OutsideBar(4), "{offset:#x} {len:#x}");
            assert_eq!(function.written.take(), [], "nothing was turned on");
        }
        let mut function = Function::iommu();
        function.space[0x50 + 4] = 3;
        assert_eq!(error(&function), TransportError::OutsideBar(3), "not mapped");
        function.space[0x50 + 4] = 6;
        assert_eq!(error(&function), TransportError::NoCapability(CAP_COMMON), "no such BAR");
    }

    #[test]
    fn the_first_capability_of_a_kind_counts() {
        let mut function = Function::iommu();
        function.capability(0x40, 0, 9, 16, CAP_COMMON, 4, 0x3f00, 0xff);
        assert!(PciTransport::new(&function, &bar4().0).is_ok());
        let (bars, registers) = bar4();
        registers.write_u8(0x3f00 + DEVICE_STATUS, 0xf);
        PciTransport::new(&function, &bars).unwrap();
        assert_eq!(registers.read_u8(0x3f00 + DEVICE_STATUS), 0xf, "the later one is not used");
    }

    #[test]
    fn a_notify_register_outside_its_region_refuses_the_queue() {
        let (function, (bars, registers)) = (Function::iommu(), bar4());
        let mut transport = PciTransport::new(&function, &bars).unwrap();
        registers.write_u16(QUEUE_SIZE, 256);
        let at = PhysAddr(0);
        let setup = QueueSetup { size: 2, descriptors: at, available: at, used: at };
        registers.write_u16(QUEUE_NOTIFY_OFF, 0x400);
        assert_eq!(transport.enable_queue(0, &setup), Err(TransportError::NoQueue(0)));
        registers.write_u16(QUEUE_NOTIFY_OFF, 0x3ff);
        transport.enable_queue(0, &setup).unwrap();
    }
}
