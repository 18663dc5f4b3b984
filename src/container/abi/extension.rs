//! Numbers of kinds, and the answers of CHECK_EXTENSION (rules T1-063, T1-064, T1-070, T1-080 to
//! T1-084).

use super::backend::Backend;
use super::errno::Errno;
use crate::container::{Extension, Kind};

impl Kind {
    /// The kind that SET_IOMMU chooses with argument `number` (Linux ABI).
    ///
    /// # Errors
    ///
    /// `ENODEV`: no backend accepts the number (rule T1-062); nesting is not accepted. `EINVAL`: one
    /// does, because it is that of an extension, but there is no such kind (rule T1-064): 9.
    pub const fn from_number(number: u64) -> Result<Self, Errno> {
        match Extension::from_number(number) {
            Some(Extension::V1) => Ok(Self::V1),
            Some(Extension::V2) => Ok(Self::V2),
            Some(extension) if extension.without_container() => Err(Errno::INVAL),
            _ => Err(Errno::NODEV),
        }
    }

    /// The number in SET_IOMMU: 1 or 3.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::V1 => 1,
            Self::V2 => 3,
        }
    }
}

/// The answer of CHECK_EXTENSION, 0 or 1; `backend` if there is one.
pub(super) fn check<B: Backend + ?Sized>(number: u64, backend: Option<&B>) -> i32 {
    let offered = Extension::from_number(number).is_some_and(|extension| match backend {
        Some(backend) => backend.check_extension(extension),
        None => extension.without_container(),
    });
    offered.into()
}
