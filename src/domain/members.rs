//! Who translates through a domain, and what that forbids: reserved regions, the window for
//! doorbells. Under the domain's lock; `group/switch.rs` calls it around every move.

use super::{DomainState, PagingDomain};
use crate::addr::IovaRange;
use crate::device::Device;
use crate::driver::Geometry;
use crate::error::AttachError;
use crate::list::List;
use crate::mark::sabotage;
use crate::pool::Shared;
use crate::reserved::{ReservedKind, ReservedRegion, ReservedRegions};
use crate::sync::RawLock;

/// What changes in a domain when a group arrives. Worked out before anything is sent, and carried out
/// under the same hold of the lock.
pub(crate) struct Admission {
    /// Whether the devices reserve what nobody did before. There is room for it.
    more: bool,
    window: Option<IovaRange>,
}

impl<R: RawLock> PagingDomain<R> {
    /// What the attached devices reserve, merged.
    #[must_use]
    pub fn reserved(&self) -> ReservedRegions {
        self.lock().reserved.clone()
    }

    /// Where interrupt doorbells are mapped, if the domain has such a window.
    #[must_use]
    pub fn msi_window(&self) -> Option<IovaRange> {
        self.lock().window
    }
}

impl DomainState {
    /// Whether devices with these regions can come, and what follows from it. Changes nothing.
    ///
    /// # Errors
    ///
    /// `Incompatible`: doorbells are mapped in another window (rule C-042), or the count of endpoints
    /// is not certain any more, so nobody could say whether the unit needs a replay. `AddrInUse`: something
    /// is mapped where the devices can't have a mapping (rules C-151, D-28). `NoSpace`: the merged
    /// table is full, or the window holds no whole granule of the aperture.
    pub(crate) fn admit(
        &self,
        geometry: &Geometry,
        reserved: &ReservedRegions,
    ) -> Result<Admission, AttachError> {
        if self.suspect {
            return Err(AttachError::Incompatible);
        }
        let needed = match reserved.software_msi() {
            Some(window) => Some(whole_inside(geometry, window).ok_or(AttachError::NoSpace)?),
            None => None,
        };
        match (self.window, needed) {
            (Some(have), Some(need)) if have != need => return Err(AttachError::Incompatible),
            _ => {}
        }
        if reserved.as_slice().iter().any(|region| self.is_mapped_into(region)) {
            return Err(AttachError::AddrInUse);
        }
        let window = self.window.or(needed);
        if reserved.as_slice().iter().all(|region| self.reserved.covers(region)) {
            return Ok(Admission { more: false, window });
        }
        self.union(reserved).ok_or(AttachError::NoSpace)?;
        Ok(Admission { more: true, window })
    }

    /// What is reserved with that as well; `None`: the table has no room.
    #[inline(never)] // the table is large, and mostly all devices reserve the same
    fn union(&self, reserved: &ReservedRegions) -> Option<ReservedRegions> {
        let mut union = self.reserved.clone();
        reserved.as_slice().iter().try_for_each(|region| union.add(*region)).ok()?;
        Some(union)
    }

    /// Takes devices in that were admitted and whose endpoints are here now.
    pub(crate) fn enter(
        &mut self,
        devices: &List<Device>,
        reserved: &ReservedRegions,
        admission: Admission,
    ) {
        devices.for_each_shared(|device| self.devices.push_back(device));
        self.settle_in(reserved, admission);
    }

    /// As [`enter`](Self::enter), for one device.
    pub(crate) fn enter_one(&mut self, device: &Shared<Device>, admission: Admission) {
        self.devices.push_back(device.clone());
        self.settle_in(device.reserved(), admission);
    }

    fn settle_in(&mut self, reserved: &ReservedRegions, admission: Admission) {
        if admission.more
            && let Some(union) = self.union(reserved)
        {
            self.reserved = union;
        }
        self.window = admission.window;
    }

    /// Notes that an endpoint is counted here that may be elsewhere.
    pub(crate) fn suspect(&mut self) {
        self.suspect = true;
    }

    /// Forgets devices, and what only they reserved.
    pub(crate) fn leave<'a>(&mut self, devices: impl Iterator<Item = &'a Device>) {
        let mut rebuild = false;
        for device in devices {
            let Some(gone) = self.devices.remove(|one| core::ptr::eq(one, device)) else {
                continue;
            };
            let mut regions = gone.reserved().as_slice().iter();
            // Another one with the same table, as most have, keeps all of it reserved.
            let same = |other: &Device| other.reserved() == gone.reserved();
            rebuild |= regions.next().is_some() && !self.devices.iter().any(same);
        }
        if !rebuild {
            return;
        }
        let mut left = ReservedRegions::new();
        let mut regions = self.devices.iter().flat_map(|device| device.reserved().as_slice());
        // A union can need more places than a larger one; then the old one stays, which only
        // refuses more.
        if regions.all(|region| left.add(*region).is_ok()) {
            self.reserved = left;
        }
    }

    /// Whether a mapping lies where `region` forbids it. Doorbells may be in their window, and 1:1
    /// mappings in a direct region.
    fn is_mapped_into(&self, region: &ReservedRegion) -> bool {
        sabotage!(IgnoreReservedAtAttach => return false);
        let inside = || self.mappings.overlapping(region.range);
        match region.kind {
            ReservedKind::Reserved | ReservedKind::Msi => self.mappings.overlaps(region.range),
            ReservedKind::DirectRelaxable => false,
            ReservedKind::Direct => inside().any(|(range, to)| to.phys.0 != range.first().0),
            ReservedKind::SoftwareMsi => {
                inside().any(|(range, _)| !self.window.is_some_and(|window| window.encloses(range)))
            }
        }
    }
}

/// The whole granules of the aperture that lie in `window`.
fn whole_inside(geometry: &Geometry, window: IovaRange) -> Option<IovaRange> {
    let inside = window.intersection(geometry.aperture)?;
    let low = geometry.page_sizes.granule() - 1;
    let first = inside.first().checked_add(low)?.0 & !low;
    let last = match inside.last().0.checked_add(1) {
        Some(end) => (end & !low).checked_sub(1)?,
        None => u64::MAX,
    };
    IovaRange::new(crate::addr::Iova(first), crate::addr::Iova(last))
}
