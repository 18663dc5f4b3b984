//! `Translated`: the feature that sends a device through the IOMMU.

use std::cell::RefCell;
use std::rc::Rc;

use iommu::adapters::virtio_drivers::Translated;
use virtio_drivers::device::common::Feature;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const ACCESS_PLATFORM: u64 = 1 << 33;

/// What a device was told.
#[derive(Default)]
struct Told {
    features: u64,
    status: DeviceStatus,
    notified: Vec<u16>,
    queue: Option<(u16, u32, [PhysAddr; 3])>,
}

/// A device with registers alone.
struct Fake {
    offered: u64,
    /// Whether it confirms what it was told of features.
    confirms: bool,
    told: Rc<RefCell<Told>>,
}

impl Transport for Fake {
    fn device_type(&self) -> DeviceType {
        DeviceType::EntropySource
    }
    fn read_device_features(&mut self) -> u64 {
        self.offered
    }
    fn write_driver_features(&mut self, features: u64) {
        self.told.borrow_mut().features = features;
    }
    fn max_queue_size(&mut self, queue: u16) -> u32 {
        100 + u32::from(queue)
    }
    fn notify(&mut self, queue: u16) {
        self.told.borrow_mut().notified.push(queue);
    }
    fn get_status(&self) -> DeviceStatus {
        let status = self.told.borrow().status;
        if self.confirms { status } else { status - DeviceStatus::FEATURES_OK }
    }
    fn set_status(&mut self, status: DeviceStatus) {
        self.told.borrow_mut().status = status;
    }
    fn set_guest_page_size(&mut self, _: u32) {}
    fn requires_legacy_layout(&self) -> bool {
        false
    }
    fn queue_set(&mut self, queue: u16, size: u32, a: PhysAddr, b: PhysAddr, c: PhysAddr) {
        self.told.borrow_mut().queue = Some((queue, size, [a, b, c]));
    }
    fn queue_unset(&mut self, _: u16) {
        self.told.borrow_mut().queue = None;
    }
    fn queue_used(&mut self, _: u16) -> bool {
        self.told.borrow().queue.is_some()
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::QUEUE_INTERRUPT
    }
    fn read_config_generation(&self) -> u32 {
        3
    }
    fn read_config_space<T: FromBytes + IntoBytes>(&self, _: usize) -> Result<T> {
        Err(Error::ConfigSpaceMissing)
    }
    fn write_config_space<T: IntoBytes + Immutable>(&mut self, _: usize, _: T) -> Result<()> {
        Err(Error::ConfigSpaceTooSmall)
    }
}

fn fake(offered: u64, confirms: bool) -> (Fake, Rc<RefCell<Told>>) {
    let told = Rc::new(RefCell::new(Told::default()));
    (Fake { offered, confirms, told: told.clone() }, told)
}

/// A driver that does not know of it has it accepted, and sees what it asked for.
#[test]
fn the_feature_is_accepted_for_the_driver() {
    let (fake, told) = fake(ACCESS_PLATFORM | Feature::VERSION_1.bits() | 1, true);
    let mut transport = Translated::new(fake).ok().expect("it is offered");
    assert_eq!(transport.begin_init(Feature::VERSION_1), Feature::VERSION_1);
    assert_eq!(told.borrow().features, ACCESS_PLATFORM | Feature::VERSION_1.bits());
    transport.finish_init();
    assert!(told.borrow().status.contains(DeviceStatus::DRIVER_OK));
}

/// A device that goes past the IOMMU is not driven.
#[test]
fn a_device_that_does_not_offer_it_is_refused() {
    let (fake, told) = fake(Feature::VERSION_1.bits(), true);
    let refused = Translated::new(fake).err().expect("it is not offered");
    assert_eq!(refused.0.offered, Feature::VERSION_1.bits(), "the transport comes back");
    assert_eq!((told.borrow().features, told.borrow().status), (0, DeviceStatus::empty()));
}

/// A device that does not confirm its features is told so, and not started.
#[test]
fn a_device_that_does_not_confirm_is_not_started() {
    let (fake, told) = fake(ACCESS_PLATFORM | Feature::VERSION_1.bits(), false);
    let mut transport = Translated::new(fake).ok().expect("it is offered");
    transport.begin_init(Feature::VERSION_1);
    transport.finish_init();
    assert_eq!(told.borrow().status, DeviceStatus::FAILED);
}

/// All else goes to the device as it is.
#[test]
fn all_else_is_passed_on() {
    let (fake, told) = fake(ACCESS_PLATFORM, true);
    let mut transport = Translated::new(fake).ok().expect("it is offered");
    assert_eq!(transport.device_type(), DeviceType::EntropySource);
    assert_eq!(transport.max_queue_size(2), 102);
    transport.notify(1);
    transport.queue_set(1, 8, 0x1000, 0x2000, 0x3000);
    assert_eq!(told.borrow().queue, Some((1, 8, [0x1000, 0x2000, 0x3000])));
    assert_eq!(told.borrow().notified, [1]);
    assert!(transport.queue_used(1) && !transport.requires_legacy_layout());
    transport.queue_unset(1);
    assert!(!transport.queue_used(1));
    transport.set_guest_page_size(4096);
    assert!(transport.ack_interrupt() == InterruptStatus::QUEUE_INTERRUPT);
    assert_eq!(transport.read_config_generation(), 3);
    assert_eq!(transport.read_config_space::<u32>(0), Err(Error::ConfigSpaceMissing));
    assert_eq!(transport.write_config_space(0, 1_u32), Err(Error::ConfigSpaceTooSmall));
    assert_eq!(transport.get_status(), DeviceStatus::empty());
}
