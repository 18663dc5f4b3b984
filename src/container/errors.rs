//! What the container's calls answer, with the errno of the type1 rules.

use core::fmt;

use super::memory::PinError;
use crate::error::{AttachError, DomainError, MapError, OutOfMemory, errors};

errors! {
    /// Why a group was not attached. The container and the group are as they were (rule T1-169).
    AttachGroupError {
        /// A mapping, or what is left of the usable IOVAs, collides with a reserved region, the
        /// aperture or the page sizes (rules T1-157, T1-158, T1-161, T1-162). `EINVAL`.
        InvalidArg = EINVAL, "a mapping collides with what the group needs";
        /// A mapping has a void address (rule T1-150). `EBUSY`.
        Busy = EBUSY, "a mapping waits for its new address";
        /// The interrupts of the group are not isolated (rule T1-156). `EPERM`.
        UnsafeInterrupts = EPERM, "the group's interrupts are not isolated";
        /// The group has no device (rule T1-154). `ENODEV`.
        NoDevice = ENODEV, "the group has no device";
        /// No node, no driver state, or the limit of locked memory. `ENOMEM`.
        OutOfMemory = ENOMEM, "out of memory, or the limit of locked memory is reached";
        /// No domain id is left. `ENOSPC`.
        NoSpace = ENOSPC, "no domain id is left";
        /// Memory of a mapping is gone. `EFAULT`.
        Fault = EFAULT, "memory of a mapping is gone";
        /// The new domain refused the group it was allocated for: a bug of the driver
        /// (rule T1-163). `EMEDIUMTYPE`.
        Incompatible = EMEDIUMTYPE, "the domain allocated for the group refused it";
        /// The instance can't build paging domains. `EOPNOTSUPP`.
        Unsupported = EOPNOTSUPP, "the IOMMU can't build paging domains";
        /// The unit refused or did not answer. `EIO`.
        Io = EIO, "the IOMMU failed or did not answer";
    }
}

errors! {
    /// Why memory was not mapped. Nothing of the call is left.
    MapDmaError {
        /// Size 0, misaligned, no direction, outside the usable IOVAs, or the memory is scattered
        /// in pieces smaller than the granule of a unit (rule T1-044). `EINVAL`.
        InvalidArg = EINVAL, "empty, misaligned, without direction, or outside the usable IOVAs";
        /// The IOVA or the memory range wraps (rule T1-264). `EOVERFLOW`.
        Overflow = EOVERFLOW, "the range wraps around";
        /// The range overlaps a mapping, also an identical one (rule T1-268). `EEXIST`.
        Exists = EEXIST, "the range overlaps a mapping";
        /// The container has as many mappings as it may have (rule T1-269). `ENOSPC`.
        NoSpace = ENOSPC, "the limit of mappings is reached";
        /// No node, or the limit of locked memory. `ENOMEM`.
        OutOfMemory = ENOMEM, "out of memory, or the limit of locked memory is reached";
        /// There is no memory at the address, or not with this permission. `EFAULT`.
        Fault = EFAULT, "no memory at the address, or not with this permission";
        /// The owner's address space is gone. `ENODEV`.
        NoOwner = ENODEV, "the owner of the memory is gone";
        /// The unit refused or did not answer. `EIO`.
        Io = EIO, "the IOMMU failed or did not answer";
    }
}

/// What an unmap removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unmapped {
    /// The sum of the sizes of the mappings that are gone, in bytes.
    pub bytes: u64,
}

errors! {
    /// Why an unmap ended early.
    UnmapDmaError {
        /// Size 0, misaligned, or a mapping is cut by an end of the range (rule T1-361); with a
        /// bitmap also a wrong size, another granule, or tracking is off (rules T1-353, T1-360).
        /// `EINVAL`.
        InvalidArg = EINVAL, "empty, misaligned, or cutting a mapping";
        /// The range wraps (rule T1-359). `EOVERFLOW`.
        Overflow = EOVERFLOW, "the range wraps around";
        /// Another call is at work on a mapping in the range, or emulated devices did not let go of
        /// one (rules T1-371, T1-373). `EBUSY`.
        Busy = EBUSY, "a mapping in the range is in use";
        /// The caller's bitmap can't be written: the mapping it was for stays, those before it are
        /// gone (rule T1-374). `EFAULT`.
        Fault = EFAULT, "the bitmap can't be written";
        /// The unit did not confirm: what it may still reach stays mapped and pinned, what was gone
        /// before is gone (rule T1-383). `EIO`.
        Io = EIO, "the IOMMU failed or did not answer; the rest stays mapped and pinned";
    }
}

errors! {
    /// Why pages were not pinned. None of the call is.
    PinPagesError {
        /// No page was asked for, a page is not mapped, nobody is registered to be told, the group
        /// is not in the container, or the page is device memory (rules T1-460 to T1-473). `EINVAL`.
        InvalidArg = EINVAL, "not mapped, not registered, or not a page of memory";
        /// More pages than one call may pin (rule T1-461). `E2BIG`.
        TooBig = E2BIG, "too many pages for one call";
        /// The range wraps (rule T1-465). `EOVERFLOW`.
        Overflow = EOVERFLOW, "the range wraps around";
        /// The container is of the first kind (rule T1-464). `EACCES`.
        Denied = EACCES, "a container of the first kind pins nothing for devices";
        /// Another call is at work on the mapping, or a mapping has a void address (rule T1-466).
        /// `EBUSY`.
        Busy = EBUSY, "a mapping is in use, or waits for its new address";
        /// The mapping does not allow this access (rule T1-470). `EPERM`.
        NotPermitted = EPERM, "the mapping does not allow this access";
        /// No node, or the limit of locked memory. `ENOMEM`.
        OutOfMemory = ENOMEM, "out of memory, or the limit of locked memory is reached";
        /// There is no memory behind the mapping. `EFAULT`.
        Fault = EFAULT, "no memory at the address, or not with this permission";
        /// The owner's address space is gone. `ENODEV`.
        NoOwner = ENODEV, "the owner of the memory is gone";
    }
}

errors! {
    /// Why memory was not copied. What came before the failing mapping was.
    DmaCopyError {
        /// Nothing to copy, or an address is not mapped (rules T1-506, T1-507). `EINVAL`.
        InvalidArg = EINVAL, "empty, or not mapped";
        /// A mapping has a void address (rule T1-403), or [`MAX_COPIES`](super::MAX_COPIES) copies
        /// are under way. `EBUSY`.
        Busy = EBUSY, "a mapping waits for its new address, or too many copies are under way";
        /// The mapping does not allow this access, or its owner is gone (rules T1-508, T1-509).
        /// `EPERM`.
        NotPermitted = EPERM, "the mapping does not allow this access, or its owner is gone";
        /// The memory can't be reached, or not by the caller (rules T1-509, T1-510). `EFAULT`.
        Fault = EFAULT, "the memory can't be reached";
    }
}

errors! {
    /// Why dirty tracking was not changed, or not read.
    DirtyError {
        /// Tracking is off, the range is empty, misaligned or cuts a mapping, the page size is not
        /// that of the tracking, the bitmap is too small or too large, or a mapping is too large to
        /// be tracked (rules T1-423 to T1-433). `EINVAL`.
        InvalidArg = EINVAL, "tracking is off, or wrong range, granule or bitmap size";
        /// The container is of the first kind, which tracks nothing (rule T1-416). `EACCES`.
        Denied = EACCES, "a container of the first kind tracks nothing";
        /// The range wraps (rule T1-424). `EOVERFLOW`.
        Overflow = EOVERFLOW, "the range wraps around";
        /// No memory for a bitmap: tracking stays off (rule T1-433). `ENOMEM`.
        OutOfMemory = ENOMEM, "no memory for a bitmap";
        /// The caller's bitmap can't be read or written (rule T1-447). `EFAULT`.
        Fault = EFAULT, "the bitmap can't be reached";
    }
}

errors! {
    /// Why a mapping did not get its new address. Nothing has changed.
    UpdateVaddrError {
        /// Size 0, misaligned, or the mapping there is another range or not void (rules T1-404,
        /// T1-407). `EINVAL`.
        InvalidArg = EINVAL, "empty, misaligned, or not a mapping with a void address";
        /// The IOVA or the memory range wraps. `EOVERFLOW`.
        Overflow = EOVERFLOW, "the range wraps around";
        /// Nothing is mapped in the range (rule T1-404). `ENOENT`.
        NotFound = ENOENT, "nothing is mapped there";
        /// Another call is at work on the mapping. `EBUSY`.
        Busy = EBUSY, "another call is at work on the mapping";
        /// The caller's limit of locked memory (rule T1-405). `ENOMEM`.
        OutOfMemory = ENOMEM, "the limit of locked memory is reached";
        /// The caller has no address space that could be charged. `ENODEV`.
        NoOwner = ENODEV, "there is no address space to charge";
    }
}

/// An unmap that ended early: why, and what is gone all the same (rule T1-369).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnmapFailed {
    /// Why it ended.
    pub error: UnmapDmaError,
    /// What it had removed by then.
    pub unmapped: Unmapped,
}

impl UnmapFailed {
    /// The stable errno of the reason (a positive number).
    #[must_use]
    pub const fn errno(self) -> i32 {
        self.error.errno()
    }
}

impl fmt::Display for UnmapFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes are gone)", self.error, self.unmapped.bytes)
    }
}

impl core::error::Error for UnmapFailed {}

impl From<UnmapDmaError> for UnmapFailed {
    fn from(error: UnmapDmaError) -> Self {
        Self { error, unmapped: Unmapped::default() }
    }
}

impl From<OutOfMemory> for AttachGroupError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl From<DomainError> for AttachGroupError {
    fn from(error: DomainError) -> Self {
        match error {
            DomainError::InvalidArg => Self::InvalidArg,
            DomainError::OutOfMemory => Self::OutOfMemory,
            DomainError::NoSpace => Self::NoSpace,
            DomainError::Unsupported => Self::Unsupported,
            DomainError::Io => Self::Io,
        }
    }
}

impl From<AttachError> for AttachGroupError {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::Incompatible => Self::Incompatible,
            AttachError::NoDevice => Self::NoDevice,
            AttachError::OutOfMemory => Self::OutOfMemory,
            AttachError::NoSpace => Self::NoSpace,
            AttachError::AddrInUse | AttachError::NotSingleton => Self::InvalidArg,
            AttachError::Io => Self::Io,
        }
    }
}

impl From<MapDmaError> for AttachGroupError {
    fn from(error: MapDmaError) -> Self {
        match error {
            MapDmaError::OutOfMemory => Self::OutOfMemory,
            MapDmaError::Fault => Self::Fault,
            MapDmaError::NoOwner => Self::NoDevice,
            MapDmaError::Io => Self::Io,
            _ => Self::InvalidArg,
        }
    }
}

impl From<MapError> for MapDmaError {
    fn from(error: MapError) -> Self {
        match error {
            MapError::OutOfMemory => Self::OutOfMemory,
            MapError::Io | MapError::Unconfirmed => Self::Io,
            MapError::Exists => Self::Exists,
            MapError::Overflow => Self::Overflow,
            _ => Self::InvalidArg,
        }
    }
}

impl From<DirtyError> for MapDmaError {
    fn from(error: DirtyError) -> Self {
        match error {
            DirtyError::OutOfMemory => Self::OutOfMemory,
            _ => Self::InvalidArg,
        }
    }
}

impl From<DirtyError> for UnmapDmaError {
    fn from(error: DirtyError) -> Self {
        match error {
            DirtyError::Overflow => Self::Overflow,
            DirtyError::Fault => Self::Fault,
            _ => Self::InvalidArg,
        }
    }
}

impl From<PinError> for UpdateVaddrError {
    fn from(error: PinError) -> Self {
        match error {
            PinError::OutOfMemory => Self::OutOfMemory,
            PinError::NoOwner | PinError::Fault => Self::NoOwner,
        }
    }
}

impl From<PinError> for PinPagesError {
    fn from(error: PinError) -> Self {
        match error {
            PinError::Fault => Self::Fault,
            PinError::OutOfMemory => Self::OutOfMemory,
            PinError::NoOwner => Self::NoOwner,
        }
    }
}

impl From<PinError> for DmaCopyError {
    fn from(error: PinError) -> Self {
        match error {
            PinError::NoOwner => Self::NotPermitted,
            PinError::Fault | PinError::OutOfMemory => Self::Fault,
        }
    }
}

impl From<PinError> for MapDmaError {
    fn from(error: PinError) -> Self {
        match error {
            PinError::Fault => Self::Fault,
            PinError::OutOfMemory => Self::OutOfMemory,
            PinError::NoOwner => Self::NoOwner,
        }
    }
}
