//! `dma_rw`: copies between an emulated device and mapped memory (section 13.3).
//!
//! The state is locked to look a mapping up and to note that a copy is under way, and unlocked
//! while the provider copies. An unmap that meets a copy answers `Busy`.

use super::{Container, DmaCopyError, Memory, MemoryOwner};
use crate::addr::{Iova, IovaRange};
use crate::prot::Prot;
use crate::sync::RawLock;

/// How many copies may be under way at a time; one more answers `Busy`.
pub const MAX_COPIES: usize = 16;

/// One copy: a part of a mapping.
struct Chunk {
    range: IovaRange,
    owner: MemoryOwner,
    vaddr: u64,
}

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Copies from mapped memory into `into`, as a device that reads would.
    ///
    /// # Errors
    ///
    /// As [`DmaCopyError`]. Chunks before the failing one are copied (rule T1-510).
    pub fn dma_read(&self, iova: u64, into: &mut [u8]) -> Result<(), DmaCopyError> {
        let mut at = Some(Iova(iova));
        let mut rest = into;
        loop {
            let chunk = self.begin_copy(at, rest.len(), Prot::READ)?;
            let (part, after) = rest.split_at_mut(chunk.len());
            let copied = self.memory.read(chunk.owner, chunk.vaddr, part);
            self.end_copy(&chunk, false);
            copied?;
            if after.is_empty() {
                return Ok(());
            }
            at = chunk.range.last().checked_add(1);
            rest = after;
        }
    }

    /// Copies `from` to mapped memory, as a device that writes would. What was written is dirty.
    ///
    /// # Errors
    ///
    /// As [`DmaCopyError`]. Chunks before the failing one are copied (rule T1-510).
    pub fn dma_write(&self, iova: u64, from: &[u8]) -> Result<(), DmaCopyError> {
        let mut at = Some(Iova(iova));
        let mut rest = from;
        loop {
            let chunk = self.begin_copy(at, rest.len(), Prot::WRITE)?;
            let (part, after) = rest.split_at(chunk.len());
            let copied = self.memory.write(chunk.owner, chunk.vaddr, part);
            self.end_copy(&chunk, copied.is_ok());
            copied?;
            if after.is_empty() {
                return Ok(());
            }
            at = chunk.range.last().checked_add(1);
            rest = after;
        }
    }

    fn begin_copy(&self, at: Option<Iova>, len: usize, need: Prot) -> Result<Chunk, DmaCopyError> {
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        let at = at.filter(|_| len > 0).ok_or(DmaCopyError::InvalidArg)?;
        let mut state = self.state.lock();
        if state.invalid_vaddrs > 0 {
            return Err(DmaCopyError::Busy);
        }
        let (range, mapping) = state.mappings.get(at).ok_or(DmaCopyError::InvalidArg)?;
        if !mapping.prot().contains(need) {
            return Err(DmaCopyError::NotPermitted);
        }
        let span = (len - 1).min(range.last().0 - at.0);
        let last = at.checked_add(span).unwrap_or(range.last());
        let part = IovaRange::new(at, last).unwrap_or(range);
        let vaddr = mapping.vaddr + (at.0 - range.first().0);
        let chunk = Chunk { range: part, owner: mapping.owner, vaddr };
        state.copies.push(part).map_err(|_| DmaCopyError::Busy)?;
        Ok(chunk)
    }

    fn end_copy(&self, chunk: &Chunk, written: bool) {
        let mut state = self.state.lock();
        if let Some(place) = state.copies.iter().position(|range| *range == chunk.range) {
            state.copies.swap_remove(place);
        }
        if written {
            state.mark_dirty(chunk.range); // rule T1-511
        }
    }
}

impl Chunk {
    fn len(&self) -> usize {
        // At most the length of the caller's slice, so it fits.
        self.range.len().and_then(|len| usize::try_from(len).ok()).unwrap_or(usize::MAX)
    }
}
