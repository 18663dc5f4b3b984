//! Groups: the smallest sets of devices that can be isolated, their owner and current domain.
//!
//! A group always is on a domain: its user's, or the blocking domain of its instance. There is no
//! detached state in which the device decides (rules D-03, C-147). The rights come as values:
//!
//! - [`Group::claim`] gives an [`Ownership`]: nobody else can claim, the group is blocked;
//! - [`Ownership::attach`] turns it into an [`Attachment`]: the group is on a paging domain;
//! - [`Attachment::detach`], or dropping either value, goes back. None of these can fail.
//!
//! So attach without a claim, detach of another domain, and release while attached don't compile.
//!
//! Lock: `Group::state` guards members, owner and current domain; the domains' locks are taken
//! under it, in `switch.rs`.

mod guard;
mod switch;

use core::fmt;

pub use guard::{Attachment, Ownership, Refused};

use crate::device::{Device, DeviceId};
use crate::domain::PagingDomain;
use crate::driver::EndpointId;
use crate::error::{AttachError, ClaimError, ProbeError};
use crate::instance::Instance;
use crate::list::{Link, List};
use crate::pool::{Pool, PoolVec, Shared};
use crate::reserved::{Full, ReservedKind, ReservedRegions};
use crate::sync::{Mutex, RawLock, SpinLock};
use crate::trace::emit;

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
pub struct Group<R: RawLock = SpinLock> {
    pub(crate) link: Link,
    id: GroupId,
    instance: Shared<Instance<R>>,
    state: Mutex<R, GroupState<R>>,
}

struct GroupState<R: RawLock> {
    devices: List<Device>,
    /// The distinct endpoint ids of all members: what attach sends, once each.
    endpoints: PoolVec<EndpointId>,
    owner: Option<OwnerId>,
    /// `None` is the blocking domain.
    current: Option<Shared<PagingDomain<R>>>,
    poison: Option<Poison<R>>,
}

/// Why a group is out of use: an undo failed. The domains that its endpoints may still be on are
/// kept alive, so that their ids and records stay (rule C-135).
struct Poison<R: RawLock> {
    _kept: [Option<Shared<PagingDomain<R>>>; 2],
}

impl<R: RawLock> Group<R> {
    pub(crate) fn new(id: GroupId, instance: &Shared<Instance<R>>, pool: &'static Pool) -> Self {
        let state = GroupState {
            devices: List::new(),
            endpoints: PoolVec::new(pool),
            owner: None,
            current: None,
            poison: None,
        };
        Self { link: Link::new(), id, instance: instance.clone(), state: Mutex::new(state) }
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
        self.state.lock().owner
    }

    /// The paging domain the group is on, or `None` while it is blocked.
    #[must_use]
    pub fn current_domain(&self) -> Option<Shared<PagingDomain<R>>> {
        self.state.lock().current.clone()
    }

    /// Whether an undo failed and the group is out of use, blocked as far as the unit obeys.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.state.lock().poison.is_some()
    }

    /// The reserved regions of all members, merged (rule C-033).
    ///
    /// # Errors
    ///
    /// [`Full`]: more than [`MAX_RESERVED`](crate::reserved::MAX_RESERVED) after merging.
    pub fn reserved(&self) -> Result<ReservedRegions, Full> {
        self.state.lock().reserved()
    }

    /// Takes ownership of `group` for `owner`. The group stays blocked until it is attached.
    ///
    /// Linux: `iommu_group_claim_dma_owner`.
    ///
    /// # Errors
    ///
    /// `NotPermitted`: it has an owner. `DirectRequired`: a member needs 1:1 mappings at all
    /// times. `NoDevice`: it has no member. `Io`: it is poisoned.
    pub fn claim(group: &Shared<Self>, owner: OwnerId) -> Result<Ownership<R>, ClaimError> {
        let mut state = group.state.lock();
        if state.owner.is_some() {
            return Err(ClaimError::NotPermitted);
        }
        if state.poison.is_some() {
            return Err(ClaimError::Io);
        }
        if state.devices.is_empty() {
            return Err(ClaimError::NoDevice);
        }
        let needs_direct = |device: &Device| {
            device.reserved().as_slice().iter().any(|region| region.kind == ReservedKind::Direct)
        };
        if state.devices.iter().any(needs_direct) {
            return Err(ClaimError::DirectRequired);
        }
        state.owner = Some(owner);
        drop(state);
        Ok(Ownership::new(group.clone()))
    }

    /// Adds a probed device and puts its new endpoints where the group is (rule C-148).
    pub(crate) fn add(&self, device: Shared<Device>) -> Result<(), ProbeError> {
        let mut state = self.state.lock();
        let mut union = state.reserved().map_err(|Full| ProbeError::NoSpace)?;
        union.merge(device.reserved()).map_err(|Full| ProbeError::NoSpace)?;
        if state.poison.is_some() {
            return Err(ProbeError::Io);
        }
        let known = state.endpoints.len();
        state.endpoints.reserve(device.endpoints().len())?;
        for endpoint in device.endpoints() {
            if !state.endpoints.contains(endpoint) {
                state.endpoints.push(*endpoint)?;
            }
        }
        let GroupState { endpoints, current, .. } = &mut *state;
        let fresh = endpoints.get(known..).unwrap_or_default();
        let joined = switch::arrive(&self.instance, fresh, current.as_deref(), device.reserved());
        if let Err(error) = joined {
            endpoints.truncate(known);
            return Err(error);
        }
        state.devices.push_back(device);
        Ok(())
    }

    /// Takes a device out; its endpoints that no other member uses end blocked.
    pub(crate) fn remove(&self, id: DeviceId) -> Option<Shared<Device>> {
        let mut state = self.state.lock();
        let device = state.devices.remove(|device| device.id() == id)?;
        for endpoint in device.endpoints() {
            let shared = state.devices.iter().any(|other| other.endpoints().contains(endpoint));
            let place = state.endpoints.iter().position(|known| known == endpoint);
            let (false, Some(place)) = (shared, place) else { continue };
            let leaving = [*endpoint];
            let blocked = match state.current.as_deref() {
                Some(current) => switch::block(&self.instance, &leaving, current),
                None => Ok(()),
            };
            self.instance.driver().release(&leaving);
            state.endpoints.remove(place);
            if blocked.is_err() {
                let kept = state.current.clone();
                self.poison(&mut state, kept, None);
            }
        }
        Some(device)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().devices.is_empty()
    }

    pub(crate) fn has_device(&self, id: DeviceId) -> bool {
        self.state.lock().devices.iter().any(|device| device.id() == id)
    }

    pub(crate) fn device_of(&self, endpoint: EndpointId) -> Option<DeviceId> {
        let state = self.state.lock();
        let owner = state.devices.iter().find(|device| device.endpoints().contains(&endpoint))?;
        Some(owner.id())
    }

    /// Moves the group to `to`; for the guards, which prove that the caller may.
    fn attach(&self, to: &Shared<PagingDomain<R>>) -> Result<(), AttachError> {
        let mut state = self.state.lock();
        if state.poison.is_some() {
            return Err(AttachError::Io);
        }
        if state.devices.is_empty() {
            return Err(AttachError::NoDevice);
        }
        if !to.instance().ptr_eq(&self.instance) {
            return Err(AttachError::Incompatible); // rule C-257: decided before any request
        }
        if state.current.as_ref().is_some_and(|current| current.ptr_eq(to)) {
            return Ok(()); // rule C-101
        }
        let reserved = state.reserved().map_err(|Full| AttachError::NoSpace)?;
        let moved = switch::switch(
            &self.instance,
            &state.endpoints,
            state.current.as_deref(),
            to,
            &reserved,
        );
        match moved {
            Ok(()) => {
                emit!(debug, "iommu: group {} on domain {}", self.id.0, to.id().0);
                state.current = Some(to.clone());
                Ok(())
            }
            Err(switch::Failed::Undone(error)) => Err(error),
            Err(switch::Failed::Stuck(error)) => {
                let kept = state.current.take();
                self.poison(&mut state, kept, Some(to.clone()));
                Err(error)
            }
        }
    }

    /// Moves the group to the blocking domain; what can't be moved poisons the group.
    fn detach(&self) {
        let mut state = self.state.lock();
        let Some(current) = state.current.take() else { return };
        if switch::block(&self.instance, &state.endpoints, &current).is_err() {
            self.poison(&mut state, Some(current), None);
        }
        emit!(debug, "iommu: group {} blocked", self.id.0);
    }

    fn release(&self) {
        self.detach();
        self.state.lock().owner = None;
    }

    fn poison(
        &self,
        state: &mut GroupState<R>,
        one: Option<Shared<PagingDomain<R>>>,
        other: Option<Shared<PagingDomain<R>>>,
    ) {
        emit!(warn, "iommu: group {} is out of use: the IOMMU refused an undo", self.id.0);
        state.poison = Some(Poison { _kept: [one, other] });
    }
}

impl<R: RawLock> GroupState<R> {
    fn reserved(&self) -> Result<ReservedRegions, Full> {
        let mut union = ReservedRegions::new();
        for device in self.devices.iter() {
            union.merge(device.reserved())?;
        }
        Ok(union)
    }
}

impl<R: RawLock> fmt::Debug for Group<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Group")
            .field("id", &self.id)
            .field("instance", &self.instance.id())
            .field("devices", &state.devices)
            .field("owner", &state.owner)
            .field("poisoned", &state.poison.is_some())
            .finish_non_exhaustive()
    }
}
