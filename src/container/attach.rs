//! Attach and detach of groups: existing domains first, allocate last, nothing needless.
//!
//! `Container::groups` is held throughout, so one call is here at a time. `Container::state` is
//! held from the first check to the end, except while the provider pins memory for the first
//! domain or unpins it for the last one.

use super::dma::Owner;
use super::{
    AttachGroupError, Container, DomainEntry, GroupEntry, Memory, Passing, Phase, Refused, State,
    all_sizes,
};
use crate::addr::{Iova, IovaRange};
use crate::domain::PagingDomain;
use crate::driver::{Capabilities, Run};
use crate::error::OutOfMemory;
use crate::group::{GroupId, Ownership, Refused as NotAttached};
use crate::list::{Link, List};
use crate::pool::Shared;
use crate::reserved::{ReservedKind, ReservedRegions};
use crate::sync::{Mutex, RawLock};
use crate::trace::emit;

use super::windows::Windows;

/// What is known before any IOMMU operation is made (rules T1-152 to T1-158).
struct Plan<R: RawLock> {
    entry: Shared<GroupEntry<R>>,
    reserved: ReservedRegions,
    windows: Option<Windows>,
}

/// What is left to do when no existing domain fitted.
type Left<R> = (Plan<R>, Ownership<R>);

/// A new domain that may be attached: filled with every mapping.
struct Filled<R: RawLock> {
    entry: Shared<DomainEntry<R>>,
    windows: Windows,
    page_sizes: u64,
}

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Attaches a group: every device of it reaches exactly what the container maps.
    ///
    /// The domains of the container are asked newest first; `Incompatible` means the next one, any
    /// other error ends the call. Only when none fits, a domain is allocated, filled with the
    /// mappings and attached (rules T1-150 to T1-168). A compatible group costs one request per
    /// endpoint, whatever the number of mappings.
    ///
    /// # Errors
    ///
    /// [`Refused`] with the reason and the ownership: as [`AttachGroupError`]. The container and
    /// the group are as they were (rule T1-169).
    pub fn attach_group(&self, ownership: Ownership<R>) -> Result<(), Refused<R>> {
        let _one_at_a_time = self.groups.lock();
        let mut state = self.state.lock();
        let plan = match self.plan(&state, &ownership) {
            Ok(plan) => plan,
            Err(error) => return Err(Refused { error, ownership }),
        };
        let (plan, ownership) = match state.try_existing(plan, ownership)? {
            None => return Ok(()),
            Some(left) => left,
        };
        let (instance, aperture) = {
            let instance = ownership.group().instance().clone();
            let aperture = instance.geometry().aperture;
            (instance, aperture)
        };
        let made = PagingDomain::new(&instance, self.pool).map_err(AttachGroupError::from);
        let domain = match made {
            Ok(domain) => domain,
            Err(error) => return Err(Refused { error, ownership }),
        };
        state.operations.dom_alloc += 1;
        let first = state.domains.is_empty();
        let prepared = self.prepare(&state, &domain, aperture, &plan.reserved);
        let filled = prepared.and_then(|filled| {
            if first {
                lock_api::MutexGuard::unlocked(&mut state, || self.fill_from_memory(&domain))?;
            } else {
                state.fill_from_source(&domain)?;
            }
            Ok(filled)
        });
        let refused = match filled {
            Err(error) => (error, ownership),
            Ok(filled) => match ownership.attach(&domain) {
                Ok(attachment) => {
                    state.operations.attach_ok += 1;
                    *plan.entry.attachment.lock() = Some(attachment);
                    filled.entry.groups.lock().push_front(plan.entry);
                    state.passing = None;
                    state.domains.push_front(filled.entry);
                    state.windows = filled.windows;
                    state.page_sizes = filled.page_sizes;
                    emit!(debug, "iommu: container has a new domain");
                    return Ok(());
                }
                Err(NotAttached { error, ownership }) => {
                    state.operations.attach_fail += 1;
                    if domain.endpoint_count() > 0 {
                        // The undo failed: as above, the domain stays.
                        state.passing = None;
                        state.domains.push_front(filled.entry);
                        state.windows = filled.windows;
                        state.page_sizes = filled.page_sizes;
                        return Err(Refused { error: error.into(), ownership });
                    }
                    (error.into(), ownership)
                }
            },
        };
        if first && state.passing.is_some() {
            state.forget_mapped();
            lock_api::MutexGuard::unlocked(&mut state, || self.drain_all());
            state.passing = None;
        }
        state.operations.dom_free += 1;
        let (error, ownership) = refused;
        Err(Refused { error, ownership })
    }

    /// Detaches a group and returns its ownership; `None` if it is not in the container. Can't
    /// fail, and never allocates but for the list of usable IOVAs, which stays if it can't.
    ///
    /// The group is blocked before anything is unmapped or unpinned (rule T1-230). With the last
    /// group of a domain the domain goes, with the last group all mappings (rule T1-232).
    pub fn detach_group(&self, group: GroupId) -> Option<Ownership<R>> {
        let _one_at_a_time = self.groups.lock();
        let mut state = self.state.lock();
        let entry = state.domains.find(|entry| entry.groups.lock().iter().any(|g| g.is(group)))?;
        let gone = entry.groups.lock().remove(|one| one.is(group))?;
        let attachment = gone.attachment.lock().take()?;
        let ownership = attachment.detach();
        state.operations.detach += 1;
        // An endpoint that the unit refused to block counts on the domain still: then the domain stays,
        // without a group, so that unmaps reach it and nothing is unpinned under it (rule C-137).
        if entry.groups.lock().is_empty() && entry.domain.endpoint_count() == 0 {
            state.domains.remove(|one| one.domain.ptr_eq(&entry.domain));
            if state.domains.is_empty() {
                let serials = state.next_serial;
                state.passing = Some(Passing { domain: entry.domain.clone(), joining: false });
                state.forget_mapped();
                lock_api::MutexGuard::unlocked(&mut state, || self.drain_all());
                state.passing = None;
                state.remove_before(serials);
            }
            state.operations.dom_free += 1;
            state.page_sizes = self.common_sizes(&state, None).unwrap_or(state.page_sizes);
        }
        if let Ok(windows) = self.rebuild(&state) {
            state.windows = windows;
        } else {
            emit!(debug, "iommu: usable IOVAs not widened"); // rule T1-200: the old list stays
        }
        Some(ownership)
    }

    /// Rules T1-152 to T1-158: everything that can be known without an IOMMU operation.
    fn plan(
        &self,
        state: &State<R>,
        ownership: &Ownership<R>,
    ) -> Result<Plan<R>, AttachGroupError> {
        let entry = GroupEntry { link: Link::new(), attachment: Mutex::new(None) };
        let entry = Shared::new(self.pool, entry)?;
        let group = ownership.group();
        if group.device_count() == 0 {
            return Err(AttachGroupError::NoDevice);
        }
        let reserved = group.reserved();
        let isolated = group.instance().capabilities().contains(Capabilities::ISOLATED_MSI);
        if !isolated && !self.options.allow_unsafe_interrupts {
            return Err(AttachGroupError::UnsafeInterrupts);
        }
        let real = |kind| kind != ReservedKind::DirectRelaxable;
        let regions = reserved.as_slice().iter();
        if regions.filter(|r| real(r.kind)).any(|r| state.mappings.overlaps(r.range)) {
            return Err(AttachGroupError::InvalidArg);
        }
        let windows = if state.windows.is_empty() {
            None
        } else {
            let mut windows = state.windows.clipped(IovaRange::ALL)?;
            windows.subtract(&reserved)?;
            if windows.is_empty() {
                return Err(AttachGroupError::InvalidArg);
            }
            Some(windows)
        };
        Ok(Plan { entry, reserved, windows })
    }

    /// Rules T1-161 and T1-162: whether the mappings fit a new domain.
    fn prepare(
        &self,
        state: &State<R>,
        domain: &Shared<PagingDomain<R>>,
        aperture: IovaRange,
        reserved: &ReservedRegions,
    ) -> Result<Filled<R>, AttachGroupError> {
        let mut windows = state.windows.clipped(aperture)?;
        windows.subtract(reserved)?;
        if windows.is_empty() || state.mappings.iter().any(|(range, _)| !windows.allow(range)) {
            return Err(AttachGroupError::InvalidArg);
        }
        let sizes = self.common_sizes(state, Some(domain));
        let page_sizes = sizes.ok_or(AttachGroupError::InvalidArg)?;
        let low = (1_u64 << page_sizes.trailing_zeros()) - 1;
        let cut = |(range, mapping): (IovaRange, &super::Mapping)| {
            (range.first().0 | range.last().0.wrapping_add(1) | mapping.vaddr) & low != 0
        };
        if state.mappings.iter().any(cut) {
            return Err(AttachGroupError::InvalidArg);
        }
        let entry = DomainEntry {
            link: Link::new(),
            domain: domain.clone(),
            groups: Mutex::new(List::new()),
        };
        Ok(Filled { entry: Shared::new(self.pool, entry)?, windows, page_sizes })
    }

    /// Pins every mapping and records it in the first domain. The state is not locked.
    fn fill_from_memory(&self, domain: &Shared<PagingDomain<R>>) -> Result<(), AttachGroupError> {
        self.state.lock().passing = Some(Passing { domain: domain.clone(), joining: true });
        loop {
            let (range, mapping) = {
                let mut state = self.state.lock();
                let raw = |m: &super::Mapping| !m.mapped && m.phase == Phase::Live;
                let found = state.mappings.iter().find(|(_, mapping)| raw(mapping));
                let Some((range, mapping)) = found.map(|(range, mapping)| (range, *mapping)) else {
                    return Ok(());
                };
                state.for_each_in(range, |mapping| {
                    mapping.phase = Phase::Building;
                    mapping.mapped = true;
                });
                (range, mapping)
            };
            let built = self.pin_and_map(range, mapping.serial, mapping.vaddr, mapping.prot);
            self.state.lock().set_phase(range, mapping.serial, Phase::Live);
            built?;
        }
    }

    /// Takes everything out of the passing domain and unpins it.
    fn drain_all(&self) {
        if self.drain(IovaRange::ALL, Owner::Anyone).is_err() {
            // A leak is preferred to memory that a device still reaches (rule T1-383).
            emit!(warn, "iommu: the IOMMU did not confirm an unmap: memory stays pinned for good");
        }
    }

    /// The page sizes of rule T1-043 over all domains and `new`; `None` if they share none.
    fn common_sizes(&self, state: &State<R>, new: Option<&Shared<PagingDomain<R>>>) -> Option<u64> {
        let page = self.memory.page_size();
        let domains = state.domains.iter().map(|entry| &entry.domain).chain(new);
        let common =
            domains.fold(u64::MAX, |sizes, domain| sizes & domain.geometry().page_sizes.bits());
        let sizes = common & all_sizes(page);
        let sizes = if common & (page - 1) != 0 { sizes | page } else { sizes };
        (sizes != 0).then_some(sizes)
    }

    /// The usable IOVAs from scratch (rules T1-198, T1-199, T1-201).
    fn rebuild(&self, state: &State<R>) -> Result<Windows, OutOfMemory> {
        let mut windows = Windows::new(self.pool);
        for entry in state.domains.iter() {
            windows = windows.clipped(entry.domain.geometry().aperture)?;
            for group in entry.groups.lock().iter() {
                let attachment = group.attachment.lock();
                let Some(group) = attachment.as_ref().map(|held| held.group()) else { continue };
                let reserved = group.reserved();
                windows.subtract(&reserved)?;
            }
        }
        if windows.is_empty() && !state.domains.is_empty() {
            return Err(OutOfMemory); // rule T1-200: an empty result leaves the old list
        }
        Ok(windows)
    }
}

impl<R: RawLock> State<R> {
    /// Rule T1-159: the domains that are there, newest first. `None`: attached.
    fn try_existing(
        &mut self,
        plan: Plan<R>,
        mut ownership: Ownership<R>,
    ) -> Result<Option<Left<R>>, Refused<R>> {
        for entry in self.domains.iter() {
            match ownership.attach(&entry.domain) {
                Ok(attachment) => {
                    self.operations.attach_ok += 1;
                    *plan.entry.attachment.lock() = Some(attachment);
                    entry.groups.lock().push_front(plan.entry);
                    if let Some(windows) = plan.windows {
                        self.windows = windows;
                    }
                    return Ok(None);
                }
                Err(refused) => {
                    self.operations.attach_fail += 1;
                    ownership = refused.ownership;
                    if !refused.error.is_soft() {
                        return Err(Refused { error: refused.error.into(), ownership });
                    }
                }
            }
        }
        Ok(Some((plan, ownership)))
    }

    /// Rule T1-211: copies every run from a domain that has them. Nothing is pinned.
    fn fill_from_source(&mut self, domain: &PagingDomain<R>) -> Result<(), AttachGroupError> {
        let Some(source) = self.domains.iter().next() else { return Ok(()) };
        let mut runs: heapless::Vec<Run, 64> = heapless::Vec::new();
        let mut at = Some(Iova(0));
        let mut count = 0;
        loop {
            let next = at.and_then(|at| source.domain.next_mapping(at));
            if let Some(run) = next {
                at = run.range.last().checked_add(1);
                if runs.push(run).is_ok() && !runs.is_full() {
                    continue;
                }
            }
            if !runs.is_empty() {
                let mapped = domain.map_runs(&runs);
                mapped.map_err(super::MapDmaError::from)?;
                count += runs.len() as u64;
                runs.clear();
            }
            if next.is_none() {
                break;
            }
        }
        self.operations.dom_map += count;
        Ok(())
    }

    /// No mapping counts as mapped any more: nobody adds to the passing domain from here on.
    fn forget_mapped(&mut self) {
        self.for_each_in(IovaRange::ALL, |mapping| mapping.mapped = false);
        if let Some(passing) = &mut self.passing {
            passing.joining = false;
        }
    }

    /// Forgets every mapping made before `serial` that nobody is building.
    fn remove_before(&mut self, serial: u64) {
        let mut next = Some(Iova(0));
        while let Some((range, mapping)) = next.and_then(|at| self.mappings.first_from(at)) {
            next = range.last().checked_add(1);
            if mapping.serial < serial && mapping.phase != Phase::Building {
                let serial = mapping.serial;
                self.remove(range, serial);
            }
        }
    }
}
