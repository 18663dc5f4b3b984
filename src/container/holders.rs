//! Who is told when pinned memory is to be unmapped (section 13.2).
//!
//! The list is under `Container::state`. A holder is called with no lock held and kept alive by a
//! count of its own, so it may call anything of the container, leave the list included (rule T1-493).

use intrusive_collections::intrusive_adapter;

use super::{Container, Memory};
use crate::addr::IovaRange;
use crate::error::OutOfMemory;
use crate::list::{Link, listed};
use crate::pool::{Owned, Shared};
use crate::sync::RawLock;

/// A device that pins pages: told when a mapping that has pins is to go.
pub trait PinHolder: Send + Sync {
    /// Must drop every pin of the device inside `range`, which is a whole mapping, before it
    /// returns; [`unpin_pages`](Container::unpin_pages) may be called from here, as any other call.
    ///
    /// May come for ranges in which the device holds nothing, and once more right after it has left
    /// the list (rules T1-492, T1-494).
    fn dma_unmap(&self, range: IovaRange);
}

impl<H: PinHolder + ?Sized> PinHolder for &H {
    fn dma_unmap(&self, range: IovaRange) {
        (**self).dma_unmap(range);
    }
}

/// A place on the list of devices that are told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct HolderId(u64);

/// A registered device. Owner: `State::holders`, ids ascending.
pub(crate) struct HolderEntry {
    link: Link,
    id: HolderId,
    holder: Owned<dyn PinHolder>,
}

listed!(HolderAdapter, HolderEntry);

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Puts a device on the list of those that are told (rule T1-490). While the list is empty no
    /// page can be pinned (rule T1-467).
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]: no node; the holder is dropped.
    pub fn register_device(
        &self,
        holder: impl PinHolder + 'static,
    ) -> Result<HolderId, OutOfMemory> {
        let holder = Owned::new(self.pool, holder)?.unsize(|one| one as *mut dyn PinHolder);
        let new = HolderEntry { link: Link::new(), id: HolderId(0), holder };
        self.register(new)
    }

    fn register(&self, mut new: HolderEntry) -> Result<HolderId, OutOfMemory> {
        let id = {
            let mut state = self.state.lock();
            state.last_holder += 1;
            HolderId(state.last_holder)
        };
        new.id = id;
        let entry = Shared::new(self.pool, new)?;
        self.state.lock().holders.push_back(entry);
        Ok(id)
    }

    /// Takes a device off the list; `false` if it is not there. Never allocates.
    ///
    /// A notification that another thread has begun may still be under way when this returns.
    pub fn unregister_device(&self, id: HolderId) -> bool {
        let gone = self.state.lock().holders.remove(|entry| entry.id == id);
        gone.is_some() // dropped here, without the lock: the host's code may run
    }

    /// Tells every device that is on the list at its turn about `range` (rule T1-491).
    pub(super) fn notify(&self, range: IovaRange) {
        let mut told = HolderId(0);
        loop {
            // Two threads may register in another order than they got their ids: take the lowest
            // that was not told, wherever it stands.
            let next = {
                let state = self.state.lock();
                let ids = state.holders.iter().map(|entry| entry.id);
                let lowest = ids.filter(|id| *id > told).min();
                lowest.and_then(|id| state.holders.find(|entry| entry.id == id))
            };
            let Some(entry) = next else { return };
            told = entry.id;
            entry.holder.dma_unmap(range);
        }
    }
}
