//! [`Backend`] for the container, as far as it goes: kind v2, without dirty tracking and without
//! updates of addresses.

use super::backend::Backend;
use super::bitmap::DirtySink;
use super::command::{DirtyRange, UpdateVaddr};
use super::errno::Errno;
use super::extension::Kind;
use super::info::Info;
use crate::container::{Container, MapDma, Memory, UnmapDma, Unmapped};
use crate::pool::PoolVec;
use crate::sync::RawLock;

impl<M: Memory, R: RawLock> Backend for Container<M, R> {
    fn kind(&self) -> Kind {
        Kind::V2
    }

    /// Coherency of domains is not known: the answer is no unless there is none.
    fn is_coherent(&self) -> bool {
        self.domain_count() == 0
    }

    fn can_update_vaddr(&self) -> bool {
        false
    }

    fn has_emulated_groups(&self) -> bool {
        false
    }

    fn info(&self, reply: &mut dyn FnMut(&Info<'_>) -> Result<(), Errno>) -> Result<(), Errno> {
        let mut windows = PoolVec::new(self.pool);
        let (page_sizes, dirty_page_size, free_mappings) = {
            let state = self.state.lock();
            let known = state.windows.as_slice();
            windows.reserve(known.len())?;
            for window in known {
                windows.push(*window)?;
            }
            (state.page_sizes, state.granule(), state.free_mappings)
        };
        reply(&Info { page_sizes, dirty_page_size, free_mappings, windows: &windows })
    }

    fn map(&self, request: &MapDma) -> Result<(), Errno> {
        Ok(self.map_dma(request)?)
    }

    /// `EINVAL`: the flag is not known.
    fn update_vaddr(&self, _request: &UpdateVaddr) -> Result<(), Errno> {
        Err(Errno::INVAL)
    }

    fn unmap(&self, request: &UnmapDma) -> Result<Unmapped, Errno> {
        Ok(self.unmap_dma(request)?)
    }

    /// `EINVAL`: tracking is off.
    fn unmap_dirty(
        &self,
        _range: &DirtyRange,
        _sink: &mut dyn DirtySink,
    ) -> Result<Unmapped, Errno> {
        Err(Errno::INVAL)
    }

    /// `EINVAL`: the flag is not known.
    fn invalidate_vaddr(&self, _request: &UnmapDma) -> Result<Unmapped, Errno> {
        Err(Errno::INVAL)
    }

    /// `ENOTTY`: there is no tracking.
    fn dirty_start(&self) -> Result<(), Errno> {
        Err(Errno::NOTTY)
    }

    /// `ENOTTY`: there is no tracking.
    fn dirty_stop(&self) -> Result<(), Errno> {
        Err(Errno::NOTTY)
    }

    /// `EINVAL`: tracking is off.
    fn dirty_get(&self, _range: &DirtyRange, _sink: &mut dyn DirtySink) -> Result<(), Errno> {
        Err(Errno::INVAL)
    }
}
