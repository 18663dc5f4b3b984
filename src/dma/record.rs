//! What is known of a mapping: whose it is, how far it has come, and which bytes are bounced.

use core::ops::Range;
use core::ptr::NonNull;

use super::memory::Piece;
use crate::addr::Iova;
use crate::error::OutOfMemory;
use crate::pool::{Pool, PoolVec};
use crate::prot::Prot;

/// Who writes to a buffer and who reads it (Linux: `enum dma_data_direction`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Direction {
    /// The device reads it.
    ToDevice,
    /// The device writes it.
    FromDevice,
    /// Both.
    Bidirectional,
}

impl Direction {
    /// What a mapping of this direction lets the device do (rule C-221).
    #[must_use]
    pub const fn prot(self) -> Prot {
        match self {
            Self::ToDevice => Prot::READ,
            Self::FromDevice => Prot::WRITE,
            Self::Bidirectional => Prot::RW,
        }
    }

    /// Whether the device writes.
    pub(super) const fn writes(self) -> bool {
        !matches!(self, Self::ToDevice)
    }
}

/// A buffer inside a mapping.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// Where the CPU finds it.
    pub(super) cpu: NonNull<u8>,
    /// Its length in bytes.
    pub(super) len: usize,
    /// Where its first byte is, from the start of the mapping.
    pub(super) at: u64,
    /// Stands for the first granule, or for all of it.
    pub(super) head: Option<Piece>,
    /// Stands for the last granule.
    pub(super) tail: Option<Piece>,
}

// SAFETY: only plain addresses; who follows them promised that the memory isn't tied to a thread.
#[expect(unsafe_code, reason = "a part travels with its record, which any thread may end")]
unsafe impl Send for Part {}

/// Bytes of a part that are bounced: `len` of them, from `from` in the buffer and `at` in the
/// piece.
pub(super) struct Bounced {
    pub(super) piece: Piece,
    pub(super) from: usize,
    pub(super) at: usize,
    pub(super) len: usize,
}

impl Part {
    /// What of the part is bounced; `granule` is that of the domain.
    pub(super) fn bounced(&self, granule: u64) -> impl Iterator<Item = Bounced> {
        let low = granule - 1;
        let offset = (self.at & low) as usize;
        let head = self.head.map(|piece| {
            let len = self.len.min(piece.len().saturating_sub(offset));
            Bounced { piece, from: 0, at: offset, len }
        });
        let tail = self.tail.map(|piece| {
            let len = (offset.wrapping_add(self.len) & low as usize).min(self.len);
            Bounced { piece, from: self.len - len, at: 0, len }
        });
        head.into_iter().chain(tail)
    }

    /// As [`bounced`](Self::bounced), of the bytes in `range` only.
    pub(super) fn bounced_in(
        &self,
        granule: u64,
        range: Range<usize>,
    ) -> impl Iterator<Item = Bounced> {
        self.bounced(granule).filter_map(move |Bounced { piece, from, at, len }| {
            let (start, end) = (from.max(range.start), (from + len).min(range.end));
            let len = end.checked_sub(start).filter(|len| *len > 0)?;
            Some(Bounced { piece, from: start, at: at + (start - from), len })
        })
    }

    pub(super) fn pieces(&self) -> impl Iterator<Item = Piece> {
        self.head.into_iter().chain(self.tail)
    }
}

/// The parts of a mapping: one, without asking the pool, or the segments of a list.
pub(super) struct Parts {
    one: Option<Part>,
    more: PoolVec<Part>,
}

impl Parts {
    pub(super) const fn new(pool: &'static Pool) -> Self {
        Self { one: None, more: PoolVec::new(pool) }
    }

    pub(super) fn push(&mut self, part: Part) -> Result<(), OutOfMemory> {
        if self.one.is_none() {
            self.one = Some(part);
            return Ok(());
        }
        self.more.push(part)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Part> {
        self.one.iter().chain(&*self.more)
    }
}

/// How far a mapping has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// A call is at work on it.
    Busy,
    /// The device has it.
    Mapped,
    /// Its owner is done with it, but the device may still reach it; `next` is in the same queue.
    Queued {
        /// The next older one.
        next: Option<Iova>,
    },
    /// The unit did not confirm that it is gone: out of use for good.
    Lost,
    /// Its addresses wait for another mapping; `next` are others of that length.
    Spare {
        /// The one that was given back before.
        next: Option<Iova>,
    },
}

impl State {
    /// The next in the chain of which the record is a link.
    pub(super) const fn next(self) -> Option<Iova> {
        match self {
            Self::Queued { next } | Self::Spare { next } => next,
            Self::Busy | Self::Mapped | Self::Lost => None,
        }
    }
}

/// One mapping, kept with its addresses in the allocator.
pub(super) struct Record {
    /// The number of the handle that made it.
    pub(super) owner: u32,
    pub(super) direction: Direction,
    pub(super) state: State,
    pub(super) parts: Parts,
}
