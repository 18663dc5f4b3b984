//! An ordered map from disjoint ranges of IOVAs to values. (Being written: temporary sorted row.)

use crate::addr::{Iova, IovaRange};
use crate::error::OutOfMemory;
use crate::pool::{Pool, PoolVec};

/// Why an insert was refused; the map is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InsertError {
    /// Some entry overlaps the range.
    Overlap,
    /// No memory for a node.
    OutOfMemory,
}
/// Temporary.
pub struct RangeMap<V: Copy> {
    row: PoolVec<(IovaRange, V)>,
}
#[expect(missing_docs)]
impl<V: Copy> RangeMap<V> {
    pub const fn new(pool: &'static Pool) -> Self {
        Self { row: PoolVec::new(pool) }
    }
    pub fn len(&self) -> usize {
        self.row.len()
    }
    fn at(&self, at: Iova) -> usize {
        self.row.partition_point(|(r, _)| r.last() < at)
    }
    pub fn insert(&mut self, range: IovaRange, value: V) -> Result<(), InsertError> {
        if self.overlaps(range) {
            return Err(InsertError::Overlap);
        }
        let at = self.at(range.first());
        self.row.insert(at, (range, value)).map_err(|OutOfMemory| InsertError::OutOfMemory)
    }
    pub fn get(&self, at: Iova) -> Option<(IovaRange, &V)> {
        self.first_from(at).filter(|(r, _)| r.contains(at))
    }
    pub fn get_mut(&mut self, at: Iova) -> Option<(IovaRange, &mut V)> {
        let i = self.at(at);
        self.row.get_mut(i).filter(|(r, _)| r.contains(at)).map(|(r, v)| (*r, v))
    }
    pub fn first_from(&self, at: Iova) -> Option<(IovaRange, &V)> {
        self.row.get(self.at(at)).map(|(r, v)| (*r, v))
    }
    pub fn overlaps(&self, range: IovaRange) -> bool {
        self.overlapping(range).next().is_some()
    }
    pub fn overlapping(&self, range: IovaRange) -> impl Iterator<Item = (IovaRange, &V)> {
        self.row[self.at(range.first())..]
            .iter()
            .take_while(move |(r, _)| r.first() <= range.last())
            .map(|(r, v)| (*r, v))
    }
    pub fn iter(&self) -> impl Iterator<Item = (IovaRange, &V)> {
        self.row.iter().map(|(r, v)| (*r, v))
    }
    pub fn remove(&mut self, first: Iova) -> Option<(IovaRange, V)> {
        let i = self.at(first);
        if self.row.get(i)?.0.first() != first {
            return None;
        }
        self.row.remove(i)
    }
}
