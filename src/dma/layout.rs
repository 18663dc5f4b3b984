//! How a buffer lies in granules: which of them are bounced, and which memory stands at each.

use core::ptr::NonNull;

use heapless::Vec;

use super::Inner;
use super::memory::{self, Piece};
use super::record::{Part, Parts};
use crate::addr::PhysAddr;
use crate::domain::Chunk;
use crate::error::{DmaError, OutOfMemory};
use crate::platform::Platform;
use crate::pool::{Pool, PoolVec};
use crate::sync::RawLock;

/// How many pieces of memory a buffer may have before their list needs a node.
const FEW: usize = 16;

/// Where the physical memory of a buffer is.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// The platform knows, page by page.
    Ask,
    /// In one piece from here on.
    At(PhysAddr),
}

/// Pieces of memory in order, neighbours joined.
pub(super) struct Chunks {
    few: Vec<Chunk, FEW>,
    many: PoolVec<Chunk>,
}

impl Chunks {
    fn new(pool: &'static Pool) -> Self {
        Self { few: Vec::new(), many: PoolVec::new(pool) }
    }

    pub(super) fn as_slice(&self) -> &[Chunk] {
        if self.many.is_empty() { &self.few } else { &self.many }
    }

    fn push(&mut self, phys: PhysAddr, len: u64) -> Result<(), OutOfMemory> {
        let last = match self.many.last_mut() {
            Some(last) => Some(last),
            None => self.few.last_mut(),
        };
        if let Some(last) = last
            && last.phys.checked_add(last.len) == Some(phys)
        {
            last.len += len; // both lie in one window, whose length fits
            return Ok(());
        }
        if !self.many.is_empty() {
            return self.many.push(Chunk { phys, len });
        }
        if let Err(chunk) = self.few.push(Chunk { phys, len }) {
            self.many.reserve(2 * FEW)?;
            for old in &self.few {
                self.many.push(*old)?;
            }
            self.many.push(chunk)?;
        }
        Ok(())
    }
}

/// Buffers on their way into a mapping. Whoever maps them takes the parts out; what is left gives
/// its bounce pages back when the draft is dropped.
pub(super) struct Draft<'d, P: Platform, R: RawLock> {
    inner: &'d Inner<P, R>,
    pub(super) parts: Parts,
    pub(super) chunks: Chunks,
    /// Whole granules so far, in bytes.
    pub(super) len: u64,
}

impl<'d, P: Platform, R: RawLock> Draft<'d, P, R> {
    pub(super) fn new(inner: &'d Inner<P, R>) -> Self {
        let pool = inner.used.pool();
        Self { inner, parts: Parts::new(pool), chunks: Chunks::new(pool), len: 0 }
    }

    /// Adds a buffer behind what is there, in granules of its own, and copies what is bounced.
    ///
    /// # Errors
    ///
    /// `InvalidArg`: it is empty. `Overflow`. `OutOfMemory`.
    ///
    /// # Safety
    ///
    /// The `len` bytes from `cpu` on can be read, and are what `place` says.
    #[expect(unsafe_code, reason = "reads a buffer that is given by address")]
    pub(super) unsafe fn push(
        &mut self,
        cpu: NonNull<u8>,
        len: usize,
        place: Place,
    ) -> Result<(), DmaError> {
        let granule = self.inner.granule;
        let low = granule - 1;
        if len == 0 {
            return Err(DmaError::InvalidArg);
        }
        let last = len - 1;
        cpu.addr().get().checked_add(last).ok_or(DmaError::Overflow)?;
        let offset = match place {
            Place::At(phys) => phys.checked_add(last as u64).map(|_| phys.0 & low),
            Place::Ask => Some(cpu.addr().get() as u64 & low),
        };
        let offset = offset.ok_or(DmaError::Overflow)?;
        let end = offset.checked_add(len as u64).ok_or(DmaError::Overflow)?;
        let window = end.checked_next_multiple_of(granule).ok_or(DmaError::Overflow)?;
        let total = self.len.checked_add(window).ok_or(DmaError::Overflow)?;
        // The granules that the buffer fills.
        let full = if offset == 0 { 0 } else { granule }..end & !low;
        let direct = self.inner.options.coherent
            && full.start < full.end
            && self.knows(cpu, place, offset, &full);

        let mut part = Part { cpu, len, at: self.len + offset, head: None, tail: None };
        if !direct {
            part.head = Some(self.bounce(window)?);
        } else {
            if full.start != 0 {
                part.head = Some(self.bounce(granule)?);
            }
            if full.end != window {
                match self.bounce(granule) {
                    Ok(piece) => part.tail = Some(piece),
                    Err(error) => {
                        self.inner.free_part(&part);
                        return Err(error.into());
                    }
                }
            }
        }
        // From here on the draft frees the pieces.
        if let Err(error) = self.parts.push(part) {
            self.inner.free_part(&part);
            return Err(error.into());
        }
        for bounced in part.bounced(granule) {
            // SAFETY: what is bounced lies in the buffer, which the caller lets us read.
            let source = unsafe { memory::at(cpu, bounced.from) };
            // SAFETY: as above; nobody else knows the piece.
            unsafe { bounced.piece.fill(bounced.at, source, bounced.len) };
        }
        if let Some(head) = part.head {
            self.chunks.push(head.phys(), head.len() as u64)?;
        }
        if direct {
            let mut walk = Walk { inner: self.inner, cpu, place, offset };
            let mut at = full.start;
            while at < full.end {
                let (phys, len) = walk.next(at, full.end).ok_or(DmaError::InvalidArg)?;
                self.chunks.push(phys, len)?;
                at += len;
            }
        }
        if let Some(tail) = part.tail {
            self.chunks.push(tail.phys(), tail.len() as u64)?;
        }
        self.len = total;
        Ok(())
    }

    /// Whether the memory of all full granules is known, and at their borders.
    fn knows(
        &self,
        cpu: NonNull<u8>,
        place: Place,
        offset: u64,
        full: &core::ops::Range<u64>,
    ) -> bool {
        let mut walk = Walk { inner: self.inner, cpu, place, offset };
        let mut at = full.start;
        while at < full.end {
            let Some((_, len)) = walk.next(at, full.end) else { return false };
            at += len;
        }
        true
    }

    fn bounce(&self, len: u64) -> Result<Piece, OutOfMemory> {
        self.inner.take_piece(usize::try_from(len).map_err(|_| OutOfMemory)?)
    }
}

/// Finds the memory of a buffer, from the start of its window on.
struct Walk<'d, P: Platform, R: RawLock> {
    inner: &'d Inner<P, R>,
    cpu: NonNull<u8>,
    place: Place,
    offset: u64,
}

impl<P: Platform, R: RawLock> Walk<'_, P, R> {
    /// The memory `at` bytes into the window, and how much of it is in one piece, up to `end`.
    fn next(&mut self, at: u64, end: u64) -> Option<(PhysAddr, u64)> {
        let into = at.checked_sub(self.offset)?;
        let (phys, len) = match self.place {
            Place::At(phys) => (phys.checked_add(into)?, end - at),
            Place::Ask => {
                let page = self.inner.platform.page_size();
                let cpu = self.cpu.as_ptr().wrapping_add(usize::try_from(into).ok()?);
                let cpu = NonNull::new(cpu)?;
                let rest = page - (cpu.addr().get() as u64 & (page - 1));
                (self.inner.platform.phys_of(cpu)?, rest.min(end - at))
            }
        };
        (phys.0 & (self.inner.granule - 1) == 0).then_some((phys, len))
    }
}

impl<P: Platform, R: RawLock> Drop for Draft<'_, P, R> {
    fn drop(&mut self) {
        self.inner.free_parts(&self.parts);
    }
}
