//! [`Backend`] for the container: each call is one of the typed API, its error an errno.

use super::backend::Backend;
use super::errno::Errno;
use crate::container::{
    Container, DirtyBitmap, DirtyRange, Extension, Info, Kind, MapDma, Memory, UnmapDma, Unmapped,
    UpdateVaddr,
};
use crate::sync::RawLock;

// `Self::kind` and the like are the container's own calls, not those of the trait.
impl<M: Memory, R: RawLock> Backend for Container<M, R> {
    fn kind(&self) -> Kind {
        Self::kind(self)
    }

    fn check_extension(&self, extension: Extension) -> bool {
        Self::check_extension(self, extension)
    }

    fn has_emulated_groups(&self) -> bool {
        self.emulated_count() > 0
    }

    fn info(&self) -> Result<Info, Errno> {
        Ok(Self::info(self)?)
    }

    fn map(&self, request: &MapDma) -> Result<(), Errno> {
        Ok(self.map_dma(request)?)
    }

    fn update_vaddr(&self, request: &UpdateVaddr) -> Result<(), Errno> {
        Ok(Self::update_vaddr(self, request)?)
    }

    fn unmap(&self, request: &UnmapDma) -> Result<Unmapped, Errno> {
        Ok(self.unmap_dma(request)?)
    }

    fn unmap_dirty(
        &self,
        range: &DirtyRange,
        bitmap: &mut dyn DirtyBitmap,
    ) -> Result<Unmapped, Errno> {
        Ok(self.unmap_dma_dirty(range, bitmap)?)
    }

    fn invalidate_vaddr(&self, request: &UnmapDma) -> Result<Unmapped, Errno> {
        Ok(Self::invalidate_vaddr(self, request)?)
    }

    fn dirty_start(&self) -> Result<(), Errno> {
        Ok(self.start_dirty_tracking()?)
    }

    fn dirty_stop(&self) -> Result<(), Errno> {
        Ok(self.stop_dirty_tracking()?)
    }

    fn dirty_get(&self, range: &DirtyRange, bitmap: &mut dyn DirtyBitmap) -> Result<(), Errno> {
        Ok(self.read_dirty(range, bitmap)?)
    }
}
