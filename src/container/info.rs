//! What a container says about itself: GET_INFO and CHECK_EXTENSION as typed calls (section 14).

use super::report::MAX_DIRTY_BITMAP;
use super::{Container, Kind, Memory};
use crate::addr::IovaRange;
use crate::driver::DomainFeatures;
use crate::error::OutOfMemory;
use crate::pool::PoolVec;
use crate::sync::RawLock;

/// What user space asks a container for, with Linux's numbers (rules T1-080 to T1-084).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Extension {
    /// Containers of the first kind (1).
    V1,
    /// Containers of the second kind (3).
    V2,
    /// All DMA is cache coherent (4).
    DmaCoherent,
    /// Nested translation (6): never.
    Nesting,
    /// One unmap removes everything (9).
    UnmapAll,
    /// The owner's addresses can be changed (10).
    UpdateVaddr,
}

impl Extension {
    /// The extension with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::V1,
            3 => Self::V2,
            4 => Self::DmaCoherent,
            6 => Self::Nesting,
            9 => Self::UnmapAll,
            10 => Self::UpdateVaddr,
            _ => return None,
        })
    }

    /// The answer while there is no container: what depends on one is not there (rules T1-063,
    /// T1-070, T1-082, T1-083).
    #[must_use]
    pub const fn without_container(self) -> bool {
        matches!(self, Self::V1 | Self::V2 | Self::UnmapAll)
    }
}

/// A container at one moment (rules T1-521 to T1-528).
#[derive(Debug)]
pub struct Info {
    /// The page sizes that all domains share; the lowest is the granule of every request.
    pub page_sizes: u64,
    /// What dirty tracking offers (rule T1-527).
    pub migration: Migration,
    /// How many further mappings may be made.
    pub free_mappings: u32,
    /// The usable ranges of IOVAs, ascending; none means no constraint.
    pub windows: PoolVec<IovaRange>,
}

/// What dirty tracking offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Migration {
    /// The bytes that a bit stands for.
    pub page_size: u64,
    /// The largest bitmap that a request may bring, in bytes.
    pub max_bitmap: u64,
}

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Everything that user space may know, as it is at one moment (rule T1-584).
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]: no memory for the list of ranges (rule T1-529).
    pub fn info(&self) -> Result<Info, OutOfMemory> {
        let mut state = self.state.lock();
        self.refresh(&mut state)?;
        let mut windows = PoolVec::new(self.pool);
        let list = state.windows.as_slice();
        windows.reserve(list.len())?;
        for window in list {
            windows.push(*window)?;
        }
        let page_size = state.dirty_granule();
        Ok(Info {
            page_sizes: state.page_sizes,
            migration: Migration { page_size, max_bitmap: MAX_DIRTY_BITMAP },
            free_mappings: state.free_mappings,
            windows,
        })
    }

    /// Whether the container has an extension, at this moment (rules T1-080 to T1-084, T1-585).
    #[must_use]
    pub fn check_extension(&self, extension: Extension) -> bool {
        match extension {
            Extension::V1 | Extension::V2 | Extension::UnmapAll => true,
            Extension::Nesting => false,
            // Also while there is no domain (rule T1-083).
            Extension::DmaCoherent => {
                let enforces = DomainFeatures::ENFORCE_COHERENCY;
                let state = self.state.lock();
                state.domains.iter().all(|entry| entry.domain.features().contains(enforces))
            }
            Extension::UpdateVaddr => self.state.lock().emulated.is_empty(),
        }
    }

    /// Of which kind the container is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.options.kind
    }
}
