//! Why a virtio-iommu could not be taken into use. No lock.

use core::fmt;

use super::config::ConfigField;
use crate::error::{OutOfMemory, errno};
use crate::platform::PlatformError;
use crate::virtio::transport::TransportError;

/// Why an instance could not be started. Nothing of it stays in use; its memory went back, or was
/// leaked with a warning if the device did not confirm its reset.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum InitError {
    /// The transport found no usable device. Its errno.
    Transport(TransportError),
    /// A legacy device: virtio-mmio version 1, or no `VIRTIO_F_VERSION_1`. `EOPNOTSUPP`.
    Legacy,
    /// A virtio device, but no IOMMU. `ENODEV`.
    NotAnIommu {
        /// What it is (virtio 1.2 §5).
        device_id: u32,
    },
    /// The device does not offer `VIRTIO_F_VERSION_1`. `EOPNOTSUPP`.
    NoVersion1,
    /// The device does not offer `VIRTIO_IOMMU_F_MAP_UNMAP`. `EOPNOTSUPP`.
    NoMapUnmap,
    /// The device does not take the features that we accept. `EOPNOTSUPP`.
    ///
    /// A device may insist on `VIRTIO_F_ACCESS_PLATFORM`; see
    /// [`Options::own_dma_is_identity`](super::Options::own_dma_is_identity).
    FeaturesRefused,
    /// A field of the configuration makes no sense. `EINVAL`.
    BadConfig(ConfigField),
    /// The smallest mapping is larger than a page of the system (rule C-276). `ENODEV`.
    GranuleTooLarge {
        /// The smallest mapping, in bytes.
        granule: u64,
    },
    /// The device did not answer the first requests, or not by the rules of the ring. `EIO`.
    NoAnswer,
    /// The device let unattached endpoints reach memory after it was told not to. `EIO`.
    BypassStuck,
    /// The device did not confirm the reset in time. `EIO`.
    NoReset,
    /// The device gave up during start-up. `EIO`.
    NeedsReset,
    /// The platform breaks its contract; the device was reset at most. `EINVAL`.
    Platform(PlatformError),
    /// There is no memory for the queues. `ENOMEM`.
    OutOfMemory,
}

impl InitError {
    /// The stable errno of this variant (a positive number).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::Transport(error) => error.errno(),
            Self::Legacy | Self::NoVersion1 | Self::NoMapUnmap | Self::FeaturesRefused => {
                errno::EOPNOTSUPP
            }
            Self::NotAnIommu { .. } | Self::GranuleTooLarge { .. } => errno::ENODEV,
            Self::BadConfig(_) => errno::EINVAL,
            Self::Platform(error) => error.errno(),
            Self::BypassStuck | Self::NoReset | Self::NeedsReset | Self::NoAnswer => errno::EIO,
            Self::OutOfMemory => errno::ENOMEM,
        }
    }
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(error) => error.fmt(f),
            Self::Legacy => TransportError::Legacy.fmt(f),
            Self::NotAnIommu { device_id } => {
                write!(f, "virtio device {device_id} is not an IOMMU (23): look at the next one")
            }
            Self::NoVersion1 => f.write_str("the device does not offer VERSION_1: only modern devices work"),
            Self::NoMapUnmap => f.write_str("the device does not offer MAP_UNMAP: nothing can be mapped"),
            Self::FeaturesRefused => f.write_str("the device refused the features: it may insist on ACCESS_PLATFORM, see `Options::own_dma_is_identity`"),
            Self::BadConfig(field) => write!(f, "the configuration makes no sense: {field:?}"),
            Self::GranuleTooLarge { granule } => {
                write!(f, "the IOMMU maps no less than {granule:#x} bytes, more than `Platform::page_size`: give the system larger pages, or the IOMMU a smaller granule")
            }
            Self::BypassStuck => f.write_str("the device does not leave bypass: it can't block anything"),
            Self::NoReset => f.write_str("the device did not confirm its reset in `Options::wait_limit_ns`: are these its registers?"),
            Self::NeedsReset => f.write_str("the device gave up during start-up: is `DmaPages::device` where it finds the queues?"),
            Self::NoAnswer => f.write_str("the device did not answer the first requests: is its bus mastering on, and `DmaPages::device` where it finds the queues?"),
            Self::Platform(error) => error.fmt(f),
            Self::OutOfMemory => PlatformError::OutOfMemory.fmt(f),
        }
    }
}

impl core::error::Error for InitError {}

impl From<TransportError> for InitError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Legacy => Self::Legacy,
            other => Self::Transport(other),
        }
    }
}

impl From<PlatformError> for InitError {
    fn from(error: PlatformError) -> Self {
        match error {
            PlatformError::OutOfMemory => Self::OutOfMemory,
            other => Self::Platform(other),
        }
    }
}

impl From<OutOfMemory> for InitError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}
