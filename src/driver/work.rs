//! Maps and unmaps that are begun and looked at later, for callers that don't want to spin.

use super::Run;
use crate::addr::IovaRange;
use crate::error::MapError;

/// What [`Driver::start`](super::Driver::start) is to begin; all of it in one domain.
#[derive(Clone, Copy, Debug)]
pub enum Work<'a> {
    /// As [`Driver::map`](super::Driver::map): the runs are in the record, and adjacent.
    Map(&'a [Run]),
    /// As [`Driver::unmap`](super::Driver::unmap), sync included: each range is a run of whole,
    /// adjacent mappings of the record.
    Unmap(&'a [IovaRange]),
}

/// Work that a driver began. Each is looked at until it has ended, and then never again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket(pub u32);

/// What became of the wish to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// The first `taken` runs or ranges, at least one, are on their way.
    Started {
        /// To ask for the end with.
        ticket: Ticket,
        /// How many.
        taken: usize,
    },
    /// There is no room at the moment; what is on its way makes some when it ends.
    Full,
    /// Not in this way: use the call that waits. Nothing was begun.
    Unsupported,
    /// The instance is poisoned.
    Failed,
}

/// How far work has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// It is on its way.
    Pending,
    /// All of it is done.
    Done,
    /// A map was refused, in full or in part; the core takes it back.
    Refused(MapError),
    /// It is not known what was done; the instance is poisoned.
    Failed,
}
