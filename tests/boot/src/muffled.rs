//! A transport between the driver and the unit that can be told to swallow what is to wake the
//! unit up: the one way to see, with a unit that keeps its word, how one is given up that does not.

use core::sync::atomic::{AtomicBool, Ordering};

use iommu::virtio::DeviceStatus;
use iommu::virtio::transport::{InterruptStatus, QueueSetup, Transport, TransportError};

use crate::machine::PLATFORM;

/// Longer than any driver of ours waits, in nanoseconds.
const LONG: u64 = 60_000_000_000;

/// Whether a unit can be heard.
pub type Muffler = AtomicBool;

/// A transport whose notifies are swallowed while its muffler says so. Whenever the driver looks
/// whether the unit still runs, the clock is far ahead, so that nobody has to wait for the end.
pub struct Muffled<T> {
    inner: T,
    muffler: &'static Muffler,
}

impl<T> Muffled<T> {
    /// Wraps a transport.
    pub fn new(inner: T, muffler: &'static Muffler) -> Self {
        Self { inner, muffler }
    }
}

impl<T: Transport> Transport for Muffled<T> {
    fn notify(&self, queue: u16) {
        if !self.muffler.load(Ordering::Relaxed) {
            self.inner.notify(queue);
        }
    }

    fn device_id(&self) -> u32 {
        self.inner.device_id()
    }

    fn status(&self) -> DeviceStatus {
        let status = self.inner.status();
        if self.muffler.load(Ordering::Relaxed) && !status.is_empty() {
            PLATFORM.pass(LONG);
        }
        status
    }

    fn set_status(&self, status: DeviceStatus) {
        self.inner.set_status(status);
    }

    fn device_features(&mut self) -> u64 {
        self.inner.device_features()
    }

    fn set_driver_features(&mut self, features: u64) {
        self.inner.set_driver_features(features);
    }

    fn queue_max(&mut self, queue: u16) -> u16 {
        self.inner.queue_max(queue)
    }

    fn enable_queue(&mut self, queue: u16, setup: &QueueSetup) -> Result<(), TransportError> {
        self.inner.enable_queue(queue, setup)
    }

    fn config_generation(&self) -> u32 {
        self.inner.config_generation()
    }

    fn config_read_u8(&self, offset: u16) -> u8 {
        self.inner.config_read_u8(offset)
    }

    fn config_read_u32(&self, offset: u16) -> u32 {
        self.inner.config_read_u32(offset)
    }

    fn config_write_u8(&self, offset: u16, value: u8) {
        self.inner.config_write_u8(offset, value);
    }

    fn take_interrupt(&self) -> InterruptStatus {
        self.inner.take_interrupt()
    }
}
