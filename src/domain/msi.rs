//! The window in which a domain maps interrupt doorbells.
//!
//! Where doorbells are translated, a device can only interrupt if the page of the doorbell is
//! mapped. Pages are handed out from the start of the window up and stay mapped as long as the
//! domain lives (rules C-037, C-039); the record of mappings is the only list of them.

use super::PagingDomain;
use crate::addr::{Iova, IovaRange, PhysAddr};
use crate::driver::{Capabilities, Run};
use crate::error::{DoorbellError, MapError};
use crate::prot::Prot;
use crate::sync::RawLock;

impl<R: RawLock> PagingDomain<R> {
    /// Makes the page of an interrupt doorbell reachable and returns the address that devices must
    /// write to: what goes into a device's MSI table in place of `doorbell`. The same page is
    /// mapped once (rule C-039).
    ///
    /// Linux: `iommu_dma_prepare_msi`. For an attached group use
    /// [`Attachment::map_doorbell`](crate::group::Attachment::map_doorbell), which knows whether
    /// the group's doorbells are translated at all.
    ///
    /// # Errors
    ///
    /// `Unsupported`: the domain has no window. `NoSpace`: the window is full. `Overflow`: the
    /// doorbell's page ends beyond the address space. `OutOfMemory`, `Io`. On every error the
    /// domain is as it was.
    pub fn map_doorbell(&self, doorbell: PhysAddr) -> Result<Iova, DoorbellError> {
        let granule = self.geometry().page_sizes.granule();
        let offset = doorbell.0 & (granule - 1);
        let page = PhysAddr(doorbell.0 - offset);
        if page.checked_add(granule - 1).is_none() {
            return Err(DoorbellError::Overflow);
        }
        let mut state = self.lock();
        let window = state.window.ok_or(DoorbellError::Unsupported)?;
        let mut free = Some(window.first());
        for (range, target) in state.mappings.overlapping(window) {
            if { target.phys } == page {
                return range.first().checked_add(offset).ok_or(DoorbellError::Overflow);
            }
            free = range.last().checked_add(1);
        }
        let place = free.and_then(|free| IovaRange::from_len(free, granule));
        let place = place.filter(|place| window.encloses(*place)).ok_or(DoorbellError::NoSpace)?;
        let device_memory = if self.instance().capabilities().contains(Capabilities::MMIO) {
            Prot::MMIO
        } else {
            Prot::empty() // the flag can't be expressed, and may not be sent (rule C-262)
        };
        let prot = Prot::WRITE | Prot::NOEXEC | device_memory;
        let run = Run { range: place, phys: page, prot };
        self.map_fixed(&mut state, &[run]).map_err(|error| match error {
            MapError::OutOfMemory => DoorbellError::OutOfMemory,
            _ => DoorbellError::Io,
        })?;
        place.first().checked_add(offset).ok_or(DoorbellError::Overflow)
    }
}
