//! An instance: one IOMMU unit, its driver, its blocking domain and its fault queue.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use heapless::Deque;

use crate::driver::{
    Capabilities, Counters, DomainFeatures, DomainId, DomainView, Driver, Geometry, Health,
    Mappings,
};
use crate::error::DomainError;
use crate::fault::DriverFault;
use crate::list::Link;
use crate::mark::sabotage;
use crate::pool::{Owned, Pool};
use crate::sync::{Mutex, RawLock, SpinLock};

/// How many fault records wait per instance until the host takes them; more are counted as lost.
pub const FAULT_QUEUE: usize = 64;

/// The number of an instance, unique in its registry and never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct InstanceId(pub u32);

/// One translation unit under management (Linux: `struct iommu_device`).
///
/// Made by [`Registry::add_instance`](crate::registry::Registry::add_instance).
pub struct Instance<R: RawLock = SpinLock> {
    pub(crate) link: Link,
    id: InstanceId,
    driver: Owned<dyn Driver>,
    /// As the driver gave it at the start: it never changes.
    geometry: Geometry,
    blocked: Fixed,
    identity: Fixed,
    faults: Mutex<R, Faults>,
    /// How often the members of a group with an owner changed.
    member_changes: AtomicUsize,
}

/// A domain of the instance that never maps anything: the blocking one, in which nothing is
/// reachable (rules C-016, C-270), or the identity one, in which everything is. No lock: the record
/// never changes, and id and count stand alone.
pub(crate) struct Fixed {
    id: AtomicU32,
    /// Whether `id` is one.
    made: AtomicBool,
    mappings: Mappings,
    endpoints: AtomicUsize,
}

#[derive(Default)]
struct Faults {
    waiting: Deque<DriverFault, FAULT_QUEUE>,
    lost: u64,
}

impl<R: RawLock> Instance<R> {
    pub(crate) fn new(id: InstanceId, driver: Owned<dyn Driver>, pool: &'static Pool) -> Self {
        let blocked = Fixed::new(pool);
        blocked.make(driver.blocked());
        let identity = Fixed::new(pool);
        let faults = Mutex::new(Faults::default());
        let member_changes = AtomicUsize::new(0);
        let geometry = driver.geometry();
        Self { link: Link::new(), id, driver, geometry, blocked, identity, faults, member_changes }
    }

    /// The number of this instance in its registry.
    #[must_use]
    pub fn id(&self) -> InstanceId {
        self.id
    }

    /// Page sizes and aperture of every domain of this instance.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// What the unit can do beyond the minimum.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.driver.capabilities()
    }

    /// What the driver sent so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.driver.counters()
    }

    /// Whether the unit still works.
    #[must_use]
    pub fn health(&self) -> Health {
        self.driver.health()
    }

    /// How many fault records were lost so far, as far as can be known: dropped by the unit and
    /// reported as such, or dropped here because [`FAULT_QUEUE`] records were waiting.
    #[must_use]
    pub fn lost_faults(&self) -> u64 {
        self.faults.lock().lost
    }

    /// Takes the oldest fault record, asking the unit for new ones when none is waiting.
    ///
    /// Call it from a task or a timer, or after the unit's interrupt. Records name endpoints;
    /// [`Registry::next_fault`](crate::registry::Registry::next_fault) names the device too.
    /// Locks: the fault queue, and the driver's event queue under it.
    pub fn next_fault(&self) -> Option<DriverFault> {
        let mut faults = self.faults.lock();
        if faults.waiting.is_empty() {
            let Faults { waiting, lost } = &mut *faults;
            let mut overflow = 0;
            let gone = self.driver.take_faults(&mut |fault| {
                if waiting.push_back(fault).is_err() {
                    overflow += 1;
                }
            });
            *lost = lost.saturating_add(gone).saturating_add(overflow);
        }
        faults.waiting.pop_front()
    }

    /// Notes that the members of a group with an owner changed, and so what it reserves.
    pub(crate) fn members_changed(&self) {
        sabotage!(MissMemberChanges => return);
        self.member_changes.fetch_add(1, Ordering::Release);
    }

    /// How often that was so: who sees the number it saw before may rely on what it read then.
    #[cfg(feature = "container")]
    pub(crate) fn member_changes(&self) -> usize {
        self.member_changes.load(Ordering::Acquire)
    }

    pub(crate) fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    pub(crate) fn blocked(&self) -> &Fixed {
        &self.blocked
    }

    /// The unit's identity domain.
    ///
    /// # Errors
    ///
    /// Those of [`Driver::identity`].
    pub(crate) fn identity(&self) -> Result<&Fixed, DomainError> {
        if !self.identity.made.load(Ordering::Acquire) {
            self.identity.make(self.driver.identity()?); // the same whoever asks first
        }
        Ok(&self.identity)
    }

    /// The unit's identity domain once it was made, for groups that are on it.
    pub(crate) fn made_identity(&self) -> &Fixed {
        &self.identity
    }
}

impl Fixed {
    fn new(pool: &'static Pool) -> Self {
        Self {
            id: AtomicU32::new(0),
            made: AtomicBool::new(false),
            mappings: Mappings::new(pool),
            endpoints: AtomicUsize::new(0),
        }
    }

    fn make(&self, id: DomainId) {
        self.id.store(id.0, Ordering::Relaxed);
        self.made.store(true, Ordering::Release);
    }

    /// Its number; no group is on a domain that was not made.
    pub(crate) fn id(&self) -> DomainId {
        DomainId(self.id.load(Ordering::Relaxed))
    }

    pub(crate) fn view(&self) -> DomainView<'_> {
        DomainView {
            id: self.id(),
            endpoints: self.endpoints.load(Ordering::Relaxed),
            features: DomainFeatures::empty(),
            dirty: false,
            mappings: &self.mappings,
        }
    }

    pub(crate) fn joined(&self, endpoints: usize) {
        self.endpoints.fetch_add(endpoints, Ordering::Relaxed);
    }

    pub(crate) fn left(&self, endpoints: usize) {
        self.endpoints.fetch_sub(endpoints, Ordering::Relaxed);
    }
}

impl<R: RawLock> fmt::Debug for Instance<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("id", &self.id)
            .field("geometry", &self.geometry())
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}
