//! Domain ids: taken from the advertised range, used again after they came back.
//!
//! The lowest id is not handed out: it names the blocking domain (rules C-258, C-270). Lock: the
//! table has one of its own, a leaf, and nothing is sent under it.

use crate::driver::DomainId;
use crate::error::DomainError;
use crate::mark::sabotage;
use crate::pool::{Pool, PoolVec};

/// Which ids are in use.
///
/// Memory is bounded by the largest number of domains that ever lived at once: room for the return
/// of an id is made when it is taken, so giving it back can't fail.
pub(super) struct DomainIds {
    blocked: u32,
    /// The id of the identity domain, once somebody asked for it.
    identity: Option<u32>,
    last: u32,
    /// The highest id that was ever taken; `blocked` before the first.
    newest: u32,
    /// Ids that came back.
    returned: PoolVec<u32>,
    live: usize,
}

impl DomainIds {
    /// Ids from `first` (the blocking domain's) to `last`, inclusive.
    pub(super) const fn new(pool: &'static Pool, first: u32, last: u32) -> Self {
        let returned = PoolVec::new(pool);
        Self { blocked: first, identity: None, last, newest: first, returned, live: 0 }
    }

    /// The id of the blocking domain.
    pub(super) const fn blocked(&self) -> DomainId {
        DomainId(self.blocked)
    }

    /// The id of the identity domain: taken at the first call, and never given back.
    pub(super) fn identity(&mut self) -> Result<DomainId, DomainError> {
        if let Some(id) = self.identity {
            return Ok(DomainId(id));
        }
        let id = self.take()?;
        self.identity = Some(id.0);
        Ok(id)
    }

    /// Whether `id` is that of the identity domain.
    pub(super) fn is_identity(&self, id: DomainId) -> bool {
        self.identity == Some(id.0)
    }

    /// Takes an id, one that came back if there is one.
    pub(super) fn take(&mut self) -> Result<DomainId, DomainError> {
        let id = if let Some(newest) = self.returned.last().copied() {
            self.returned.truncate(self.returned.len() - 1);
            newest
        } else if self.newest < self.last {
            self.returned.reserve(self.live + 1)?;
            self.newest += 1;
            self.newest
        } else {
            return Err(DomainError::NoSpace);
        };
        self.live += 1;
        sabotage!(FreeIdInUse => self.returned.push(id)?);
        Ok(DomainId(id))
    }

    /// Never hands out an id up to this one.
    pub(super) fn skip_to(&mut self, id: u32) {
        self.newest = self.newest.max(id);
    }

    /// Every id that was handed out may be in here, and the blocking one.
    pub(super) fn taken(&self) -> core::ops::RangeInclusive<u32> {
        self.blocked..=self.newest
    }

    /// Takes an id back. One that was never taken is ignored.
    pub(super) fn give_back(&mut self, id: DomainId) {
        debug_assert!(!self.returned.contains(&id.0), "domain id {} given back twice", id.0);
        let taken = self.blocked < id.0 && id.0 <= self.newest;
        if taken && self.live > 0 && self.returned.push(id.0).is_ok() {
            self.live -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_from_the_range_and_are_used_again() {
        // C-258
        static POOL: Pool = Pool::heap();
        let mut ids = DomainIds::new(&POOL, 7, 9);
        assert_eq!(ids.blocked(), DomainId(7));
        let (eight, nine) = (ids.take().unwrap(), ids.take().unwrap());
        assert_eq!((eight, nine), (DomainId(8), DomainId(9)));
        assert_eq!(ids.take(), Err(DomainError::NoSpace));
        ids.give_back(eight);
        assert_eq!(ids.take(), Ok(eight));
        ids.give_back(DomainId(7));
        ids.give_back(DomainId(10));
        assert_eq!(ids.take(), Err(DomainError::NoSpace), "neither of these was ever taken");
    }

    #[test]
    fn the_identity_domain_keeps_its_id() {
        static POOL: Pool = Pool::heap();
        let mut ids = DomainIds::new(&POOL, 0, 2);
        assert!(!ids.is_identity(DomainId(1)), "nobody asked for it");
        assert_eq!(ids.identity(), Ok(DomainId(1)));
        assert_eq!(ids.identity(), Ok(DomainId(1)), "the same ever after");
        assert!(ids.is_identity(DomainId(1)) && !ids.is_identity(DomainId(0)));
        assert_eq!(ids.take(), Ok(DomainId(2)));
        assert_eq!(ids.take(), Err(DomainError::NoSpace));
    }

    #[test]
    fn a_range_of_one_id_has_a_blocking_domain_and_no_other() {
        static POOL: Pool = Pool::heap();
        let mut ids = DomainIds::new(&POOL, u32::MAX, u32::MAX);
        assert_eq!(ids.blocked(), DomainId(u32::MAX));
        assert_eq!(ids.take(), Err(DomainError::NoSpace));
    }

    #[test]
    fn giving_back_needs_no_memory_and_memory_follows_the_peak() {
        static POOL: Pool = Pool::heap();
        let mut ids = DomainIds::new(&POOL, 0, u32::MAX);
        let peak: std::vec::Vec<_> = (0..100).map(|_| ids.take().unwrap()).collect();
        POOL.refuse_nth(0, true);
        peak.iter().for_each(|id| ids.give_back(*id));
        let bytes = POOL.usage().bytes;
        assert_eq!(POOL.refuse_none(), 0, "giving back asked for memory");
        for _ in 0..100_000 {
            let id = ids.take().unwrap();
            ids.give_back(id);
        }
        assert_eq!(POOL.usage().bytes, bytes);
        assert!(bytes <= 100 * 4 * 4);
        drop(ids);
        assert_eq!(POOL.usage(), Default::default());
    }

    #[test]
    fn no_memory_takes_no_id() {
        static POOL: Pool = Pool::heap();
        let mut ids = DomainIds::new(&POOL, 0, u32::MAX);
        POOL.refuse_nth(0, false);
        assert_eq!(ids.take(), Err(DomainError::OutOfMemory));
        assert_eq!(POOL.refuse_none(), 1);
        assert_eq!(ids.take(), Ok(DomainId(1)));
    }
}
