//! The rights over a group, as values: owning it, and having it attached.

use core::fmt;

use super::Group;
use crate::addr::{Iova, PhysAddr};
use crate::device::DeviceId;
use crate::domain::PagingDomain;
use crate::error::{AttachError, DoorbellError};
use crate::pool::Shared;
use crate::sync::{RawLock, SpinLock};

/// The exclusive right over a group. The group is blocked while only this exists (rule C-147).
///
/// Dropping it releases the group; it stays blocked.
#[must_use = "dropping it releases the group"]
pub struct Ownership<R: RawLock = SpinLock> {
    group: Shared<Group<R>>,
}

/// A group that is on a paging domain. Keeps the domain alive (rule D-14).
///
/// Dropping it blocks and releases the group; [`detach`](Self::detach) keeps the ownership.
#[must_use = "dropping it detaches and releases the group"]
pub struct Attachment<R: RawLock = SpinLock> {
    ownership: Ownership<R>,
    domain: Shared<PagingDomain<R>>,
}

/// A group that is on the identity domain: its devices reach all memory.
///
/// There is nothing to map. Dropping it blocks and releases the group.
#[must_use = "dropping it detaches and releases the group"]
pub struct IdentityAttachment<R: RawLock = SpinLock> {
    ownership: Ownership<R>,
}

/// An attach that did not happen: the reason, and the ownership back.
pub struct Refused<R: RawLock = SpinLock> {
    /// Why.
    pub error: AttachError,
    /// The right over the group, which is where it was before.
    pub ownership: Ownership<R>,
}

impl<R: RawLock> Ownership<R> {
    pub(super) fn new(group: Shared<Group<R>>) -> Self {
        Self { group }
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &Shared<Group<R>> {
        &self.group
    }

    /// Attaches every device of the group to `domain`: all of them or none (Linux:
    /// `iommu_attach_group`).
    ///
    /// When this returns `Ok`, each device reaches exactly what the domain maps. One request per
    /// distinct endpoint, in one batch, and the replay of the domain's mappings if it had no
    /// endpoint before. Locks: the group, then the domain, while the device works.
    ///
    /// # Errors
    ///
    /// `Incompatible`: the domain is of another instance, or driver or device can't use it; try
    /// another one. `NoDevice`, `AddrInUse`, `OutOfMemory`, `NoSpace`, `Io`: hard, as in
    /// [`AttachError`]. The group is blocked as before; if even the undo failed, it is poisoned.
    pub fn attach(self, domain: &Shared<PagingDomain<R>>) -> Result<Attachment<R>, Refused<R>> {
        self.attach_to(domain, None)
    }

    fn attach_to(
        self,
        domain: &Shared<PagingDomain<R>>,
        only: Option<DeviceId>,
    ) -> Result<Attachment<R>, Refused<R>> {
        match self.group.attach(domain, only) {
            Ok(()) => Ok(Attachment { ownership: self, domain: domain.clone() }),
            Err(error) => Err(Refused { error, ownership: self }),
        }
    }

    /// Attaches a group that is this one device (Linux: `iommu_attach_device`; rule C-120).
    ///
    /// # Errors
    ///
    /// `NotSingleton`: the group has another member. `NoDevice`: the device is not in it. Else as
    /// [`attach`](Self::attach).
    pub fn attach_device(
        self,
        device: DeviceId,
        domain: &Shared<PagingDomain<R>>,
    ) -> Result<Attachment<R>, Refused<R>> {
        self.attach_to(domain, Some(device))
    }

    /// Attaches the group to the identity domain: its devices reach **all** memory, untranslated,
    /// as if there were no IOMMU (rules C-015, C-268).
    ///
    /// Where the unit has no such mode, a domain is made in which the aperture is mapped 1:1,
    /// except for what the group reserves.
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
    /// let attached = Group::claim(&group, OwnerId(1))?.attach_identity().unwrap();
    /// // Straight to a domain that maps what the device needs, and nothing else:
    /// let domain = PagingDomain::new(&iommu, &POOL)?;
    /// let attached = attached.replace(&domain).map_err(|(error, _)| error)?;
    /// # drop(attached);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `NoDevice`, `OutOfMemory`, `NoSpace`, `Io`, as in [`AttachError`]. The group is blocked as
    /// before; if even the undo failed, it is poisoned.
    pub fn attach_identity(self) -> Result<IdentityAttachment<R>, Refused<R>> {
        match self.group.attach_identity() {
            Ok(()) => Ok(IdentityAttachment { ownership: self }),
            Err(error) => Err(Refused { error, ownership: self }),
        }
    }
}

impl<R: RawLock> Attachment<R> {
    /// The group.
    #[must_use]
    pub fn group(&self) -> &Shared<Group<R>> {
        self.ownership.group()
    }

    /// The domain that the group is on.
    #[must_use]
    pub fn domain(&self) -> &Shared<PagingDomain<R>> {
        &self.domain
    }

    /// Moves the group straight to another domain, never through blocking (rule C-130).
    ///
    /// # Errors
    ///
    /// As [`Ownership::attach`]; the group is still on the old domain.
    pub fn replace(&mut self, domain: &Shared<PagingDomain<R>>) -> Result<(), AttachError> {
        self.group().attach(domain, None)?;
        self.domain = domain.clone();
        Ok(())
    }

    /// The address that a device of the group must write to, to ring the interrupt doorbell at
    /// physical address `doorbell`: what the host puts into the device's MSI table (rules C-039,
    /// C-040, C-043).
    ///
    #[cfg_attr(feature = "sim", doc = "```")]
    #[cfg_attr(not(feature = "sim"), doc = "```ignore")]
    /// # use iommu::{addr::*, device::DeviceId, domain::*, driver::EndpointId, group::*, pool::Pool};
    /// # use iommu::{prot::Prot, registry::*, sim::Sim};
    /// # static POOL: Pool = Pool::heap();
    /// # let registry = Registry::new(&POOL);
    /// # let iommu = registry.add_instance(Sim::new().driver())?;
    /// # let window = IovaRange::from_len(Iova(0x800_0000), 0x10_0000).unwrap();
    /// # let info = DeviceInfo { id: DeviceId(1), endpoints: &[EndpointId(8)], with: None };
    /// # let group = registry.add_device(&iommu, &info)?;
    /// let options = DomainOptions { msi_window: Some(window), ..DomainOptions::default() };
    /// let domain = PagingDomain::with_options(&iommu, &POOL, &options)?;
    /// let attached = Group::claim(&group, OwnerId(1))?.attach(&domain).unwrap();
    /// let address = attached.map_doorbell(PhysAddr(0x802_0040))?;
    /// assert_eq!(address, Iova(0x800_0040), "what goes into the device's MSI table");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Where the group's hardware passes interrupts by, that is `doorbell` itself and nothing is
    /// mapped; else its page is mapped in the domain's window.
    ///
    /// # Errors
    ///
    /// As [`PagingDomain::map_doorbell`].
    pub fn map_doorbell(&self, doorbell: PhysAddr) -> Result<Iova, DoorbellError> {
        self.group().map_doorbell(&self.domain, doorbell)
    }

    /// Blocks the group and returns its ownership. Can't fail: what the unit refuses poisons the
    /// group (rule D-13).
    pub fn detach(self) -> Ownership<R> {
        self.ownership.group.detach();
        self.ownership
    }
}

impl<R: RawLock> IdentityAttachment<R> {
    /// The group.
    #[must_use]
    pub fn group(&self) -> &Shared<Group<R>> {
        self.ownership.group()
    }

    /// Moves the group straight to a paging domain, never through blocking (rule C-130).
    ///
    /// # Errors
    ///
    /// As [`Ownership::attach`]; the value comes back, and the group is still on the identity
    /// domain.
    pub fn replace(
        self,
        domain: &Shared<PagingDomain<R>>,
    ) -> Result<Attachment<R>, (AttachError, Self)> {
        self.ownership
            .attach(domain)
            .map_err(|Refused { error, ownership }| (error, Self { ownership }))
    }

    /// Blocks the group and returns its ownership. Can't fail: what the unit refuses poisons the
    /// group (rule D-13).
    pub fn detach(self) -> Ownership<R> {
        self.ownership.group.detach();
        self.ownership
    }
}

impl<R: RawLock> Drop for Ownership<R> {
    fn drop(&mut self) {
        self.group.release();
    }
}

impl<R: RawLock> fmt::Debug for Ownership<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ownership").field("group", &self.group.id()).finish()
    }
}

impl<R: RawLock> fmt::Debug for Attachment<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment")
            .field("group", &self.group().id())
            .field("domain", &self.domain.id())
            .finish()
    }
}

impl<R: RawLock> fmt::Debug for IdentityAttachment<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityAttachment").field("group", &self.group().id()).finish()
    }
}

impl<R: RawLock> fmt::Debug for Refused<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("error", &self.error)
            .field("group", &self.ownership.group.id())
            .finish()
    }
}
