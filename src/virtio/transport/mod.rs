//! How the registers of a virtio device are reached: the trait, and its two transports.
//!
//! | module | transport |
//! |---|---|
//! | [`mmio`] | virtio-mmio version 2 (virtio 1.2 §4.2) |
//! | [`pci`] | virtio over PCI, modern (virtio 1.2 §4.1) |
//! | `fake` | a model of a virtio-iommu in memory, for tests; feature `sim` |
//!
//! No lock: what takes `&mut self` is for start-up; what takes `&self` is one register access, so
//! two threads can't disturb each other.

#[cfg(any(test, feature = "sim"))]
pub mod fake;
pub mod mmio;
pub mod pci;
mod region;

use core::fmt;

use bitflags::bitflags;

pub use region::MmioRegion;
#[cfg(test)]
use region::plain_registers;

use super::DeviceStatus;
use crate::addr::PhysAddr;
use crate::error::errno;

/// How many queues a transport keeps notify addresses for. A virtio-iommu has two.
pub const MAX_QUEUES: usize = 4;

/// Where the parts of a queue are, in the addresses that the device uses for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueSetup {
    /// How many descriptors; a power of two, at most [`Transport::queue_max`].
    pub size: u16,
    /// The descriptor table, aligned to 16.
    pub descriptors: PhysAddr,
    /// The available ring, aligned to 2.
    pub available: PhysAddr,
    /// The used ring, aligned to 4.
    pub used: PhysAddr,
}

bitflags! {
    /// What an interrupt of the device was about. virtio 1.2 §4.1.4.5, §4.2.2.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct InterruptStatus: u8 {
        /// A queue has used buffers.
        const QUEUE = 1;
        /// The configuration or the status changed.
        const CONFIG = 2;
    }
}

/// The registers of one virtio device.
pub trait Transport: Send + Sync {
    /// The virtio device id (virtio 1.2 §5); 23 is an IOMMU.
    fn device_id(&self) -> u32;

    /// Reads the device status.
    fn status(&self) -> DeviceStatus;

    /// Writes the device status; empty resets the device.
    fn set_status(&self, status: DeviceStatus);

    /// The 64 lowest feature bits that the device offers.
    fn device_features(&mut self) -> u64;

    /// Accepts these feature bits.
    fn set_driver_features(&mut self, features: u64);

    /// The largest size of `queue`; 0 if there is no such queue.
    fn queue_max(&mut self, queue: u16) -> u16;

    /// Tells the device where `queue` is, and enables it.
    ///
    /// # Errors
    ///
    /// `NoQueue`: the device has no such queue, or not of this size, or it is enabled already.
    /// `OutsideBar`: its notify register is not inside the region.
    fn enable_queue(&mut self, queue: u16, setup: &QueueSetup) -> Result<(), TransportError>;

    /// Tells the device that `queue` has new buffers. One register write.
    fn notify(&self, queue: u16);

    /// A number that changes when the device changes its configuration.
    fn config_generation(&self) -> u32;

    /// Reads a byte of the configuration space.
    fn config_read_u8(&self, offset: u16) -> u8;

    /// Reads an aligned `u32` of the configuration space.
    fn config_read_u32(&self, offset: u16) -> u32;

    /// Writes a byte of the configuration space.
    fn config_write_u8(&self, offset: u16, value: u8);

    /// Reads what the interrupt was about and lowers its line. Safe in an interrupt handler.
    fn take_interrupt(&self) -> InterruptStatus;
}

const _: Option<&dyn Transport> = None; // the trait stays object safe

/// Why a transport could not be used.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum TransportError {
    /// There is no virtio device: wrong magic number, vendor or device id. `ENODEV`.
    NotVirtio,
    /// A device of virtio 0.9, or a PCI device in transitional numbering. `EOPNOTSUPP`.
    ///
    /// QEMU's virtio-mmio is version 1 unless it is started with `virtio-mmio.force-legacy=false`.
    Legacy,
    /// A virtio-mmio version that isn't known. `EOPNOTSUPP`.
    UnknownVersion(u32),
    /// The slot is there, but no device is behind it (virtio-mmio device id 0). `ENODEV`.
    NoDevice,
    /// A capability that a virtio PCI device must have is missing: its `cfg_type`. `ENODEV`.
    NoCapability(u8),
    /// The list of PCI capabilities never ends, or leaves the configuration space. `EIO`.
    BadCapabilities,
    /// A capability points outside this BAR, or the BAR was not mapped. `EIO`.
    OutsideBar(u8),
    /// The region is too small for the registers. `EINVAL`.
    TooSmall,
    /// The device has no such queue, or refuses its set-up. `EIO`.
    NoQueue(u16),
}

impl TransportError {
    /// The stable errno of this variant (a positive number).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::NotVirtio | Self::NoDevice | Self::NoCapability(_) => errno::ENODEV,
            Self::Legacy | Self::UnknownVersion(_) => errno::EOPNOTSUPP,
            Self::TooSmall => errno::EINVAL,
            Self::BadCapabilities | Self::OutsideBar(_) | Self::NoQueue(_) => errno::EIO,
        }
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotVirtio => f.write_str("not a virtio device"),
            Self::Legacy => f.write_str("a legacy virtio device, only version 1.0 and later work"),
            Self::UnknownVersion(version) => write!(f, "unknown virtio-mmio version {version}"),
            Self::NoDevice => f.write_str("no device behind the virtio-mmio slot"),
            Self::NoCapability(kind) => write!(f, "virtio PCI capability {kind} is missing"),
            Self::BadCapabilities => f.write_str("the list of PCI capabilities is broken"),
            Self::OutsideBar(bar) => write!(f, "a virtio region is outside BAR {bar}"),
            Self::TooSmall => f.write_str("the register region is too small"),
            Self::NoQueue(queue) => write!(f, "the device has no usable queue {queue}"),
        }
    }
}

impl core::error::Error for TransportError {}
