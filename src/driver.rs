//! What an IOMMU driver gives: the contract between the API and the hardware.
//!
//! Linux counterpart: `struct iommu_ops` and `struct iommu_domain_ops`, in the shape that the
//! kernel reached later: attach takes the new and the old domain, domains are complete when they
//! are allocated, there is no detach (rules D-02, D-03, D-08). The core keeps the record of every
//! mapping and lends it to the driver, so a driver holds no second copy.
//!
//! # Locks
//!
//! Every call that takes a [`DomainView`] is made with that domain's lock held; a driver must not
//! call back into the API. Drivers lock their own hardware inside, and every wait has an end.

use bitflags::bitflags;

use crate::addr::{IovaRange, PageSizes, PhysAddr};
use crate::error::{AttachError, DomainError, MapError, ProbeError, UnmapError};
use crate::fault::DriverFault;
use crate::prot::Prot;
use crate::rangemap::RangeMap;
use crate::reserved::ReservedRegions;

/// The number by which an instance knows a source of DMA: a requester id, a stream id.
///
/// Means something only inside its instance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct EndpointId(pub u32);

/// The driver's number for one of its domains. Means something only inside its instance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DomainId(pub u32);

bitflags! {
    /// What an instance can do beyond the minimum.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Capabilities: u32 {
        /// Domains can be built in which no transaction bypasses the caches (rule C-198).
        const ENFORCE_COHERENCY = 1;
        /// `Prot::CACHE` has an effect: DMA is coherent where a mapping says so.
        const CACHE_COHERENT = 2;
        /// `Prot::NOEXEC` is enforced.
        const NOEXEC = 4;
        /// Domains can track dirty pages in hardware (rule C-193).
        const DIRTY_TRACKING = 8;
        /// Interrupts of the devices behind this instance are remapped or isolated from each other.
        const ISOLATED_MSI = 16;
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

/// What the record of a domain holds for each mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
    /// What the domain maps. During [`Driver::map`] it has the new runs already, during
    /// [`Driver::unmap`] still the old ones.
    pub mappings: &'a Mappings,
}

/// Where a failed attach left the endpoint that was refused (rule C-099).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Left {
    /// On the old domain, proven: nothing was sent, or the unit works that way.
    Unchanged,
    /// On no domain; its DMA is refused.
    Blocked,
    /// Not known.
    Unknown,
}

/// A failed attach: why, who, and what must be put back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttachFailure {
    /// The cause.
    pub error: AttachError,
    /// The index of the endpoint that was refused first.
    pub refused: usize,
    /// Where that endpoint is now.
    pub left: Left,
    /// How many endpoints from the start of the slice may have left the old domain; those from
    /// here on are still on it. The core re-attaches the others, newest first.
    pub touched: usize,
}

impl AttachFailure {
    /// A refusal before anything was sent: everything is as it was.
    #[must_use]
    pub const fn untouched(error: AttachError) -> Self {
        Self { error, refused: 0, left: Left::Unchanged, touched: 0 }
    }
}

/// What one or several deferred unmaps still owe: an invalidation (rules C-183 ff.).
///
/// The memory must not be reused, and the IOVAs not be mapped again, before the driver's
/// [`sync`](Driver::sync) has emptied it.
#[must_use = "until it is synchronised, a device may still reach the old memory"]
#[derive(Debug, Default)]
pub struct Gather {
    range: Option<IovaRange>,
}

impl Gather {
    /// An empty gather.
    pub const fn new() -> Self {
        Self { range: None }
    }

    /// The span of everything added since the last sync, holes included.
    #[must_use]
    pub const fn range(&self) -> Option<IovaRange> {
        self.range
    }

    /// Adds a range (rule C-184).
    pub fn add(&mut self, range: IovaRange) {
        let first = self.range.map_or(range.first(), |old| old.first().min(range.first()));
        let last = self.range.map_or(range.last(), |old| old.last().max(range.last()));
        self.range = IovaRange::new(first, last);
    }

    /// Empties the gather; for drivers, after the invalidation ended.
    pub fn clear(&mut self) {
        self.range = None;
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// What a driver did since it was made. Exact; wraps never in practice.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        pub struct Counters { $($(#[$doc])* pub $name: u64,)+ }

        impl Counters {
            /// What happened between `earlier` and this snapshot.
            #[must_use]
            pub const fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name.wrapping_sub(earlier.$name),)+ }
            }
        }
    };
}

counters! {
    /// ATTACH requests sent.
    attach,
    /// DETACH requests sent.
    detach,
    /// MAP requests sent.
    map,
    /// UNMAP requests sent.
    unmap,
    /// PROBE requests sent.
    probe,
    /// Notifies: exits, on a paravirtual unit. The cost that counts first.
    notifies,
    /// Requests that the unit answered with an error.
    refused,
    /// Fault records taken from the unit.
    faults,
    /// Fault records that were malformed and dropped.
    bad_faults,
}

/// Whether an instance can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Health {
    /// It works.
    Good,
    /// It broke the contract or did not answer, and was reset: no request is sent any more, and
    /// DMA behind it is blocked as far as the unit keeps its word.
    Poisoned,
}

/// An IOMMU driver: one value per instance.
///
/// All methods take `&self` and may be called from several threads.
pub trait Driver: Send + Sync {
    /// Page sizes and aperture of every domain of this instance.
    fn geometry(&self) -> Geometry;

    /// What the instance can do beyond the minimum. The default is nothing.
    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }

    /// Asks for the reserved regions of an endpoint.
    ///
    /// # Errors
    ///
    /// `NoDevice`: no such endpoint here. `NoSpace`: more than
    /// [`MAX_RESERVED`](crate::reserved::MAX_RESERVED) regions. `InvalidArg`: the answer contradicts
    /// itself. `OutOfMemory`, `Io`.
    fn probe(&self, endpoint: EndpointId) -> Result<ReservedRegions, ProbeError>;

    /// The domain that never maps anything: attaching to it is how DMA is blocked (rule D-04).
    fn blocked(&self) -> DomainId;

    /// Takes a number for a new paging domain. Nothing is attached, nothing is mapped.
    ///
    /// # Errors
    ///
    /// `NoSpace`, `OutOfMemory`, `Unsupported`, `Io`, as in [`DomainError`].
    fn alloc_domain(&self) -> Result<DomainId, DomainError>;

    /// Gives a number back. No endpoint is attached to the domain any more.
    fn free_domain(&self, id: DomainId);

    /// Whether `endpoint` could use `domain`: pure, silent, touches nothing (rules C-100, D-09).
    ///
    /// The core has checked already that the domain belongs to this instance.
    ///
    /// # Errors
    ///
    /// [`AttachError::Incompatible`]: another domain may work. Never for a domain that was just
    /// allocated (rule C-109). Any other variant is a hard error.
    fn compatible(&self, domain: &DomainView<'_>, endpoint: EndpointId) -> Result<(), AttachError> {
        let _ = (domain, endpoint);
        Ok(())
    }

    /// Moves `endpoints` from domain `old` to domain `new`, in order, in one batch.
    ///
    /// `old` is `None` for endpoints that were never attached. All of them are distinct, none is
    /// on `new` already, and `new.endpoints` does not count them yet. When this returns `Ok`, each
    /// translates through `new` with everything that `new.mappings` holds, and nothing of `old` is
    /// used any more (rules C-097, C-103).
    ///
    /// # Errors
    ///
    /// [`AttachFailure`] says what has to be put back. Nothing is undone by the driver.
    fn attach(
        &self,
        endpoints: &[EndpointId],
        new: &DomainView<'_>,
        old: Option<DomainId>,
    ) -> Result<(), AttachFailure>;

    /// Forgets endpoints whose device is gone; they must end blocked. The default does nothing,
    /// which is right where an endpoint on the blocking domain needs no more.
    fn release(&self, endpoints: &[EndpointId]) {
        let _ = endpoints;
    }

    /// Makes `runs` visible to the endpoints of `domain`, in one batch.
    ///
    /// The core has checked alignment, aperture, flags and overlap; the runs are in the record.
    ///
    /// # Errors
    ///
    /// On any error none of the runs is mapped (rule C-167); where the unit refuses the undo, the
    /// instance is poisoned and DMA blocked.
    fn map(&self, domain: &DomainView<'_>, runs: &[Run]) -> Result<(), MapError>;

    /// Removes mappings. Each range is a run of whole, adjacent mappings of the record.
    ///
    /// May return before the unit has forgotten them; then `gather` says what is due.
    ///
    /// # Errors
    ///
    /// `Io`: it is not known what was removed; the instance is poisoned.
    fn unmap(
        &self,
        domain: &DomainView<'_>,
        ranges: &[IovaRange],
        gather: &mut Gather,
    ) -> Result<(), UnmapError>;

    /// Ends the unmaps in `gather`: when this returns `Ok` no device reaches the old memory.
    ///
    /// # Errors
    ///
    /// `Io`: it is not known whether it ended; the instance is poisoned.
    fn sync(&self, domain: &DomainView<'_>, gather: &mut Gather) -> Result<(), UnmapError>;

    /// Takes the fault records that the unit has ready, at most one queue full, and hands each to
    /// `sink`. Returns how many records are known to be lost since the last call.
    fn take_faults(&self, sink: &mut dyn FnMut(DriverFault)) -> u64;

    /// What was sent so far.
    fn counters(&self) -> Counters;

    /// Whether the instance still works.
    fn health(&self) -> Health;
}

const _: Option<&dyn Driver> = None; // the trait stays object safe
