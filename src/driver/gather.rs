//! What gathered unmaps still owe: an invalidation, and the table pages to free after it.

use crate::addr::{IovaRange, PhysAddr};

/// What one or several unmaps still owe (rules C-183 ff.). The core keeps one per domain, under
/// the domain's lock, and sees to it that nothing in its span is mapped again before the
/// driver's [`sync`](super::Driver::sync) has emptied it.
///
/// A driver that invalidates page by page looks at [`is_disjoint`](Self::is_disjoint) and at
/// [`page_size`](Self::page_size) before it adds, and invalidates first when the new range does
/// not fit (rule C-184).
#[must_use = "until it is synchronised, a device may still reach the old memory"]
#[derive(Debug, Default)]
pub struct Gather {
    range: Option<IovaRange>,
    page_size: Option<u64>,
    freed: Option<PhysAddr>,
}

impl Gather {
    /// An empty gather.
    pub const fn new() -> Self {
        Self { range: None, page_size: None, freed: None }
    }

    /// The span of everything added since the last sync, holes included.
    #[must_use]
    pub const fn range(&self) -> Option<IovaRange> {
        self.range
    }

    /// The page size of everything added, in bytes; `None` if the driver did not say, or if the
    /// ranges had different ones.
    #[must_use]
    pub const fn page_size(&self) -> Option<u64> {
        self.page_size
    }

    /// Whether something was added that `range` neither overlaps nor touches (rule C-184).
    #[must_use]
    pub fn is_disjoint(&self, range: IovaRange) -> bool {
        let touching =
            |one: IovaRange, next: IovaRange| one.last().checked_add(1) == Some(next.first());
        self.range.is_some_and(|old| {
            !old.overlaps(range) && !touching(old, range) && !touching(range, old)
        })
    }

    /// Adds a range (rule C-184).
    pub fn add(&mut self, range: IovaRange) {
        let first = self.range.map_or(range.first(), |old| old.first().min(range.first()));
        let last = self.range.map_or(range.last(), |old| old.last().max(range.last()));
        self.range = IovaRange::new(first, last);
    }

    /// Adds a range that was mapped in pages of `page_size` bytes.
    pub fn add_pages(&mut self, range: IovaRange, page_size: u64) {
        let first = self.range.is_none();
        self.page_size = (first || self.page_size == Some(page_size)).then_some(page_size);
        self.add(range);
    }

    /// Puts a table page that may be freed after the sync at the head of a chain that the driver
    /// keeps inside the pages, and returns the old head: what the page must point to. So gathering
    /// allocates nothing.
    pub fn park(&mut self, page: PhysAddr) -> Option<PhysAddr> {
        self.freed.replace(page)
    }

    /// Takes the chain of table pages, to free them; for drivers, after the invalidation ended.
    #[must_use]
    pub fn take_parked(&mut self) -> Option<PhysAddr> {
        self.freed.take()
    }

    /// Whether nothing is due.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.range.is_none() && self.freed.is_none()
    }

    /// Forgets the span; for drivers, after the invalidation ended.
    pub fn clear(&mut self) {
        self.range = None;
        self.page_size = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Iova;

    fn range(first: u64, len: u64) -> IovaRange {
        IovaRange::from_len(Iova(first), len).unwrap()
    }

    #[test]
    fn the_span_grows_and_knows_what_is_disjoint() {
        // C-183, C-184
        let mut gather = Gather::new();
        assert!(gather.is_empty() && !gather.is_disjoint(range(0, 1)));
        gather.add_pages(range(0x4000, 0x1000), 0x1000);
        assert!(!gather.is_disjoint(range(0x5000, 0x1000)), "it touches above");
        assert!(!gather.is_disjoint(range(0x3000, 0x1000)), "it touches below");
        assert!(gather.is_disjoint(range(0x6000, 0x1000)));
        gather.add_pages(range(0x8000, 0x1000), 0x1000);
        assert_eq!(gather.range(), Some(range(0x4000, 0x5000)));
        assert_eq!(gather.page_size(), Some(0x1000));
        gather.add_pages(range(0x20_0000, 0x20_0000), 0x20_0000);
        assert_eq!(gather.page_size(), None, "page sizes differ");
        gather.add_pages(range(0x40_0000, 0x20_0000), 0x20_0000);
        assert_eq!(gather.page_size(), None, "and stay so until the sync");
        gather.clear();
        assert!(gather.is_empty());
        gather.add_pages(range(u64::MAX - 0xfff, 0x1000), 0x1000);
        assert!(gather.is_disjoint(range(0, 0x1000)), "the space does not wrap");
    }

    #[test]
    fn parked_pages_come_back_newest_first() {
        let mut gather = Gather::new();
        assert_eq!(gather.park(PhysAddr(0x1000)), None);
        assert_eq!(gather.park(PhysAddr(0)), Some(PhysAddr(0x1000)), "page 0 is a page");
        gather.clear();
        assert!(!gather.is_empty(), "they are still to be freed");
        assert_eq!(gather.take_parked(), Some(PhysAddr(0)));
        assert!(gather.is_empty());
    }
}
