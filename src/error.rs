//! One error enum per family of calls, each variant with its errno.
//!
//! The table of numbers is `spec` appendix A of the IOMMU rules, the same as Linux. `Incompatible`
//! (124, `EMEDIUMTYPE`) is the only soft error: "this pair can't work, another domain may". It has
//! no side effect and is never logged (rules C-107, C-108, C-111).

use core::fmt;

use crate::rangemap::InsertError;

/// Errno numbers (asm-generic), for hosts that speak them.
pub mod errno {
    /// Operation not permitted.
    pub const EPERM: i32 = 1;
    /// No such entry.
    pub const ENOENT: i32 = 2;
    /// Input/output error.
    pub const EIO: i32 = 5;
    /// The argument list is too long.
    pub const E2BIG: i32 = 7;
    /// Out of memory.
    pub const ENOMEM: i32 = 12;
    /// Permission denied.
    pub const EACCES: i32 = 13;
    /// Bad address.
    pub const EFAULT: i32 = 14;
    /// Busy.
    pub const EBUSY: i32 = 16;
    /// Exists.
    pub const EEXIST: i32 = 17;
    /// No such device.
    pub const ENODEV: i32 = 19;
    /// Invalid argument.
    pub const EINVAL: i32 = 22;
    /// No space left.
    pub const ENOSPC: i32 = 28;
    /// Out of range.
    pub const ERANGE: i32 = 34;
    /// Overflow.
    pub const EOVERFLOW: i32 = 75;
    /// Not supported.
    pub const EOPNOTSUPP: i32 = 95;
    /// Address in use.
    pub const EADDRINUSE: i32 = 98;
    /// Wrong medium type: this domain and this device can't work together.
    pub const EMEDIUMTYPE: i32 = 124;
}

/// There is no memory for a node or a queue. Linux: `ENOMEM`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfMemory;

/// Declares an error enum with errno and message per variant.
macro_rules! errors {
    ($(#[$outer:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $errno:ident, $text:literal;)+ }) => {
        $(#[$outer])*
        #[non_exhaustive]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// The stable errno of this variant (a positive number).
            #[must_use]
            pub const fn errno(self) -> i32 {
                match self { $(Self::$variant => $crate::error::errno::$errno,)+ }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)+ })
            }
        }

        impl core::error::Error for $name {}
    };
}

impl OutOfMemory {
    /// The errno, `ENOMEM`.
    #[must_use]
    pub const fn errno(self) -> i32 {
        errno::ENOMEM
    }
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of memory")
    }
}

impl core::error::Error for OutOfMemory {}

#[cfg(feature = "container")]
pub(crate) use errors;

errors! {
    /// Why an instance or a device could not be taken under management.
    ///
    /// Whatever the variant, the endpoint stays blocked (rule C-075).
    ProbeError {
        /// No node, queue or table has room. `ENOMEM`.
        OutOfMemory = ENOMEM, "out of memory";
        /// There is no such endpoint behind this instance, or no endpoint was named. `ENODEV`.
        NoDevice = ENODEV, "no such endpoint behind this IOMMU: number the PCI buses first, and take \
            requester ids from the firmware (iommu-map, VIOT), a bridge's where one stands in";
        /// The endpoints of the device belong to different groups or instances, or the
        /// description contradicts itself (rules C-034, C-046). `EINVAL`.
        InvalidArg = EINVAL, "the description of the device contradicts itself";
        /// The device needs 1:1 mappings at all times, and its group has an owner (rules C-090,
        /// C-153). `EINVAL`.
        DirectRequired = EINVAL, "the device needs direct mappings, and its group has an owner";
        /// A device with this identity is registered already. `EEXIST`.
        Exists = EEXIST, "a device with this identity is registered already";
        /// A new member of an attached group has a reserved region where the group's domain maps
        /// memory (rule C-151). `EADDRINUSE`.
        AddrInUse = EADDRINUSE, "a reserved region of the device is mapped in the group's domain";
        /// A fixed table is full: domain ids, reserved regions of one device. `ENOSPC`.
        NoSpace = ENOSPC, "a fixed table is full";
        /// The unit lacks something without which it can't be driven. `EOPNOTSUPP`.
        Unsupported = EOPNOTSUPP, "the IOMMU lacks a feature that is required";
        /// The unit answered with an error, or not in time; or it is poisoned. `EIO`.
        Io = EIO, "the IOMMU failed or did not answer";
    }
}

errors! {
    /// Why a group could not be claimed.
    ClaimError {
        /// Somebody owns the group, also if it is the same owner (rule C-142). `EPERM`.
        NotPermitted = EPERM, "the group has an owner";
        /// A member needs its 1:1 regions mapped at all times, so it can't be blocked
        /// (rule D-29). `EINVAL`.
        DirectRequired = EINVAL, "a member of the group needs direct mappings at all times";
        /// The group has no device. `ENODEV`.
        NoDevice = ENODEV, "the group has no device";
        /// The group is poisoned (rule C-135). `EIO`.
        Io = EIO, "the group is poisoned";
    }
}

errors! {
    /// Why a kernel driver could not get the default domain of a group.
    UseError {
        /// The group has an owner (rule C-139). `EBUSY`.
        Busy = EBUSY, "the group has an owner";
        /// The group has no device. `ENODEV`.
        NoDevice = ENODEV, "the group has no device";
        /// No node or driver state has room. `ENOMEM`.
        OutOfMemory = ENOMEM, "out of memory";
        /// The instance has no domain id left, or a fixed table is full. `ENOSPC`.
        NoSpace = ENOSPC, "no domain id is left, or a table is full";
        /// A region that must be mapped 1:1 lies outside the aperture, or everything that the device
        /// can address does. `ERANGE`.
        Range = ERANGE, "a direct region, or all that the device can address, is outside the aperture";
        /// The unit refused or did not answer in time, or group or instance are poisoned. `EIO`.
        Io = EIO, "the IOMMU failed or did not answer";
    }
}

errors! {
    /// Why a domain could not be allocated.
    DomainError {
        /// The window for doorbells is misaligned or outside the aperture. `EINVAL`.
        InvalidArg = EINVAL, "the window for doorbells is misaligned or outside the aperture";
        /// No node or driver state has room. `ENOMEM`.
        OutOfMemory = ENOMEM, "out of memory";
        /// The instance has no domain id left. `ENOSPC`.
        NoSpace = ENOSPC, "no domain id is left";
        /// The instance can't build such a domain: an option it lacks, or a page size larger than
        /// the system's. `EOPNOTSUPP`.
        Unsupported = EOPNOTSUPP, "the IOMMU can't build such a domain";
        /// The instance is poisoned. `EIO`.
        Io = EIO, "the IOMMU is poisoned";
    }
}

errors! {
    /// Why a domain could not be attached.
    AttachError {
        /// This domain and this group can't work together; another domain may. `EMEDIUMTYPE`.
        ///
        /// Not a fault: it is the answer a caller probes for, so nothing is logged and nothing
        /// was touched. The only soft error; a freshly allocated domain never gives it.
        Incompatible = EMEDIUMTYPE, "domain and group can't work together";
        /// The group has no device. `ENODEV`.
        NoDevice = ENODEV, "the group has no device";
        /// A device attach was asked for a group with another member (rule C-120). `EINVAL`.
        NotSingleton = EINVAL, "the group has more than one device";
        /// A reserved region of the group is mapped in the domain (rule D-28). `EADDRINUSE`.
        AddrInUse = EADDRINUSE, "a reserved region of the group is mapped in the domain";
        /// No node or driver state has room. `ENOMEM`.
        OutOfMemory = ENOMEM, "out of memory";
        /// The device or the domain has no room for another one. `ENOSPC`.
        NoSpace = ENOSPC, "a table of the IOMMU is full";
        /// The unit refused or did not answer in time, or group or instance are poisoned. `EIO`.
        Io = EIO, "the IOMMU failed or did not answer";
    }
}

errors! {
    /// Why a mapping was not made. Nothing of the call is mapped, `Unconfirmed` excepted.
    MapError {
        /// Address or length not a multiple of the granule, an empty list, or protection flags
        /// that make no mapping (rules C-159, C-161, C-162). `EINVAL`.
        InvalidArg = EINVAL, "misaligned, empty, or no valid protection";
        /// The physical range wraps around the end of the address space. `EOVERFLOW`.
        Overflow = EOVERFLOW, "the range wraps around";
        /// Outside the domain's aperture. `ERANGE`.
        Range = ERANGE, "outside the aperture of the domain";
        /// Something in the range is mapped already; it is untouched. `EEXIST`.
        Exists = EEXIST, "the range is mapped already";
        /// Too many calls that don't wait are on their way in this domain. `EBUSY`.
        Busy = EBUSY, "too many maps and unmaps of the domain are on their way";
        /// The range touches a reserved region of an attached device, or the domain's window for
        /// doorbells (rule D-28). `EADDRINUSE`.
        AddrInUse = EADDRINUSE, "the range touches a reserved region or the window for doorbells";
        /// No node or page table has room. `ENOMEM`.
        OutOfMemory = ENOMEM, "out of memory";
        /// The device refused, or is poisoned. `EIO`.
        Io = EIO, "the IOMMU failed";
        /// The device did not say whether it mapped the memory, or did not take it back: it is
        /// poisoned. The mapping stays in the record. **Keep the memory**: devices may reach it. `EIO`.
        Unconfirmed = EIO, "the IOMMU did not say whether it mapped the memory, which must be kept";
    }
}

errors! {
    /// Why memory could not be given to a device, or taken back.
    DmaError {
        /// An empty buffer or list, one that may not be written by the device, no whole granules
        /// where only those can be mapped. `EINVAL`.
        InvalidArg = EINVAL, "empty, not writable, or no whole granules";
        /// The buffer wraps around the end of the address space. `EOVERFLOW`.
        Overflow = EOVERFLOW, "the buffer wraps around";
        /// No node, no page to bounce through, or no page table has room. `ENOMEM`.
        OutOfMemory = ENOMEM, "out of memory";
        /// No free block of addresses of that size that the device can emit. `ENOSPC`.
        NoSpace = ENOSPC, "no free addresses that the device can emit";
        /// This device mapped nothing at the address, or somebody unmaps it now. `ENOENT`.
        NotMapped = ENOENT, "this device mapped nothing there";
        /// The unit refused, or is poisoned. Of an unmap: it may still let the device reach the
        /// memory, which is kept out of use with its addresses. `EIO`.
        Io = EIO, "the IOMMU failed or did not answer";
        /// Of a map: the unit did not say whether it mapped the memory, or did not take it back, and
        /// is poisoned. Buffers and bounce pages are leaked, as far as they were given; memory that is
        /// known by address **must be kept**: the device may reach it. `EIO`.
        Unconfirmed = EIO, "the IOMMU did not say whether it mapped the memory, which must be kept";
    }
}

errors! {
    /// Why an interrupt doorbell could not be mapped.
    DoorbellError {
        /// The domain has no window for doorbells (rule C-040). `EOPNOTSUPP`.
        Unsupported = EOPNOTSUPP, "the domain has no window for doorbells";
        /// The page of the doorbell is beyond the end of the address space. `EOVERFLOW`.
        Overflow = EOVERFLOW, "the page of the doorbell wraps around";
        /// Every page of the window is taken (rule C-037). `ENOSPC`.
        NoSpace = ENOSPC, "the window for doorbells is full";
        /// No node or page table has room. `ENOMEM`.
        OutOfMemory = ENOMEM, "out of memory";
        /// The device refused or did not answer in time, or is poisoned. `EIO`.
        Io = EIO, "the IOMMU failed or did not answer";
    }
}

errors! {
    /// Why dirty pages could not be tracked or read.
    DirtyError {
        /// Misaligned, a page size that is no power of two or below the granule, a bitmap that is
        /// too short, or a hole in the range (rule C-196). `EINVAL`.
        InvalidArg = EINVAL, "misaligned, a hole in the range, or the bitmap does not fit";
        /// The domain was made without dirty tracking. `EOPNOTSUPP`.
        Unsupported = EOPNOTSUPP, "the domain was made without dirty tracking";
        /// The device refused or did not answer in time, or is poisoned. `EIO`.
        Io = EIO, "the IOMMU failed or did not answer";
    }
}

errors! {
    /// Why an unmap was refused.
    UnmapError {
        /// Misaligned, or a mapping straddles an end of the range; nothing was removed
        /// (rules C-179, D-22). `EINVAL`.
        InvalidArg = EINVAL, "misaligned, or a mapping straddles an end of the range";
        /// Too many calls that don't wait are on their way in this domain. `EBUSY`.
        Busy = EBUSY, "too many maps and unmaps of the domain are on their way";
        /// The device did not confirm: it may still reach the memory. The mappings stay in the
        /// record, and the instance is poisoned. `EIO`.
        Io = EIO, "the IOMMU failed or did not answer; its memory may still be reached";
    }
}

impl From<OutOfMemory> for ProbeError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl From<OutOfMemory> for DomainError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl From<OutOfMemory> for AttachError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl From<OutOfMemory> for MapError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl From<OutOfMemory> for DmaError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// For addresses that came from the allocator, and memory that was looked at.
impl From<MapError> for DmaError {
    fn from(error: MapError) -> Self {
        match error {
            MapError::InvalidArg => Self::InvalidArg,
            MapError::Overflow => Self::Overflow,
            MapError::Range | MapError::Exists | MapError::AddrInUse => Self::NoSpace,
            MapError::OutOfMemory => Self::OutOfMemory,
            MapError::Busy | MapError::Io => Self::Io,
            MapError::Unconfirmed => Self::Unconfirmed,
        }
    }
}

impl From<InsertError> for MapError {
    fn from(refused: InsertError) -> Self {
        match refused {
            InsertError::Overlap => Self::Exists,
            InsertError::OutOfMemory => Self::OutOfMemory,
        }
    }
}

/// For the core's own attaches, where another domain is no way out.
impl From<AttachError> for ProbeError {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::NoDevice => Self::NoDevice,
            AttachError::AddrInUse => Self::AddrInUse,
            AttachError::OutOfMemory => Self::OutOfMemory,
            AttachError::NoSpace => Self::NoSpace,
            AttachError::Incompatible | AttachError::NotSingleton | AttachError::Io => Self::Io,
        }
    }
}

impl From<DomainError> for ProbeError {
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

/// For 1:1 mappings.
impl From<MapError> for ProbeError {
    fn from(error: MapError) -> Self {
        match error {
            MapError::InvalidArg | MapError::Overflow | MapError::Range => Self::InvalidArg,
            MapError::Exists | MapError::AddrInUse => Self::AddrInUse,
            MapError::OutOfMemory => Self::OutOfMemory,
            MapError::Busy | MapError::Io | MapError::Unconfirmed => Self::Io,
        }
    }
}

/// For the core's own attaches, where the probe's reasons are more than a kernel driver can use.
impl From<ProbeError> for UseError {
    fn from(error: ProbeError) -> Self {
        match error {
            ProbeError::NoDevice => Self::NoDevice,
            ProbeError::OutOfMemory => Self::OutOfMemory,
            ProbeError::NoSpace | ProbeError::AddrInUse => Self::NoSpace,
            ProbeError::InvalidArg => Self::Range,
            ProbeError::DirectRequired | ProbeError::Exists => Self::Busy,
            ProbeError::Unsupported | ProbeError::Io => Self::Io,
        }
    }
}

impl From<OutOfMemory> for UseError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl AttachError {
    /// The number that Linux 6.2 and later report: as [`errno`](Self::errno), but `EINVAL` for
    /// `Incompatible` (rule D-07). For ABI layers whose programs expect it.
    #[must_use]
    pub const fn mainline_errno(self) -> i32 {
        if self.is_soft() { errno::EINVAL } else { self.errno() }
    }

    /// Whether another domain may succeed where this one did not. True for `Incompatible` alone.
    #[must_use]
    pub const fn is_soft(self) -> bool {
        matches!(self, Self::Incompatible)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incompatible_is_124_and_the_only_soft_error() {
        let all = [
            AttachError::Incompatible,
            AttachError::NoDevice,
            AttachError::NotSingleton,
            AttachError::AddrInUse,
            AttachError::OutOfMemory,
            AttachError::NoSpace,
            AttachError::Io,
        ];
        for error in all {
            assert_eq!(error.is_soft(), error.errno() == 124, "{error}");
            let mainline = if error.is_soft() { 22 } else { error.errno() };
            assert_eq!(error.mainline_errno(), mainline, "D-07: {error}");
        }
    }
}
