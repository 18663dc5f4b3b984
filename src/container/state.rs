//! What a container holds, and the small steps on it. Everything here is under `Container::state`.

use core::sync::atomic::{AtomicBool, Ordering};

use intrusive_collections::intrusive_adapter;

use super::copy::MAX_COPIES;
use super::dirty::Tracking;
use super::emulated::EmulatedEntry;
use super::holders::HolderEntry;
use super::pins::Pin;
use super::windows::Windows;
use super::{Kind, MemoryOwner};
use crate::addr::{Iova, IovaRange};
use crate::domain::PagingDomain;
use crate::group::{Attachment, GroupId};
use crate::list::{Link, List, listed};
use crate::pool::Shared;
use crate::prot::Prot;
use crate::rangemap::RangeMap;
use crate::sync::{Mutex, RawLock};

use super::Operations;

pub(super) struct State<R: RawLock> {
    /// Newest first.
    pub(super) domains: List<DomainEntry<R>>,
    /// A domain that is on its way in (filled, not attached yet) or out (drained).
    pub(super) passing: Option<Passing<R>>,
    pub(super) emulated: List<EmulatedEntry>,
    pub(super) mappings: RangeMap<Mapping>,
    /// What emulated devices hold, by page (rule T1-006).
    pub(super) pins: RangeMap<Pin>,
    /// Dirty tracking, while it is on.
    pub(super) dirty: Option<Tracking>,
    pub(super) holders: List<HolderEntry>,
    pub(super) last_holder: u64,
    /// Copies under way: their mappings can't be removed.
    pub(super) copies: heapless::Vec<IovaRange, MAX_COPIES>,
    pub(super) windows: Windows,
    /// [`member_changes`](Self::member_changes) before `windows` was made; `None`: the domains are
    /// others since. While it is the same, `windows` leaves out all that the devices reserve.
    pub(super) windows_at: Option<usize>,
    /// A group has left: `windows` may leave out more than it must.
    pub(super) windows_narrow: bool,
    pub(super) page_sizes: u64,
    pub(super) free_mappings: u32,
    /// How many mappings have a void address (rule T1-039).
    pub(super) invalid_vaddrs: usize,
    pub(super) kind: Kind,
    pub(super) next_serial: u64,
    pub(super) operations: Operations,
}

/// The first domain while memory is pinned for it, the last one while memory is unpinned.
pub(super) struct Passing<R: RawLock> {
    pub(super) domain: Shared<PagingDomain<R>>,
    pub(super) joining: bool,
}

/// A domain of the container and the groups on it. Owner: the list in `State::domains`.
/// Lock: `Container::state`; `groups` has a lock only because list nodes are shared.
pub(crate) struct DomainEntry<R: RawLock> {
    pub(super) link: Link,
    pub(super) domain: Shared<PagingDomain<R>>,
    pub(super) groups: Mutex<R, List<GroupEntry<R>>>,
}

/// A group of the container. Owner: the list in its domain's entry. Made empty, so that nothing
/// has to be allocated after the attach.
pub(crate) struct GroupEntry<R: RawLock> {
    pub(super) link: Link,
    pub(super) attachment: Mutex<R, Option<Attachment<R>>>,
    /// Its devices write only to pages that they pinned (`pinned_scope`, rule T1-444).
    pub(super) pinned: AtomicBool,
}

listed!(DomainEntryAdapter, DomainEntry<R>);
listed!(GroupEntryAdapter, GroupEntry<R>);

/// One mapping of the user (rule T1-005).
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping {
    pub(super) vaddr: u64,
    /// Tells the mapping from a later one at the same place.
    pub(super) serial: u64,
    pub(super) owner: MemoryOwner,
    /// The owner's address is void until it is updated (rule T1-403).
    pub(super) vaddr_invalid: bool,
    /// A [`Prot`], which has no higher bits here: 40 bytes with the range.
    pub(super) rights: u8,
    pub(super) phase: Phase,
    /// Its pages are pinned and every domain maps them (`iommu_mapped`).
    pub(super) mapped: bool,
}

impl Mapping {
    pub(super) fn prot(&self) -> Prot {
        Prot::from_bits_truncate(u32::from(self.rights))
    }
}

/// Who may touch a mapping while the state is unlocked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Nobody is at work on it.
    Live,
    /// The call that made it, or an attach, pins and maps its pages.
    Building,
    /// An unmap takes its pages away.
    Removing,
}

impl<R: RawLock> State<R> {
    /// The lowest common page size (G).
    pub(super) fn granule(&self) -> u64 {
        1 << self.page_sizes.trailing_zeros()
    }

    /// The domains that a mapping has to be in: those with groups, and one on its way in.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Shared<PagingDomain<R>>> {
        targets(&self.domains, &self.passing)
    }

    /// The domains that may map something: also the one on its way out.
    pub(super) fn holders(&self) -> impl Iterator<Item = &Shared<PagingDomain<R>>> {
        let passing = self.passing.iter().map(|passing| &passing.domain);
        self.domains.iter().map(|entry| &entry.domain).chain(passing)
    }

    /// How often the members of groups at the units of the container changed. It only grows, for as
    /// long as the domains are the same.
    #[inline]
    pub(super) fn member_changes(&self) -> usize {
        let changes = self.domains.iter().map(|entry| entry.domain.instance().member_changes());
        changes.fold(0, usize::wrapping_add)
    }

    /// Whether `range` may not be mapped because of a device, as its group has it at this moment:
    /// one that joined an attached group is not in the list of usable IOVAs yet (rule T1-042).
    pub(super) fn reserved_by_device(&self, range: IovaRange) -> bool {
        let mut found = false;
        for entry in self.domains.iter() {
            for group in entry.groups.lock().iter() {
                if let Some(held) = &*group.attachment.lock() {
                    held.group().for_each_device(|device| {
                        found |= device.reserved().conflicts(range);
                    });
                }
            }
        }
        found
    }

    /// Whether the group is on one of the domains.
    pub(super) fn has_group(&self, group: GroupId) -> bool {
        self.domains.iter().any(|entry| entry.groups.lock().iter().any(|one| one.is(group)))
    }

    /// Whether a call is at work on a mapping in `range`.
    pub(super) fn busy(&self, range: IovaRange) -> bool {
        self.mappings.overlapping(range).any(|(_, mapping)| mapping.phase != Phase::Live)
            || self.copies.iter().any(|copy| copy.overlaps(range))
    }

    pub(super) fn set_phase(&mut self, range: IovaRange, serial: u64, phase: Phase) {
        if let Some((_, mapping)) = self.mappings.get_mut(range.first())
            && mapping.serial == serial
        {
            mapping.phase = phase;
        }
    }

    /// Calls `each` for every mapping that shares an address with `range`, ascending, until it
    /// answers `false`.
    pub(super) fn for_each_in(
        &mut self,
        range: IovaRange,
        each: impl FnMut(IovaRange, &mut Mapping) -> bool,
    ) {
        self.mappings.for_each_mut(range, each);
    }

    /// Takes back a mapping that was just recorded, and the node if there was none before.
    #[cold]
    pub(super) fn forget(&mut self, range: IovaRange, serial: u64, had_node: bool) {
        let Self { mappings, free_mappings, invalid_vaddrs, dirty, .. } = self;
        let found = mappings.get(range.first());
        if let Some((_, mapping)) = found
            && mapping.serial == serial
        {
            forgotten(range, mapping, free_mappings, invalid_vaddrs, dirty);
            mappings.remove(range.first());
        }
        if !had_node {
            self.mappings.shed();
            self.targets().for_each(|domain| domain.shed());
        }
    }

    /// Cuts the part of a mapping below `new_first` off: its pages are gone. Never allocates.
    pub(super) fn trim_front(&mut self, range: IovaRange, new_first: Iova) {
        if self.mappings.trim_front(range.first(), new_first)
            && let Some((_, mapping)) = self.mappings.get_mut(new_first)
        {
            mapping.vaddr += new_first.0 - range.first().0;
            if let Some(dirty) = &mut self.dirty {
                dirty.bitmaps.trim_front(range.first(), new_first);
            }
        }
    }

    /// The addresses whose mappings a request means: of the second kind just those; of the first
    /// kind nothing if the request begins inside a mapping, else every mapping that begins in it, to
    /// its end (rules T1-367, T1-368, W-20).
    pub(super) fn reach(&self, range: IovaRange, is_range: bool) -> Option<IovaRange> {
        if self.kind == Kind::V2 || !is_range {
            return Some(range);
        }
        let at = |at| self.mappings.get(at).map(|(entry, _)| entry);
        if at(range.first()).is_some_and(|entry| entry.first() < range.first()) {
            return None;
        }
        let last = at(range.last()).map_or(range.last(), IovaRange::last);
        IovaRange::new(range.first(), last)
    }

    /// Whether `range` cuts a mapping at one of its ends (rule T1-361).
    pub(super) fn cuts(&self, range: IovaRange) -> bool {
        let cut = |at| self.mappings.get(at).is_some_and(|(entry, _)| !range.encloses(entry));
        cut(range.first()) || cut(range.last())
    }
}

/// Books that a mapping is about to leave the record: its place is free, and its bits go.
#[inline(always)]
pub(super) fn forgotten(
    range: IovaRange,
    mapping: &Mapping,
    free_mappings: &mut u32,
    invalid_vaddrs: &mut usize,
    dirty: &mut Option<Tracking>,
) {
    *invalid_vaddrs -= usize::from(mapping.vaddr_invalid); // rule T1-375
    *free_mappings += 1;
    if let Some(dirty) = dirty {
        dirty.bitmaps.remove(range.first());
    }
}

/// As [`State::targets`], for callers that hold another part of the state.
pub(super) fn targets<'s, R: RawLock>(
    domains: &'s List<DomainEntry<R>>,
    passing: &'s Option<Passing<R>>,
) -> impl Iterator<Item = &'s Shared<PagingDomain<R>>> {
    let passing = passing.iter().filter(|passing| passing.joining);
    domains.iter().map(|entry| &entry.domain).chain(passing.map(|one| &one.domain))
}

impl<R: RawLock> GroupEntry<R> {
    pub(super) fn is(&self, group: GroupId) -> bool {
        self.attachment.lock().as_ref().is_some_and(|held| held.group().id() == group)
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.pinned.load(Ordering::Relaxed) // under `Container::state`
    }

    /// Limits the group to what it pins; `false` if it was already.
    pub(super) fn limit_to_pins(&self) -> bool {
        !self.pinned.swap(true, Ordering::Relaxed) // under `Container::state`
    }
}
