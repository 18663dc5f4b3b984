//! What cases are made of.

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::domain::PagingDomain;
use iommu::driver::Counters;
use iommu::fault::Access;
use iommu::group::{Attachment, Group, OwnerId, Ownership};
use iommu::pool::Shared;
use iommu::prot::Prot;
use iommu::registry::DeviceInfo;

use crate::bench::{Bench, FILL, Outcome, Seat, Store, Transfer, Who};

/// A page, and the granule of every bench.
pub const PAGE: u64 = 0x1000;
/// Where most cases map.
pub const AT: u64 = 0x1000_0000;
/// Where devices show what they read.
pub const LANDING: u64 = 0x3000_0000;

/// Memory of a case, given back on drop.
pub struct Memory {
    store: &'static dyn Store,
    start: PhysAddr,
    pages: u64,
}

impl Memory {
    /// Takes `pages` pages.
    ///
    /// # Panics
    ///
    /// When the bench has no such run.
    pub fn new(bench: &dyn Bench, pages: u64) -> Self {
        let store = bench.store();
        let start = store.alloc(pages as usize).expect("there is memory for DMA");
        Self { store, start, pages }
    }

    /// Where it is.
    #[must_use]
    pub fn phys(&self) -> PhysAddr {
        self.start
    }

    /// The address of the byte at `offset`.
    ///
    /// # Panics
    ///
    /// When `offset` is outside.
    #[must_use]
    pub fn at(&self, offset: u64) -> PhysAddr {
        assert!(offset < self.len(), "offset {offset:#x} is outside the memory");
        PhysAddr(self.start.0 + offset)
    }

    /// Takes the four bytes at `offset` out: afterwards they are as if nobody had written there.
    ///
    /// # Panics
    ///
    /// When `offset` is outside.
    #[must_use]
    pub fn take(&self, offset: u64) -> [u8; 4] {
        let mut bytes = [FILL; 4];
        for (at, byte) in (offset..).zip(&mut bytes) {
            *byte = self.store.read(self.at(at));
            self.store.write(self.at(at), FILL);
        }
        bytes
    }

    /// The length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "memory has at least a page")]
    pub fn len(&self) -> u64 {
        self.pages * PAGE
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.store.free(self.start);
    }
}

/// `pages` pages from `first` on.
///
/// # Panics
///
/// When the range wraps.
#[must_use]
pub fn range(first: u64, pages: u64) -> IovaRange {
    IovaRange::from_len(Iova(first), pages * PAGE).expect("a range of the cases does not wrap")
}

/// One device of each kind of group that the bench has.
pub fn kinds(bench: &dyn Bench) -> impl Iterator<Item = Who> {
    Who::KINDS.into_iter().filter(|who| bench.has(*who))
}

/// One device of each group that the bench has.
pub fn groups(bench: &dyn Bench) -> impl Iterator<Item = Who> {
    Who::GROUPS.into_iter().filter(|who| bench.has(*who))
}

/// One device of each unit.
pub fn each_unit(bench: &dyn Bench) -> impl Iterator<Item = Who> {
    [Who::One, Who::Other].into_iter().filter(|who| bench.has(*who))
}

/// Every device that the bench has.
pub fn everyone(bench: &dyn Bench) -> impl Iterator<Item = Who> {
    Who::ALL.into_iter().filter(|who| bench.has(*who))
}

/// A new domain of the unit of a device.
///
/// # Panics
///
/// When the unit has none left.
#[track_caller]
pub fn domain_for(bench: &dyn Bench, who: Who) -> Shared<PagingDomain> {
    PagingDomain::new(bench.unit(who), bench.registry().pool()).expect("the unit has a domain left")
}

/// Claims the group of a device.
///
/// # Panics
///
/// When it is owned.
#[track_caller]
pub fn claim(bench: &dyn Bench, who: Who) -> Ownership {
    Group::claim(&bench.group(who), OwnerId(1)).expect("the group is free")
}

/// Claims the group of a device and attaches it.
///
/// # Panics
///
/// When it can't be attached.
#[track_caller]
pub fn attach(bench: &dyn Bench, who: Who, domain: &Shared<PagingDomain>) -> Attachment {
    claim(bench, who).attach(domain).expect("attaches")
}

/// Maps all of `memory`.
///
/// # Panics
///
/// When it can't be mapped.
#[track_caller]
pub fn map(domain: &PagingDomain, iova: u64, memory: &Memory, prot: Prot) {
    domain.map(range(iova, memory.pages), memory.phys(), prot).expect("the range is free");
}

/// Unmaps `pages` pages, all of which must have been mapped.
///
/// # Panics
///
/// When other bytes are unmapped, or none.
#[track_caller]
pub fn unmap(domain: &PagingDomain, iova: u64, pages: u64) {
    assert_eq!(domain.unmap(range(iova, pages)), Ok(pages * PAGE));
}

/// Puts a device back alone, as the bench has it.
///
/// # Panics
///
/// When its unit does not take it.
pub fn put_back(bench: &dyn Bench, who: Who) {
    let Seat { device, endpoint, .. } = bench.seat(who);
    let info = DeviceInfo { id: device, endpoints: &[endpoint], with: None };
    bench.registry().add_device(bench.unit(who), &info).expect("it can be added");
}

/// Takes `who` out of its group and adds it to that of `other`, as topology would.
///
/// # Panics
///
/// When its unit does not take it.
pub fn join(bench: &dyn Bench, who: Who, other: Who) {
    let Seat { device, endpoint, .. } = bench.seat(who);
    bench.registry().remove_device(device).expect("it is there");
    let with = Some(bench.seat(other).device);
    let info = DeviceInfo { id: device, endpoints: &[endpoint], with };
    bench.registry().add_device(bench.unit(who), &info).expect("it can be added");
}

/// What the unit of a device was sent while `call` ran.
pub fn cost_of(bench: &dyn Bench, who: Who, call: impl FnOnce()) -> Counters {
    let unit = bench.unit(who);
    let before = unit.counters();
    call();
    unit.counters().since(&before)
}

/// The device writes to `iova`, which must lead to `offset` of `target` and nowhere else.
///
/// # Panics
///
/// When it does not.
#[track_caller]
pub fn arrives(bench: &dyn Bench, who: Who, iova: u64, target: &Memory, offset: u64) {
    let outcome = bench.write(who, iova, Some(target.at(offset)));
    assert!(outcome == Outcome::Arrived, "{who:?} at {iova:#x}: {outcome:?}");
}

/// The device writes to `iova` and must be refused: no memory of the case changes, and a record
/// names the device's endpoint, the address and the reason.
///
/// # Panics
///
/// When it is not.
#[track_caller]
pub fn refused(bench: &dyn Bench, who: Who, iova: u64) {
    let outcome = bench.write(who, iova, None);
    assert!(outcome.is_refused_at(iova), "{who:?} at {iova:#x}: {outcome:?}");
}

/// As [`refused`], and the record must say that it was the write that was not allowed.
///
/// # Panics
///
/// When it does not.
#[track_caller]
pub fn write_refused(bench: &dyn Bench, who: Who, iova: u64) {
    let outcome = bench.write(who, iova, None);
    assert!(outcome.is_refused_for(iova, Access::WRITE), "{who:?} at {iova:#x}: {outcome:?}");
}

/// How many bytes the reads of the cases have.
pub const READ_LEN: usize = 32;

/// The device reads at `iova` and must be refused; what it reads instead of `secret` is nothing.
///
/// # Panics
///
/// When it is not refused.
#[track_caller]
pub fn read_refused(bench: &dyn Bench, who: Who, iova: u64, secret: &Memory) {
    let mut jobs = [Transfer::new(who, iova, secret.phys(), None)];
    bench.transfer(&mut jobs, READ_LEN);
    let [Transfer { read, .. }] = jobs;
    assert!(read.is_refused_at(iova), "{who:?} reads {iova:#x}: {read:?}");
}

/// The device reads `memory` at `iova` and shows it in `landing`, mapped at [`LANDING`].
///
/// # Panics
///
/// When it reads or writes something else, or not at all.
#[track_caller]
pub fn reads(bench: &dyn Bench, who: Who, iova: u64, memory: &Memory, landing: &Memory) {
    let mut jobs = [Transfer::new(who, iova, memory.phys(), Some((LANDING, landing.phys())))];
    bench.transfer(&mut jobs, READ_LEN);
    let [Transfer { read, write, .. }] = jobs;
    assert!(read == Outcome::Arrived, "{who:?} reads {iova:#x}: {read:?}");
    assert!(write == Outcome::Arrived, "{who:?} shows what it read: {write:?}");
}

/// Takes all waiting fault records.
pub fn drop_faults(bench: &dyn Bench) {
    for unit in bench.units() {
        while unit.next_fault().is_some() {}
    }
}
