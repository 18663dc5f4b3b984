//! Moving the owner's view of mapped memory: `invalidate_vaddr`, `update_vaddr` (section 11).
//!
//! Devices go on with the pages that are pinned; between the two calls nothing may look at the
//! owner's addresses. All of it is under `Container::state`; a change of owner also under
//! `Container::groups`, so that no attach or detach moves charges meanwhile.

use super::state::{Mapping, Phase, State};
use super::{Container, Kind, Memory, MemoryOwner, UnmapDma, UnmapDmaError, UnmapFailed, Unmapped};
use super::{Pinned, UpdateVaddrError};
use crate::addr::{Iova, IovaRange};
use crate::sync::RawLock;

/// A new place in the owner's memory for a mapping (rule T1-404). All numbers are in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UpdateVaddr {
    /// Where the mapping begins, for devices.
    pub iova: u64,
    /// Where the owner sees it from now on.
    pub vaddr: u64,
    /// The size of the mapping.
    pub size: u64,
}

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Declares the owner's addresses of mappings void, unmaps nothing, and returns how many bytes
    /// the mappings have (rule T1-400). Devices keep reaching the pages (rule T1-402).
    ///
    /// Until [`update_vaddr`](Self::update_vaddr) has given each mapping a new address, attaches,
    /// pins and copies answer `Busy` (rule T1-403).
    ///
    /// # Errors
    ///
    /// [`UnmapFailed`] with 0 bytes; nothing has changed. `Busy`: there is an emulated group (rule
    /// T1-354), or a call is at work on a mapping or attaches a group. `InvalidArg`: as for an unmap,
    /// or a mapping in the range is void already (rule T1-401). `Overflow`: the range wraps.
    pub fn invalidate_vaddr(&self, request: &UnmapDma) -> Result<Unmapped, UnmapFailed> {
        let mut state = self.state.lock();
        if !state.emulated.is_empty() {
            return Err(UnmapDmaError::Busy.into());
        }
        let range = state.check_unmap(request, None)?;
        if request.is_range() && state.kind == Kind::V2 && state.cuts(range) {
            return Err(UnmapDmaError::InvalidArg.into());
        }
        let Some(range) = state.reach(range, request.is_range()) else {
            return Ok(Unmapped::default());
        };
        let filling = state.passing.as_ref().is_some_and(|passing| passing.joining);
        if filling || state.busy(range) {
            return Err(UnmapDmaError::Busy.into());
        }
        if state.mappings.overlapping(range).any(|(_, mapping)| mapping.vaddr_invalid) {
            return Err(UnmapDmaError::InvalidArg.into());
        }
        let (mut bytes, mut count) = (0_u64, 0);
        state.for_each_in(range, |entry, mapping| {
            mapping.vaddr_invalid = true;
            bytes = bytes.saturating_add(entry.len().unwrap_or(u64::MAX));
            count += 1;
            true
        });
        state.invalid_vaddrs += count;
        Ok(Unmapped { bytes })
    }

    /// Gives the mapping that is exactly the range of the request a new address, after
    /// [`invalidate_vaddr`](Self::invalidate_vaddr) (rule T1-404). What devices may do stays.
    ///
    /// If the caller is another owner, it is charged for the mapping's pages, and the old one no
    /// more (rule T1-405).
    ///
    /// # Errors
    ///
    /// As [`UpdateVaddrError`]; nothing has changed.
    pub fn update_vaddr(&self, request: &UpdateVaddr) -> Result<(), UpdateVaddrError> {
        let vaddr = request.vaddr;
        let caller = self.memory.caller();
        let _no_attach = self.groups.lock();
        let mut state = self.state.lock();
        let (range, mapping) = state.check_update(request)?;
        if mapping.owner == caller {
            state.set_vaddr(range, vaddr, caller);
            return Ok(());
        }
        state.set_phase(range, mapping.serial, Phase::Building);
        drop(state);
        let moved = self.move_owner(range, &mapping, vaddr, caller);
        self.state.lock().set_phase(range, mapping.serial, Phase::Live);
        moved
    }

    /// How many mappings have a void address.
    #[must_use]
    pub fn invalid_vaddrs(&self) -> usize {
        self.state.lock().invalid_vaddrs
    }

    fn move_owner(
        &self,
        range: IovaRange,
        mapping: &Mapping,
        vaddr: u64,
        caller: MemoryOwner,
    ) -> Result<(), UpdateVaddrError> {
        let runs = self.charged_in_runs(range, mapping);
        let pins = self.state.lock().charged_pins(range);
        if runs + pins > 0 {
            self.memory.charge(caller, runs + pins)?;
        }
        let left = {
            let mut state = self.state.lock();
            state.set_vaddr(range, vaddr, caller);
            state.charged_pins(range) // pages unpinned since were charged to the old owner
        };
        self.uncharge(mapping.owner, runs + left);
        self.uncharge(caller, pins.saturating_sub(left));
        Ok(())
    }

    /// How many pages of a mapping are charged because they are pinned for domains.
    fn charged_in_runs(&self, range: IovaRange, mapping: &Mapping) -> u64 {
        let source = self.state.lock().holders().next().cloned();
        let Some(source) = source.filter(|_| mapping.mapped) else { return 0 };
        let page = self.memory.page_size();
        let mut pages = 0;
        let mut next = Some(range.first());
        while let Some(run) = next.and_then(|at| source.next_mapping(at)) {
            if run.range.first() > range.last() {
                break;
            }
            pages += self.counted(Pinned { phys: run.phys, pages: run.range.span() / page + 1 });
            next = run.range.last().checked_add(1);
        }
        pages
    }
}

impl<R: RawLock> State<R> {
    /// Rules T1-263, T1-264, T1-266 (T1-407) and T1-404, in their order.
    fn check_update(
        &self,
        request: &UpdateVaddr,
    ) -> Result<(IovaRange, Mapping), UpdateVaddrError> {
        let UpdateVaddr { iova, vaddr, size } = *request;
        if size == 0 {
            return Err(UpdateVaddrError::InvalidArg);
        }
        let range = IovaRange::from_len(Iova(iova), size).ok_or(UpdateVaddrError::Overflow)?;
        if vaddr.checked_add(size - 1).is_none() {
            return Err(UpdateVaddrError::Overflow);
        }
        if (iova | vaddr | size) & (self.alignment() - 1) != 0 {
            return Err(UpdateVaddrError::InvalidArg);
        }
        let found = self.mappings.overlapping(range).next();
        let (entry, mapping) = found.ok_or(UpdateVaddrError::NotFound)?;
        if entry != range || !mapping.vaddr_invalid {
            return Err(UpdateVaddrError::InvalidArg);
        }
        if mapping.phase != Phase::Live {
            return Err(UpdateVaddrError::Busy);
        }
        Ok((range, *mapping))
    }

    fn set_vaddr(&mut self, range: IovaRange, vaddr: u64, owner: MemoryOwner) {
        if let Some((_, mapping)) = self.mappings.get_mut(range.first()) {
            mapping.vaddr = vaddr;
            mapping.owner = owner;
            mapping.vaddr_invalid = false;
            self.invalid_vaddrs -= 1;
        }
    }

    fn charged_pins(&self, range: IovaRange) -> u64 {
        self.pins.overlapping(range).filter(|(_, pin)| pin.charged).count() as u64
    }
}
