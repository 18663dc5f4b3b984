//! What a driver sees of a domain during a call.

use bitflags::bitflags;

use super::DomainId;
use crate::addr::{IovaRange, PageSizes, PhysAddr};
use crate::prot::Prot;
use crate::rangemap::RangeMap;

bitflags! {
    /// What a paging domain is made with beyond mapping; fixed for its life (rule D-31).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct DomainFeatures: u32 {
        /// No transaction of an attached device bypasses the caches, no-snoop included (rule C-198).
        const ENFORCE_COHERENCY = 1;
        /// Pages that devices write can be recorded (rule C-193).
        const DIRTY_TRACKING = 2;
    }
}

/// What every domain of an instance is like; fixed for the life of the instance (rule D-02).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Page sizes; the smallest one is the granule of every mapping.
    pub page_sizes: PageSizes,
    /// The IOVAs that can be mapped. DMA outside is refused by the unit.
    pub aperture: IovaRange,
}

/// One mapping: `range` of IOVAs to the physical memory from `phys` on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Where devices see it; first and length are multiples of the granule.
    pub range: IovaRange,
    /// Where it is; a multiple of the granule, and the run does not wrap.
    pub phys: PhysAddr,
    /// What devices may do with it.
    pub prot: Prot,
}

/// What the record of a domain holds for each mapping. Packed, because there may be millions: read
/// the fields by value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, packed(4))]
pub struct Target {
    /// The physical address of the first byte.
    pub phys: PhysAddr,
    /// What devices may do with it.
    pub prot: Prot,
}

/// The record of what a domain maps: our truth, whatever the device says.
pub type Mappings = RangeMap<Target>;

/// What a driver sees of a domain during a call. The core holds the domain's lock.
#[derive(Clone, Copy)]
pub struct DomainView<'a> {
    /// The driver's number for the domain.
    pub id: DomainId,
    /// How many endpoints are attached. A unit that forgets a domain without endpoints is told
    /// nothing while this is 0, and everything at the attach that ends it.
    pub endpoints: usize,
    /// What the domain was made with.
    pub features: DomainFeatures,
    /// Whether pages that devices write are to be recorded now.
    pub dirty: bool,
    /// What the domain maps. During [`Driver::map`](super::Driver::map) it has the new runs already, during
    /// [`Driver::unmap`](super::Driver::unmap) still the old ones.
    pub mappings: &'a Mappings,
}
