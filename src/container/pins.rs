//! `pin_pages` and `unpin_pages`: pages held by emulated devices (section 13.1).
//!
//! The records are under `Container::state`, which is unlocked while the provider pins. After that
//! everything is looked at again: the mapping may be gone, another may have pinned the page.

use super::state::{DomainEntry, Phase, State};
use super::{Container, Frame, Kind, Member, Memory, MemoryOwner, PinPagesError, Pinned};
use crate::addr::{Iova, IovaRange, PhysAddr};
use crate::group::GroupId;
use crate::prot::Prot;
use crate::rangemap::InsertError;
use crate::sync::RawLock;

/// An external pin: one page (rule T1-006). 32 bytes with its key.
pub(super) struct Pin {
    pub(super) phys: PhysAddr,
    pub(super) refs: u32,
    /// The frame is of a kind that is charged.
    pub(super) counted: bool,
    /// It is charged for this pin, not for its mapping.
    pub(super) charged: bool,
}

/// A page that was looked up and has no pin yet.
struct Wanted {
    page: IovaRange,
    vaddr: u64,
    owner: MemoryOwner,
    prot: Prot,
    serial: u64,
    /// A new pin would be charged.
    charge: bool,
}

enum Found {
    Pinned(PhysAddr),
    Wanted(Wanted),
}

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Pins the pages from `iova` on for an emulated device of `member`, and says where they are.
    ///
    /// One page per element of `out`, at most page size / 8. A page that is pinned already gets one
    /// more reference. `prot` is what the device will do; the pages are pinned with what the
    /// mapping allows (rule T1-472). The first success of a group limits its dirty pages to what it
    /// pins (rule T1-444). `iova` is rounded down to a page (rule T1-479).
    ///
    /// # Errors
    ///
    /// As [`PinPagesError`], in the order of rules T1-460 to T1-475. The pages pinned by this call
    /// are unpinned, and their elements of `out` and the failing one are `None`.
    pub fn pin_pages(
        &self,
        member: impl Into<Member>,
        iova: u64,
        prot: Prot,
        out: &mut [Option<PhysAddr>],
    ) -> Result<(), PinPagesError> {
        let member = member.into();
        let size = self.memory.page_size();
        let first = iova & !(size - 1);
        let count = out.len() as u64;
        if count == 0 {
            return Err(PinPagesError::InvalidArg);
        }
        if count > size / 8 {
            return Err(PinPagesError::TooBig);
        }
        if self.options.kind == Kind::V1 {
            return Err(PinPagesError::Denied);
        }
        if iova.checked_add(count * size - 1).is_none() {
            return Err(PinPagesError::Overflow);
        }
        {
            let state = self.state.lock();
            if state.invalid_vaddrs > 0 {
                return Err(PinPagesError::Busy);
            }
            if state.holders.is_empty() || !state.has(member) {
                return Err(PinPagesError::InvalidArg);
            }
        }
        let pages = (0..count).map(|n| first + n * size);
        for (done, (at, place)) in pages.zip(out.iter_mut()).enumerate() {
            match self.pin_page(member, Iova(at), prot) {
                Ok(phys) => *place = Some(phys),
                Err(error) => {
                    *place = None;
                    self.unpin_pages(first, done as u64);
                    out.iter_mut().take(done).for_each(|place| *place = None);
                    return Err(error);
                }
            }
        }
        if let Member::Group(id) = member {
            self.state.lock().promote(id);
        }
        Ok(())
    }

    /// Drops one reference to each of `count` pages from `iova` on, and returns how many pages had
    /// one. Ends at the first page that is not mapped; never fails, never allocates (rules T1-480,
    /// T1-481).
    pub fn unpin_pages(&self, iova: u64, count: u64) -> u64 {
        let size = self.memory.page_size();
        let mut next = Some(Iova(iova & !(size - 1)));
        let mut dropped = 0;
        for _ in 0..count {
            let Some(at) = next else { break };
            let mut state = self.state.lock();
            let Some((_, mapping)) = state.mappings.get(at) else { break };
            let (owner, prot) = (mapping.owner, mapping.prot());
            next = at.checked_add(size);
            let Some((_, pin)) = state.pins.get_mut(at) else { continue };
            dropped += 1;
            pin.refs -= 1;
            if pin.refs == 0
                && let Some((_, pin)) = state.pins.remove(at)
            {
                drop(state);
                self.release_pin(&pin, owner, prot);
            }
        }
        dropped
    }

    /// How many pages are pinned by emulated devices.
    #[must_use]
    pub fn pinned_pages(&self) -> usize {
        self.state.lock().pins.len()
    }

    /// Rules T1-469 to T1-475, for one page.
    fn pin_page(&self, member: Member, at: Iova, prot: Prot) -> Result<PhysAddr, PinPagesError> {
        let size = self.memory.page_size();
        let range = IovaRange::from_len(at, size).ok_or(PinPagesError::Overflow)?;
        loop {
            let found = self.state.lock().find_page(range, prot)?;
            let want = match found {
                Found::Pinned(phys) => return Ok(phys),
                Found::Wanted(want) => want,
            };
            let pinned = self.memory.pin(want.owner, want.vaddr, 1, want.prot)?;
            if let Some(beyond) = pinned.pages.checked_sub(1)
                && let Some(phys) = pinned.phys.checked_add(size)
            {
                self.unpin_one(Pinned { phys, pages: beyond }, want.prot);
            }
            let one = Pinned { pages: pinned.pages.min(1), ..pinned };
            let kind = self.memory.frame(one.phys);
            if one.pages == 0 || kind == Frame::Device {
                self.unpin_one(one, want.prot);
                let empty = one.pages == 0;
                return Err(if empty { PinPagesError::Fault } else { PinPagesError::InvalidArg });
            }
            let counted = kind == Frame::Ordinary;
            if counted
                && want.charge
                && let Err(error) = self.memory.charge(want.owner, 1)
            {
                self.unpin_one(one, want.prot);
                return Err(error.into());
            }
            let charged = counted && want.charge;
            let pin = Pin { phys: one.phys, refs: 1, counted, charged };
            // In a statement of its own: in the `match` the state would stay locked to its end.
            let entered = self.state.lock().enter(member, &want, pin);
            match entered {
                Ok(true) => return Ok(one.phys),
                other => {
                    let pin = Pin { phys: one.phys, refs: 0, counted, charged };
                    self.release_pin(&pin, want.owner, want.prot);
                    other?;
                }
            }
        }
    }

    fn release_pin(&self, pin: &Pin, owner: MemoryOwner, prot: Prot) {
        self.unpin_one(Pinned { phys: pin.phys, pages: 1 }, prot);
        self.uncharge(owner, u64::from(pin.charged));
    }

    /// Releases every external pin: their mappings are about to go (rule T1-227). Those must be
    /// `Removing`, so that no new pin comes.
    pub(super) fn release_pins(&self) {
        loop {
            let mut state = self.state.lock();
            let Some((at, _)) = state.pins.first_from(Iova(0)) else { return };
            let mapping = state.mappings.get(at.first());
            let whose = mapping.map(|(_, mapping)| (mapping.owner, mapping.prot()));
            let taken = state.pins.remove(at.first());
            drop(state);
            if let (Some((_, pin)), Some((owner, prot))) = (taken, whose) {
                self.release_pin(&pin, owner, prot);
            }
        }
    }
}

impl<R: RawLock> State<R> {
    /// Whether a group is in the container.
    fn has(&self, member: Member) -> bool {
        match member {
            Member::Group(id) => self.has_group(id),
            Member::Emulated(id) => self.emulated.iter().any(|entry| entry.id == id),
        }
    }

    /// Takes one more reference to a page, or says what has to be pinned.
    fn find_page(&mut self, page: IovaRange, prot: Prot) -> Result<Found, PinPagesError> {
        let at = page.first();
        let (range, mapping) = self.mappings.get(at).ok_or(PinPagesError::InvalidArg)?;
        if !range.encloses(page) {
            return Err(PinPagesError::InvalidArg);
        }
        if !mapping.prot().contains(prot) {
            return Err(PinPagesError::NotPermitted);
        }
        if mapping.phase != Phase::Live || mapping.vaddr_invalid {
            return Err(PinPagesError::Busy);
        }
        let want = Wanted {
            page,
            vaddr: mapping.vaddr + (at.0 - range.first().0),
            owner: mapping.owner,
            prot: mapping.prot(),
            serial: mapping.serial,
            charge: !mapping.mapped,
        };
        let Some((_, pin)) = self.pins.get_mut(at) else { return Ok(Found::Wanted(want)) };
        pin.refs = pin.refs.checked_add(1).ok_or(PinPagesError::Busy)?;
        Ok(Found::Pinned(pin.phys))
    }

    /// Records a new pin, if its mapping is still as it was looked up; `false`: look again.
    fn enter(&mut self, member: Member, want: &Wanted, pin: Pin) -> Result<bool, PinPagesError> {
        if !self.has(member) {
            return Err(PinPagesError::InvalidArg);
        }
        let at = want.page.first();
        if self.invalid_vaddrs > 0 {
            return Err(PinPagesError::Busy);
        }
        let found = self.mappings.get(at).map(|(range, mapping)| {
            let vaddr = mapping.vaddr + (at.0 - range.first().0);
            mapping.serial == want.serial
                && vaddr == want.vaddr
                && mapping.phase == Phase::Live
                && mapping.mapped != want.charge
        });
        if found != Some(true) || self.pins.get(at).is_some() {
            return Ok(false);
        }
        self.pins.insert(want.page, pin).map_err(|refused| match refused {
            InsertError::OutOfMemory => PinPagesError::OutOfMemory,
            InsertError::Overlap => PinPagesError::InvalidArg,
        })?;
        self.mark_dirty(want.page); // rule T1-475
        Ok(true)
    }

    /// From here on the group counts as writing only to what it pins. What it wrote before is not
    /// known, so everything is dirty once (rules T1-444, T1-445, W-19).
    fn promote(&mut self, id: GroupId) {
        let found = |entry: &DomainEntry<R>| {
            let groups = entry.groups.lock();
            groups.iter().any(|group| group.is(id) && group.limit_to_pins())
        };
        if self.domains.iter().any(found) {
            self.mark_dirty(IovaRange::ALL);
        }
    }
}
