//! Emulated groups: devices that never do DMA themselves and reach memory through pins and copies.
//!
//! They have no IOMMU, so there is no ownership to hand over, and no IOMMU operation is made for
//! them (rules T1-004, T1-153, T1-225). The list is under `Container::state`; who joins or leaves
//! holds `Container::groups` as well, as for any group.

use intrusive_collections::intrusive_adapter;

use super::{AttachGroupError, Container, Memory};
use crate::group::GroupId;
use crate::list::{Link, listed};
use crate::pool::Shared;
use crate::sync::RawLock;

/// The number of an emulated group: the host's own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct EmulatedId(pub u64);

/// A group of a container, with an IOMMU or without: who pins pages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Member {
    /// A group behind an IOMMU.
    Group(GroupId),
    /// An emulated group.
    Emulated(EmulatedId),
}

impl From<GroupId> for Member {
    fn from(id: GroupId) -> Self {
        Self::Group(id)
    }
}

impl From<EmulatedId> for Member {
    fn from(id: EmulatedId) -> Self {
        Self::Emulated(id)
    }
}

/// An emulated group of the container. Owner: `State::emulated`.
pub(crate) struct EmulatedEntry {
    link: Link,
    pub(super) id: EmulatedId,
}

listed!(EmulatedAdapter, EmulatedEntry);

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Adds an emulated group: its devices may pin and copy memory that is mapped.
    ///
    /// # Errors
    ///
    /// `Busy`: a mapping has a void address (rule T1-150). `InvalidArg`: it is in the container already (rule T1-151). `OutOfMemory`: no node.
    pub fn attach_emulated(&self, id: EmulatedId) -> Result<(), AttachGroupError> {
        let _one_at_a_time = self.groups.lock();
        let mut state = self.state.lock();
        if state.invalid_vaddrs > 0 {
            return Err(AttachGroupError::Busy);
        }
        if state.emulated.iter().any(|entry| entry.id == id) {
            return Err(AttachGroupError::InvalidArg);
        }
        let entry = Shared::new(self.pool, EmulatedEntry { link: Link::new(), id })?;
        state.emulated.push_front(entry);
        Ok(())
    }

    /// Removes an emulated group; `false` if it is not in the container. Can't fail otherwise, and
    /// never allocates.
    ///
    /// With the last group of the container, of either kind, all mappings go, and external pins
    /// that its devices still hold are released (rules T1-225, T1-227).
    pub fn detach_emulated(&self, id: EmulatedId) -> bool {
        let _one_at_a_time = self.groups.lock();
        let mut state = self.state.lock();
        let found = state.emulated.remove(|entry| entry.id == id).is_some();
        let last = state.emulated.is_empty() && state.domains.is_empty();
        drop(state);
        if found && last {
            self.forget_all();
        }
        found
    }

    /// How many emulated groups there are.
    #[must_use]
    pub fn emulated_count(&self) -> usize {
        self.state.lock().emulated.iter().count()
    }
}
