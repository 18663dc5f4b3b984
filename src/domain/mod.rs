//! A paging domain: one I/O address space, its record of mappings, and who translates through it.
//!
//! | what | file |
//! |---|---|
//! | making one, looking at it | here |
//! | map, unmap | `map.rs` |
//! | map of a scatter list | `chunks.rs` |
//! | unmaps that share one invalidation | `deferred.rs` |
//! | maps and unmaps that nobody waits for | `flights.rs` |
//! | the window for interrupt doorbells | `msi.rs` |
//! | attached devices and what they reserve | `members.rs` |
//! | 1:1 mappings for firmware's regions | `direct.rs` |
//! | dirty pages | `dirty.rs` |
//!
//! Lock: `PagingDomain::state` guards the record and the endpoint count together, so a mapping made
//! while an endpoint arrives is either replayed or sent, never lost (rule C-230). It is held while
//! the device works, for a bounded time.

mod chunks;
mod deferred;
mod direct;
mod dirty;
mod flights;
mod map;
mod members;
mod msi;

use core::fmt;

use lock_api::MutexGuard;

pub use chunks::Chunk;
pub use deferred::DeferredUnmaps;
pub(crate) use direct::Added;
pub use flights::{MAX_FLIGHTS, PendingMap, PendingUnmap};
pub(crate) use members::Admission;

use crate::addr::{Iova, IovaRange, PhysAddr};
use crate::device::Device;
use crate::driver::{
    Capabilities, DomainFeatures, DomainId, DomainView, Gather, Geometry, Mappings, Run,
};
use crate::error::DomainError;
use crate::fault::FaultHandler;
use crate::instance::Instance;
use crate::list::{List, OnDomain};
use crate::pool::{Pool, Shared};
use crate::reserved::ReservedRegions;
use crate::sync::{Mutex, RawLock, SpinLock};
use crate::trace::emit;

/// One I/O address space of an instance, into which its owner maps memory.
///
/// Linux: an `IOMMU_DOMAIN_UNMANAGED` domain. Complete when [`new`](Self::new) returns: geometry
/// and options never change, and mapping works before anything is attached (rules C-010, D-02).
/// Attachments hold it; the last owner frees it.
///
/// Calls on disjoint ranges may run in parallel; overlapping ones end in
/// [`MapError::Exists`](crate::error::MapError::Exists) or remove what was there first, never in
/// unsoundness (rule C-229).
///
#[cfg_attr(feature = "sim", doc = "```")]
#[cfg_attr(not(feature = "sim"), doc = "```ignore")]
/// use iommu::{addr::*, domain::PagingDomain, error::MapError, pool::Pool, prot::Prot, sim::Sim};
/// use iommu::registry::Registry;
///
/// static POOL: Pool = Pool::heap();
/// let registry = Registry::new(&POOL);
/// let iommu = registry.add_instance(Sim::new().driver())?;
/// let domain = PagingDomain::new(&iommu, &POOL)?;
///
/// let pages = IovaRange::from_len(Iova(0x10_0000), 0x2000).unwrap();
/// domain.map(pages, PhysAddr(0x8000_0000), Prot::RW)?;
/// assert_eq!(domain.iova_to_phys(Iova(0x10_1234)), Some(PhysAddr(0x8000_1234)));
/// assert_eq!(domain.map(pages, PhysAddr(0), Prot::READ), Err(MapError::Exists));
/// assert_eq!(domain.unmap(pages)?, 0x2000, "bytes");
/// assert_eq!(domain.iova_to_phys(Iova(0x10_1234)), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PagingDomain<R: RawLock = SpinLock> {
    instance: Shared<Instance<R>>,
    id: DomainId,
    features: DomainFeatures,
    fault_handler: Option<&'static dyn FaultHandler>,
    identity: bool,
    state: Mutex<R, DomainState>,
}

pub(crate) struct DomainState {
    pub(crate) mappings: Mappings,
    pub(crate) endpoints: usize,
    features: DomainFeatures,
    /// The devices that translate through the domain.
    devices: List<Device, OnDomain>,
    /// What they reserve, merged.
    reserved: ReservedRegions,
    /// Where doorbells are mapped. Once there, it stays.
    window: Option<IovaRange>,
    /// What deferred unmaps owe.
    pending: Gather,
    /// Whether dirty pages are recorded.
    dirty: bool,
    /// Whether an endpoint is counted here that may be elsewhere: the unit refused to move it.
    suspect: bool,
    /// Started calls.
    flights: flights::Flights,
    /// The number of the newest one.
    serial: u64,
}

/// What a domain is made with; fixed for its life (rules D-30, D-31). [`Default`] is a plain one.
#[derive(Clone, Copy, Default)]
pub struct DomainOptions {
    /// What it can do beyond mapping. The instance must be able to.
    pub features: DomainFeatures,
    /// Where interrupt doorbells are mapped: whole granules inside the aperture. With `None`, the
    /// first attached group that needs such a window brings its own (rule C-042).
    pub msi_window: Option<IovaRange>,
    /// Who is told of faults in this domain; see
    /// [`Registry::deliver_faults`](crate::registry::Registry::deliver_faults).
    pub fault_handler: Option<&'static dyn FaultHandler>,
}

impl<R: RawLock> PagingDomain<R> {
    /// Allocates an empty domain of `instance` without options.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`: no node. `NoSpace`: the instance has no domain id left. `Unsupported`: the
    /// instance can't build paging domains. `Io`: it is poisoned.
    pub fn new(
        instance: &Shared<Instance<R>>,
        pool: &'static Pool,
    ) -> Result<Shared<Self>, DomainError> {
        Self::with_options(instance, pool, &DomainOptions::default())
    }

    /// Allocates an empty domain of `instance`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new). `Unsupported` also for a feature that the instance lacks.
    /// `InvalidArg`: the window is misaligned or outside the aperture.
    pub fn with_options(
        instance: &Shared<Instance<R>>,
        pool: &'static Pool,
        options: &DomainOptions,
    ) -> Result<Shared<Self>, DomainError> {
        Self::build(instance, pool, options, false)
    }

    pub(crate) fn build(
        instance: &Shared<Instance<R>>,
        pool: &'static Pool,
        options: &DomainOptions,
        identity: bool,
    ) -> Result<Shared<Self>, DomainError> {
        let DomainOptions { features, msi_window: window, fault_handler } = *options;
        let able = instance.capabilities();
        let needs = [
            (DomainFeatures::ENFORCE_COHERENCY, Capabilities::ENFORCE_COHERENCY),
            (DomainFeatures::DIRTY_TRACKING, Capabilities::DIRTY_TRACKING),
        ];
        if needs.iter().any(|(asked, need)| features.contains(*asked) && !able.contains(*need)) {
            return Err(DomainError::Unsupported);
        }
        let geometry = instance.geometry();
        let fits = |window: IovaRange| {
            geometry.aperture.encloses(window) && map::is_whole(&geometry, window)
        };
        if window.is_some_and(|window| !fits(window)) {
            return Err(DomainError::InvalidArg);
        }
        let id = instance.driver().alloc_domain(features)?;
        let state = DomainState {
            mappings: Mappings::keeping_a_leaf(pool),
            endpoints: 0,
            features,
            devices: List::new(),
            reserved: ReservedRegions::new(),
            window,
            pending: Gather::new(),
            dirty: false,
            suspect: false,
            flights: flights::Flights::new(),
            serial: 0,
        };
        let instance = instance.clone();
        let domain =
            Self { instance, id, features, fault_handler, identity, state: Mutex::new(state) };
        Ok(Shared::new(pool, domain)?) // on failure `domain` is dropped and gives the id back
    }

    /// The instance that the domain belongs to. Only its groups can be attached.
    #[must_use]
    pub fn instance(&self) -> &Shared<Instance<R>> {
        &self.instance
    }

    /// The driver's number for the domain, unique in its instance while the domain lives.
    #[must_use]
    pub fn id(&self) -> DomainId {
        self.id
    }

    /// Page sizes and aperture.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.instance.geometry()
    }

    /// What the domain was made with beyond mapping.
    #[must_use]
    pub fn features(&self) -> DomainFeatures {
        self.features
    }

    /// Who is told of faults in this domain.
    #[must_use]
    pub fn fault_handler(&self) -> Option<&'static dyn FaultHandler> {
        self.fault_handler
    }

    /// Whether the core made it to map the whole aperture 1:1.
    pub(crate) fn is_identity(&self) -> bool {
        self.identity
    }

    /// How many mappings the domain holds, doorbells included.
    #[must_use]
    pub fn mapping_count(&self) -> usize {
        self.state.lock().mappings.len()
    }

    /// How many endpoints are attached.
    #[must_use]
    pub fn endpoint_count(&self) -> usize {
        self.state.lock().endpoints
    }

    /// The physical address that `iova` translates to, or `None` where nothing is mapped.
    #[must_use]
    pub fn iova_to_phys(&self, iova: Iova) -> Option<PhysAddr> {
        let state = self.state.lock();
        let (range, target) = state.mappings.get(iova)?;
        target.phys.checked_add(iova.0 - range.first().0)
    }

    /// The first mapping that ends at or after `iova`; doorbells are passed over.
    #[must_use]
    pub fn next_mapping(&self, iova: Iova) -> Option<Run> {
        let state = self.state.lock();
        let mut found = state.mappings.first_from(iova)?;
        if let Some(window) = state.window
            && window.encloses(found.0)
        {
            found = state.mappings.first_from(window.last().checked_add(1)?)?;
        }
        let (range, target) = found;
        Some(Run { range, phys: target.phys, prot: target.prot })
    }

    /// Calls `each` for every mapping that shares an address with `range`, ascending, until it answers
    /// `false`; doorbells are passed over. The domain is locked meanwhile.
    #[cfg(feature = "container")]
    pub(crate) fn for_each_mapping(&self, range: IovaRange, mut each: impl FnMut(Run) -> bool) {
        let state = self.state.lock();
        for (range, target) in state.mappings.overlapping(range) {
            let is_doorbell = state.window.is_some_and(|window| window.encloses(range));
            if !is_doorbell && !each(Run { range, phys: target.phys, prot: target.prot }) {
                return;
            }
        }
    }

    /// Frees the node that an empty record keeps.
    #[cfg(feature = "container")]
    pub(crate) fn shed(&self) {
        self.state.lock().mappings.shed();
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, R, DomainState> {
        self.state.lock()
    }
}

impl DomainState {
    pub(crate) fn view(&self, id: DomainId) -> DomainView<'_> {
        let Self { endpoints, features, dirty, ref mappings, .. } = *self;
        DomainView { id, endpoints, features, dirty, mappings }
    }

    /// The view of the domain, and apart from it what deferred unmaps owe.
    fn view_and_pending(&mut self, id: DomainId) -> (DomainView<'_>, &mut Gather) {
        let Self { endpoints, features, dirty, ref mappings, ref mut pending, .. } = *self;
        (DomainView { id, endpoints, features, dirty, mappings }, pending)
    }
}

/// Locks two domains of one instance, always the one with the lower id first.
pub(crate) fn lock_both<'a, R: RawLock>(
    one: &'a PagingDomain<R>,
    other: &'a PagingDomain<R>,
) -> (MutexGuard<'a, R, DomainState>, MutexGuard<'a, R, DomainState>) {
    if one.id < other.id {
        let first = one.lock();
        (first, other.lock())
    } else {
        let second = other.lock();
        (one.lock(), second)
    }
}

impl<R: RawLock> Drop for PagingDomain<R> {
    /// Gives the id back, unless the unit refused to move an endpoint away: then the id is never
    /// used again, because that endpoint would reach its next owner's memory (rule C-137).
    fn drop(&mut self) {
        if self.state.get_mut().endpoints == 0 {
            self.instance.driver().free_domain(self.id);
        } else {
            emit!(warn, "iommu: domain {} is lost: the IOMMU kept an endpoint on it", self.id.0);
        }
    }
}

impl<R: RawLock> fmt::Debug for PagingDomain<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PagingDomain")
            .field("instance", &self.instance.id())
            .field("id", &self.id)
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for DomainOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DomainOptions")
            .field("features", &self.features)
            .field("msi_window", &self.msi_window)
            .field("fault_handler", &self.fault_handler.is_some())
            .finish()
    }
}
