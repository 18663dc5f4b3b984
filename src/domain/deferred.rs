//! Unmaps that share one invalidation.
//!
//! What is due is kept with the domain (`DomainState::pending`), not with the value that the caller
//! holds: any sync of the domain ends all of it, and a map of an IOVA that is still due ends it
//! first. So a mistake with the value costs speed, never isolation.

use core::fmt;

use super::PagingDomain;
use super::map::Sync;
use crate::addr::IovaRange;
use crate::error::UnmapError;
use crate::sync::{RawLock, SpinLock};

/// Unmaps of one domain whose invalidation is still due (rules C-181, D-23).
///
/// Until [`sync`](Self::sync) returns `Ok`, devices may still reach the memory: it must not be
/// reused or unpinned. Dropping the value synchronises too, but can't tell whether it worked.
///
#[cfg_attr(feature = "sim", doc = "```")]
#[cfg_attr(not(feature = "sim"), doc = "```ignore")]
/// # use iommu::{addr::*, domain::PagingDomain, pool::Pool, prot::Prot, registry::Registry, sim::Sim};
/// # static POOL: Pool = Pool::heap();
/// # let iommu = Registry::new(&POOL).add_instance(Sim::new().driver())?;
/// # let domain = PagingDomain::new(&iommu, &POOL)?;
/// # let page = |n: u64| IovaRange::from_len(Iova(n * 0x1000), 0x1000).unwrap();
/// # for n in 1..=3 { domain.map(page(n), PhysAddr(0x8000), Prot::RW)?; }
/// let mut unmaps = domain.defer_unmaps();
/// for n in 1..=3 {
///     unmaps.unmap(page(n))?;
/// }
/// assert_eq!(unmaps.sync()?, 0x3000); // one invalidation; the memory may be reused from here on
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "until it is synchronised, devices may still reach the memory"]
pub struct DeferredUnmaps<'d, R: RawLock = SpinLock> {
    domain: &'d PagingDomain<R>,
    bytes: u64,
}

impl<R: RawLock> PagingDomain<R> {
    /// Begins a series of unmaps that share one invalidation.
    pub fn defer_unmaps(&self) -> DeferredUnmaps<'_, R> {
        DeferredUnmaps { domain: self, bytes: 0 }
    }
}

impl<R: RawLock> DeferredUnmaps<'_, R> {
    /// Removes every mapping inside `range` and returns their bytes, as
    /// [`PagingDomain::unmap`] does, but devices may reach the memory until the sync.
    ///
    /// # Errors
    ///
    /// As [`PagingDomain::unmap`].
    pub fn unmap(&mut self, range: IovaRange) -> Result<u64, UnmapError> {
        let bytes = self.domain.remove(&[range], Sync::Later)?;
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(bytes)
    }

    /// How many bytes were removed so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends the unmaps. When this returns `Ok`, no device reaches the memory of any of them; the
    /// answer is how many bytes that is.
    ///
    /// # Errors
    ///
    /// `Io`: the device did not confirm; the instance is poisoned, and the memory must be kept
    /// until it was reset.
    pub fn sync(self) -> Result<u64, UnmapError> {
        self.domain.sync_unmaps()?;
        Ok(self.bytes) // the drop finds nothing due
    }
}

impl<R: RawLock> PagingDomain<R> {
    fn sync_unmaps(&self) -> Result<(), UnmapError> {
        let mut state = self.lock();
        if state.pending.is_empty() {
            return Ok(());
        }
        let (view, pending) = state.view_and_pending(self.id());
        self.instance().driver().sync(&view, pending)
    }
}

impl<R: RawLock> Drop for DeferredUnmaps<'_, R> {
    fn drop(&mut self) {
        // A unit that does not confirm is poisoned, and blocks all DMA.
        let _ = self.domain.sync_unmaps();
    }
}

impl<R: RawLock> fmt::Debug for DeferredUnmaps<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredUnmaps")
            .field("domain", &self.domain.id())
            .field("bytes", &self.bytes)
            .finish()
    }
}
