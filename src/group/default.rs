//! The default domain: 1:1 mappings for firmware's regions, and a domain for kernel drivers.
//!
//! A group without an owner is blocked, unless a member has a direct region, which must stay
//! mapped 1:1 at all times (rules C-085 to C-090): then the group sits on a domain that maps the
//! direct and relaxable regions of its members and nothing else. Kernel drivers that use the group
//! ([`DmaUse`]) get the same domain and map more into it. It goes when the last of both has gone.
//!
//! Called with the group's lock held.

use core::fmt;

use super::current::Current;
use super::{Group, GroupState, Holder};
use crate::addr::{Iova, IovaRange, PhysAddr};
use crate::device::Device;
#[cfg(feature = "dma")]
use crate::dma::Space;
use crate::domain::{Added, PagingDomain};
use crate::error::{DoorbellError, ProbeError, UseError};
#[cfg(feature = "dma")]
use crate::pool::Pool;
use crate::pool::Shared;
use crate::reserved::ReservedKind;
use crate::sync::{RawLock, SpinLock};

/// The right of a kernel driver to the default domain of a group (Linux:
/// `iommu_device_use_default_domain`; rules C-138 to C-141, D-12).
///
/// Counted: several drivers may use a group at the same time, and nobody can claim it meanwhile.
/// Dropping the last one blocks the group again, except for direct regions.
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
/// let used = Group::use_default(&group)?;
/// let buffer = IovaRange::from_len(Iova(0x1000), 0x1000).unwrap();
/// used.domain().map(buffer, PhysAddr(0x8000_0000), Prot::RW)?;
/// assert_eq!(Group::claim(&group, OwnerId(1)).unwrap_err().errno(), 1, "a driver uses it");
/// used.domain().unmap(buffer)?;
/// drop(used); // blocked
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it ends the use"]
pub struct DmaUse<R: RawLock = SpinLock> {
    group: Shared<Group<R>>,
    domain: Shared<PagingDomain<R>>,
}

/// What was done to the default domain for a new device.
pub(super) struct Prepared {
    /// Whether it was made, and the group moved to it.
    made: bool,
    /// The pages that were mapped into one that was there.
    added: Added,
}

impl<R: RawLock> Group<R> {
    /// Lets a kernel driver use the group's default domain, which is made for the first one. It
    /// maps the members' direct and relaxable regions 1:1 and is otherwise empty: the driver maps
    /// what its device needs, outside of [`PagingDomain::reserved`].
    ///
    /// # Errors
    ///
    /// `Busy`: the group has an owner. `NoDevice`: it has no member. `OutOfMemory`, `NoSpace`,
    /// `Range`, `Io`, as in [`UseError`]. The group is where it was.
    pub fn use_default(group: &Shared<Self>) -> Result<DmaUse<R>, UseError> {
        let mut state = group.state.lock();
        if state.poison.is_some() {
            return Err(UseError::Io);
        }
        if state.devices.is_empty() {
            return Err(UseError::NoDevice);
        }
        let users = match state.holder {
            Holder::User(_) => return Err(UseError::Busy),
            Holder::Nobody => 0,
            Holder::Kernel(users) => users,
        };
        let users = users.checked_add(1).ok_or(UseError::NoSpace)?;
        let domain = match &state.default {
            Some(domain) => domain.clone(),
            None => group.make_default(&mut state, None)?,
        };
        state.holder = Holder::Kernel(users);
        drop(state);
        Ok(DmaUse { group: group.clone(), domain })
    }

    /// Makes room for a device before it arrives: its regions are mapped first, so that DMA that
    /// firmware started never faults (rule C-088).
    pub(super) fn prepare_default(
        &self,
        state: &mut GroupState<R>,
        device: &Device,
    ) -> Result<Prepared, ProbeError> {
        if let Some(domain) = &state.default {
            let added = domain.map_direct(one_to_one(device))?;
            return Ok(Prepared { made: false, added });
        }
        let made = device.reserves(ReservedKind::Direct);
        if made {
            self.make_default(state, Some(device))?;
        }
        Ok(Prepared { made, added: Added::new() })
    }

    /// Undoes [`prepare_default`](Self::prepare_default). A unit that refuses poisons itself or
    /// the group.
    pub(super) fn undo_default(&self, state: &mut GroupState<R>, prepared: &Prepared) {
        if prepared.made {
            self.drop_default(state);
        } else if let Some(domain) = &state.default {
            domain.unmap_direct(&prepared.added);
        }
    }

    /// Drops the default domain, and blocks the group, if nobody needs it any more.
    pub(super) fn tidy_default(&self, state: &mut GroupState<R>) {
        let direct = state.devices.iter().any(|device| device.reserves(ReservedKind::Direct));
        if !direct && matches!(state.holder, Holder::Nobody) && state.default.is_some() {
            self.drop_default(state);
        }
    }

    fn drop_default(&self, state: &mut GroupState<R>) {
        self.go_to_blocking(state);
        state.default = None;
    }

    /// Makes the default domain for the members, and for one `more` that is about to join, and
    /// moves the members to it.
    fn make_default(
        &self,
        state: &mut GroupState<R>,
        more: Option<&Device>,
    ) -> Result<Shared<PagingDomain<R>>, ProbeError> {
        let domain = PagingDomain::new(&self.instance, self.pool)?;
        let regions = state.devices.iter().chain(more).flat_map(one_to_one);
        domain.map_direct(regions)?;
        let to = Current::Paging(domain.clone());
        if state.endpoints.is_empty() {
            state.current = to; // the first member is about to arrive there
        } else {
            self.move_to(state, &to)?;
        }
        state.default = Some(domain.clone());
        Ok(domain)
    }

    fn end_use(&self) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.holder = match state.holder {
            Holder::Kernel(users) if users > 1 => Holder::Kernel(users - 1),
            _ => Holder::Nobody,
        };
        #[cfg(feature = "dma")]
        if matches!(state.holder, Holder::Nobody) {
            state.dma = None; // the domain may stay, for direct regions
        }
        self.tidy_default(state);
    }
}

/// The regions of a device that its default domain maps.
fn one_to_one(device: &Device) -> impl Iterator<Item = IovaRange> {
    let wanted = |kind| matches!(kind, ReservedKind::Direct | ReservedKind::DirectRelaxable);
    let regions = device.reserved().as_slice().iter();
    regions.filter(move |region| wanted(region.kind)).map(|region| region.range)
}

impl<R: RawLock> DmaUse<R> {
    /// The group.
    #[must_use]
    pub fn group(&self) -> &Shared<Group<R>> {
        &self.group
    }

    /// The default domain, which the group is on as long as this value lives.
    #[must_use]
    pub fn domain(&self) -> &Shared<PagingDomain<R>> {
        &self.domain
    }

    /// The address that a device of the group must write to, to ring the interrupt doorbell at
    /// physical address `doorbell`; as
    /// [`Attachment::map_doorbell`](super::Attachment::map_doorbell).
    ///
    /// # Errors
    ///
    /// As [`PagingDomain::map_doorbell`].
    pub fn map_doorbell(&self, doorbell: PhysAddr) -> Result<Iova, DoorbellError> {
        self.group.map_doorbell(&self.domain, doorbell)
    }

    /// Which addresses of the domain are taken; one for all drivers of the group, made for the first
    /// of them.
    #[cfg(feature = "dma")]
    pub(crate) fn space(&self) -> Result<Shared<Space<R>>, UseError> {
        let mut state = self.group.state.lock();
        if let Some(space) = &state.dma {
            return Ok(space.clone());
        }
        let space = Shared::new(self.group.pool, Space::new(&self.domain, self.group.pool)?)?;
        state.dma = Some(space.clone());
        Ok(space)
    }

    /// Where the nodes of the group come from.
    #[cfg(feature = "dma")]
    pub(crate) fn pool(&self) -> &'static Pool {
        self.group.pool
    }
}

impl<R: RawLock> Drop for DmaUse<R> {
    fn drop(&mut self) {
        self.group.end_use();
    }
}

impl<R: RawLock> fmt::Debug for DmaUse<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaUse")
            .field("group", &self.group.id())
            .field("domain", &self.domain.id())
            .finish()
    }
}
