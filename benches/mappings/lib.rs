//! The structure that holds mappings and the obvious others, each with pages of 4 KiB and a value of 12
//! bytes, answering what a mapping asks: is the place free, add, find, take out, walk.
//!
//! `benches/mappings.rs` takes their time, `benches/counts.rs` counts their instructions.
#![expect(missing_docs, reason = "the macro makes public items")]

use std::collections::BTreeMap;

use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeLink, intrusive_adapter};
use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::driver::Target;
use iommu::pool::Pool;
use iommu::prot::Prot;
use iommu::rangemap::RangeMap;

static POOL: Pool = Pool::heap();

/// How many entries there are.
pub const SIZES: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// How many inserts, look-ups or removals are measured at once.
pub const STEPS: u64 = 100;

/// What a structure under test does.
pub trait Mappings {
    /// For a person.
    const NAME: &'static str;
    /// Makes an empty one.
    fn new() -> Self;
    /// Adds the page; `false` if it is taken.
    fn insert(&mut self, page: u64) -> bool;
    /// Where the page is mapped to.
    fn get(&self, page: u64) -> Option<u64>;
    /// Takes the page out; `false` if it is not there.
    fn remove(&mut self, page: u64) -> bool;
    /// The sum of what is mapped.
    fn walk(&self) -> u64;
}

fn range(page: u64) -> IovaRange {
    IovaRange::from_len(Iova(page << 12), 0x1000).unwrap()
}

fn target(page: u64) -> Target {
    Target { phys: PhysAddr(page << 12), prot: Prot::RW }
}

impl Mappings for RangeMap<Target> {
    const NAME: &'static str = "RangeMap";

    fn new() -> Self {
        Self::new(&POOL)
    }

    fn insert(&mut self, page: u64) -> bool {
        self.insert(range(page), target(page)).is_ok()
    }

    fn get(&self, page: u64) -> Option<u64> {
        self.get(Iova(page << 12)).map(|(_, to)| to.phys.0)
    }

    fn remove(&mut self, page: u64) -> bool {
        self.remove(Iova(page << 12)).is_some()
    }

    fn walk(&self) -> u64 {
        self.iter().fold(0, |sum, (_, to)| sum.wrapping_add(to.phys.0))
    }
}

/// By the first address: the last address and the target.
impl Mappings for BTreeMap<u64, (u64, Target)> {
    const NAME: &'static str = "BTreeMap";

    fn new() -> Self {
        Self::new()
    }

    fn insert(&mut self, page: u64) -> bool {
        let range = range(page);
        let below = self.range(..=range.last().0).next_back();
        if below.is_some_and(|(_, (last, _))| *last >= range.first().0) {
            return false;
        }
        self.insert(range.first().0, (range.last().0, target(page)));
        true
    }

    fn get(&self, page: u64) -> Option<u64> {
        let at = page << 12;
        let (_, (last, to)) = self.range(..=at).next_back()?;
        (*last >= at).then_some(to.phys.0)
    }

    fn remove(&mut self, page: u64) -> bool {
        self.remove(&(page << 12)).is_some()
    }

    fn walk(&self) -> u64 {
        self.values().fold(0, |sum, (_, to)| sum.wrapping_add(to.phys.0))
    }
}

/// Entries in order.
impl Mappings for Vec<(IovaRange, Target)> {
    const NAME: &'static str = "sorted Vec";

    fn new() -> Self {
        Self::new()
    }

    fn insert(&mut self, page: u64) -> bool {
        let range = range(page);
        let place = self.partition_point(|(entry, _)| entry.last() < range.first());
        if self.as_slice().get(place).is_some_and(|(entry, _)| entry.overlaps(range)) {
            return false;
        }
        Vec::insert(self, place, (range, target(page)));
        true
    }

    fn get(&self, page: u64) -> Option<u64> {
        let at = Iova(page << 12);
        let place = self.partition_point(|(entry, _)| entry.last() < at);
        let (entry, to) = self.as_slice().get(place)?;
        entry.contains(at).then_some(to.phys.0)
    }

    fn remove(&mut self, page: u64) -> bool {
        let at = Iova(page << 12);
        let place = self.binary_search_by_key(&at, |(entry, _)| entry.first());
        place.map(|place| Vec::remove(self, place)).is_ok()
    }

    fn walk(&self) -> u64 {
        self.iter().fold(0, |sum, (_, to)| sum.wrapping_add(to.phys.0))
    }
}

/// An entry of the red-black tree.
pub struct Node {
    link: RBTreeLink,
    range: IovaRange,
    target: Target,
}

intrusive_adapter!(/// Links it.
    pub NodeAdapter = Box<Node>: Node { link => RBTreeLink });

impl<'a> KeyAdapter<'a> for NodeAdapter {
    type Key = u64;

    fn get_key(&self, node: &'a Node) -> u64 {
        node.range.first().0
    }
}

impl Mappings for RBTree<NodeAdapter> {
    const NAME: &'static str = "intrusive red-black";

    fn new() -> Self {
        Self::new(NodeAdapter::new())
    }

    fn insert(&mut self, page: u64) -> bool {
        let range = range(page);
        let below = self.upper_bound(Bound::Included(&range.last().0));
        if below.get().is_some_and(|node| node.range.overlaps(range)) {
            return false;
        }
        let node = Node { link: RBTreeLink::new(), range, target: target(page) };
        self.insert(Box::new(node));
        true
    }

    fn get(&self, page: u64) -> Option<u64> {
        let at = page << 12;
        let node = self.upper_bound(Bound::Included(&at)).get()?;
        node.range.contains(Iova(at)).then_some(node.target.phys.0)
    }

    fn remove(&mut self, page: u64) -> bool {
        self.find_mut(&(page << 12)).remove().is_some()
    }

    fn walk(&self) -> u64 {
        self.iter().fold(0, |sum, node| sum.wrapping_add(node.target.phys.0))
    }
}

/// Pages of 4 KiB by the bits of their number, as a page table: 64 children per node. It can't hold an
/// entry of many pages without one per page.
pub enum Radix {
    /// Nothing.
    Empty,
    /// The lowest level.
    Leaf(Box<[Option<Target>; 64]>),
    /// A level above.
    Inner(Box<[Radix; 64]>),
}

const RADIX_LEVELS: u32 = 6;

impl Radix {
    fn place(page: u64, level: u32) -> usize {
        (page >> (6 * level) & 63) as usize
    }

    fn slot(&mut self, page: u64, level: u32) -> &mut Option<Target> {
        if matches!(self, Self::Empty) {
            *self = if level == 0 {
                Self::Leaf(Box::new([None; 64]))
            } else {
                Self::Inner(Box::new([const { Self::Empty }; 64]))
            };
        }
        match self {
            Self::Leaf(row) => &mut row[Self::place(page, 0)],
            Self::Inner(row) => row[Self::place(page, level)].slot(page, level - 1),
            Self::Empty => unreachable!(),
        }
    }

    fn find(&self, page: u64, level: u32) -> Option<Target> {
        match self {
            Self::Empty => None,
            Self::Leaf(row) => row[Self::place(page, 0)],
            Self::Inner(row) => row[Self::place(page, level)].find(page, level - 1),
        }
    }
}

impl Mappings for Radix {
    const NAME: &'static str = "radix";

    fn new() -> Self {
        Self::Empty
    }

    fn insert(&mut self, page: u64) -> bool {
        let slot = self.slot(page, RADIX_LEVELS - 1);
        let free = slot.is_none();
        if free {
            *slot = Some(target(page));
        }
        free
    }

    fn get(&self, page: u64) -> Option<u64> {
        self.find(page, RADIX_LEVELS - 1).map(|to| to.phys.0)
    }

    fn remove(&mut self, page: u64) -> bool {
        self.slot(page, RADIX_LEVELS - 1).take().is_some() // its nodes stay
    }

    fn walk(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Leaf(row) => row.iter().flatten().fold(0, |sum, to| sum.wrapping_add(to.phys.0)),
            Self::Inner(row) => row.iter().fold(0, |sum, kid| sum.wrapping_add(kid.walk())),
        }
    }
}

/// The n-th page of `count`, ascending or in an order without neighbours; every second one.
fn page(n: u64, count: u64, random: bool) -> u64 {
    let n = if random { n * 7_919 % count } else { n }; // a prime that divides no size
    2 * n
}

/// Makes one with `count` entries.
pub fn filled<M: Mappings>(count: u64, random: bool) -> M {
    let mut map = M::new();
    for n in 0..count {
        assert!(map.insert(page(n, count, random)));
    }
    map
}

/// Where [`STEPS`] more entries go, each between two others. Each minus 1 is taken. Sets 0, 1 and 2 have
/// no place in common.
pub fn places(count: u64, set: u64) -> Vec<u64> {
    (0..STEPS).map(|n| page((3 * n + set) * 977 % count, count, true) + 1).collect()
}
