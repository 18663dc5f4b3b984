//! Groups: the smallest sets of devices that can be isolated, their owner and current domain.
//!
//! A group always is on a domain: its user's, the default domain of kernel drivers and of devices
//! that need 1:1 mappings (`default.rs`), or the blocking domain of its instance. There is no
//! detached state in which the device decides (rules D-03, C-147). The rights come as values:
//!
//! - [`Group::claim`] gives an [`Ownership`]: nobody else can claim, the group is blocked;
//! - [`Ownership::attach`] turns it into an [`Attachment`]: the group is on a paging domain;
//! - [`Attachment::detach`], or dropping either value, goes back. None of these can fail.
//!
//!
//! Kernel drivers share a group by [`Group::use_default`] instead; nobody can claim it meanwhile.
//!
//! So attach without a claim, detach of another domain, and release while attached don't compile.
//!
//! Lock: `Group::state` guards members, owner and current domain; the domains' locks are taken
//! under it, in `switch.rs`.

mod current;
mod default;
mod guard;
mod switch;

use core::fmt;

pub use current::Current;
pub use default::DmaUse;
pub use guard::{Attachment, IdentityAttachment, Ownership, Refused};

use crate::addr::{Iova, PhysAddr};
use crate::device::{Device, DeviceId};
#[cfg(feature = "dma")]
use crate::dma::Space;
use crate::domain::{DomainOptions, PagingDomain};
use crate::driver::EndpointId;
use crate::error::{AttachError, ClaimError, DomainError, DoorbellError, MapError, ProbeError};
use crate::instance::Instance;
use crate::list::{Link, List};
use crate::mark::{sabotage, sabotaged};
use crate::pool::{Pool, PoolVec, Shared};
use crate::reserved::{Full, ReservedKind, ReservedRegion, ReservedRegions};
use crate::sync::{Mutex, RawLock, SpinLock};
use crate::trace::emit;
use switch::{Failed, Members};

/// The number of a group, unique in its registry and never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct GroupId(pub u32);

/// Who claims a group: the host's own number, for diagnosis. The right itself is the guard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct OwnerId(pub u64);

/// A set of devices that attach and detach together (Linux: `struct iommu_group`).
///
/// Made by [`Registry::add_device`](crate::registry::Registry::add_device).
///
#[cfg_attr(feature = "sim", doc = "```")]
#[cfg_attr(not(feature = "sim"), doc = "```ignore")]
/// # use iommu::{addr::*, device::DeviceId, domain::*, driver::EndpointId, group::*, pool::Pool};
/// # use iommu::{prot::Prot, registry::*, sim::Sim};
/// # static POOL: Pool = Pool::heap();
/// # let registry = Registry::new(&POOL);
/// # let iommu = registry.add_instance(Sim::new().driver())?;
/// # let info = DeviceInfo { id: DeviceId(1), endpoints: &[EndpointId(8)], with: None };
/// # let group = registry.add_device(&iommu, &info)?;
/// let ownership = Group::claim(&group, OwnerId(1))?; // blocked, and nobody else can claim it
/// assert_eq!(Group::claim(&group, OwnerId(2)).unwrap_err().errno(), 1);
///
/// let (one, two) = (PagingDomain::new(&iommu, &POOL)?, PagingDomain::new(&iommu, &POOL)?);
/// let mut attached = ownership.attach(&one).unwrap();
/// attached.replace(&two)?; // straight from one to the other
/// let ownership = attached.detach(); // blocked again, still owned
/// assert!(matches!(group.current(), Current::Blocked));
///
/// // An attach that is refused gives the ownership back.
/// let other = registry.add_instance(Sim::new().driver())?;
/// let foreign = PagingDomain::new(&other, &POOL)?;
/// let refused = ownership.attach(&foreign).unwrap_err();
/// assert!(refused.error.is_soft(), "124: another domain may work");
/// let attached = refused.ownership.attach(&one).unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Group<R: RawLock = SpinLock> {
    pub(crate) link: Link,
    id: GroupId,
    instance: Shared<Instance<R>>,
    pool: &'static Pool,
    state: Mutex<R, GroupState<R>>,
}

struct GroupState<R: RawLock> {
    devices: List<Device>,
    /// The distinct endpoint ids of all members: what attach sends, once each.
    endpoints: PoolVec<EndpointId>,
    /// What the members reserve, merged.
    reserved: ReservedRegions,
    holder: Holder,
    current: Current<R>,
    /// There while a member needs 1:1 mappings, or kernel drivers use the group; then the group is
    /// on it.
    default: Option<Shared<PagingDomain<R>>>,
    /// Which addresses of it are taken, while kernel drivers ask for some.
    #[cfg(feature = "dma")]
    dma: Option<Shared<Space<R>>>,
    poison: Option<Poison<R>>,
}

/// Who uses a group.
#[derive(Clone, Copy)]
enum Holder {
    Nobody,
    /// One owner, by an [`Ownership`].
    User(OwnerId),
    /// So many kernel drivers, by [`DmaUse`].
    Kernel(usize),
}

/// Why a group is out of use: an undo failed. The domains that its endpoints may still be on are
/// kept alive, so that their ids and records stay (rule C-135).
struct Poison<R: RawLock> {
    _kept: [Current<R>; 2],
}

impl<R: RawLock> Group<R> {
    pub(crate) fn new(id: GroupId, instance: &Shared<Instance<R>>, pool: &'static Pool) -> Self {
        let state = GroupState {
            devices: List::new(),
            endpoints: PoolVec::new(pool),
            reserved: ReservedRegions::new(),
            holder: Holder::Nobody,
            current: Current::Blocked,
            default: None,
            #[cfg(feature = "dma")]
            dma: None,
            poison: None,
        };
        let state = Mutex::new(state);
        Self { link: Link::new(), id, instance: instance.clone(), pool, state }
    }

    /// The number of this group.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// The instance that translates for the group.
    #[must_use]
    pub fn instance(&self) -> &Shared<Instance<R>> {
        &self.instance
    }

    /// How many devices the group has.
    #[must_use]
    pub fn device_count(&self) -> usize {
        self.state.lock().devices.iter().count()
    }

    /// How many distinct endpoints the group has: the number of requests that an attach costs.
    #[must_use]
    pub fn endpoint_count(&self) -> usize {
        self.state.lock().endpoints.len()
    }

    /// Calls `each` for every member, in the order in which they were added.
    ///
    /// The group's lock is held: `each` must not call back into the group (rule C-024).
    pub fn for_each_device(&self, mut each: impl FnMut(&Device)) {
        for device in self.state.lock().devices.iter() {
            each(device);
        }
    }

    /// Who owns the group at this moment.
    #[must_use]
    pub fn owner(&self) -> Option<OwnerId> {
        match self.state.lock().holder {
            Holder::User(owner) => Some(owner),
            Holder::Nobody | Holder::Kernel(_) => None,
        }
    }

    /// How many kernel drivers use the group at this moment.
    #[must_use]
    pub fn kernel_users(&self) -> usize {
        match self.state.lock().holder {
            Holder::Kernel(users) => users,
            Holder::Nobody | Holder::User(_) => 0,
        }
    }

    /// Where the group is.
    #[must_use]
    pub fn current(&self) -> Current<R> {
        self.state.lock().current.public()
    }

    /// The paging domain the group is on, or `None` while it is blocked or on identity.
    #[must_use]
    pub fn current_domain(&self) -> Option<Shared<PagingDomain<R>>> {
        match self.current() {
            Current::Paging(domain) => Some(domain),
            Current::Blocked | Current::Identity => None,
        }
    }

    /// Whether an undo failed and the group is out of use, blocked as far as the unit obeys.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.state.lock().poison.is_some()
    }

    /// The reserved regions of all members, merged (rule C-033).
    #[must_use]
    pub fn reserved(&self) -> ReservedRegions {
        self.state.lock().reserved.clone()
    }

    /// Takes ownership of `group` for `owner`. The group stays blocked until it is attached.
    ///
    /// Linux: `iommu_group_claim_dma_owner`.
    ///
    /// # Errors
    ///
    /// `NotPermitted`: it has an owner, or kernel drivers use it. `DirectRequired`: a member needs
    /// 1:1 mappings at all times. `NoDevice`: it has no member. `Io`: it is poisoned.
    pub fn claim(group: &Shared<Self>, owner: OwnerId) -> Result<Ownership<R>, ClaimError> {
        let mut state = group.state.lock();
        let is_held = !matches!(state.holder, Holder::Nobody);
        if sabotaged!(ClaimTwice, is_held, false) {
            return Err(ClaimError::NotPermitted);
        }
        if state.poison.is_some() {
            return Err(ClaimError::Io);
        }
        if state.devices.is_empty() {
            return Err(ClaimError::NoDevice);
        }
        if state.devices.iter().any(|device| device.reserves(ReservedKind::Direct)) {
            return Err(ClaimError::DirectRequired);
        }
        state.holder = Holder::User(owner);
        drop(state);
        Ok(Ownership::new(group.clone()))
    }

    /// Adds a probed device and puts its new endpoints where the group is (rule C-148).
    pub(crate) fn add(&self, device: Shared<Device>) -> Result<(), ProbeError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.poison.is_some() {
            return Err(ProbeError::Io);
        }
        let mut union = state.reserved.clone();
        union.merge(device.reserved()).map_err(|Full| ProbeError::NoSpace)?;
        let known = state.endpoints.len();
        state.endpoints.reserve(device.endpoints().len())?;
        let prepared = self.check_fit(state, &device);
        let prepared = prepared.and_then(|()| self.prepare_default(state, &device));
        let prepared = prepared.inspect_err(|_| {
            let is_new = |endpoint: &&EndpointId| !state.endpoints.contains(endpoint);
            switch::keep_out(&self.instance, device.endpoints().iter().filter(is_new));
        })?;
        for endpoint in device.endpoints() {
            if !state.endpoints.contains(endpoint) {
                state.endpoints.push(*endpoint)?;
            }
        }
        let fresh = state.endpoints.get(known..).unwrap_or_default();
        if let Err(error) = switch::arrive(&self.instance, &device, fresh, &state.current) {
            state.endpoints.truncate(known);
            self.undo_default(state, &prepared);
            return Err(error);
        }
        sabotage!(IgnoreHotAddedRegions => if !state.devices.is_empty() {
            union = state.reserved.clone();
        });
        state.reserved = union;
        state.devices.push_back(device);
        self.tell_owner(state);
        Ok(())
    }

    /// Lets the owner of the group, if there is one, notice that the members changed.
    fn tell_owner(&self, state: &GroupState<R>) {
        if matches!(state.holder, Holder::User(_)) {
            self.instance.members_changed();
        }
    }

    /// Whether a device can be a member as the group is now. Changes nothing.
    fn check_fit(&self, state: &GroupState<R>, device: &Device) -> Result<(), ProbeError> {
        if matches!(state.holder, Holder::User(_)) && device.reserves(ReservedKind::Direct) {
            return Err(ProbeError::DirectRequired); // rule C-153
        }
        if !same_window(&state.reserved, device.reserved()) {
            return Err(ProbeError::InvalidArg);
        }
        Ok(())
    }

    /// Takes a device out; its endpoints that no other member uses end blocked.
    pub(crate) fn remove(&self, id: DeviceId) -> Option<Shared<Device>> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let device = state.devices.remove(|device| device.id() == id)?;
        if let Current::Paging(domain) = &state.current {
            domain.lock().leave(core::iter::once(&*device));
        }
        for endpoint in device.endpoints() {
            let shared = state.devices.iter().any(|other| other.endpoints().contains(endpoint));
            let place = state.endpoints.iter().position(|known| known == endpoint);
            let (false, Some(place)) = (shared, place) else { continue };
            let leaving = [*endpoint];
            if state.poison.is_some() {
                switch::block_one(&self.instance, *endpoint); // once more (rule C-093)
            }
            let nobody = core::iter::empty();
            let block = || switch::block(&self.instance, nobody, &leaving, &state.current);
            let blocked = sabotaged!(KeepRemoved, block(), Ok(()));
            self.instance.driver().release(&leaving);
            state.endpoints.remove(place);
            if blocked.is_err() {
                let kept = state.current.clone();
                self.poison(state, kept, Current::Blocked);
            }
        }
        let mut union = ReservedRegions::new();
        if state.devices.iter().all(|device| union.merge(device.reserved()).is_ok()) {
            state.reserved = union;
        }
        self.tidy_default(state);
        self.tell_owner(state);
        Some(device)
    }

    /// What a device of the group must write to, to ring a doorbell, while the group is on `domain`.
    fn map_doorbell(
        &self,
        domain: &PagingDomain<R>,
        doorbell: PhysAddr,
    ) -> Result<Iova, DoorbellError> {
        let untranslated = |region: &ReservedRegion| {
            region.kind == ReservedKind::Msi && region.range.contains(Iova(doorbell.0))
        };
        if self.reserved().as_slice().iter().any(untranslated) {
            return Ok(Iova(doorbell.0));
        }
        domain.map_doorbell(doorbell)
    }

    /// Whether no device of the group is incompatible with a domain of its instance, as far as the
    /// driver can tell without touching the unit (rule C-100).
    #[cfg(feature = "container")]
    pub(crate) fn fits(&self, domain: &PagingDomain<R>) -> bool {
        let state = self.state.lock();
        let to = domain.lock();
        let view = to.view(domain.id());
        let driver = self.instance.driver();
        state.endpoints.iter().all(|endpoint| driver.compatible(&view, *endpoint).is_ok())
    }

    /// What all members reserve, merged, without a copy. The group is locked meanwhile.
    #[cfg(feature = "container")]
    pub(crate) fn with_reserved<T>(&self, look: impl FnOnce(&ReservedRegions) -> T) -> T {
        look(&self.state.lock().reserved)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().devices.is_empty()
    }

    pub(crate) fn has_device(&self, id: DeviceId) -> bool {
        self.state.lock().devices.iter().any(|device| device.id() == id)
    }

    pub(crate) fn has_endpoint(&self, endpoint: EndpointId) -> bool {
        self.state.lock().endpoints.contains(&endpoint)
    }

    /// The first device with this endpoint, and the paging domain that it is on.
    pub(crate) fn device_and_domain(
        &self,
        endpoint: EndpointId,
    ) -> Option<(DeviceId, Option<Shared<PagingDomain<R>>>)> {
        let state = self.state.lock();
        let owner = state.devices.iter().find(|device| device.endpoints().contains(&endpoint))?;
        let domain = match &state.current {
            Current::Paging(domain) => Some(domain.clone()),
            Current::Blocked | Current::Identity => None,
        };
        Some((owner.id(), domain))
    }

    /// Moves the group to `to`; for the guards, which prove that the caller may. With `only`, the
    /// group must be that one device.
    fn attach(
        &self,
        to: &Shared<PagingDomain<R>>,
        only: Option<DeviceId>,
    ) -> Result<(), AttachError> {
        let mut state = self.state.lock();
        if let Some(only) = only {
            let mut devices = state.devices.iter();
            if !devices.clone().any(|device| device.id() == only) {
                return Err(AttachError::NoDevice);
            }
            if devices.nth(1).is_some() {
                return Err(AttachError::NotSingleton);
            }
        }
        let is_ours = to.instance().ptr_eq(&self.instance);
        if !sabotaged!(IgnoreInstance, is_ours, true) {
            return Err(AttachError::Incompatible); // rule C-257: decided before any request
        }
        self.move_to(&mut state, &Current::Paging(to.clone()))
    }

    /// Moves the group to the identity domain. Where the unit has none, the answer is a domain
    /// that maps the aperture 1:1.
    fn attach_identity(&self) -> Result<(), AttachError> {
        let mut state = self.state.lock();
        let to = match self.instance.identity() {
            Ok(_) => Current::Identity,
            Err(DomainError::Unsupported) => Current::Paging(self.make_identity(&state.reserved)?),
            Err(DomainError::NoSpace) => return Err(AttachError::NoSpace),
            Err(_) => return Err(AttachError::Io),
        };
        self.move_to(&mut state, &to)
    }

    fn make_identity(
        &self,
        reserved: &ReservedRegions,
    ) -> Result<Shared<PagingDomain<R>>, AttachError> {
        let options = DomainOptions::default();
        let domain = PagingDomain::build(&self.instance, self.pool, &options, true);
        let domain = domain.map_err(|error| match error {
            DomainError::OutOfMemory => AttachError::OutOfMemory,
            DomainError::NoSpace => AttachError::NoSpace,
            _ => AttachError::Io,
        })?;
        domain.map_identity(reserved).map_err(|error| match error {
            MapError::OutOfMemory => AttachError::OutOfMemory,
            _ => AttachError::Io,
        })?;
        Ok(domain)
    }

    fn move_to(&self, state: &mut GroupState<R>, to: &Current<R>) -> Result<(), AttachError> {
        if state.poison.is_some() {
            return Err(AttachError::Io);
        }
        if state.current.is(to) {
            return Ok(()); // rule C-101
        }
        let GroupState { devices, endpoints, reserved, current, .. } = &*state;
        if endpoints.is_empty() && devices.is_empty() {
            return Err(AttachError::NoDevice);
        }
        let members = Members { devices, endpoints, reserved };
        match switch::switch(&self.instance, members, current, to) {
            Ok(()) => {
                emit!(debug, "iommu: group {} moved", self.id.0);
                state.current = to.clone();
                Ok(())
            }
            Err(Failed::Undone(error)) => Err(error),
            Err(Failed::Stuck(error)) => {
                let kept = core::mem::replace(&mut state.current, Current::Blocked);
                self.poison(state, kept, to.clone());
                Err(error)
            }
        }
    }

    /// Moves the group to the blocking domain; what can't be moved poisons the group.
    fn go_to_blocking(&self, state: &mut GroupState<R>) {
        let from = core::mem::replace(&mut state.current, Current::Blocked);
        let GroupState { devices, endpoints, .. } = &*state;
        if switch::block(&self.instance, devices.iter(), endpoints, &from).is_err() {
            self.poison(state, from, Current::Blocked);
        }
        emit!(debug, "iommu: group {} blocked", self.id.0);
    }

    fn detach(&self) {
        let mut state = self.state.lock();
        if !matches!(state.current, Current::Blocked) {
            self.go_to_blocking(&mut state);
        }
    }

    fn release(&self) {
        self.detach();
        self.state.lock().holder = Holder::Nobody;
    }

    fn poison(&self, state: &mut GroupState<R>, one: Current<R>, other: Current<R>) {
        emit!(warn, "iommu: group {} is out of use: the IOMMU refused an undo", self.id.0);
        state.poison = Some(Poison { _kept: [one, other] });
    }
}

/// Whether the software windows of two tables are one window, or one of them has none.
fn same_window(one: &ReservedRegions, other: &ReservedRegions) -> bool {
    match (one.software_msi(), other.software_msi()) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}

impl<R: RawLock> fmt::Debug for Group<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Group")
            .field("id", &self.id)
            .field("instance", &self.instance.id())
            .field("devices", &state.devices)
            .field("current", &state.current)
            .field("poisoned", &state.poison.is_some())
            .finish_non_exhaustive()
    }
}
