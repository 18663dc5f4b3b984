//! A device: who it is for the host, and by which endpoint ids its instance knows it.

use core::fmt;

use crate::driver::EndpointId;
use crate::list::Link;
use crate::pool::PoolVec;
use crate::reserved::{ReservedKind, ReservedRegions};

/// The host's own name for a device, unique in a registry: for PCI, say, segment and address.
///
/// The crate compares it and gives it back; it means nothing here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DeviceId(pub u64);

/// A member of a group. Immutable after it was probed.
pub struct Device {
    pub(crate) link: Link,
    /// Its place on the list of the domain that it translates through.
    pub(crate) on_domain: Link,
    id: DeviceId,
    endpoints: PoolVec<EndpointId>,
    reserved: ReservedRegions,
}

impl Device {
    pub(crate) fn new(
        id: DeviceId,
        endpoints: PoolVec<EndpointId>,
        reserved: ReservedRegions,
    ) -> Self {
        Self { link: Link::new(), on_domain: Link::new(), id, endpoints, reserved }
    }

    /// The host's name for the device.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// Every endpoint id that the device can emit (rule C-031). Several devices of one group may
    /// share an id: behind a conventional bridge they all carry the bridge's.
    #[must_use]
    pub fn endpoints(&self) -> &[EndpointId] {
        &self.endpoints
    }

    /// Whether the device has a region of this kind.
    pub(crate) fn reserves(&self, kind: ReservedKind) -> bool {
        self.reserved.as_slice().iter().any(|region| region.kind == kind)
    }

    /// The reserved regions of the device, as probed.
    #[must_use]
    pub fn reserved(&self) -> &ReservedRegions {
        &self.reserved
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("id", &self.id)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}
