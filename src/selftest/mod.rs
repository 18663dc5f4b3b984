//! A self-test for the machine that it runs on: whether the IOMMU blocks, maps, refuses and reports,
//! shown by a device that does DMA.
//!
//! A kernel calls [`run`] at boot, with one group whose device it can make do DMA (a [`Probe`]), and
//! before it trusts the IOMMU with others. What can only be seen there is found there: a device that
//! is behind another IOMMU than the firmware says, a requester id that is a bridge's, a unit that is
//! left in bypass, memory that a device does not see coherently.
//!
//! | what | file |
//! |---|---|
//! | the run, the trait | here |
//! | what came of it | `report.rs` |
//! | pages that a device reaches | `memory.rs` |
//! | ready probes: an interrupt message, and the device `edu` | `msi.rs`, `edu.rs` |
//!
#![cfg_attr(feature = "sim", doc = "```")]
#![cfg_attr(not(feature = "sim"), doc = "```ignore")]
//! use iommu::selftest::{self, Broken, Probe, Step};
//! # use iommu::{addr::*, device::DeviceId, driver::EndpointId, fault::Access, pool::Pool, registry::*};
//! # use iommu::{sim::Sim, virtio::transport::fake::{FakeConfig, FakeMachine}};
//! # static POOL: Pool = Pool::heap();
//! # let platform = FakeMachine::new(FakeConfig::default());
//! # let (registry, sim) = (Registry::new(&POOL), Sim::new());
//! # let iommu = registry.add_instance(sim.driver())?;
//! # let info = DeviceInfo { id: DeviceId(1), endpoints: &[EndpointId(8)], with: None };
//! # let group = registry.add_device(&iommu, &info)?;
//! struct Device(/* its registers */ Sim);
//! impl Probe for Device {
//!     fn write(&mut self, to: Iova) -> Result<(), Broken> {
//!         // Here: start a transfer of four bytes, and wait for its end.
//! #       let _ = self.0.reach(EndpointId(8), to, Access::WRITE);
//!         Ok(())
//!     }
//! }
//! let report = selftest::run(&group, EndpointId(8), &platform, &POOL, &mut Device(sim));
//! println!("{report}");
//! // This device is refused as it should be, but what it may write never arrives:
//! assert!(report.outcome(Step::Blocked).is_held() && !report.has_held());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Locks: those of the calls that it makes; none is held while the probe runs.

#[cfg(feature = "virtio-iommu")] // the registers
pub mod edu;
mod memory;
pub mod msi;
mod report;

use core::fmt;

pub use report::{Outcome, Reason, Report, Step};

use crate::addr::{Iova, IovaRange, PhysAddr};
use crate::domain::PagingDomain;
use crate::driver::EndpointId;
use crate::fault::Access;
use crate::group::{Group, OwnerId, Ownership, Refused};
use crate::instance::Instance;
use crate::platform::Platform;
use crate::pool::{Pool, Shared};
use crate::prot::Prot;
use crate::reserved::ReservedRegions;
use crate::sync::RawLock;
use memory::Memory;

/// The owner of the group while the self-test runs.
pub const OWNER: OwnerId = OwnerId(u64::from_be_bytes(*b"selftest"));

/// How long a fault record may take to arrive, in nanoseconds.
pub const FAULT_WAIT_NS: u64 = 500_000_000;

/// What [`Probe::write`] writes, in bytes.
pub const LEN: usize = 4;

/// What memory is filled with before a device writes; two, so that one of them is changed whatever it
/// writes.
const FILLS: [u8; 2] = [0xee, 0x11];

/// A device of the group that can be made do DMA.
pub trait Probe {
    /// Makes the device write [`LEN`] bytes to `to`, and waits until it did or was refused: then it
    /// does no DMA any more.
    ///
    /// If it can [`read`](Self::read), it writes what it read last; else any bytes.
    ///
    /// # Errors
    ///
    /// [`Broken`]: the device did not do it. The self-test ends, and its memory is leaked, because
    /// nobody knows what the device still does.
    fn write(&mut self, to: Iova) -> Result<(), Broken>;

    /// Makes the device read [`LEN`] bytes from `from` and keep them. `false`, the default: it can't.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    fn read(&mut self, from: Iova) -> Result<bool, Broken> {
        let _ = from;
        Ok(false)
    }

    /// How many bits of an address the device emits; the default is 64.
    fn address_bits(&self) -> u32 {
        64
    }
}

/// The device of a probe does not do what it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Broken(
    /// What it does not do.
    pub &'static str,
);

/// Runs every [`Step`] on `group` and tells what came of it.
///
/// `endpoint` is the id under which the probe's DMA must arrive. `platform` gives three pages of the
/// IOMMU's, whose [`device`](crate::platform::DmaPages::device) address must be the physical one;
/// `pool` gives the nodes of one domain.
///
/// The group must be free; it is claimed, and in the end is blocked and free again, or poisoned if the
/// unit does not obey: then the memory is leaked.
/// Fault records of the instance that wait are taken, those of other devices included: run it before
/// they are in use.
#[must_use = "it says whether the IOMMU works"]
pub fn run<P: Platform + ?Sized, R: RawLock>(
    group: &Shared<Group<R>>,
    endpoint: EndpointId,
    platform: &P,
    pool: &'static Pool,
    probe: &mut dyn Probe,
) -> Report {
    let mut report = Report::default();
    if let Err(reason) = try_run(group, endpoint, platform, pool, probe, &mut report) {
        report.stop(reason);
    }
    report
}

fn try_run<P: Platform + ?Sized, R: RawLock>(
    group: &Shared<Group<R>>,
    endpoint: EndpointId,
    platform: &P,
    pool: &'static Pool,
    probe: &mut dyn Probe,
    report: &mut Report,
) -> Result<(), Reason> {
    let ownership = Group::claim(group, OWNER).map_err(Reason::Claim)?;
    let granule = group.instance().geometry().page_sizes.granule();
    let memory = Memory::new(platform, granule).ok_or(Reason::OutOfMemory)?;
    let place = Place::find(group.instance(), &group.reserved(), &memory, probe.address_bits());
    let place = place.ok_or(Reason::NoWindow)?;
    let iommu = group.instance();
    let mut bench = Bench { platform, iommu, endpoint, probe, memory, fault: None };
    let done = bench.all(ownership, pool, &place, report);
    // Nothing is attached any more, but a unit that did not obey may still show the device the memory.
    if matches!(done, Err(Reason::Probe(_))) || group.is_poisoned() {
        bench.memory.leak();
    }
    if let Some(fault) = bench.fault {
        report.set(Step::Faults, fault.into());
    }
    done
}

/// Where in the domain: a granule to read and write, one to read, and one with nothing.
struct Place {
    granule: u64,
    pages: [IovaRange; 3],
    /// Where a device writes that is not translated.
    untranslated: Iova,
}

impl Place {
    fn find<P: Platform + ?Sized, R: RawLock>(
        iommu: &Instance<R>,
        reserved: &ReservedRegions,
        memory: &Memory<'_, P>,
        address_bits: u32,
    ) -> Option<Self> {
        let geometry = iommu.geometry();
        let granule = geometry.page_sizes.granule();
        let reach = IovaRange::new(Iova(0), Iova(u64::MAX >> (64 - address_bits.clamp(1, 64))))?;
        let physical = IovaRange::from_len(Iova(memory.phys(0).0), granule.checked_mul(3)?)?;
        let fits = |start: u64| {
            let start = start.checked_next_multiple_of(granule)?;
            let all = IovaRange::from_len(Iova(start), granule.checked_mul(3)?)?;
            let is_free = geometry.aperture.encloses(all)
                && reach.encloses(all)
                && !all.overlaps(physical) // or nobody could tell translated from untranslated
                && !reserved.conflicts(all);
            is_free.then_some(start)
        };
        let low = (1..64).map(|number| number << 20);
        let start = low.chain((26..64).map(|bit| 1 << bit)).find_map(fits)?;
        let page = |index: u64| IovaRange::from_len(Iova(start + index * granule), granule);
        let pages = [page(0)?, page(1)?, page(2)?];
        let is_reached = reach.encloses(physical);
        let untranslated = if is_reached { physical.first() } else { pages[0].first() };
        Some(Self { granule, pages, untranslated })
    }
}

struct Bench<'a, P: Platform + ?Sized, R: RawLock> {
    platform: &'a P,
    iommu: &'a Shared<Instance<R>>,
    endpoint: EndpointId,
    probe: &'a mut dyn Probe,
    memory: Memory<'a, P>,
    /// What was wrong first with the records of refused writes; `None` while there was none.
    fault: Option<Result<(), Reason>>,
}

impl<P: Platform + ?Sized, R: RawLock> Bench<'_, P, R> {
    /// Every step in order. The error is what kept it from going on.
    fn all(
        &mut self,
        ownership: Ownership<R>,
        pool: &'static Pool,
        place: &Place,
        report: &mut Report,
    ) -> Result<(), Reason> {
        let Place { granule, pages: [writable, read_only, nothing], untranslated } = *place;
        report.set(Step::Blocked, self.refused(untranslated)?);

        let domain = PagingDomain::new(self.iommu, pool).map_err(Reason::Domain)?;
        let map = |range, phys, prot| domain.map(range, phys, prot).map_err(Reason::Map);
        map(writable, self.memory.phys(0), Prot::RW)?;
        map(read_only, self.memory.phys(granule), Prot::READ)?;
        let attached = ownership.attach(&domain);
        let attached = attached.map_err(|Refused { error, .. }| Reason::Attach(error))?;

        report.set(Step::Mapped, self.arrives(writable.first())?);
        report.set(Step::Read, self.is_read(writable.first())?);
        report.set(Step::ReadOnly, self.refused(read_only.first())?);
        report.set(Step::Outside, self.refused(nothing.first())?);

        domain.unmap(writable).map_err(Reason::Unmap)?;
        report.set(Step::Unmapped, self.refused(writable.first())?);

        map(writable, self.memory.phys(0), Prot::RW)?;
        let control = self.arrives(writable.first())?;
        let _owned = attached.detach();
        let refused = self.refused(writable.first())?;
        // Refused counts only if the same write came through before.
        report.set(Step::Detached, if control.is_held() { refused } else { control });
        Ok(())
    }

    /// Lets the device write to `iova`, where it must not get through: memory stays as it is, and a
    /// record tells of it.
    fn refused(&mut self, iova: Iova) -> Result<Outcome, Reason> {
        for fill in FILLS {
            self.begin(fill);
            self.probe.write(iova).map_err(Reason::Probe)?;
            if !self.memory.is_filled(fill) {
                return Ok(Outcome::Failed(Reason::Arrived));
            }
            let told = self.record(iova);
            self.fault = Some(self.fault.unwrap_or(Ok(())).and(told));
        }
        Ok(Outcome::Held)
    }

    /// Lets the device write to `iova`, which leads to the first bytes of memory: they change, no
    /// other do, and no record tells of it.
    fn arrives(&mut self, iova: Iova) -> Result<Outcome, Reason> {
        for fill in FILLS {
            self.begin(fill);
            self.probe.write(iova).map_err(Reason::Probe)?;
            if !self.memory.is_filled_from(LEN, fill) {
                return Ok(Outcome::Failed(Reason::Elsewhere));
            }
            if self.memory.is_filled(fill) {
                continue;
            }
            return Ok(match self.iommu.next_fault() {
                Some(fault) if fault.endpoint == self.endpoint => {
                    Outcome::Failed(Reason::FaultForNothing)
                }
                _ => Outcome::Held,
            });
        }
        // Why it did not is told by the record, if there is one.
        Ok(Outcome::Failed(match self.record(iova) {
            Err(wrong @ Reason::OtherEndpoint { .. }) => wrong,
            _ => Reason::NotArrived,
        }))
    }

    /// Lets the device read at `iova`, which leads to the first bytes of memory, and write it back.
    fn is_read(&mut self, iova: Iova) -> Result<Outcome, Reason> {
        const KEPT: [u8; LEN] = [0xc0, 0x1d, 0xbe, 0xef];
        self.begin(FILLS[0]);
        self.memory.write(KEPT);
        if !self.probe.read(iova).map_err(Reason::Probe)? {
            return Ok(Outcome::Skipped);
        }
        self.begin(FILLS[0]);
        self.probe.write(iova).map_err(Reason::Probe)?;
        let is_same = self.memory.read() == KEPT && self.memory.is_filled_from(LEN, FILLS[0]);
        Ok(if is_same { Outcome::Held } else { Outcome::Failed(Reason::OtherData) })
    }

    /// Fills memory, and takes the records that wait.
    fn begin(&mut self, fill: u8) {
        while self.iommu.next_fault().is_some() {}
        self.memory.fill(fill);
    }

    /// Waits for the record of a refused write to `iova`.
    fn record(&mut self, iova: Iova) -> Result<(), Reason> {
        let start = self.platform.now_ns();
        loop {
            let Some(fault) = self.iommu.next_fault() else {
                if self.platform.now_ns().saturating_sub(start) > FAULT_WAIT_NS {
                    return Err(Reason::NoFault);
                }
                core::hint::spin_loop();
                continue;
            };
            let is_there = fault.address == Some(iova);
            if fault.endpoint != self.endpoint {
                if is_there {
                    let (expected, seen) = (self.endpoint, fault.endpoint);
                    return Err(Reason::OtherEndpoint { expected, seen });
                }
                continue; // another device's
            }
            return match fault.address {
                Some(address) if !is_there => {
                    Err(Reason::OtherAddress { expected: iova, seen: address })
                }
                None => Err(Reason::NoAddress),
                _ if fault.access == Access::READ => Err(Reason::OtherAccess),
                _ => Ok(()),
            };
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for Broken {}
