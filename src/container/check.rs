//! The invariants of section 2, checked (rule T1-723). For tests: slow, and only with `sim`.
//!
//! `Container::state` is held. Call it when no call is at work on the container.

use super::state::{Phase, State};
use super::{Container, Memory};
use crate::addr::IovaRange;
use crate::driver::Run;
use crate::sync::RawLock;

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Checks every invariant of section 2 while no call is at work.
    ///
    /// # Errors
    ///
    /// The number of a rule that does not hold, and what is wrong.
    pub fn check_invariants(&self) -> Result<(), &'static str> {
        let state = self.state.lock();
        let page = self.memory.page_size();
        if state.passing.is_some() || !state.copies.is_empty() {
            return Err("a call is at work");
        }
        state.check_mappings(self.options.mapping_limit)?;
        state.check_domains(page)?;
        state.check_pins(page)?;
        state.check_dirty()?;
        let sizes = self.common_sizes(&state, None);
        if sizes.is_some_and(|sizes| sizes != state.page_sizes) {
            return Err("T1-043: page sizes");
        }
        if state.granule() < page {
            return Err("T1-044: granule");
        }
        match self.rebuild(&state) {
            // After a detach the list may leave out more than it must, until somebody reads it.
            Ok(windows) if state.windows_narrow => {
                let mut list = state.windows.as_slice().iter();
                check(list.all(|range| windows.allow(*range)), "T1-042: windows, too wide")
            }
            Ok(windows) if windows.as_slice() != state.windows.as_slice() => Err("T1-042: windows"),
            _ => Ok(()),
        }
    }
}

const fn check(holds: bool, rule: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(rule) }
}

impl<R: RawLock> State<R> {
    fn check_mappings(&self, limit: u32) -> Result<(), &'static str> {
        let low = self.granule() - 1;
        let mut before: Option<IovaRange> = None;
        let mut invalid = 0;
        for (range, mapping) in self.mappings.iter() {
            check(before.is_none_or(|old| old.last() < range.first()), "T1-030: overlap")?;
            before = Some(range);
            let ends = range.first().0 | range.last().0.wrapping_add(1) | mapping.vaddr;
            check(ends & low == 0, "T1-031: alignment")?;
            check(mapping.vaddr.checked_add(range.span()).is_some(), "T1-032: wraps")?;
            check(mapping.mapped != self.domains.is_empty(), "T1-036: mapped without a domain")?;
            check(mapping.phase == Phase::Live, "a call is at work on a mapping")?;
            check(self.windows.allow(range), "T1-046: outside the windows")?;
            invalid += usize::from(mapping.vaddr_invalid);
        }
        check(invalid == self.invalid_vaddrs, "T1-039: count of void addresses")?;
        check(invalid == 0 || self.emulated.is_empty(), "T1-039: void with an emulated group")?;
        let made = u64::try_from(self.mappings.len()).unwrap_or(u64::MAX);
        check(u64::from(self.free_mappings) + made == u64::from(limit), "T1-033: limit")
    }

    fn check_domains(&self, page: u64) -> Result<(), &'static str> {
        let Some(head) = self.domains.iter().next() else { return Ok(()) };
        for (range, mapping) in self.mappings.iter() {
            let mut next = Some(range.first());
            while let Some(at) = next.filter(|at| range.contains(*at)) {
                let run = head.domain.next_mapping(at).ok_or("T1-037: a page is not mapped")?;
                check(run.range.first() == at && range.encloses(run.range), "T1-037: runs")?;
                check(run.prot.contains(mapping.prot()), "T1-037: prot")?;
                next = run.range.last().checked_add(1);
            }
        }
        let bytes = |runs: &mut dyn Iterator<Item = IovaRange>| -> u64 {
            runs.map(|range| range.span() / page + 1).sum()
        };
        let pages = bytes(&mut self.mappings.iter().map(|(range, _)| range));
        for entry in self.domains.iter() {
            check(!entry.groups.lock().is_empty(), "T1-035: a domain without a group")?;
            let mut found = 0;
            let mut run = entry.domain.next_mapping(crate::addr::Iova(0));
            while let Some(Run { range, phys, .. }) = run {
                let same = head.domain.iova_to_phys(range.first()) == Some(phys);
                check(same, "T1-037: domains differ")?;
                found += range.span() / page + 1;
                run = range.last().checked_add(1).and_then(|at| entry.domain.next_mapping(at));
            }
            check(found == pages, "T1-037: a domain maps more, or less")?;
            let is_twice = entry.groups.lock().iter().any(|group| {
                let held = group.attachment.lock();
                held.as_ref().is_none_or(|held| !held.domain().ptr_eq(&entry.domain))
            });
            check(!is_twice, "T1-034: a group on another domain")?;
        }
        Ok(())
    }

    fn check_pins(&self, page: u64) -> Result<(), &'static str> {
        for (range, pin) in self.pins.iter() {
            check(range.span() + 1 == page && pin.refs > 0, "T1-006: a pin is a page")?;
            let (_, mapping) = self.mappings.get(range.first()).ok_or("T1-041: a pin alone")?;
            check(pin.charged == (pin.counted && !mapping.mapped), "T1-045: who is charged")?;
        }
        Ok(())
    }

    fn check_dirty(&self) -> Result<(), &'static str> {
        let Some(dirty) = &self.dirty else { return Ok(()) };
        let same = dirty.bitmaps.iter().map(|(range, _)| range);
        let mappings = self.mappings.iter().map(|(range, _)| range);
        check(same.eq(mappings), "T1-040: bitmaps")?;
        for (page, _) in self.pins.iter() {
            let (_, bitmap) = dirty.bitmaps.get(page.first()).ok_or("T1-040: bitmaps")?;
            let bit = dirty.bit(bitmap.base, page.first());
            check(bitmap.read(bit, 1) == 1, "T1-439: a pinned page is dirty")?;
        }
        Ok(())
    }
}
