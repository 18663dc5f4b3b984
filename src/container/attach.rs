//! Attach of groups: existing domains first, allocate last, nothing needless.
//!
//! `Container::groups` is held throughout, so one call is here at a time. `Container::state` is
//! held from the first check to the end, except while the provider pins memory for the first
//! domain or unpins it for the last one.

use super::state::{Mapping, State};
use super::{AttachGroupError, Container, DomainEntry, GroupEntry, Memory, Refused, all_sizes};
use crate::addr::IovaRange;
use crate::domain::{DomainOptions, PagingDomain};
use crate::driver::{Capabilities, DomainFeatures};
use crate::error::OutOfMemory;
use crate::group::{Group, Ownership, Refused as NotAttached};
use crate::list::{Link, List};
use crate::pool::Shared;
use crate::reserved::ReservedKind;
use crate::sync::{Mutex, RawLock};
use crate::trace::emit;

use super::windows::Windows;

/// What is known before any IOMMU operation is made (rules T1-152 to T1-158).
struct Plan<R: RawLock> {
    entry: Shared<GroupEntry<R>>,
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
        let plan = match self.plan(&mut state, &ownership) {
            Ok(plan) => plan,
            Err(error) => return Err(Refused { error, ownership }),
        };
        let (plan, ownership) = match state.try_existing(plan, ownership)? {
            None => return Ok(()),
            Some(left) => left,
        };
        if let Err(error) = self.refresh(&mut state) {
            return Err(Refused { error: error.into(), ownership });
        }
        let domain = match self.new_domain(&mut state, ownership.group()) {
            Ok(domain) => domain,
            Err(error) => return Err(Refused { error, ownership }),
        };
        // The list made for the new domain holds until the members of a group change.
        let at = state.member_changes().wrapping_add(domain.instance().member_changes());
        let aperture = domain.geometry().aperture;
        let first = state.domains.is_empty();
        let prepared = self.prepare(&state, &domain, aperture, ownership.group());
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
                    state.windows_at = Some(at);
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
                        state.windows_at = None;
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

    /// Rules T1-150 to T1-158: everything that can be known without an IOMMU operation.
    fn plan(
        &self,
        state: &mut State<R>,
        ownership: &Ownership<R>,
    ) -> Result<Plan<R>, AttachGroupError> {
        if state.invalid_vaddrs > 0 {
            return Err(AttachGroupError::Busy);
        }
        let entry =
            GroupEntry { link: Link::new(), attachment: Mutex::new(None), pinned: false.into() };
        let entry = Shared::new(self.pool, entry)?;
        let group = ownership.group();
        if group.device_count() == 0 {
            return Err(AttachGroupError::NoDevice);
        }
        let isolated = group.instance().capabilities().contains(Capabilities::ISOLATED_MSI);
        if !isolated && !self.options.allow_unsafe_interrupts {
            return Err(AttachGroupError::UnsafeInterrupts);
        }
        let real = |kind| kind != ReservedKind::DirectRelaxable;
        let overlaps = group.with_reserved(|reserved| {
            let mut regions = reserved.as_slice().iter().filter(|region| real(region.kind));
            regions.any(|region| state.mappings.overlaps(region.range))
        });
        if overlaps {
            return Err(AttachGroupError::InvalidArg);
        }
        self.refresh_if_wide(state)?;
        let mut windows = state.windows_without(group)?;
        if windows.as_ref().is_some_and(Windows::is_empty) && state.windows_narrow {
            self.refresh(state)?;
            windows = state.windows_without(group)?;
        }
        if windows.as_ref().is_some_and(Windows::is_empty) {
            return Err(AttachGroupError::InvalidArg);
        }
        Ok(Plan { entry, windows })
    }

    /// Rules T1-160 and T1-164: a domain that enforces cache coherency, if every device of the group
    /// can; else one that doesn't.
    fn new_domain(
        &self,
        state: &mut State<R>,
        group: &Group<R>,
    ) -> Result<Shared<PagingDomain<R>>, AttachGroupError> {
        let instance = group.instance();
        let mut options = DomainOptions::default();
        if instance.capabilities().contains(Capabilities::ENFORCE_COHERENCY) {
            options.features = DomainFeatures::ENFORCE_COHERENCY;
            let domain = PagingDomain::with_options(instance, self.pool, &options)?;
            state.operations.dom_alloc += 1;
            if group.fits(&domain) {
                return Ok(domain);
            }
            state.operations.dom_free += 1;
            options.features = DomainFeatures::empty();
        }
        let domain = PagingDomain::with_options(instance, self.pool, &options)?;
        state.operations.dom_alloc += 1;
        Ok(domain)
    }

    /// Rules T1-161 and T1-162: whether the mappings fit a new domain.
    fn prepare(
        &self,
        state: &State<R>,
        domain: &Shared<PagingDomain<R>>,
        aperture: IovaRange,
        group: &Group<R>,
    ) -> Result<Filled<R>, AttachGroupError> {
        let mut windows = state.windows.clipped(aperture)?;
        group.with_reserved(|reserved| windows.subtract(reserved))?;
        if windows.is_empty() || state.mappings.iter().any(|(range, _)| !windows.allow(range)) {
            return Err(AttachGroupError::InvalidArg);
        }
        let sizes = self.common_sizes(state, Some(domain));
        let page_sizes = sizes.ok_or(AttachGroupError::InvalidArg)?;
        let low = (1_u64 << page_sizes.trailing_zeros()) - 1;
        let cut = |(range, mapping): (IovaRange, &Mapping)| {
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

    /// The page sizes of rule T1-043 over all domains and `new`; `None` if they share none.
    pub(super) fn common_sizes(
        &self,
        state: &State<R>,
        new: Option<&Shared<PagingDomain<R>>>,
    ) -> Option<u64> {
        let page = self.memory.page_size();
        let domains = state.domains.iter().map(|entry| &entry.domain).chain(new);
        let common =
            domains.fold(u64::MAX, |sizes, domain| sizes & domain.geometry().page_sizes.bits());
        let sizes = common & all_sizes(page);
        let sizes = if common & (page - 1) != 0 { sizes | page } else { sizes };
        (sizes != 0).then_some(sizes)
    }
}

impl<R: RawLock> State<R> {
    /// What stays usable once a group is there; `None`: what is now.
    fn windows_without(&self, group: &Group<R>) -> Result<Option<Windows>, OutOfMemory> {
        group.with_reserved(|reserved| {
            if !self.windows.miss(reserved) {
                return Ok(None); // nothing of it is usable now, or there is no constraint
            }
            let mut windows = self.windows.clipped(IovaRange::ALL)?;
            windows.subtract(reserved)?;
            Ok(Some(windows))
        })
    }

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
}
