//! The cases: one function each, by topic. Each gets the world with every device blocked, and
//! leaves it so; a case that fails panics with what it saw.
//!
//! Every "refused" has its control in the same case: the same access arrives while it is mapped.

pub mod attaching;
pub mod blocking;
pub mod containers;
pub mod faults;
pub mod mapping;
pub mod unit;

use iommu::addr::{Iova, IovaRange};
use iommu::domain::PagingDomain;
use iommu::pool::Shared;
use iommu::prot::Prot;
use iommu_runtime::dma::Buffer;

use crate::machine::{PLATFORM, POOL};
use crate::probe::{self, Outcome};
use crate::world::World;

const PAGE: u64 = 0x1000;
/// Where most cases map.
const AT: u64 = 0x1000_0000;
/// How many test devices there are.
const DEVICES: usize = 5;

fn range(first: u64, pages: u64) -> IovaRange {
    IovaRange::from_len(Iova(first), pages * PAGE).expect("a range of the cases does not wrap")
}

fn buffer(pages: usize) -> Buffer {
    Buffer::new(&PLATFORM, pages).expect("there is memory for DMA")
}

/// A new domain of the unit of test device `index`.
fn domain_for(world: &World, index: usize) -> Shared<PagingDomain> {
    PagingDomain::new(world.unit_of(index), &POOL).expect("the unit has a domain left")
}

fn map(domain: &PagingDomain, iova: u64, memory: &Buffer, prot: Prot) {
    let pages = memory.len() as u64 / PAGE;
    domain.map(range(iova, pages), memory.phys(), prot).expect("the range is free");
}

/// Test device `index` writes to `iova`, which must lead to `offset` of `target`.
fn arrives(world: &World, index: usize, iova: u64, target: &Buffer, offset: usize) {
    let outcome = probe::poke(world.unit_of(index), world.device(index), iova, target, offset);
    assert!(outcome == Outcome::Arrived, "device {index} at {iova:#x}: {outcome:?}");
}

/// Test device `index` writes to `iova` and must be refused, with a record that says so.
fn refused(world: &World, index: usize, iova: u64) {
    let outcome = probe::poke_nowhere(world.unit_of(index), world.device(index), iova);
    assert!(outcome.is_refused_at(iova), "device {index} at {iova:#x}: {outcome:?}");
}

/// As [`refused`], and `target`, where the write would lead, must be untouched.
fn refused_from(world: &World, index: usize, iova: u64, target: &Buffer) {
    let outcome = probe::poke(world.unit_of(index), world.device(index), iova, target, 0);
    assert!(outcome.is_refused_at(iova), "device {index} at {iova:#x}: {outcome:?}");
}
