//! `Errno`: what a refused system call answers.

use core::fmt;

use super::user::UserFault;
use crate::container::{
    AttachGroupError, DirtyError, MapDmaError, UnmapDmaError, UnmapFailed, UpdateVaddrError,
};
use crate::error::{ClaimError, OutOfMemory, errno};

/// An errno of Linux (asm-generic), as a positive number: the host answers the call with its
/// negative.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Errno(pub i32);

impl Errno {
    /// `EPERM`, 1: interrupts of a group are not isolated (rule T1-156), or it has an owner already.
    pub const PERM: Self = Self(errno::EPERM);
    /// `ENOENT`, 2: no mapping there to give a new address (rule T1-404).
    pub const NOENT: Self = Self(errno::ENOENT);
    /// `EIO`, 5: the IOMMU refused or did not answer.
    pub const IO: Self = Self(errno::EIO);
    /// `ENOMEM`, 12: no memory for a node, or the limit of locked memory.
    pub const NOMEM: Self = Self(errno::ENOMEM);
    /// `EACCES`, 13: dirty tracking in a container of kind v1 (rule T1-416).
    pub const ACCES: Self = Self(errno::EACCES);
    /// `EFAULT`, 14: the user's memory isn't there, or not with this permission.
    pub const FAULT: Self = Self(errno::EFAULT);
    /// `EBUSY`, 16: emulated groups, or another call at work (rule T1-354).
    pub const BUSY: Self = Self(errno::EBUSY);
    /// `EEXIST`, 17: the range overlaps a mapping (rule T1-268).
    pub const EXIST: Self = Self(errno::EEXIST);
    /// `ENODEV`, 19: no backend of this kind (rule T1-062), a group without devices, an owner that is
    /// gone.
    pub const NODEV: Self = Self(errno::ENODEV);
    /// `EINVAL`, 22: a size, flag, or alignment that the rules refuse.
    pub const INVAL: Self = Self(errno::EINVAL);
    /// `ENOTTY`, 25: no such request (rule T1-069).
    pub const NOTTY: Self = Self(25);
    /// `ENOSPC`, 28: as many mappings as there may be (rule T1-269), or no domain id is left.
    pub const NOSPC: Self = Self(errno::ENOSPC);
    /// `EOVERFLOW`, 75: a range wraps, or a number doesn't fit the host's addresses.
    pub const OVERFLOW: Self = Self(errno::EOVERFLOW);

    /// The number, positive.
    #[must_use]
    pub const fn errno(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "errno {}", self.0)
    }
}

impl core::error::Error for Errno {}

impl From<UserFault> for Errno {
    fn from(_: UserFault) -> Self {
        Self::FAULT
    }
}

macro_rules! from_errors {
    ($($error:ty),+) => {$(
        impl From<$error> for Errno {
            fn from(error: $error) -> Self {
                Self(error.errno())
            }
        }
    )+};
}

from_errors!(AttachGroupError, ClaimError, DirtyError, MapDmaError, OutOfMemory);
from_errors!(UnmapDmaError, UnmapFailed, UpdateVaddrError);
