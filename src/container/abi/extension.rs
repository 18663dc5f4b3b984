//! Kinds of containers, and the answers of CHECK_EXTENSION (rules T1-063, T1-070, T1-080 to T1-084).

use super::backend::Backend;
use super::errno::Errno;

/// The kind of a type1 container, with its number in SET_IOMMU (rule T1-063).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Kind {
    /// v1: an unmap may name a part of a mapping and removes it all (rules T1-367, T1-368).
    V1,
    /// v2: mappings are removed as they were made.
    V2,
}

/// What CHECK_EXTENSION may ask for (rules T1-080 to T1-084).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Extension {
    /// 1: containers of kind v1.
    Type1,
    /// 3: containers of kind v2.
    Type1V2,
    /// 4: the DMA of every group is cache coherent.
    DmaCoherent,
    /// 6: nesting; never there (rule T1-081).
    Nesting,
    /// 9: unmapping everything at once.
    UnmapAll,
    /// 10: a new address for a mapping.
    UpdateVaddr,
}

impl Kind {
    /// The backend that SET_IOMMU chooses with argument `number`.
    ///
    /// # Errors
    ///
    /// `ENODEV`: no backend accepts the number (rule T1-062); nesting is not accepted. `EINVAL`: one
    /// does, because it is that of an extension, but there is no such kind (rule T1-064): 9.
    pub const fn from_number(number: u64) -> Result<Self, Errno> {
        match Extension::from_number(number) {
            Some(Extension::Type1) => Ok(Self::V1),
            Some(Extension::Type1V2) => Ok(Self::V2),
            Some(extension) if extension.is_static() => Err(Errno::INVAL),
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

impl Extension {
    /// The extension with this number, `None` if type1 has none.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Type1),
            3 => Some(Self::Type1V2),
            4 => Some(Self::DmaCoherent),
            6 => Some(Self::Nesting),
            9 => Some(Self::UnmapAll),
            10 => Some(Self::UpdateVaddr),
            _ => None,
        }
    }

    /// Whether the extension is there without asking a backend (rule T1-070).
    #[must_use]
    pub const fn is_static(self) -> bool {
        matches!(self, Self::Type1 | Self::Type1V2 | Self::UnmapAll)
    }
}

/// The answer of CHECK_EXTENSION, 0 or 1; `backend` if there is one.
pub(super) fn check<B: Backend + ?Sized>(number: u64, backend: Option<&B>) -> i32 {
    let offered = Extension::from_number(number).is_some_and(|extension| match extension {
        Extension::DmaCoherent => backend.is_some_and(Backend::is_coherent),
        Extension::UpdateVaddr => backend.is_some_and(Backend::can_update_vaddr),
        _ => extension.is_static(),
    });
    offered.into()
}
