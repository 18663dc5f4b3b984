//! 1:1 mappings for the regions that firmware left devices using, and for identity domains.
//!
//! Made by the core alone: a caller's map into such a region is refused while the device is here.

use heapless::Vec;

use super::PagingDomain;
use crate::addr::{Iova, IovaRange, PhysAddr};
use crate::driver::{Geometry, Run};
use crate::error::MapError;
use crate::prot::Prot;
use crate::reserved::ReservedRegions;
use crate::sync::RawLock;

/// How many pieces one call may map: the regions of one device, cut by what is mapped already.
const MAX_PIECES: usize = 64;

/// What [`PagingDomain::map_direct`] added, to take it back.
pub(crate) type Added = Vec<IovaRange, MAX_PIECES>;

impl<R: RawLock> PagingDomain<R> {
    /// Maps `regions` 1:1, rounded out to whole granules, except for the pages that are mapped so
    /// already (rules C-085 to C-087). All of it or nothing.
    ///
    /// # Errors
    ///
    /// `Exists`: a page is mapped to other memory. `Range`: outside the aperture. `AddrInUse`:
    /// more than [`MAX_PIECES`] pieces. `OutOfMemory`, `Io`.
    pub(crate) fn map_direct(
        &self,
        regions: impl Iterator<Item = IovaRange>,
    ) -> Result<Added, MapError> {
        let geometry = self.geometry();
        let mut state = self.lock();
        let mut added = Added::new();
        for region in regions {
            let region = whole_around(&geometry, region);
            if !geometry.aperture.encloses(region) {
                return Err(MapError::Range);
            }
            let mut gaps = Gaps { next: Some(region.first()), last: region.last() };
            let mapped = state.mappings.overlapping(region);
            for (range, target) in mapped {
                if target.phys.0 != range.first().0 {
                    return Err(MapError::Exists);
                }
                if let Some(gap) = gaps.before(range) {
                    push(&mut added, gap)?;
                }
            }
            if let Some(gap) = gaps.rest() {
                push(&mut added, gap)?;
            }
        }
        let runs: Vec<Run, MAX_PIECES> = added.iter().map(|range| identity(*range)).collect();
        if !runs.is_empty() {
            self.map_fixed(&mut state, &runs)?;
        }
        Ok(added)
    }

    /// Takes back what [`map_direct`](Self::map_direct) added. A unit that refuses is poisoned.
    pub(crate) fn unmap_direct(&self, added: &Added) {
        let _ = self.unmap_ranges(added);
    }

    /// Maps the whole aperture 1:1, except for `reserved` (rule C-268).
    ///
    /// # Errors
    ///
    /// As [`map_direct`](Self::map_direct).
    pub(crate) fn map_identity(&self, reserved: &ReservedRegions) -> Result<(), MapError> {
        let geometry = self.geometry();
        let mut runs: Vec<Run, MAX_PIECES> = Vec::new();
        let aperture = geometry.aperture;
        let mut gaps = Gaps { next: Some(aperture.first()), last: aperture.last() };
        // In order of their starts; an earlier region may reach beyond a later one.
        for region in reserved.as_slice() {
            let hole = whole_around(&geometry, region.range);
            if let Some(gap) = gaps.before(hole) {
                runs.push(identity(gap)).map_err(|_| MapError::AddrInUse)?;
            }
        }
        if let Some(gap) = gaps.rest() {
            runs.push(identity(gap)).map_err(|_| MapError::AddrInUse)?;
        }
        if runs.is_empty() {
            return Ok(());
        }
        self.map_fixed(&mut self.lock(), &runs)
    }
}

/// What is left of a range, from the bottom up.
struct Gaps {
    next: Option<Iova>,
    last: Iova,
}

impl Gaps {
    /// The gap below `taken`, which is then behind.
    fn before(&mut self, taken: IovaRange) -> Option<IovaRange> {
        let next = self.next?;
        let gap = taken
            .first()
            .0
            .checked_sub(1)
            .and_then(|end| IovaRange::new(next, Iova(end).min(self.last)));
        self.next = match taken.last().checked_add(1) {
            Some(after) if after <= self.last => Some(next.max(after)),
            _ => None,
        };
        gap
    }

    fn rest(self) -> Option<IovaRange> {
        IovaRange::new(self.next?, self.last)
    }
}

fn push(added: &mut Added, gap: IovaRange) -> Result<(), MapError> {
    // Regions of different kinds may overlap: what an earlier one added is not added again.
    if added.iter().any(|old| old.encloses(gap)) {
        return Ok(());
    }
    if added.iter().any(|old| old.overlaps(gap)) {
        return Err(MapError::Exists);
    }
    added.push(gap).map_err(|_| MapError::AddrInUse)
}

fn identity(range: IovaRange) -> Run {
    Run { range, phys: PhysAddr(range.first().0), prot: Prot::RW }
}

/// The smallest range of whole granules around `range`.
fn whole_around(geometry: &Geometry, range: IovaRange) -> IovaRange {
    let low = geometry.page_sizes.granule() - 1;
    let first = Iova(range.first().0 & !low);
    IovaRange::new(first, Iova(range.last().0 | low)).unwrap_or(range)
}
