//! A paging domain: one I/O address space, its record of mappings, map and unmap.
//!
//! Lock: `Domain::mappings` ([`PagingDomain`]'s state) guards the record and the endpoint count
//! together, so a mapping made while an endpoint arrives is either replayed or sent, never lost
//! (rule C-230). It is held while the device works, for a bounded time.

use core::fmt;

use heapless::Vec;
use lock_api::MutexGuard;

use crate::addr::{Iova, IovaRange, PhysAddr};
use crate::driver::{DomainId, DomainView, Gather, Geometry, Mappings, Run, Target};
use crate::error::{DomainError, MapError, UnmapError};
use crate::instance::Instance;
use crate::pool::{Pool, Shared};
use crate::prot::Prot;
use crate::rangemap::InsertError;
use crate::sync::{Mutex, RawLock, SpinLock};
use crate::trace::emit;

/// One I/O address space of an instance, into which its owner maps memory.
///
/// Linux: an `IOMMU_DOMAIN_UNMANAGED` domain. Complete when [`new`](Self::new) returns: geometry
/// never changes, and mapping works before anything is attached (rules C-010, D-02). Attachments
/// hold it; the last owner frees it.
///
/// Calls on disjoint ranges may run in parallel; overlapping ones end in
/// [`MapError::Exists`] or remove what was there first, never in unsoundness (rule C-229).
pub struct PagingDomain<R: RawLock = SpinLock> {
    instance: Shared<Instance<R>>,
    id: DomainId,
    state: Mutex<R, DomainState>,
}

pub(crate) struct DomainState {
    pub(crate) mappings: Mappings,
    pub(crate) endpoints: usize,
}

/// How many ranges go to the driver in one batch of an unmap.
const UNMAP_BATCH: usize = 64;

impl<R: RawLock> PagingDomain<R> {
    /// Allocates an empty domain of `instance`.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`: no node. `NoSpace`: the instance has no domain id left. `Unsupported`: the
    /// instance can't build paging domains. `Io`: it is poisoned.
    pub fn new(
        instance: &Shared<Instance<R>>,
        pool: &'static Pool,
    ) -> Result<Shared<Self>, DomainError> {
        let id = instance.driver().alloc_domain()?;
        let state = DomainState { mappings: Mappings::new(pool), endpoints: 0 };
        let domain = Self { instance: instance.clone(), id, state: Mutex::new(state) };
        Ok(Shared::new(pool, domain)?) // on failure `domain` is dropped and gives the id back
    }

    /// The instance that the domain belongs to. Only its groups can be attached.
    #[must_use]
    pub fn instance(&self) -> &Shared<Instance<R>> {
        &self.instance
    }

    /// The driver's number for the domain, unique in its instance while the domain lives.
    #[must_use]
    pub fn id(&self) -> DomainId {
        self.id
    }

    /// Page sizes and aperture.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.instance.geometry()
    }

    /// How many mappings the domain holds.
    #[must_use]
    pub fn mapping_count(&self) -> usize {
        self.state.lock().mappings.len()
    }

    /// How many endpoints are attached.
    #[must_use]
    pub fn endpoint_count(&self) -> usize {
        self.state.lock().endpoints
    }

    /// Maps `range` to the physical memory from `phys` on.
    ///
    /// Addresses and length are multiples of the granule. The memory is not touched and no
    /// reference to it is taken: keeping it alive and pinned is the caller's duty (rule C-172).
    /// When this returns `Ok` every attached device can use the mapping.
    ///
    /// # Errors
    ///
    /// `InvalidArg`: misaligned, or `prot` allows nothing or mixes `MMIO` with `CACHE`.
    /// `Overflow`: the physical range wraps. `Range`: outside the aperture. `Exists`: something
    /// in the range is mapped. `OutOfMemory`. `Io`: the device refused or did not answer.
    /// On every error the domain is as it was (rule D-21).
    pub fn map(&self, range: IovaRange, phys: PhysAddr, prot: Prot) -> Result<(), MapError> {
        self.map_runs(&[Run { range, phys, prot }])
    }

    /// Maps several runs in one batch: all of them or none (rule C-174).
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map); `InvalidArg` for an empty list, `Exists` also when two runs of the
    /// list overlap.
    pub fn map_runs(&self, runs: &[Run]) -> Result<(), MapError> {
        if runs.is_empty() {
            return Err(MapError::InvalidArg);
        }
        let geometry = self.geometry();
        for run in runs {
            check_run(&geometry, run)?;
        }
        let mut state = self.state.lock();
        for (done, run) in runs.iter().enumerate() {
            let target = Target { phys: run.phys, prot: run.prot };
            if let Err(refused) = state.mappings.insert(run.range, target) {
                forget(&mut state.mappings, runs.iter().take(done));
                return Err(match refused {
                    InsertError::Overlap => MapError::Exists,
                    InsertError::OutOfMemory => MapError::OutOfMemory,
                });
            }
        }
        let sent = self.instance.driver().map(&state.view(self.id), runs);
        if sent.is_err() {
            forget(&mut state.mappings, runs.iter());
        }
        sent
    }

    /// Removes every mapping inside `range` and returns their bytes (at most `u64::MAX`).
    ///
    /// Holes are fine, an empty range too: it returns 0. When this returns `Ok` no device
    /// reaches the memory any more, so it may be reused at once (rule C-180). Never allocates.
    ///
    /// # Errors
    ///
    /// `InvalidArg`: misaligned, or a mapping straddles an end of `range`; nothing was removed.
    /// `Io`: the device did not confirm; the mappings of the batch that failed stay in the record,
    /// the instance is poisoned, and the memory must be kept until it was reset.
    pub fn unmap(&self, range: IovaRange) -> Result<u64, UnmapError> {
        self.unmap_ranges(&[range])
    }

    /// Removes every mapping inside any of `ranges`, in as few batches as the ring allows.
    ///
    /// # Errors
    ///
    /// As [`unmap`](Self::unmap); `InvalidArg` for any of the ranges means that none was touched.
    pub fn unmap_ranges(&self, ranges: &[IovaRange]) -> Result<u64, UnmapError> {
        let sizes = self.geometry().page_sizes;
        let mut state = self.state.lock();
        for range in ranges {
            let ends_page = sizes.is_aligned(range.last().0.wrapping_add(1));
            let cuts = |at| state.mappings.get(at).is_some_and(|(entry, _)| !range.encloses(entry));
            if !sizes.is_aligned(range.first().0)
                || !ends_page
                || cuts(range.first())
                || cuts(range.last())
            {
                return Err(UnmapError::InvalidArg);
            }
        }
        let mut bytes = 0_u64;
        let mut gather = Gather::new();
        loop {
            let batch = whole_runs(&state.mappings, ranges);
            if batch.is_empty() {
                return Ok(bytes);
            }
            let driver = self.instance.driver();
            driver.unmap(&state.view(self.id), &batch, &mut gather)?;
            driver.sync(&state.view(self.id), &mut gather)?;
            for run in &batch {
                bytes = bytes.saturating_add(run.len().unwrap_or(u64::MAX));
                let mut next = Some(run.first());
                while let Some((gone, _)) = next.and_then(|first| state.mappings.remove(first)) {
                    next = gone.last().checked_add(1).filter(|next| *next <= run.last());
                }
            }
        }
    }

    /// The physical address that `iova` translates to, or `None` where nothing is mapped.
    #[must_use]
    pub fn iova_to_phys(&self, iova: Iova) -> Option<PhysAddr> {
        let state = self.state.lock();
        let (range, target) = state.mappings.get(iova)?;
        target.phys.checked_add(iova.0 - range.first().0)
    }

    /// The first mapping that ends at or after `iova`.
    #[must_use]
    pub fn next_mapping(&self, iova: Iova) -> Option<Run> {
        let state = self.state.lock();
        let (range, target) = state.mappings.first_from(iova)?;
        Some(Run { range, phys: target.phys, prot: target.prot })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, R, DomainState> {
        self.state.lock()
    }
}

impl DomainState {
    pub(crate) fn view(&self, id: DomainId) -> DomainView<'_> {
        DomainView { id, endpoints: self.endpoints, mappings: &self.mappings }
    }
}

/// Locks two domains of one instance, always the one with the lower id first.
pub(crate) fn lock_both<'a, R: RawLock>(
    one: &'a PagingDomain<R>,
    other: &'a PagingDomain<R>,
) -> (MutexGuard<'a, R, DomainState>, MutexGuard<'a, R, DomainState>) {
    if one.id < other.id {
        let first = one.lock();
        (first, other.lock())
    } else {
        let second = other.lock();
        (one.lock(), second)
    }
}

fn check_run(geometry: &Geometry, run: &Run) -> Result<(), MapError> {
    let sizes = geometry.page_sizes;
    let ends_page = sizes.is_aligned(run.range.last().0.wrapping_add(1));
    if !run.prot.is_valid()
        || !sizes.is_aligned(run.range.first().0)
        || !ends_page
        || !sizes.is_aligned(run.phys.0)
    {
        return Err(MapError::InvalidArg);
    }
    if run.phys.checked_add(run.range.span()).is_none() {
        return Err(MapError::Overflow);
    }
    if !geometry.aperture.encloses(run.range) {
        return Err(MapError::Range);
    }
    Ok(())
}

fn forget<'a>(mappings: &mut Mappings, runs: impl Iterator<Item = &'a Run>) {
    for run in runs {
        mappings.remove(run.range.first());
    }
}

/// The first mappings inside `ranges`, neighbours joined: one UNMAP removes each (rule C-265).
fn whole_runs(mappings: &Mappings, ranges: &[IovaRange]) -> Vec<IovaRange, UNMAP_BATCH> {
    let mut batch: Vec<IovaRange, UNMAP_BATCH> = Vec::new();
    for (entry, _) in ranges.iter().flat_map(|range| mappings.overlapping(*range)) {
        if let Some(last) = batch.last_mut()
            && last.last().checked_add(1) == Some(entry.first())
        {
            *last = IovaRange::new(last.first(), entry.last()).unwrap_or(*last);
        } else if !batch.contains(&entry) && batch.push(entry).is_err() {
            break;
        }
    }
    batch
}

impl<R: RawLock> Drop for PagingDomain<R> {
    /// Gives the id back, unless the unit refused to move an endpoint away: then the id is never
    /// used again, because that endpoint would reach its next owner's memory (rule C-137).
    fn drop(&mut self) {
        if self.state.get_mut().endpoints == 0 {
            self.instance.driver().free_domain(self.id);
        } else {
            emit!(warn, "iommu: domain {} is lost: the IOMMU kept an endpoint on it", self.id.0);
        }
    }
}

impl<R: RawLock> fmt::Debug for PagingDomain<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PagingDomain")
            .field("instance", &self.instance.id())
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
