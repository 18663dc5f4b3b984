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

mod counters;
mod gather;
mod view;
mod work;

use bitflags::bitflags;

pub use counters::Counters;
pub use gather::Gather;
pub use view::{DomainFeatures, DomainView, Geometry, Mappings, Run, Target};
pub use work::{Progress, Start, Ticket, Work};

use crate::addr::IovaRange;
use crate::error::{AttachError, DirtyError, DomainError, MapError, ProbeError, UnmapError};
use crate::fault::DriverFault;
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
        /// [`Driver::unmap`] may return before the unit has forgotten the range, so unmaps that are
        /// gathered cost one invalidation for all (rule C-189).
        const DEFERRED_UNMAP = 32;
        /// Firmware blocked DMA before this crate took over (rule C-006).
        const PRE_BOOT_PROTECTION = 64;
        /// `Prot::MMIO` can be expressed; without it a mapping with the flag is refused (C-158).
        const MMIO = 128;
    }
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

    /// The domain in which every IOVA is the physical address of the same value, made at the first
    /// call and the same ever after (rule C-015). Nothing is mapped into it. The default is
    /// `Unsupported`: the core then maps the aperture 1:1 in a paging domain (rule C-268).
    ///
    /// # Errors
    ///
    /// `Unsupported`: the unit has no such mode. `NoSpace`, `Io`, as in [`DomainError`].
    fn identity(&self) -> Result<DomainId, DomainError> {
        Err(DomainError::Unsupported)
    }

    /// Takes a number for a new paging domain with these features, which the core has checked
    /// against [`capabilities`](Self::capabilities). Nothing is attached, nothing is mapped.
    ///
    /// # Errors
    ///
    /// `NoSpace`, `OutOfMemory`, `Unsupported`, `Io`, as in [`DomainError`].
    fn alloc_domain(&self, features: DomainFeatures) -> Result<DomainId, DomainError>;

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
    /// `old` is `None` for endpoints that were never attached, or are somewhere unknown. All of them
    /// are distinct, and `new.endpoints` does not count them yet. None is on `new` already, with one
    /// exception: an endpoint may be sent to the blocking domain, which is empty, again. When this returns `Ok`, each
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
    /// None of the runs is mapped (rule C-167). `Unconfirmed`: some may be, because the unit did not
    /// answer or refused the undo; the instance is poisoned, and the runs stay in the record.
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

    /// Begins a map or an unmap without waiting for the unit. A later call that waits, of any kind,
    /// comes after what was begun. The default is [`Start::Unsupported`]: then the core waits.
    fn start(&self, domain: &DomainView<'_>, work: Work<'_>) -> Start {
        let _ = (domain, work);
        Start::Unsupported
    }

    /// How far the work of `ticket` has come. After its end the ticket means nothing any more.
    /// Like every wait, the work ends: at its limit the instance is poisoned.
    fn progress(&self, ticket: Ticket) -> Progress {
        let _ = ticket;
        Progress::Failed
    }

    /// Starts or stops the recording of pages that devices write, on every endpoint of a domain
    /// that was made with [`DomainFeatures::DIRTY_TRACKING`]; idempotent (rule C-194). Endpoints
    /// that are attached later follow [`DomainView::dirty`]. The default is `Unsupported`.
    ///
    /// # Errors
    ///
    /// `Unsupported`. `Io`: the mode is the old one on every endpoint.
    fn set_dirty_tracking(&self, domain: &DomainView<'_>, on: bool) -> Result<(), DirtyError> {
        let _ = (domain, on);
        Err(DirtyError::Unsupported)
    }

    /// Hands every page in `range` that was written since it was last cleared to `sink`, and
    /// clears it if `clear`; then what must be invalidated is added to `gather` (rule C-195).
    /// The default is `Unsupported`.
    ///
    /// # Errors
    ///
    /// `Unsupported`. `Io`: `sink` has seen every page that was cleared.
    fn read_dirty(
        &self,
        domain: &DomainView<'_>,
        range: IovaRange,
        clear: bool,
        sink: &mut dyn FnMut(IovaRange),
        gather: &mut Gather,
    ) -> Result<(), DirtyError> {
        let _ = (domain, range, clear, sink, gather);
        Err(DirtyError::Unsupported)
    }

    /// Takes the fault records that the unit has ready, at most one queue full, and hands each to
    /// `sink`. Returns how many records are known to be lost since the last call.
    fn take_faults(&self, sink: &mut dyn FnMut(DriverFault)) -> u64;

    /// What was sent so far.
    fn counters(&self) -> Counters;

    /// Whether the instance still works.
    fn health(&self) -> Health;
}

const _: Option<&dyn Driver> = None; // the trait stays object safe
