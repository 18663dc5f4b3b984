//! The registry: every instance, every group, and how devices come and go.
//!
//! Lock: `Registry::state`, the outermost of the API. Adding and removing devices is serialised by
//! it (rule C-072) and may wait, for a bounded time, on the unit.

use core::fmt;

use crate::device::{Device, DeviceId};
use crate::domain::PagingDomain;
use crate::driver::{Driver, EndpointId};
use crate::error::ProbeError;
use crate::fault::{Fault, Handled};
use crate::group::{Group, GroupId};
use crate::instance::{FAULT_QUEUE, Instance, InstanceId};
use crate::list::List;
use crate::pool::{Owned, Pool, PoolVec, Shared};
use crate::reserved::{Full, ReservedKind, ReservedRegions};
use crate::sync::{Mutex, RawLock, SpinLock};

/// All that is under management. A kernel has one; a test makes its own (rule D-18).
///
#[cfg_attr(feature = "sim", doc = "```")]
#[cfg_attr(not(feature = "sim"), doc = "```ignore")]
/// use iommu::{device::DeviceId, driver::EndpointId, error::ProbeError, pool::Pool, registry::*};
///
/// static POOL: Pool = Pool::heap();
/// let registry = Registry::new(&POOL);
/// # let driver = iommu::sim::Sim::new().driver();
/// let iommu = registry.add_instance(driver)?;
///
/// // Two functions that emit the same requester id can't be told apart: one group.
/// let ids = [EndpointId(0x18)];
/// let info = |id| DeviceInfo { id: DeviceId(id), endpoints: &ids, with: None };
/// let one = registry.add_device(&iommu, &info(1))?;
/// let two = registry.add_device(&iommu, &info(2))?;
/// assert_eq!(one.id(), two.id());
///
/// assert_eq!(registry.remove_instance(&iommu), Err(ProbeError::Exists), "it has devices");
/// registry.remove_device(DeviceId(1))?;
/// registry.remove_device(DeviceId(2))?;
/// registry.remove_instance(&iommu)?;
/// # Ok::<(), ProbeError>(())
/// ```
pub struct Registry<R: RawLock = SpinLock> {
    pool: &'static Pool,
    state: Mutex<R, State<R>>,
}

struct State<R: RawLock> {
    instances: List<Instance<R>>,
    groups: List<Group<R>>,
    next_instance: u32,
    next_group: u32,
}

/// What the host knows of a device when it adds it.
#[derive(Clone, Copy, Debug)]
pub struct DeviceInfo<'a> {
    /// The host's name for the device.
    pub id: DeviceId,
    /// Every endpoint id that it can emit, bridges' aliases included (rules C-031, C-055).
    pub endpoints: &'a [EndpointId],
    /// A device already added that this one can't be isolated from although their endpoints
    /// differ: no ACS on the path, functions of one chip (rules C-057, C-059).
    pub with: Option<DeviceId>,
}

impl Registry<SpinLock> {
    /// An empty registry whose nodes come from `pool`, with the default lock.
    #[must_use]
    pub const fn new(pool: &'static Pool) -> Self {
        Self::with_lock(pool)
    }
}

impl<R: RawLock> Registry<R> {
    /// An empty registry with the host's own lock.
    #[must_use]
    pub const fn with_lock(pool: &'static Pool) -> Self {
        let state =
            State { instances: List::new(), groups: List::new(), next_instance: 0, next_group: 0 };
        Self { pool, state: Mutex::const_new(R::INIT, state) }
    }

    /// The pool that nodes come from.
    #[must_use]
    pub fn pool(&self) -> &'static Pool {
        self.pool
    }

    /// Takes a unit under management. Its devices are added one by one afterwards.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`; the driver is dropped, which resets the unit.
    pub fn add_instance<D: Driver + 'static>(
        &self,
        driver: D,
    ) -> Result<Shared<Instance<R>>, ProbeError> {
        let driver = Owned::new(self.pool, driver)?.unsize::<dyn Driver>(|driver| driver);
        let mut state = self.state.lock();
        let id = InstanceId(state.next_instance);
        let instance = Shared::new(self.pool, Instance::new(id, driver, self.pool))?;
        state.next_instance = id.0.checked_add(1).ok_or(ProbeError::NoSpace)?;
        state.instances.push_back(instance.clone());
        Ok(instance)
    }

    /// Takes an instance out. Its driver is dropped with the last owner: domains and groups that
    /// the host still holds keep it alive.
    ///
    /// # Errors
    ///
    /// `Exists`: a group of the instance still has devices. `NoDevice`: not in this registry.
    pub fn remove_instance(&self, instance: &Shared<Instance<R>>) -> Result<(), ProbeError> {
        let mut state = self.state.lock();
        if state.groups.iter().any(|group| group.instance().ptr_eq(instance)) {
            return Err(ProbeError::Exists);
        }
        let removed = state.instances.remove(|one| one.id() == instance.id());
        removed.map(drop).ok_or(ProbeError::NoDevice)
    }

    /// Adds a device: probes its endpoints, finds or makes its group, and puts it where the group
    /// is. A new group is blocked (rules C-082, D-32).
    ///
    /// Devices that share an endpoint id share a group, on every bus (rule C-046). Adding to a
    /// group that is attached attaches the device too (rule C-148).
    ///
    /// # Errors
    ///
    /// As [`ProbeError`]. Whatever the variant, the device is not registered, the group is as it
    /// was, and the device's endpoints are blocked as far as the unit obeys (rule C-075).
    pub fn add_device(
        &self,
        instance: &Shared<Instance<R>>,
        info: &DeviceInfo<'_>,
    ) -> Result<Shared<Group<R>>, ProbeError> {
        let mut state = self.state.lock();
        if state.groups.iter().any(|group| group.has_device(info.id)) {
            return Err(ProbeError::Exists);
        }
        if info.endpoints.is_empty() {
            return Err(ProbeError::NoDevice);
        }
        let found = state.group_for(instance, info)?;
        let (endpoints, reserved) = self.probe(instance, info.endpoints)?;
        let device = Shared::new(self.pool, Device::new(info.id, endpoints, reserved))?;
        if let Some(group) = found {
            group.add(device)?;
            return Ok(group);
        }
        let id = GroupId(state.next_group);
        let group = Shared::new(self.pool, Group::new(id, instance, self.pool))?;
        group.add(device)?;
        state.next_group = id.0.checked_add(1).ok_or(ProbeError::NoSpace)?;
        state.groups.push_back(group.clone());
        Ok(group)
    }

    /// Takes a device out of its group. Its endpoints end blocked, unless another member shares
    /// them. A group without devices is forgotten; the host's handles on it stay valid.
    ///
    /// # Errors
    ///
    /// `NoDevice`: no such device.
    pub fn remove_device(&self, id: DeviceId) -> Result<(), ProbeError> {
        let mut state = self.state.lock();
        let group = state.groups.find(|group| group.has_device(id)).ok_or(ProbeError::NoDevice)?;
        group.remove(id).ok_or(ProbeError::NoDevice)?;
        if group.is_empty() {
            state.groups.remove(|one| one.id() == group.id());
        }
        Ok(())
    }

    /// The group of a device.
    pub fn group_of(&self, id: DeviceId) -> Option<Shared<Group<R>>> {
        self.state.lock().groups.find(|group| group.has_device(id))
    }

    /// The group with this number.
    pub fn group(&self, id: GroupId) -> Option<Shared<Group<R>>> {
        self.state.lock().groups.find(|group| group.id() == id)
    }

    /// How many groups there are.
    #[must_use]
    pub fn group_count(&self) -> usize {
        self.state.lock().groups.iter().count()
    }

    /// Takes the oldest fault record of `instance` and names the device that it belongs to.
    ///
    /// Locks: the fault queue, then registry and groups.
    pub fn next_fault(&self, instance: &Instance<R>) -> Option<Fault> {
        self.take_fault(instance).map(|(fault, _)| fault)
    }

    /// Hands the waiting fault records of `instance` to the handlers of the domains that their
    /// devices are on, and those that nobody handled to `unhandled`. Returns how many there were:
    /// at most [`FAULT_QUEUE`], so that a device that faults without end can't keep the caller.
    ///
    /// No lock is held while a handler or `unhandled` runs (rules C-202, C-236).
    pub fn deliver_faults(
        &self,
        instance: &Instance<R>,
        mut unhandled: impl FnMut(&Fault),
    ) -> usize {
        for count in 0..FAULT_QUEUE {
            let Some((fault, domain)) = self.take_fault(instance) else { return count };
            let handler = domain.as_ref().and_then(|domain| domain.fault_handler());
            if handler.is_none_or(|handler| handler.fault(&fault) == Handled::No) {
                unhandled(&fault);
            }
        }
        FAULT_QUEUE
    }

    fn take_fault(
        &self,
        instance: &Instance<R>,
    ) -> Option<(Fault, Option<Shared<PagingDomain<R>>>)> {
        let record = instance.next_fault()?;
        let state = self.state.lock();
        let mut groups = state.groups.iter().filter(|group| group.instance().id() == instance.id());
        let found = groups.find_map(|group| group.device_and_domain(record.endpoint));
        let (device, domain) =
            found.map_or((None, None), |(device, domain)| (Some(device), domain));
        let fault = Fault { record, device, domain: domain.as_ref().map(|domain| domain.id()) };
        Some((fault, domain))
    }

    /// Copies the ids without repeats and merges what each endpoint reserves.
    fn probe(
        &self,
        instance: &Instance<R>,
        ids: &[EndpointId],
    ) -> Result<(PoolVec<EndpointId>, ReservedRegions), ProbeError> {
        let mut endpoints = PoolVec::new(self.pool);
        let mut reserved = ReservedRegions::new();
        endpoints.reserve(ids.len())?;
        for id in ids {
            if endpoints.contains(id) {
                continue;
            }
            endpoints.push(*id)?;
            let regions = instance.driver().probe(*id)?;
            let windows = regions.as_slice().iter();
            let software = windows.clone().filter(|r| r.kind == ReservedKind::SoftwareMsi).count();
            let hardware = windows.clone().any(|r| r.kind == ReservedKind::Msi);
            if software > 1 || (software == 1 && hardware) {
                return Err(ProbeError::InvalidArg); // rule C-034
            }
            reserved.merge(&regions).map_err(|Full| ProbeError::NoSpace)?;
        }
        Ok((endpoints, reserved))
    }
}

impl<R: RawLock> State<R> {
    /// The group that a device has to join, if any: by endpoint id first, then by topology.
    fn group_for(
        &self,
        instance: &Shared<Instance<R>>,
        info: &DeviceInfo<'_>,
    ) -> Result<Option<Shared<Group<R>>>, ProbeError> {
        let mut found: Option<Shared<Group<R>>> = None;
        let mut join = |group: Option<Shared<Group<R>>>| match (&found, group) {
            (Some(one), Some(other)) if !one.ptr_eq(&other) => Err(ProbeError::InvalidArg),
            (None, Some(group)) => {
                found = Some(group);
                Ok(())
            }
            _ => Ok(()),
        };
        for endpoint in info.endpoints {
            join(
                self.groups.find(|group| {
                    group.instance().ptr_eq(instance) && group.has_endpoint(*endpoint)
                }),
            )?;
        }
        if let Some(other) = info.with {
            let group = self.groups.find(|group| group.has_device(other));
            let group = group.ok_or(ProbeError::InvalidArg)?;
            if !group.instance().ptr_eq(instance) {
                return Err(ProbeError::InvalidArg);
            }
            join(Some(group))?;
        }
        Ok(found)
    }
}

impl<R: RawLock> fmt::Debug for Registry<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Registry")
            .field("instances", &state.instances)
            .field("groups", &state.groups)
            .finish()
    }
}
