//! Mapping of a scatter list: chunks of memory, one after another in the I/O address space.

use core::iter;

use heapless::Vec;

use super::map::{self, BATCH};
use super::{DomainState, PagingDomain};
use crate::addr::{Iova, IovaRange, PhysAddr};
use crate::driver::{Geometry, Run};
use crate::error::MapError;
use crate::prot::Prot;
use crate::sync::RawLock;

/// A piece of memory of a scatter list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// The physical address of its first byte; a multiple of the granule.
    pub phys: PhysAddr,
    /// Its length in bytes; a multiple of the granule, not 0.
    pub len: u64,
}

impl<R: RawLock> PagingDomain<R> {
    /// Maps a scatter list (Linux: `iommu_map_sg`): the chunks follow one another from `iova` on,
    /// and those that are neighbours in memory become one mapping (rule C-173). Returns the range
    /// that is mapped now.
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map), for any chunk: then nothing of the call is mapped (rule C-174), or it is
    /// `Unconfirmed` and all of it stays in the record.
    /// `InvalidArg` also for an empty list or chunk. `Overflow` also when the chunks wrap around
    /// the end of the I/O address space.
    pub fn map_chunks(
        &self,
        iova: Iova,
        chunks: &[Chunk],
        prot: Prot,
    ) -> Result<IovaRange, MapError> {
        let range = check(&self.geometry(), iova, chunks, prot)?;
        let mut state = self.lock();
        let had_node = state.mappings.has_node();
        self.record(&mut state, range, chunks, prot)?;
        let driver = self.instance().driver();
        let mut rest = runs(iova, chunks, prot);
        let mut sent = None;
        let mut batch: Vec<Run, BATCH> = Vec::new();
        loop {
            batch.clear(); // a new one would be moved here, whole
            batch.extend(rest.by_ref().take(BATCH));
            let Some(last) = batch.last() else { return Ok(range) };
            if let Err(error) = driver.map(&state.view(self.id()), &batch) {
                // One run of whole mappings.
                let kept = error == MapError::Unconfirmed
                    || sent.is_some_and(|sent| self.cut_off(&mut state, &[sent]).is_err());
                if kept {
                    return Err(MapError::Unconfirmed);
                }
                state.forget(runs(iova, chunks, prot), had_node);
                return Err(error);
            }
            sent = IovaRange::new(iova, last.range.last());
        }
    }

    /// Puts the chunks, which [`check`] allowed for `range`, into the record. Nothing is sent.
    pub(super) fn record(
        &self,
        state: &mut DomainState,
        range: IovaRange,
        chunks: &[Chunk],
        prot: Prot,
    ) -> Result<(), MapError> {
        if state.is_taken(range) {
            return Err(MapError::AddrInUse);
        }
        self.settle(state, iter::once(range))?;
        state.record(runs(range.first(), chunks, prot))
    }
}

/// Whether the chunks can be mapped from `iova` on, and the range that they fill.
pub(super) fn check(
    geometry: &Geometry,
    iova: Iova,
    chunks: &[Chunk],
    prot: Prot,
) -> Result<IovaRange, MapError> {
    let mut range = None;
    for (first, chunk) in placed(iova, chunks) {
        let first = first.ok_or(MapError::Overflow)?;
        if chunk.len == 0 {
            return Err(MapError::InvalidArg);
        }
        let part = IovaRange::from_len(first, chunk.len).ok_or(MapError::Overflow)?;
        map::check_run(geometry, &Run { range: part, phys: chunk.phys, prot })?;
        range = IovaRange::new(iova, part.last());
    }
    range.ok_or(MapError::InvalidArg)
}

/// Each chunk with its place; `None` once the I/O address space has ended.
fn placed(iova: Iova, chunks: &[Chunk]) -> impl Iterator<Item = (Option<Iova>, Chunk)> + Clone {
    chunks.iter().scan(Some(iova), |next, chunk| {
        let first = *next;
        *next = first.and_then(|first| first.checked_add(chunk.len));
        Some((first, *chunk))
    })
}

/// The chunks as runs, neighbours in memory joined.
fn runs(iova: Iova, chunks: &[Chunk], prot: Prot) -> impl Iterator<Item = Run> + Clone {
    let parts = placed(iova, chunks).map_while(move |(first, chunk)| {
        Some(Run { range: IovaRange::from_len(first?, chunk.len)?, phys: chunk.phys, prot })
    });
    let mut parts = parts.peekable();
    iter::from_fn(move || {
        let mut run = parts.next()?;
        while let Some(next) = parts.next_if(|next| end(&run) == Some(next.phys)) {
            run.range = IovaRange::new(run.range.first(), next.range.last())?;
        }
        Some(run)
    })
}

/// The physical address behind a run.
fn end(run: &Run) -> Option<PhysAddr> {
    run.phys.checked_add(run.range.span())?.checked_add(1)
}
