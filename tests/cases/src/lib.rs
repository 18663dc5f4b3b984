//! One table of cases, several backends.
//!
//! A case is a plain function over a [`Bench`]: a registry, devices in known [`Seat`]s, memory,
//! and a judge that lets a device access memory and says what came of it. On the host the judge is
//! the software IOMMU; on the bare machine a real device does the access, and the judge looks at
//! all memory of the case and at the fault record. So each rule that needs no particular IOMMU is
//! written once and tried on both.
//!
//! - `bench`: what a backend gives;
//! - `steps`: what cases are made of: map, attach, "arrives", "refused";
//! - `session`, `owner`: the same for cases of the container: what it says against what is reached;
//! - `cases`: the cases by topic, in [`CASES`], the table;
//! - `matrix`: the matrix of refused DMA, situations times kinds of devices;
//! - `disk`: what is on the disks of those that have one;
//! - `wire`: a table of its own, of requests to a driver without the API before it.
//!
//! Every "refused" has its control in the same case: the same access arrives while it is mapped.
#![no_std]

extern crate alloc;

use iommu::pool::Usage;

pub mod bench;
mod cases;
pub mod disk;
pub mod matrix;
pub mod owner;
pub mod session;
pub mod steps;
mod table;
pub mod wire;

pub use bench::{Bench, Outcome, Over, Seat, Store, Transfer, Who};
pub use table::CASES;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name, unique in the table.
    pub name: &'static str,
    /// What a bench must have for it.
    pub needs: Needs,
    /// The case. It panics with what it saw.
    pub run: fn(&dyn Bench),
}

/// What a bench must have for a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// What every bench has: [`Who::One`], [`Who::Two`], [`Who::Pair`] and [`Who::Twin`].
    OneUnit,
    /// A second unit as well, with [`Who::Other`].
    TwoUnits,
}

/// Runs the case of this name, from a clean bench to a clean bench.
///
/// # Panics
///
/// When the case fails, when it leaves memory behind, or when there is no such case.
pub fn run(bench: &dyn Bench, name: &str) {
    let case = CASES.iter().find(|case| case.name == name).expect("the table has the case");
    let fits = case.needs == Needs::OneUnit || bench.units().len() > 1;
    assert!(fits, "the bench lacks what the case needs: {:?}", case.needs);
    let before = clean(bench);
    (case.run)(bench);
    look_after(bench, before);
}

/// A case begins without fault records. Returns what the memory of the bench is like.
fn clean(bench: &dyn Bench) -> (Usage, usize) {
    steps::drop_faults(bench);
    (bench.registry().pool().usage(), bench.store().in_use())
}

/// A case leaves no memory behind, and owns nothing.
fn look_after(bench: &dyn Bench, before: (Usage, usize)) {
    let after = (bench.registry().pool().usage(), bench.store().in_use());
    assert_eq!(after, before, "the case left memory behind");
    for who in Who::ALL.into_iter().filter(|who| bench.has(*who)) {
        assert_eq!(bench.group(who).owner(), None, "{who:?} is still owned");
    }
}
