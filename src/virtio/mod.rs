//! What every virtio device shares: status, feature negotiation, configuration space, reset.
//!
//! Modern devices only (virtio 1.0 and later). Below it: [`transport`] (registers of a device on
//! PCI or MMIO) and [`queue`] (split virtqueue). Nothing here takes a lock; drivers do.

pub(crate) mod dma;
pub mod queue;
pub mod transport;

use bitflags::bitflags;

use crate::platform::Platform;
use transport::Transport;

bitflags! {
    /// The device status field. virtio 1.2 §2.1.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct DeviceStatus: u8 {
        /// The driver has seen the device.
        const ACKNOWLEDGE = 1;
        /// The driver can drive the device.
        const DRIVER = 2;
        /// The driver is ready.
        const DRIVER_OK = 4;
        /// Feature negotiation is over.
        const FEATURES_OK = 8;
        /// The device gave up and needs a reset.
        const DEVICE_NEEDS_RESET = 64;
        /// The driver gave up.
        const FAILED = 128;
    }
}

/// `VIRTIO_F_VERSION_1`: the device follows virtio 1.0 or later. virtio 1.2 §6.
pub const F_VERSION_1: u64 = 1 << 32;

/// `VIRTIO_F_ACCESS_PLATFORM`: the device's own accesses go through whatever the platform puts
/// between a device and memory. virtio 1.2 §6.
pub const F_ACCESS_PLATFORM: u64 = 1 << 33;

/// How often a pair of configuration reads is repeated while the generation changes.
const CONFIG_RETRIES: usize = 64;

/// Proof that the device answered a reset: it reaches no memory of ours, until it is set up anew.
#[derive(Debug)]
pub(crate) struct Quiet(());

/// The device did not confirm a reset in time; it may still reach memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotReset;

/// Why negotiation failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NegotiationError {
    /// A required bit is not offered; these are missing.
    Missing(u64),
    /// The device does not accept our subset.
    Refused,
}

/// The moment at which a wait ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    start_ns: u64,
    limit_ns: u64,
}

impl Deadline {
    /// A wait that starts now.
    pub(crate) fn start<P: Platform>(platform: &P, limit_ns: u64) -> Self {
        Self { start_ns: platform.now_ns(), limit_ns }
    }

    /// How long the wait lasts by now, or `None` when it is over.
    pub(crate) fn elapsed_ns<P: Platform>(&self, platform: &P) -> Option<u64> {
        let elapsed = platform.now_ns().saturating_sub(self.start_ns);
        (elapsed <= self.limit_ns).then_some(elapsed)
    }
}

/// Resets the device and waits until it confirms (virtio 1.2 §2.4; status reads 0 again).
pub(crate) fn reset<P: Platform, T: Transport>(
    platform: &P,
    transport: &T,
    limit_ns: u64,
) -> Result<Quiet, NotReset> {
    transport.set_status(DeviceStatus::empty());
    if transport.status().is_empty() {
        return Ok(Quiet(()));
    }
    let deadline = Deadline::start(platform, limit_ns);
    while deadline.elapsed_ns(platform).is_some() {
        core::hint::spin_loop();
        if transport.status().is_empty() {
            return Ok(Quiet(()));
        }
    }
    Err(NotReset)
}

/// Negotiates features up to and including FEATURES_OK (virtio 1.2 §3.1.1, steps 2 to 6), and
/// returns those in force: what is both offered and `wanted`.
pub(crate) fn negotiate<T: Transport>(
    transport: &mut T,
    wanted: u64,
    required: u64,
) -> Result<u64, NegotiationError> {
    let mut status = DeviceStatus::ACKNOWLEDGE;
    transport.set_status(status);
    status |= DeviceStatus::DRIVER;
    transport.set_status(status);
    let offered = transport.device_features();
    let missing = required & !offered;
    if missing != 0 {
        transport.set_status(status | DeviceStatus::FAILED);
        return Err(NegotiationError::Missing(missing));
    }
    let accepted = offered & (wanted | required);
    transport.set_driver_features(accepted);
    status |= DeviceStatus::FEATURES_OK;
    transport.set_status(status);
    if !transport.status().contains(DeviceStatus::FEATURES_OK) {
        transport.set_status(status | DeviceStatus::FAILED);
        return Err(NegotiationError::Refused);
    }
    Ok(accepted)
}

/// Repeats `read` until the configuration did not change meanwhile (virtio 1.2 §2.5.1), or gives
/// up: a device may count its generation for ever.
pub(crate) fn read_config<T: Transport, V>(transport: &T, read: impl Fn(&T) -> V) -> Option<V> {
    let mut before = transport.config_generation();
    for _ in 0..CONFIG_RETRIES {
        let value = read(transport);
        let after = transport.config_generation();
        if before == after {
            return Some(value);
        }
        before = after;
    }
    None
}

/// Reads a 64-bit field as two halves; only inside [`read_config`] do they belong together.
pub(crate) fn config_u64<T: Transport>(transport: &T, offset: u16) -> u64 {
    let low = transport.config_read_u32(offset);
    let high = transport.config_read_u32(offset.saturating_add(4));
    u64::from(high) << 32 | u64::from(low)
}
