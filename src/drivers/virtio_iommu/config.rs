//! The device's description of itself, read once and validated. virtio 1.2 §5.13.4.
//!
//! No lock: nothing changes after start-up. Every field is the device's word (rule 11.8).

use bitflags::bitflags;

use super::InitError;
use crate::addr::{Iova, IovaRange, PageSizes};
use crate::virtio::transport::Transport;
use crate::virtio::{self, config_u64, read_config};

bitflags! {
    /// Feature bits. virtio 1.2 §5.13.3 and §6.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Features: u64 {
        /// `VIRTIO_IOMMU_F_INPUT_RANGE`: the device limits the IOVAs.
        const INPUT_RANGE = 1 << 0;
        /// `VIRTIO_IOMMU_F_DOMAIN_RANGE`: the device limits the domain ids.
        const DOMAIN_RANGE = 1 << 1;
        /// `VIRTIO_IOMMU_F_MAP_UNMAP`: MAP and UNMAP exist.
        const MAP_UNMAP = 1 << 2;
        /// `VIRTIO_IOMMU_F_BYPASS`: unattached endpoints reach all of memory. Never accepted.
        const BYPASS = 1 << 3;
        /// `VIRTIO_IOMMU_F_PROBE`: the device describes endpoints.
        const PROBE = 1 << 4;
        /// `VIRTIO_IOMMU_F_MMIO`: MAP knows device memory.
        const MMIO = 1 << 5;
        /// `VIRTIO_IOMMU_F_BYPASS_CONFIG`: whether unattached endpoints bypass can be chosen.
        const BYPASS_CONFIG = 1 << 6;
        /// `VIRTIO_F_VERSION_1`.
        const VERSION_1 = virtio::F_VERSION_1;
        /// `VIRTIO_F_ACCESS_PLATFORM`.
        const ACCESS_PLATFORM = virtio::F_ACCESS_PLATFORM;
    }
}

/// Where the bypass byte is.
pub(super) const BYPASS_OFFSET: u16 = 36;

/// The most bytes of PROBE properties that we believe (rule 11.6). The usual size is 512.
pub const MAX_PROBE_SIZE: u32 = 64 * 1024;

/// What the device says about itself; checked, and aligned to its granule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// `page_size_mask`.
    pub page_sizes: PageSizes,
    /// `input_range`, cut to whole granules.
    pub input_range: IovaRange,
    /// The lowest id of `domain_range`.
    pub first_domain: u32,
    /// The highest id of `domain_range`, inclusive.
    pub last_domain: u32,
    /// `probe_size`; 0 without PROBE.
    pub probe_size: u32,
}

/// A field of the configuration space that makes no sense.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ConfigField {
    /// The generation never stands still.
    Generation,
    /// `page_size_mask` is 0.
    PageSizeMask,
    /// `input_range` ends before it starts, or holds no whole granule.
    InputRange,
    /// `domain_range` ends before it starts.
    DomainRange,
    /// `probe_size` is above [`MAX_PROBE_SIZE`].
    ProbeSize,
}

/// The fields as read, before anybody believed them.
struct Raw {
    page_size_mask: u64,
    input_start: u64,
    input_end: u64,
    domain_start: u32,
    domain_end: u32,
    probe_size: u32,
}

impl Config {
    /// Reads and validates; a field counts only with its feature in `features`.
    /// The granule may not exceed `page_size`, the system's.
    pub(super) fn read<T: Transport>(
        transport: &T,
        features: Features,
        page_size: u64,
    ) -> Result<Self, InitError> {
        let raw = read_config(transport, |device| Raw {
            page_size_mask: config_u64(device, 0),
            input_start: config_u64(device, 8),
            input_end: config_u64(device, 16),
            domain_start: device.config_read_u32(24),
            domain_end: device.config_read_u32(28),
            probe_size: device.config_read_u32(32),
        });
        let raw = raw.ok_or(InitError::BadConfig(ConfigField::Generation))?;
        raw.validate(features, page_size)
    }
}

impl Raw {
    fn validate(self, features: Features, page_size: u64) -> Result<Config, InitError> {
        let bad = |field| move || InitError::BadConfig(field);
        let mask = PageSizes::from_bits(self.page_size_mask);
        let page_sizes = mask.ok_or_else(bad(ConfigField::PageSizeMask))?;
        let granule = page_sizes.granule();
        if granule > page_size {
            return Err(InitError::GranuleTooLarge { granule }); // rule C-276
        }
        let input_range = if features.contains(Features::INPUT_RANGE) {
            let (start, end) = (Iova(self.input_start), Iova(self.input_end));
            IovaRange::new(start, end).and_then(|range| whole_granules(range, granule))
        } else {
            Some(IovaRange::ALL)
        };
        let input_range = input_range.ok_or_else(bad(ConfigField::InputRange))?;
        let (first_domain, last_domain) = if features.contains(Features::DOMAIN_RANGE) {
            (self.domain_start, self.domain_end)
        } else {
            (0, u32::MAX)
        };
        if first_domain > last_domain {
            return Err(InitError::BadConfig(ConfigField::DomainRange));
        }
        let probe_size = if features.contains(Features::PROBE) { self.probe_size } else { 0 };
        if probe_size > MAX_PROBE_SIZE {
            return Err(InitError::BadConfig(ConfigField::ProbeSize));
        }
        Ok(Config { page_sizes, input_range, first_domain, last_domain, probe_size })
    }
}

/// The whole granules inside `range`, if there are any.
fn whole_granules(range: IovaRange, granule: u64) -> Option<IovaRange> {
    let first = range.first().0.checked_next_multiple_of(granule)?;
    // One past the last whole granule; 0 stands for the end of the space.
    let past = range.last().0.wrapping_add(1) & !(granule - 1);
    if past == 0 && range.last().0 != u64::MAX {
        return None; // it ends inside the lowest granule
    }
    IovaRange::new(Iova(first), Iova(past.wrapping_sub(1)))
}
