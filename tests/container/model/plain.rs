//! The naive model: plain maps and sets of pages, written to be obviously right. Answers are errnos
//! (0: success) and numbers of pages.

use std::collections::{BTreeMap, BTreeSet};

pub const RESERVED: std::ops::Range<u64> = 40..44;
pub const MAPPINGS: usize = 10;

#[derive(Clone, Debug)]
pub struct Mapping {
    pub pages: u64,
    pub vaddr: u64,
    pub read: bool,
    pub write: bool,
    pub void: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub v1: bool,
    pub mappings: BTreeMap<u64, Mapping>,
    /// Attached groups by slot: their unit, and whether they are limited to their pins.
    pub groups: BTreeMap<usize, (usize, bool)>,
    pub emulated: BTreeSet<u64>,
    pub pins: BTreeMap<u64, u64>,
    /// While tracking: the granule in pages, and the dirty granules by number.
    pub dirty: Option<(u64, BTreeSet<u64>)>,
    pub limit: u64,
    pub stubborn: bool,
    /// Some address changed: pages pinned before are where they were.
    pub moved: bool,
}

pub type Errno = i32;

impl Model {
    /// The granule of each unit, in pages.
    pub fn granule(&self) -> u64 {
        if self.groups.values().any(|(unit, _)| *unit == 2) { 2 } else { 1 }
    }

    pub fn alignment(&self) -> u64 {
        self.granule().max(self.dirty.as_ref().map_or(1, |(granule, _)| *granule))
    }

    pub fn tracked(&self) -> u64 {
        self.dirty.as_ref().map_or(self.granule(), |(granule, _)| *granule)
    }

    pub fn pages(&self) -> u64 {
        self.mappings.values().map(|mapping| mapping.pages).sum()
    }

    pub fn mapped(&self) -> bool {
        !self.groups.is_empty()
    }

    pub fn charged(&self) -> u64 {
        if self.mapped() { self.pages() } else { self.pins.len() as u64 }
    }

    pub fn voids(&self) -> usize {
        self.mappings.values().filter(|mapping| mapping.void).count()
    }

    pub fn at(&self, page: u64) -> Option<(u64, &Mapping)> {
        let all = self.mappings.iter();
        let mut found = all.filter(|(first, one)| (**first..**first + one.pages).contains(&page));
        found.next().map(|(first, mapping)| (*first, mapping))
    }

    fn overlapping(&self, page: u64, pages: u64) -> Vec<u64> {
        let all = self.mappings.iter();
        let touching =
            all.filter(|(first, one)| **first < page + pages && page < **first + one.pages);
        touching.map(|(first, _)| *first).collect()
    }

    fn cuts(&self, page: u64, pages: u64) -> bool {
        let outside =
            |first: &u64| *first < page || first + self.mappings[first].pages > page + pages;
        self.overlapping(page, pages).iter().any(outside)
    }

    fn mark(&mut self, page: u64) {
        if let Some((granule, dirty)) = &mut self.dirty {
            dirty.insert(page / *granule);
        }
    }

    fn mark_all(&mut self) {
        let all: Vec<u64> =
            self.mappings.iter().flat_map(|(first, one)| *first..first + one.pages).collect();
        all.into_iter().for_each(|page| self.mark(page));
    }

    pub fn map(&mut self, page: u64, pages: u64, vaddr: u64, read: bool, write: bool) -> Errno {
        if pages == 0
            || !(read || write)
            || !(page | vaddr | pages).is_multiple_of(self.alignment())
        {
            return 22;
        }
        if !self.overlapping(page, pages).is_empty() {
            return 17;
        }
        if self.mappings.len() == MAPPINGS {
            return 28;
        }
        let reserved = self.groups.values().any(|(unit, _)| *unit == 1);
        if reserved && page < RESERVED.end && RESERVED.start < page + pages {
            return 22;
        }
        if self.mapped() && self.charged() + pages > self.limit {
            return 12;
        }
        let mapping = Mapping { pages, vaddr, read, write, void: false };
        self.mappings.insert(page, mapping);
        0
    }

    /// The checks of an unmap; the mappings that it means.
    fn meant(&self, range: Option<(u64, u64)>) -> Result<Vec<u64>, Errno> {
        let Some((page, pages)) = range else { return Ok(self.mappings.keys().copied().collect()) };
        if pages == 0 || (page | pages) % self.alignment() != 0 {
            return Err(22);
        }
        if !self.v1 {
            let cuts = self.cuts(page, pages);
            return if cuts { Err(22) } else { Ok(self.overlapping(page, pages)) };
        }
        if self.at(page).is_some_and(|(first, _)| first < page) {
            return Ok(vec![]);
        }
        let begins = self.mappings.keys().filter(|first| (page..page + pages).contains(first));
        Ok(begins.copied().collect())
    }

    fn forget(&mut self, first: u64) -> u64 {
        let pages = self.mappings.remove(&first).unwrap().pages;
        self.pins.retain(|page, _| !(first..first + pages).contains(page));
        if let Some((granule, dirty)) = &mut self.dirty {
            dirty.retain(|bit| !(first..first + pages).contains(&(bit * *granule)));
        }
        pages
    }

    /// Errno and pages removed.
    pub fn unmap(&mut self, range: Option<(u64, u64)>) -> (Errno, u64) {
        let meant = match self.meant(range) {
            Ok(meant) => meant,
            Err(errno) => return (errno, 0),
        };
        let mut gone = 0;
        for first in meant {
            let pages = self.mappings[&first].pages;
            if self.stubborn && self.pins.range(first..first + pages).next().is_some() {
                return (16, gone);
            }
            gone += self.forget(first);
        }
        (0, gone)
    }

    /// The dirty granules of the mappings in a range, counted from its start.
    pub fn dirty_in(&self, page: u64, pages: u64) -> BTreeSet<u64> {
        let (granule, dirty) = self.dirty.as_ref().unwrap();
        let all = self.groups.values().any(|(_, pinned)| !pinned);
        let inside = self.overlapping(page, pages).into_iter();
        let bits = inside.flat_map(|first| first..first + self.mappings[&first].pages);
        let bits = bits.map(|page| page / granule).filter(|bit| all || dirty.contains(bit));
        bits.map(|bit| bit - page / granule).collect()
    }

    fn check_dirty(&self, page: u64, pages: u64, granule: u64) -> Errno {
        let aligned = (page | pages).is_multiple_of(granule);
        let wrong = pages / granule == 0 || granule != self.tracked() || !aligned;
        if wrong || self.dirty.is_none() || self.cuts(page, pages) { 22 } else { 0 }
    }

    pub fn read_dirty(&mut self, page: u64, pages: u64, granule: u64) -> (Errno, BTreeSet<u64>) {
        if self.v1 {
            return (13, BTreeSet::new());
        }
        let errno = self.check_dirty(page, pages, granule);
        if errno != 0 {
            return (errno, BTreeSet::new());
        }
        let bits = self.dirty_in(page, pages);
        let (granule, dirty) = self.dirty.as_mut().unwrap();
        dirty.retain(|bit| !(page..page + pages).contains(&(bit * *granule)));
        let pins: Vec<u64> = self.pins.range(page..page + pages).map(|(page, _)| *page).collect();
        pins.into_iter().for_each(|page| self.mark(page));
        (0, bits)
    }

    pub fn unmap_dirty(
        &mut self,
        page: u64,
        pages: u64,
        granule: u64,
    ) -> (Errno, u64, BTreeSet<u64>) {
        let errno = self.check_dirty(page, pages, granule);
        if errno != 0 || !(page | pages).is_multiple_of(self.alignment()) {
            return (22, 0, BTreeSet::new());
        }
        let bits = self.dirty_in(page, pages);
        // Bits of what stays, because it is pinned, are not written.
        let before = self.clone();
        let (errno, gone) = self.unmap(Some((page, pages)));
        let (granule, _) = before.dirty.as_ref().unwrap();
        let went = |bit: &u64| self.at(page + bit * granule).is_none();
        (errno, gone, bits.into_iter().filter(went).collect())
    }

    pub fn start(&mut self) -> Errno {
        if self.v1 {
            return 13;
        }
        if self.dirty.is_none() {
            self.dirty = Some((self.granule(), BTreeSet::new()));
            let pins: Vec<u64> = self.pins.keys().copied().collect();
            pins.into_iter().for_each(|page| self.mark(page));
        }
        0
    }

    pub fn stop(&mut self) -> Errno {
        if self.v1 {
            return 13;
        }
        self.dirty = None;
        0
    }

    pub fn attach(&mut self, slot: usize, unit: usize) -> Errno {
        if self.voids() > 0 {
            return 16;
        }
        let hits = !self.overlapping(RESERVED.start, RESERVED.end - RESERVED.start).is_empty();
        if unit == 1 && hits {
            return 22;
        }
        let first = |mapping: (&u64, &Mapping)| mapping.0 | mapping.1.vaddr | mapping.1.pages;
        let new = self.groups.values().all(|(other, _)| *other != unit);
        if new && unit == 2 && self.mappings.iter().any(|one| first(one) % 2 != 0) {
            return 22;
        }
        let due = self.pages() - self.pins.len() as u64;
        if !self.mapped() && due > 0 && self.pages() > self.limit {
            return 12;
        }
        self.groups.insert(slot, (unit, false));
        0
    }

    fn all_left(&mut self) {
        if self.groups.is_empty() && self.emulated.is_empty() {
            self.mappings.clear();
            self.pins.clear();
            if let Some((_, dirty)) = &mut self.dirty {
                dirty.clear();
            }
        }
    }

    pub fn detach(&mut self, slot: usize) {
        if let Some((_, pinned)) = self.groups.remove(&slot) {
            if !pinned {
                self.mark_all();
            }
            self.all_left();
        }
    }

    pub fn attach_emulated(&mut self, id: u64) -> Errno {
        if self.voids() > 0 {
            return 16;
        }
        if self.emulated.insert(id) { 0 } else { 22 }
    }

    pub fn detach_emulated(&mut self, id: u64) -> bool {
        let found = self.emulated.remove(&id);
        if found {
            self.all_left();
        }
        found
    }

    /// `member`: a slot, or an emulated group.
    pub fn pin(&mut self, member: Result<usize, u64>, page: u64, count: u64, write: bool) -> Errno {
        let there = match member {
            Ok(slot) => self.groups.contains_key(&slot),
            Err(id) => self.emulated.contains(&id),
        };
        if count == 0 {
            return 22;
        }
        if self.v1 {
            return 13;
        }
        if self.voids() > 0 {
            return 16;
        }
        if !there {
            return 22;
        }
        for at in page..page + count {
            let errno = match self.at(at) {
                None => 22,
                Some((_, one)) if if write { !one.write } else { !one.read } => 1,
                Some(_) => {
                    let over = !self.mapped() && self.charged() + 1 > self.limit;
                    if !self.pins.contains_key(&at) && over { 12 } else { 0 }
                }
            };
            if errno != 0 {
                self.unpin(page, at - page);
                return errno;
            }
            if !self.pins.contains_key(&at) {
                self.mark(at);
            }
            *self.pins.entry(at).or_default() += 1;
        }
        if let Ok(slot) = member
            && let Some((_, pinned)) = self.groups.get_mut(&slot)
            && !std::mem::replace(pinned, true)
        {
            self.mark_all();
        }
        0
    }

    pub fn unpin(&mut self, page: u64, count: u64) -> u64 {
        let mut dropped = 0;
        for at in page..page + count {
            if self.at(at).is_none() {
                break;
            }
            if let Some(refs) = self.pins.get_mut(&at) {
                *refs -= 1;
                dropped += 1;
                if *refs == 0 {
                    self.pins.remove(&at);
                }
            }
        }
        dropped
    }

    /// A copy of whole pages.
    pub fn copy(&mut self, page: u64, count: u64, write: bool) -> Errno {
        if self.voids() > 0 && count > 0 {
            return 16;
        }
        if count == 0 {
            return 22;
        }
        let mut at = page;
        while at < page + count {
            let Some((first, one)) = self.at(at) else { return 22 };
            if if write { !one.write } else { !one.read } {
                return 1;
            }
            let end = (first + one.pages).min(page + count);
            if write {
                (at..end).for_each(|page| self.mark(page));
            }
            at = end;
        }
        0
    }

    pub fn invalidate(&mut self, range: Option<(u64, u64)>) -> (Errno, u64) {
        if !self.emulated.is_empty() {
            return (16, 0);
        }
        let meant = match self.meant(range) {
            Ok(meant) => meant,
            Err(errno) => return (errno, 0),
        };
        if meant.iter().any(|first| self.mappings[first].void) {
            return (22, 0);
        }
        let mut pages = 0;
        for first in meant {
            let mapping = self.mappings.get_mut(&first).unwrap();
            mapping.void = true;
            pages += mapping.pages;
        }
        (0, pages)
    }

    pub fn update(&mut self, page: u64, vaddr: u64, pages: u64) -> Errno {
        if pages == 0 || !(page | vaddr | pages).is_multiple_of(self.alignment()) {
            return 22;
        }
        let Some(first) = self.overlapping(page, pages).first().copied() else { return 2 };
        let mapping = self.mappings.get_mut(&first).unwrap();
        if first != page || mapping.pages != pages || !mapping.void {
            return 22;
        }
        mapping.void = false;
        mapping.vaddr = vaddr;
        self.moved = true;
        0
    }
}
