//! The traits behind the dispatch: what a backend answers, and what stands before it.

use core::ops::Deref;

use super::errno::Errno;
use crate::container::{
    DirtyBitmap, DirtyRange, Extension, Info, Kind, MapDma, UnmapDma, Unmapped, UpdateVaddr,
};

/// A type1 instance (section 1 of the rules), as its ioctls need it.
///
/// Implemented for [`Container`](crate::container::Container). Each call takes the checks up where
/// [`Command::decode`](super::Command::decode) ended; what it refuses changes nothing. No lock is
/// held when one is called. None may be held while a callback runs: it reaches user memory.
pub trait Backend {
    /// The kind it was opened as.
    fn kind(&self) -> Kind;

    /// Whether it has an extension, at this moment (rules T1-080 to T1-084, T1-585).
    fn check_extension(&self, extension: Extension) -> bool;

    /// Whether an emulated group is attached (rule T1-354).
    fn has_emulated_groups(&self) -> bool;

    /// What GET_INFO tells, all of it of one moment (rule T1-584).
    ///
    /// # Errors
    ///
    /// `ENOMEM`: there is no memory to collect it (rule T1-529).
    fn info(&self) -> Result<Info, Errno>;

    /// Maps memory: rules T1-263 to T1-275.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EOVERFLOW`, `EEXIST`, `ENOSPC`, `ENOMEM`, `EFAULT`, `ENODEV`, or of the IOMMU, as these
    /// rules have it.
    fn map(&self, request: &MapDma) -> Result<(), Errno>;

    /// Gives a mapping whose address is invalid a new one: rules T1-263, T1-264, T1-266, T1-404 to
    /// T1-407.
    ///
    /// # Errors
    ///
    /// `EINVAL`: misaligned, or the mapping is valid, or it has another range. `ENOENT`: no mapping
    /// there. `ENOMEM`: the caller's limit of locked memory. `ENODEV`: the caller has no address
    /// space. `EBUSY`: another call is at work on the mapping.
    fn update_vaddr(&self, request: &UpdateVaddr) -> Result<(), Errno>;

    /// Removes mappings: rules T1-356, T1-358, T1-359, T1-361 to T1-387.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EOVERFLOW`, `EBUSY`, or of the IOMMU, as these rules have it. Some mappings may be
    /// gone; the program isn't told how many bytes, as in Linux (rule T1-369).
    fn unmap(&self, request: &UnmapDma) -> Result<Unmapped, Errno>;

    /// The same for one range; the dirty bits of each mapping are put into `bitmap` before it goes
    /// (rules T1-360, T1-374, T1-446).
    ///
    /// # Errors
    ///
    /// As [`unmap`](Self::unmap); also `EINVAL` if tracking is off or `page_size` isn't its
    /// granule, `EFAULT` if `bitmap` can't be reached: that mapping and later ones stay.
    fn unmap_dirty(
        &self,
        range: &DirtyRange,
        bitmap: &mut dyn DirtyBitmap,
    ) -> Result<Unmapped, Errno>;

    /// Makes the addresses of mappings invalid and tells their sizes (rules T1-400, T1-401), after the
    /// checks of [`unmap`](Self::unmap).
    ///
    /// # Errors
    ///
    /// As [`unmap`](Self::unmap); also `EBUSY` with an emulated group, `EINVAL` if one is invalid
    /// already.
    fn invalidate_vaddr(&self, request: &UnmapDma) -> Result<Unmapped, Errno>;

    /// Dirty tracking on; nothing to do if it is (rule T1-433).
    ///
    /// # Errors
    ///
    /// `EINVAL`: a mapping has too many pages. `ENOMEM`. Tracking stays off.
    fn dirty_start(&self) -> Result<(), Errno>;

    /// Dirty tracking off; nothing to do if it is (rule T1-434).
    ///
    /// # Errors
    ///
    /// Only of a backend without tracking.
    fn dirty_stop(&self) -> Result<(), Errno>;

    /// Puts the dirty bits of a range into `bitmap`, mapping by mapping, ascending, and clears them:
    /// rules T1-427 to T1-430, T1-436 to T1-441.
    ///
    /// # Errors
    ///
    /// `EINVAL`: `page_size` isn't the granule of the tracking, the range is misaligned or cuts a
    /// mapping, tracking is off. `EFAULT`: `bitmap` can't be reached; the bits of earlier mappings
    /// are cleared (rule T1-447).
    fn dirty_get(&self, range: &DirtyRange, bitmap: &mut dyn DirtyBitmap) -> Result<(), Errno>;
}

/// A container file: groups first, then a backend for them (rules T1-060 to T1-070).
///
/// Joining and leaving are calls on group files, which are the host's. A container whose last group
/// leaves has no backend any more (rule T1-067).
pub trait FrontEnd {
    /// What SET_IOMMU opens.
    type Backend: Backend;

    /// The backend, if one is set. It stays usable as long as the answer lives.
    fn backend(&self) -> Option<impl Deref<Target = Self::Backend>>;

    /// Whether a group is in the container.
    fn has_groups(&self) -> bool;

    /// Opens a backend and attaches every group to it, the one that was added last first; at an
    /// error, those attached are detached in reverse order and the backend is closed (rule T1-062).
    ///
    /// # Errors
    ///
    /// `EINVAL`: no group, or a backend is set: [`ioctl`](super::ioctl) has checked both, but
    /// another thread may have been faster. Else that of opening or attaching.
    fn open(&self, kind: Kind) -> Result<(), Errno>;
}
