//! The allocator of a group with the runs in front that were given back and wait for the next mapping
//! of their length (rule C-217; Linux: the IOVA range caches).
//!
//! A spare run stays taken in the allocator: who gives it back and who takes it again looks one node up,
//! and changes no tree and asks for no memory. The spare runs of a length are a chain through their
//! records, the newest first, so the chains need no room of their own either.
//!
//! Spare runs are never the reason for a refusal: where no addresses are free, or no memory for a node,
//! all of them go back first. They go back also when something is reserved, so that no range that is free
//! then, and reserved, is among them.
//!
//! Lock: that of the space.

#[cfg(test)]
mod tests;

use super::iova::{IovaAllocator, IovaError};
use super::record::{Parts, Record, State};
use super::space::Wish;
use super::tree::Chain;
use crate::addr::{Iova, IovaRange};
use crate::error::OutOfMemory;
use crate::pool::Pool;

/// Runs of 1 to so many granules are kept, as in Linux.
pub(super) const LENGTHS: usize = 32;
/// How many of each length.
const MOST: u32 = 128;

/// The spare runs of one length.
#[derive(Clone, Copy)]
struct Spare {
    newest: Option<Iova>,
    count: u32,
}

pub(super) struct Addresses {
    iovas: IovaAllocator<Record>,
    spare: [Spare; LENGTHS],
}

impl Addresses {
    pub(super) fn new(iovas: IovaAllocator<Record>) -> Self {
        let none = Spare { newest: None, count: 0 };
        Self { iovas, spare: [none; LENGTHS] }
    }

    pub(super) fn pool(&self) -> &'static Pool {
        self.iovas.pool()
    }

    /// What may be handed out at all.
    pub(super) fn span(&self) -> IovaRange {
        self.iovas.span()
    }

    /// How many runs are in use.
    pub(super) fn len(&self) -> usize {
        let spare: u32 = self.spare.iter().map(|spare| spare.count).sum();
        self.iovas.len() - spare as usize
    }

    /// Takes a run, `Busy`, and the parts with it. As [`IovaAllocator::alloc`], but first of the runs of
    /// that length the one that was given back last, if it ends at or below `limit`.
    ///
    /// # Errors
    ///
    /// As there; the parts stay.
    pub(super) fn take(
        &mut self,
        wish: &Wish,
        limit: Iova,
        parts: &mut Parts,
    ) -> Result<IovaRange, IovaError> {
        if let Some(range) = self.reuse(wish, limit, parts) {
            return Ok(range);
        }
        let range = match self.alloc(wish, limit) {
            Err(IovaError::NoSpace | IovaError::OutOfMemory) if self.trim() => {
                self.alloc(wish, limit)
            }
            result => result,
        }?;
        if let Some((_, record)) = self.iovas.get_mut(range.first()) {
            core::mem::swap(&mut record.parts, parts);
        }
        Ok(range)
    }

    fn alloc(&mut self, wish: &Wish, limit: Iova) -> Result<IovaRange, IovaError> {
        let Wish { owner, len, direction, .. } = *wish;
        let record =
            Record { owner, direction, state: State::Busy, parts: Parts::new(self.pool()) };
        self.iovas.alloc(len, limit, record).map_err(|(error, _)| error)
    }

    fn reuse(&mut self, wish: &Wish, limit: Iova, parts: &mut Parts) -> Option<IovaRange> {
        let spare = spare_of(&mut self.spare, self.iovas.shift(), wish.len)?;
        let (range, record) = self.iovas.get_mut(spare.newest?)?;
        if range.last() > limit {
            return None;
        }
        spare.newest = record.state.next();
        spare.count -= 1;
        record.owner = wish.owner;
        record.direction = wish.direction;
        record.state = State::Busy;
        core::mem::swap(&mut record.parts, parts); // it had none
        Some(range)
    }

    /// As [`IovaAllocator::reserve`].
    pub(super) fn reserve(&mut self, range: IovaRange) -> Result<(), OutOfMemory> {
        self.trim();
        self.iovas.reserve(range)
    }

    /// The run in use that contains `iova`, or a spare one, whose record says so.
    pub(super) fn get_mut(&mut self, iova: Iova) -> Option<(IovaRange, &mut Record)> {
        self.iovas.get_mut(iova)
    }

    /// As [`get_mut`](Self::get_mut), the lowest from `iova` on.
    pub(super) fn first_from(&self, iova: Iova) -> Option<IovaRange> {
        self.iovas.first_from(iova).map(|(range, _)| range)
    }

    /// As [`IovaAllocator::remove`]: the run does not become a spare one.
    pub(super) fn remove(&mut self, first: Iova) -> Option<Record> {
        self.iovas.remove(first).map(|(_, record)| record)
    }

    /// Gives back a run whose parts were taken out. Never allocates.
    pub(super) fn release(&mut self, first: Iova) {
        let shift = self.iovas.shift();
        if let Some((range, record)) = self.iovas.get_mut(first)
            && keep(&mut self.spare, shift, range, record)
        {
            return;
        }
        self.iovas.remove(first);
    }

    /// Gives back a run with its parts; a record with bounce pages goes to the chain.
    pub(super) fn release_to(&mut self, first: Iova, chain: &mut Chain<Record>) {
        let (shift, empty) = (self.iovas.shift(), Parts::new(self.pool()));
        if let Some((range, record)) = self.iovas.get_mut(first)
            && record.parts.iter().all(|part| part.pieces().next().is_none())
            && keep(&mut self.spare, shift, range, record)
        {
            record.parts = empty;
            return;
        }
        self.iovas.remove_to(first, chain);
    }

    /// Gives all spare runs back to the allocator; whether there were any.
    pub(super) fn trim(&mut self) -> bool {
        let mut any = false;
        for spare in &mut self.spare {
            while let Some(newest) = spare.newest {
                spare.newest =
                    self.iovas.remove(newest).and_then(|(_, record)| record.state.next());
                any = true;
            }
            spare.count = 0;
        }
        any
    }
}

/// Where runs of `len` bytes wait.
fn spare_of(spare: &mut [Spare; LENGTHS], shift: u32, len: u64) -> Option<&mut Spare> {
    let index = len.checked_sub(1)? >> shift;
    spare.get_mut(usize::try_from(index).ok()?)
}

/// Makes a run spare, unless there are enough of its length.
fn keep(spare: &mut [Spare; LENGTHS], shift: u32, range: IovaRange, record: &mut Record) -> bool {
    let spare = range.len().and_then(|len| spare_of(spare, shift, len));
    let Some(spare) = spare.filter(|spare| spare.count < MOST) else { return false };
    record.state = State::Spare { next: spare.newest.replace(range.first()) };
    spare.count += 1;
    true
}
