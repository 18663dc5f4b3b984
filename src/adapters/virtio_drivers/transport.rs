//! A transport that accepts `VIRTIO_F_ACCESS_PLATFORM`. No lock.

use ::virtio_drivers::device::common::Feature;
use ::virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use ::virtio_drivers::{PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// `VIRTIO_F_ACCESS_PLATFORM`.
const ACCESS_PLATFORM: u64 = Feature::ACCESS_PLATFORM.bits();

/// `T`, for a device that goes through the IOMMU. See the [module](super).
///
/// Drivers accept the features that they know. This adds the one that makes the device use the
/// platform's translation (virtio 1.2 §6.1: a driver that has one must accept it). A device that then
/// does not confirm its features is never started; it is told `FAILED`.
#[derive(Debug)]
pub struct Translated<T: Transport> {
    inner: T,
}

/// The device does not offer `VIRTIO_F_ACCESS_PLATFORM`: it reaches memory past any IOMMU. For QEMU's
/// devices: `iommu_platform=on,disable-legacy=on`.
#[derive(Debug)]
pub struct NotTranslated<T>(pub T);

impl<T: Transport> Translated<T> {
    /// Looks whether the device offers it. Call it before a driver takes the transport.
    ///
    /// # Errors
    ///
    /// [`NotTranslated`], with the transport; the device is as it was.
    pub fn new(mut inner: T) -> core::result::Result<Self, NotTranslated<T>> {
        match inner.read_device_features() & ACCESS_PLATFORM {
            0 => Err(NotTranslated(inner)),
            _ => Ok(Self { inner }),
        }
    }
}

impl<T: Transport> Transport for Translated<T> {
    fn write_driver_features(&mut self, driver_features: u64) {
        self.inner.write_driver_features(driver_features | ACCESS_PLATFORM);
    }

    fn set_status(&mut self, status: DeviceStatus) {
        let confirmed = || self.inner.get_status().contains(DeviceStatus::FEATURES_OK);
        if status.contains(DeviceStatus::DRIVER_OK) && !confirmed() {
            self.inner.set_status(DeviceStatus::FAILED);
        } else {
            self.inner.set_status(status);
        }
    }

    fn device_type(&self) -> DeviceType {
        self.inner.device_type()
    }

    fn read_device_features(&mut self) -> u64 {
        self.inner.read_device_features()
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.inner.max_queue_size(queue)
    }

    fn notify(&mut self, queue: u16) {
        self.inner.notify(queue);
    }

    fn get_status(&self) -> DeviceStatus {
        self.inner.get_status()
    }

    fn set_guest_page_size(&mut self, guest_page_size: u32) {
        self.inner.set_guest_page_size(guest_page_size);
    }

    fn requires_legacy_layout(&self) -> bool {
        self.inner.requires_legacy_layout()
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        self.inner.queue_set(queue, size, descriptors, driver_area, device_area);
    }

    fn queue_unset(&mut self, queue: u16) {
        self.inner.queue_unset(queue);
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.inner.queue_used(queue)
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.inner.ack_interrupt()
    }

    fn read_config_generation(&self) -> u32 {
        self.inner.read_config_generation()
    }

    fn read_config_space<V: FromBytes + IntoBytes>(&self, offset: usize) -> Result<V> {
        self.inner.read_config_space(offset)
    }

    fn write_config_space<V: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: V,
    ) -> Result<()> {
        self.inner.write_config_space(offset, value)
    }
}
