//! The queue of unmaps that wait for a flush, and the bounce pages that are kept for the next map.
//!
//! The queue is a chain through the records, so it needs no room of its own. Locks: `Inner::state`,
//! under which only `Space::state` is taken; and `Inner::flushing`, which is held while the unit
//! works, so that a flush that returns has seen the end of those that began before it. Under neither
//! is the platform called.

use core::sync::atomic::Ordering;

use heapless::Vec;

use super::memory::Piece;
use super::record::{Part, Parts, Record, State};
use super::tree::Chain;
use super::{DmaDevice, Inner, Invalidation};
use crate::addr::{Iova, IovaRange};
use crate::error::{DmaError, OutOfMemory};
use crate::platform::Platform;
use crate::sync::RawLock;

/// How many bounce pages of one granule a handle keeps for its next maps.
const KEPT: usize = 16;
/// How many ranges are unmapped in one batch.
const BATCH: usize = 64;

pub(super) struct Queue {
    /// The newest unmap that waits.
    newest: Option<Iova>,
    waiting: usize,
    /// The number of the newest unmap ever.
    number: u64,
    kept: Vec<Piece, KEPT>,
}

impl Queue {
    pub(super) const fn new() -> Self {
        Self { newest: None, waiting: 0, number: 0, kept: Vec::new() }
    }
}

/// Says which flush ends an unmap. Of one that has ended, or was strict, it is true at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "until it is flushed, the device may still reach the memory"]
pub struct Ticket(u64);

impl Ticket {
    pub(super) const ENDED: Self = Self(0);
}

impl<P: Platform, R: RawLock> DmaDevice<P, R> {
    /// Ends every deferred unmap of this handle, in as few exchanges as possible. When this returns
    /// `Ok`, the device reaches none of their memory any more.
    ///
    /// # Errors
    ///
    /// `Io`: the unit did not confirm, and is poisoned. What it did not confirm goes on waiting.
    pub fn flush(&self) -> Result<(), DmaError> {
        self.inner.flush()
    }

    /// Whether the unmap that gave this ticket has ended.
    #[must_use]
    pub fn is_flushed(&self, ticket: Ticket) -> bool {
        ticket.0 <= self.inner.flushed.load(Ordering::Acquire)
    }

    /// How many unmaps wait for a flush.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inner.state.lock().waiting
    }
}

impl<P: Platform, R: RawLock> Inner<P, R> {
    /// Puts a mapping, which is `Busy` and whose bytes were copied, at the end of the queue.
    pub(super) fn enqueue(&self, first: Iova, parts: &mut Parts) -> Result<Ticket, DmaError> {
        let limit = match self.options.invalidation {
            Invalidation::Strict => 0,
            Invalidation::Deferred { limit } => limit,
        };
        let mut queue = self.state.lock();
        let next = queue.newest.replace(first);
        queue.waiting += 1;
        queue.number += 1;
        let ticket = Ticket(queue.number);
        let is_full = queue.waiting >= limit;
        self.space.check_in(first, parts, State::Queued { next });
        drop(queue);
        if is_full {
            self.flush()?;
        }
        Ok(ticket)
    }

    pub(super) fn flush(&self) -> Result<(), DmaError> {
        let mut ended = Chain::new();
        let result = self.flush_alone(&mut ended);
        // The pages go back without a lock: the platform may take its time.
        while let Some(mut node) = ended.pop() {
            if let Some(record) = node.value.take() {
                self.free_parts(&record.parts);
            }
        }
        result
    }

    /// Ends what waits; its addresses are free, its records are in `ended`.
    fn flush_alone(&self, ended: &mut Chain<Record>) -> Result<(), DmaError> {
        let _alone = self.flushing.lock();
        let mut queue = self.state.lock();
        let (mut next, number) = (queue.newest.take(), queue.number);
        queue.waiting = 0;
        drop(queue);
        while next.is_some() {
            let (ranges, rest) = self.batch(next);
            if self.domain().unmap_ranges(&ranges).is_err() {
                self.put_back(next);
                return Err(DmaError::Io);
            }
            self.space.release_to(&ranges, ended);
            next = rest;
        }
        self.flushed.fetch_max(number, Ordering::AcqRel);
        Ok(())
    }

    /// The next unmaps of a chain that was taken off the queue, lowest address first, and the rest.
    fn batch(&self, mut next: Option<Iova>) -> (Vec<IovaRange, BATCH>, Option<Iova>) {
        let mut ranges: Vec<IovaRange, BATCH> = Vec::new();
        let mut state = self.space.state.lock();
        while let Some(at) = next.filter(|_| !ranges.is_full()) {
            next = None;
            if let Some((range, record)) = state.addresses.get_mut(at) {
                next = record.state.next();
                let _ = ranges.push(range); // it was not full
            }
        }
        drop(state);
        ranges.sort_unstable_by_key(|range| range.first());
        (ranges, next)
    }

    /// Puts a chain back behind what was queued meanwhile.
    fn put_back(&self, chain: Option<Iova>) {
        let Some(newest) = chain else { return };
        let mut queue = self.state.lock();
        let mut state = self.space.state.lock();
        let (mut at, mut count) = (newest, 1);
        loop {
            let record = state.addresses.get_mut(at).map(|(_, record)| record);
            match record.map(|record| &mut record.state) {
                Some(State::Queued { next: Some(older) }) => (at, count) = (*older, count + 1),
                Some(State::Queued { next }) => {
                    *next = queue.newest.replace(newest);
                    break;
                }
                _ => break,
            }
        }
        queue.waiting += count;
    }

    /// A piece to bounce through; its bytes are anything.
    pub(super) fn take_piece(&self, len: usize) -> Result<Piece, OutOfMemory> {
        if len as u64 == self.granule
            && let Some(piece) = self.state.lock().kept.pop()
        {
            return Ok(piece);
        }
        Piece::new(&self.platform, len, self.granule)
    }

    pub(super) fn free_parts(&self, parts: &Parts) {
        parts.iter().for_each(|part| self.free_part(part));
    }

    /// Takes back the pieces of a part that no device reaches.
    pub(super) fn free_part(&self, part: &Part) {
        for piece in part.pieces() {
            self.give_piece(piece);
        }
    }

    #[expect(unsafe_code, reason = "gives pages back to the platform")]
    pub(super) fn give_piece(&self, piece: Piece) {
        if piece.len() as u64 == self.granule && self.state.lock().kept.push(piece).is_ok() {
            return;
        }
        // SAFETY: pieces come from `take_piece`; whoever gives one back has unmapped it.
        unsafe { piece.free(&self.platform) };
    }

    /// Ends everything that the handle has mapped; for its end.
    #[expect(unsafe_code, reason = "gives pages back to the platform")]
    pub(super) fn close(&self) {
        let _ = self.flush(); // what is not confirmed is leaked, with its record
        let mut at = Iova(0);
        loop {
            let mut parts = Parts::new(self.used.pool());
            let found = self.space.check_out_next(self.owner, at, &mut parts);
            let Some(range) = found else { break };
            if self.domain().unmap(range).is_ok() {
                self.space.release(range.first());
                self.free_parts(&parts);
            } else {
                self.space.check_in(range.first(), &mut parts, State::Lost);
            }
            let Some(next) = range.last().checked_add(1) else { break };
            at = next;
        }
        while let Some(piece) = self.pop_kept() {
            // SAFETY: pieces that are kept were unmapped before, and come from this platform.
            unsafe { piece.free(&self.platform) };
        }
    }

    fn pop_kept(&self) -> Option<Piece> {
        self.state.lock().kept.pop()
    }
}
