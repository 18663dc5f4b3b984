//! The rights over a group, as values: owning it, and having it attached.

use core::fmt;

use super::Group;
use crate::device::DeviceId;
use crate::domain::PagingDomain;
use crate::error::AttachError;
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
        match self.group.attach(domain) {
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
        if !self.group.has_device(device) {
            return Err(Refused { error: AttachError::NoDevice, ownership: self });
        }
        if self.group.device_count() != 1 {
            return Err(Refused { error: AttachError::NotSingleton, ownership: self });
        }
        self.attach(domain)
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
        self.group().attach(domain)?;
        self.domain = domain.clone();
        Ok(())
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

impl<R: RawLock> fmt::Debug for Refused<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("error", &self.error)
            .field("group", &self.ownership.group.id())
            .finish()
    }
}
