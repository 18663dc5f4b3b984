//! The addresses of a group's default domain, which all its drivers share.
//!
//! Lock: `Space::state`, a leaf: it is held for a search, never while the unit works, nor over a
//! call of the host.

use super::addresses::Addresses;
use super::iova::{IovaAllocator, IovaError};
use super::record::{Direction, Parts, Record, State};
use super::tree::Chain;
use crate::addr::{Iova, IovaRange};
use crate::domain::{Chunk, PagingDomain};
use crate::error::{DmaError, MapError, OutOfMemory, UseError};
use crate::pool::Pool;
use crate::prot::Prot;
use crate::sync::{Mutex, RawLock};

/// How often a map looks for another place because somebody else is at the one that it found.
const TRIES: usize = 64;

pub(crate) struct Space<R: RawLock> {
    pub(super) state: Mutex<R, SpaceState>,
}

pub(super) struct SpaceState {
    pub(super) addresses: Addresses,
    /// The number of the newest handle.
    owners: u32,
}

/// What a map asks for beside the memory.
pub(super) struct Wish {
    pub(super) owner: u32,
    pub(super) len: u64,
    pub(super) direction: Direction,
    pub(super) prot: Prot,
    /// The limits to try in order.
    pub(super) limits: [Option<Iova>; 2],
}

impl<R: RawLock> Space<R> {
    /// The addresses of `domain`, without what its devices reserve and the window for doorbells
    /// (rules C-218, C-219).
    ///
    /// # Errors
    ///
    /// `Range`: nothing is left to hand out. `OutOfMemory`.
    pub(crate) fn new(domain: &PagingDomain<R>, pool: &'static Pool) -> Result<Self, UseError> {
        let geometry = domain.geometry();
        let granule = geometry.page_sizes.granule();
        let iovas = IovaAllocator::new(pool, geometry.aperture, granule).ok_or(UseError::Range)?;
        let addresses = Addresses::new(iovas);
        let space = Self { state: Mutex::new(SpaceState { addresses, owners: 0 }) };
        space.take_in(domain)?;
        Ok(space)
    }

    /// A number for a new handle.
    pub(super) fn new_owner(&self) -> Result<u32, UseError> {
        let mut state = self.state.lock();
        state.owners = state.owners.checked_add(1).ok_or(UseError::NoSpace)?;
        Ok(state.owners)
    }

    /// Reserves what the devices of the domain reserve by now.
    fn take_in(&self, domain: &PagingDomain<R>) -> Result<(), OutOfMemory> {
        let (reserved, window) = (domain.reserved(), domain.msi_window());
        let mut state = self.state.lock();
        let regions = reserved.as_slice().iter().map(|region| region.range);
        for range in regions.chain(window) {
            state.addresses.reserve(range)?;
        }
        Ok(())
    }

    /// Maps chunks at free addresses and keeps the record with them, in state `Busy`.
    ///
    /// Addresses that turn out to be somebody else's - a device with reserved regions joined the
    /// group, a driver mapped something into the domain by itself - are reserved from then on.
    ///
    /// # Errors
    ///
    /// `NoSpace`, `OutOfMemory`, `Io`, `Overflow`. Nothing is mapped or taken, and `parts` is as it
    /// was. `Unconfirmed`: addresses and parts are out of use for good.
    pub(super) fn map(
        &self,
        domain: &PagingDomain<R>,
        wish: &Wish,
        chunks: &[Chunk],
        parts: &mut Parts,
    ) -> Result<IovaRange, DmaError> {
        for _ in 0..TRIES {
            let range = self.take(wish, parts)?;
            let refused = match domain.map_chunks(range.first(), chunks, wish.prot) {
                Ok(_) => return Ok(range),
                Err(MapError::Unconfirmed) => {
                    // The device may have it: addresses, bounce pages and record are lost.
                    self.set_state(range.first(), State::Lost);
                    return Err(DmaError::Unconfirmed);
                }
                Err(refused) => refused,
            };
            if let Some(record) = self.state.lock().addresses.remove(range.first()) {
                *parts = record.parts;
            }
            match refused {
                MapError::AddrInUse => self.take_in(domain)?,
                MapError::Exists => self.step_aside(domain, range)?,
                MapError::OutOfMemory if self.trim() => {} // the domain needs nodes of the same pool
                _ => return Err(refused.into()),
            }
        }
        Err(DmaError::NoSpace)
    }

    /// Reserves what somebody else mapped in `range`.
    fn step_aside(&self, domain: &PagingDomain<R>, range: IovaRange) -> Result<(), OutOfMemory> {
        let found = domain.next_mapping(range.first()).filter(|run| run.range.overlaps(range));
        match found {
            Some(run) => self.state.lock().addresses.reserve(run.range),
            None => Ok(()), // it went meanwhile
        }
    }

    /// Takes addresses, and the parts with them.
    fn take(&self, wish: &Wish, parts: &mut Parts) -> Result<IovaRange, DmaError> {
        let mut state = self.state.lock();
        let mut error = DmaError::NoSpace;
        for limit in wish.limits.into_iter().flatten() {
            match state.addresses.take(wish, limit, parts) {
                Ok(range) => return Ok(range),
                Err(refused) => error = refused.into(),
            }
            if error != DmaError::NoSpace {
                break; // a shortage of memory does not mean that there are no low addresses
            }
        }
        Err(error)
    }

    /// Gives spare addresses back to the allocator, and their nodes to the pool; whether there were any.
    pub(super) fn trim(&self) -> bool {
        self.state.lock().addresses.trim()
    }

    /// Gives addresses back whose parts were taken out.
    pub(super) fn release(&self, first: Iova) {
        self.state.lock().addresses.release(first);
    }

    /// Gives several back with their parts; records with bounce pages go to a chain.
    pub(super) fn release_to(&self, ranges: &[IovaRange], chain: &mut Chain<Record>) {
        let mut state = self.state.lock();
        for range in ranges {
            state.addresses.release_to(range.first(), chain);
        }
    }

    /// Takes the parts of a mapping of `owner` out of its record if `pick` accepts it, which is
    /// `Busy` from then on. What was in `parts`, nothing, stays with the record.
    pub(super) fn check_out(
        &self,
        owner: u32,
        iova: Iova,
        parts: &mut Parts,
        pick: impl Fn(IovaRange, &Record) -> bool,
    ) -> Option<(IovaRange, Direction)> {
        let mut state = self.state.lock();
        let (range, record) = state.addresses.get_mut(iova)?;
        if record.owner != owner || !pick(range, record) {
            return None;
        }
        record.state = State::Busy;
        core::mem::swap(&mut record.parts, parts);
        Some((range, record.direction))
    }

    /// As [`check_out`](Self::check_out), for the lowest mapping of `owner` from `at` on that the
    /// device has.
    pub(super) fn check_out_next(
        &self,
        owner: u32,
        at: Iova,
        parts: &mut Parts,
    ) -> Option<IovaRange> {
        let mut at = at;
        loop {
            let range = self.state.lock().addresses.first_from(at)?;
            let is_mapped = |_, record: &Record| record.state == State::Mapped;
            if let Some((range, _)) = self.check_out(owner, range.first(), parts, is_mapped) {
                return Some(range);
            }
            at = range.last().checked_add(1)?;
        }
    }

    /// Puts parts back, and says how far the mapping has come.
    pub(super) fn check_in(&self, first: Iova, parts: &mut Parts, now: State) {
        if let Some((_, record)) = self.state.lock().addresses.get_mut(first) {
            core::mem::swap(&mut record.parts, parts);
            record.state = now;
        }
    }

    /// Says how far a mapping has come.
    pub(super) fn set_state(&self, first: Iova, now: State) {
        if let Some((_, record)) = self.state.lock().addresses.get_mut(first) {
            record.state = now;
        }
    }
}

impl From<IovaError> for DmaError {
    fn from(error: IovaError) -> Self {
        match error {
            IovaError::InvalidArg => Self::InvalidArg,
            IovaError::NoSpace => Self::NoSpace,
            IovaError::OutOfMemory => Self::OutOfMemory,
        }
    }
}
