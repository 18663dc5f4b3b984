//! The VFIO type1 container: one user's memory, mapped the same way for all of its groups.
//!
//! Groups come with their [`Ownership`] and get it back at detach. Memory is mapped once, for
//! every domain that the groups need; the attach routine tries the domains that are there, newest
//! first, takes `Incompatible` alone as "try the next", and allocates only when the list is used
//! up (rules T1-150 to T1-171). Where a call goes:
//!
//! | call | file |
//! |---|---|
//! | `attach_group`, `detach_group` | `attach.rs`, `detach.rs`, `replay.rs` |
//! | `map_dma`, `unmap_dma` | `map.rs`, `unmap.rs`, `drain.rs` |
//! | what is held | `state.rs` |
//! | usable IOVAs | `windows.rs` |
//! | emulated groups, their pins, who is told | `emulated.rs`, `pins.rs`, `holders.rs` |
//! | the owner's addresses change | `vaddr.rs` |
//! | what user space may know | `info.rs` |
//! | copies for emulated devices | `copy.rs` |
//! | dirty pages | `dirty.rs`, `report.rs`, `bitmap.rs` |
//! | who is charged for a page | `charge.rs` |
//! | pinning | `memory.rs`, implemented by the host |
//! | the Linux ioctls | `abi/` |
//!
//! # Locks
//!
//! `Container::groups` (outer) admits one attach or detach at a time. `Container::state` guards
//! everything else; it is never held while the memory provider works (rule T1-582). A mapping that
//! is being built or removed while the state is unlocked says so in its `Phase`, and its whole
//! range is taken from the start (rule T1-583).

pub mod abi;
mod attach;
mod bitmap;
mod charge;
#[cfg(any(test, feature = "sim"))]
mod check;
mod copy;
mod detach;
mod dirty;
mod drain;
mod emulated;
mod errors;
mod holders;
mod info;
mod map;
mod memory;
mod pins;
mod replay;
mod report;
mod state;
mod unmap;
mod vaddr;
mod windows;

use core::fmt;

pub use copy::MAX_COPIES;
pub use emulated::{EmulatedId, Member};
pub use errors::{
    AttachGroupError, DirtyError, DmaCopyError, MapDmaError, PinPagesError, UnmapDmaError,
    UnmapFailed, Unmapped, UpdateVaddrError,
};
pub use holders::{HolderId, PinHolder};
pub use info::{Extension, Info, Migration};
pub use map::MapDma;
pub use memory::{Frame, IdentityMemory, Memory, MemoryOwner, PinError, Pinned};
pub use report::{BitmapFault, DirtyBitmap, DirtyRange, MAX_DIRTY_BITMAP};
pub(crate) use state::{DomainEntry, GroupEntry};
pub use unmap::UnmapDma;
pub use vaddr::UpdateVaddr;

use crate::addr::{Iova, IovaRange, PhysAddr};
use crate::domain::PagingDomain;
use crate::error::OutOfMemory;
use crate::group::{GroupId, Ownership};
use crate::list::List;
use crate::pool::{Pool, Shared};
use crate::rangemap::RangeMap;
use crate::sync::{Mutex, RawLock, SpinLock};
use state::State;
use windows::Windows;

/// The two kinds of containers. New code wants the second.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Kind {
    /// Unmaps round to mappings (rules T1-367, T1-368); no pins for emulated devices, no dirty
    /// tracking.
    V1,
    /// Unmaps are exact.
    #[default]
    V2,
}

/// How a container is opened (rule T1-010).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Which rules it follows. Default: the second kind.
    pub kind: Kind,
    /// Accept groups whose interrupts aren't isolated: a device could then forge another's
    /// interrupts by writing to the doorbell. Default: no.
    pub allow_unsafe_interrupts: bool,
    /// How many mappings there may be at a time. Default: 65 535, as in Linux.
    pub mapping_limit: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { kind: Kind::V2, allow_unsafe_interrupts: false, mapping_limit: 65_535 }
    }
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// The IOMMU operations that a container made (rule T1-720): what its costs are counted in.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        pub struct Operations { $($(#[$doc])* pub $name: u64,)+ }

        impl Operations {
            /// What happened between `earlier` and this snapshot.
            #[must_use]
            pub const fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name.wrapping_sub(earlier.$name),)+ }
            }
        }
    };
}

operations! {
    /// Domains allocated.
    dom_alloc,
    /// Group attaches that succeeded.
    attach_ok,
    /// Group attaches that were refused, soft or hard.
    attach_fail,
    /// Group detaches.
    detach,
    /// Domains freed.
    dom_free,
    /// Runs mapped, counted once per domain.
    dom_map,
    /// Unmaps, counted once per domain and batch.
    dom_unmap,
}

/// One user's address space for devices (Linux: a container with a type1 backend).
///
/// ```
/// use iommu::container::{Container, IdentityMemory, MapDma, Options, UnmapDma};
/// use iommu::{addr::Iova, pool::Pool, prot::Prot};
///
/// static POOL: Pool = Pool::heap();
/// let container: Container<_> = Container::new(&POOL, IdentityMemory, Options::default());
/// let page = MapDma { iova: 0x10_0000, vaddr: 0x8000, size: 0x1000, prot: Prot::RW };
/// container.map_dma(&page).unwrap();
/// assert_eq!(container.map_dma(&page).unwrap_err().errno(), 17, "it is mapped already");
/// assert_eq!(container.unmap_dma(&UnmapDma::All).unwrap().bytes, 0x1000);
/// ```
pub struct Container<M: Memory, R: RawLock = SpinLock> {
    pool: &'static Pool,
    memory: M,
    options: Options,
    groups: Mutex<R, ()>,
    state: Mutex<R, State<R>>,
}

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Opens a container without groups (rule T1-064). Allocates nothing.
    ///
    /// `memory` answers for the owner's memory; nodes come from `pool`.
    pub fn new(pool: &'static Pool, memory: M, options: Options) -> Self {
        let state = State {
            domains: List::new(),
            passing: None,
            emulated: List::new(),
            mappings: RangeMap::keeping_a_leaf(pool),
            pins: RangeMap::new(pool),
            dirty: None,
            holders: List::new(),
            last_holder: 0,
            copies: heapless::Vec::new(),
            windows: Windows::new(pool),
            windows_at: None,
            windows_narrow: false,
            page_sizes: all_sizes(memory.page_size()),
            free_mappings: options.mapping_limit,
            invalid_vaddrs: 0,
            kind: options.kind,
            next_serial: 0,
            operations: Operations::default(),
        };
        Self { pool, memory, options, groups: Mutex::new(()), state: Mutex::new(state) }
    }

    /// The IOMMU operations made so far.
    #[must_use]
    pub fn operations(&self) -> Operations {
        self.state.lock().operations
    }

    /// How many domains the groups of the container need.
    #[must_use]
    pub fn domain_count(&self) -> usize {
        self.state.lock().domains.iter().count()
    }

    /// How many groups are attached.
    #[must_use]
    pub fn group_count(&self) -> usize {
        let state = self.state.lock();
        state.domains.iter().map(|entry| entry.groups.lock().iter().count()).sum()
    }

    /// How many mappings there are, those being built or removed included.
    #[must_use]
    pub fn mapping_count(&self) -> usize {
        self.state.lock().mappings.len()
    }

    /// How many further mappings may be made (`dma_avail`, rule T1-033).
    #[must_use]
    pub fn free_mappings(&self) -> u32 {
        self.state.lock().free_mappings
    }

    /// The page sizes that all domains share, with the host's page size in place of smaller ones
    /// (rule T1-043). The lowest bit is the granule of every request.
    #[must_use]
    pub fn page_sizes(&self) -> u64 {
        self.state.lock().page_sizes
    }

    /// Calls `each` for every usable range of IOVAs, ascending; none means no constraint.
    ///
    /// What devices reserve that joined an attached group is left out, unless there is no memory to
    /// make the list again; [`map_dma`](Self::map_dma) refuses it in any case (rule T1-042).
    /// The state is locked: `each` must not call back into the container.
    pub fn for_each_window(&self, each: impl FnMut(IovaRange)) {
        let mut state = self.state.lock();
        let _ = self.refresh(&mut state);
        state.windows.as_slice().iter().copied().for_each(each);
    }

    /// Makes the list of usable IOVAs again, from the devices that the groups have now.
    ///
    /// Needed by nobody who does not keep the list: every call that reads it does this first.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]: the old list stays.
    pub fn refresh_windows(&self) -> Result<(), OutOfMemory> {
        self.refresh(&mut self.state.lock())
    }

    /// Where `iova` leads, as the newest domain has it; `None` if it is not mapped, or if no group
    /// is attached.
    #[must_use]
    pub fn iova_to_phys(&self, iova: Iova) -> Option<PhysAddr> {
        self.state.lock().domains.iter().next()?.domain.iova_to_phys(iova)
    }

    /// The domain that a group of the container is on (rule T1-072).
    #[must_use]
    pub fn domain_of(&self, group: GroupId) -> Option<Shared<PagingDomain<R>>> {
        let state = self.state.lock();
        let has = |entry: &&DomainEntry<R>| entry.groups.lock().iter().any(|one| one.is(group));
        let entry = state.domains.iter().find(has)?;
        Some(entry.domain.clone())
    }
}

/// Every page size from the host's on.
const fn all_sizes(page: u64) -> u64 {
    !(page.wrapping_sub(1))
}

impl<M: Memory, R: RawLock> Drop for Container<M, R> {
    /// Detaches every group and unpins everything, with groups still attached (rule T1-068).
    fn drop(&mut self) {
        while self.state.get_mut().emulated.pop_front().is_some() {}
        loop {
            let next = {
                let state = self.state.lock();
                let mut entries = state.domains.iter();
                entries.find_map(|entry| {
                    let groups = entry.groups.lock();
                    let first = groups.iter().next()?;
                    first.attachment.lock().as_ref().map(|held| held.group().id())
                })
            };
            let Some(group) = next else { break };
            drop(self.detach_group(group));
        }
        self.forget_all(); // mappings and pins without any group
    }
}

impl<M: Memory, R: RawLock> fmt::Debug for Container<M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Container")
            .field("windows", &state.windows)
            .field("mappings", &state.mappings.len())
            .field("operations", &state.operations)
            .finish_non_exhaustive()
    }
}

/// A group that could not be attached: why, and the right over it back.
pub struct Refused<R: RawLock = SpinLock> {
    /// Why.
    pub error: AttachGroupError,
    /// The group, blocked as it was before.
    pub ownership: Ownership<R>,
}

impl<R: RawLock> fmt::Debug for Refused<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).finish_non_exhaustive()
    }
}
