//! Dirty pages: which pages devices wrote, for a domain made with that feature. Under its lock.

use super::PagingDomain;
use crate::addr::{Iova, IovaRange};
use crate::driver::{DomainFeatures, Gather};
use crate::error::DirtyError;
use crate::sync::RawLock;

impl<R: RawLock> PagingDomain<R> {
    /// Starts or stops recording the pages that devices write; starting forgets what was recorded
    /// before, so that the first report is a clean one (rule C-194). Nothing happens if the mode
    /// is the same already.
    ///
    #[cfg_attr(feature = "sim", doc = "```")]
    #[cfg_attr(not(feature = "sim"), doc = "```ignore")]
    /// # use iommu::{addr::*, device::DeviceId, domain::*, driver::*, group::*, pool::Pool};
    /// # use iommu::{fault::Access, prot::Prot, registry::*, sim::*};
    /// # static POOL: Pool = Pool::heap();
    /// # let registry = Registry::new(&POOL);
    /// # let sim = Sim::with(SimConfig { capabilities: Capabilities::DIRTY_TRACKING, ..Default::default() });
    /// # let iommu = registry.add_instance(sim.driver())?;
    /// # let info = DeviceInfo { id: DeviceId(1), endpoints: &[EndpointId(8)], with: None };
    /// # let group = registry.add_device(&iommu, &info)?;
    /// let options = DomainOptions { features: DomainFeatures::DIRTY_TRACKING, ..Default::default() };
    /// let domain = PagingDomain::with_options(&iommu, &POOL, &options)?; // where the unit can
    /// let pages = IovaRange::from_len(Iova(0x10_0000), 8 * 0x1000).unwrap();
    /// domain.map(pages, PhysAddr(0x8000_0000), Prot::RW)?;
    /// let attached = Group::claim(&group, OwnerId(1))?.attach(&domain).unwrap();
    ///
    /// domain.set_dirty_tracking(true)?;
    /// # sim.reach(EndpointId(8), Iova(0x10_2000), Access::WRITE).unwrap();
    /// let mut bitmap = [0; 1];
    /// domain.read_dirty(pages, 0x1000, true, &mut bitmap)?;
    /// assert_eq!(bitmap, [0b100], "the device wrote the third page");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Unsupported`: the domain was made without
    /// [`DomainFeatures::DIRTY_TRACKING`]. `Io`: the mode is the old one.
    pub fn set_dirty_tracking(&self, on: bool) -> Result<(), DirtyError> {
        self.check_dirty()?;
        let mut state = self.lock();
        if state.dirty == on {
            return Ok(());
        }
        let driver = self.instance().driver();
        if on {
            let mut gather = Gather::new();
            let view = state.view(self.id());
            driver.read_dirty(&view, IovaRange::ALL, true, &mut |_| (), &mut gather)?;
            driver.sync(&view, &mut gather).map_err(|_| DirtyError::Io)?;
        }
        driver.set_dirty_tracking(&state.view(self.id()), on)?;
        state.dirty = on;
        Ok(())
    }

    /// Whether writes of devices are being recorded.
    #[must_use]
    pub fn is_tracking_dirty(&self) -> bool {
        self.lock().dirty
    }

    /// Reads which pages of `range` were written since they were last cleared: bit n of `bitmap`
    /// (bit n % 64 of word n / 64) is set for page n of `page_size` bytes; no bit is cleared.
    /// A mapping in larger pages sets the bits of the whole page (rule C-195). With `clear`, what
    /// is reported is forgotten, and recorded again from the next write on.
    ///
    /// # Errors
    ///
    /// `Unsupported`: the domain was made without dirty tracking. `InvalidArg`: `page_size` is no
    /// power of two or below the granule, `range` is not whole pages of it, has a hole, or is
    /// longer than `bitmap` (rule C-196); nothing was read. `Io`: `bitmap` has what was read so
    /// far, and whatever was cleared is in it.
    pub fn read_dirty(
        &self,
        range: IovaRange,
        page_size: u64,
        clear: bool,
        bitmap: &mut [u64],
    ) -> Result<(), DirtyError> {
        self.check_dirty()?;
        let sized =
            page_size.is_power_of_two() && page_size >= self.geometry().page_sizes.granule();
        let low = page_size.wrapping_sub(1);
        let whole = range.first().0 & low == 0 && range.last().0 & low == low;
        if !sized || !whole {
            return Err(DirtyError::InvalidArg);
        }
        let shift = page_size.trailing_zeros();
        let fits =
            usize::try_from(range.span() >> shift >> 6).is_ok_and(|last| last < bitmap.len());
        if !fits {
            return Err(DirtyError::InvalidArg);
        }
        let state = self.lock();
        let mut next = Some(range.first());
        for (entry, _) in state.mappings.overlapping(range) {
            if next.is_none_or(|next| entry.first() > next) {
                return Err(DirtyError::InvalidArg);
            }
            next = entry.last().checked_add(1);
        }
        if next.is_some_and(|next| next <= range.last()) {
            return Err(DirtyError::InvalidArg);
        }
        let mut mark = |pages: IovaRange| {
            let Some(pages) = pages.intersection(range) else { return };
            let index = |at: Iova| (at.0 - range.first().0) >> shift;
            for page in index(pages.first())..=index(pages.last()) {
                let word = usize::try_from(page >> 6).ok().and_then(|at| bitmap.get_mut(at));
                if let Some(word) = word {
                    *word |= 1 << (page & 63);
                }
            }
        };
        let driver = self.instance().driver();
        let view = state.view(self.id());
        let mut gather = Gather::new();
        let read = driver.read_dirty(&view, range, clear, &mut mark, &mut gather);
        if !gather.is_empty() {
            driver.sync(&view, &mut gather).map_err(|_| DirtyError::Io)?;
        }
        read
    }

    fn check_dirty(&self) -> Result<(), DirtyError> {
        if self.features().contains(DomainFeatures::DIRTY_TRACKING) {
            Ok(())
        } else {
            Err(DirtyError::Unsupported)
        }
    }
}
