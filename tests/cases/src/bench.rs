//! What a backend gives to the cases.

use iommu::addr::PhysAddr;
use iommu::device::DeviceId;
use iommu::driver::EndpointId;
use iommu::fault::{Access, FaultReason};
use iommu::group::Group;
use iommu::instance::Instance;
use iommu::platform::Platform;
use iommu::pool::Shared;
use iommu::registry::Registry;

/// Started units, devices in their groups, all of them blocked, and the judge.
pub trait Bench {
    /// The registry that the devices are in.
    fn registry(&self) -> &Registry;

    /// The units: one or two.
    fn units(&self) -> &[Shared<Instance>];

    /// Where a device sits; `None` if the bench lacks it.
    fn find_seat(&self, who: Who) -> Option<Seat>;

    /// Where the memory of the cases comes from.
    fn store(&self) -> &'static dyn Store;

    /// Lets the device write four bytes to `iova`. Arrived means: to `target`, and nowhere else.
    ///
    /// Takes the fault records of the device's unit.
    fn write(&self, who: Who, iova: u64, target: Option<PhysAddr>) -> Outcome;

    /// Lets the device write four bytes to `iova`; nobody looks what comes of it.
    fn touch(&self, who: Who, iova: u64);

    /// Lets the device read four bytes at `from` and write them to `to`; nobody looks what comes of it.
    fn carry(&self, who: Who, from: u64, to: u64);

    /// Runs transfers of `len` bytes on several devices, each at most once, and judges each.
    ///
    /// `len` is a multiple of 4, or [`MAX_TRANSFER`](crate::bench::MAX_TRANSFER). Takes the fault
    /// records of all units.
    fn transfer(&self, jobs: &mut [Transfer], len: usize);

    /// The machine, whose memory a kernel gives to its devices.
    fn platform(&self) -> &'static dyn Platform;

    /// Lets a device read `len` bytes at `from` into itself, and write them at `to`: what came of the
    /// read and of the write. "Arrived" means only that no fault was raised: the case looks at the
    /// bytes. A read that is refused gives zeros, or what the device had.
    ///
    /// `len` is as for [`transfer`](Self::transfer). Takes the fault records of all units.
    fn copy(&self, who: Who, from: u64, to: u64, len: usize) -> [Outcome; 2];

    /// Where a device sits.
    ///
    /// # Panics
    ///
    /// When the bench lacks it.
    fn seat(&self, who: Who) -> Seat {
        self.find_seat(who).expect("the bench has the device")
    }

    /// Whether the bench has a device.
    fn has(&self, who: Who) -> bool {
        self.find_seat(who).is_some()
    }

    /// The group that a device is in now.
    ///
    /// # Panics
    ///
    /// When it is in none.
    fn group(&self, who: Who) -> Shared<Group> {
        self.registry().group_of(self.seat(who).device).expect("the device is in a group")
    }

    /// The unit that translates for a device.
    ///
    /// # Panics
    ///
    /// When the bench lacks it.
    fn unit(&self, who: Who) -> &Shared<Instance> {
        self.units().get(self.seat(who).unit).expect("the bench has the unit")
    }
}

/// A bench that stands on another one, and asks it for everything that is asked of a bench.
pub trait Over {
    /// The bench below.
    type Below: Bench;

    /// Returns it.
    fn below(&self) -> &Self::Below;
}

impl<T: Over> Bench for T {
    fn registry(&self) -> &Registry {
        self.below().registry()
    }

    fn units(&self) -> &[Shared<Instance>] {
        self.below().units()
    }

    fn find_seat(&self, who: Who) -> Option<Seat> {
        self.below().find_seat(who)
    }

    fn store(&self) -> &'static dyn Store {
        self.below().store()
    }

    fn write(&self, who: Who, iova: u64, target: Option<PhysAddr>) -> Outcome {
        self.below().write(who, iova, target)
    }

    fn touch(&self, who: Who, iova: u64) {
        self.below().touch(who, iova);
    }

    fn carry(&self, who: Who, from: u64, to: u64) {
        self.below().carry(who, from, to);
    }

    fn transfer(&self, jobs: &mut [Transfer], len: usize) {
        self.below().transfer(jobs, len);
    }

    fn platform(&self) -> &'static dyn Platform {
        self.below().platform()
    }

    fn copy(&self, who: Who, from: u64, to: u64, len: usize) -> [Outcome; 2] {
        self.below().copy(who, from, to, len)
    }
}

/// The most bytes of one transfer.
pub const MAX_TRANSFER: usize = 4095;

/// The devices, by what is special about where they sit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// Alone in its group.
    One,
    /// Alone in its group, at the same unit.
    Two,
    /// In a group of two devices that share an endpoint id, at the same unit.
    Pair,
    /// The other device of that group.
    Twin,
    /// Alone in its group, at another unit.
    Other,
    /// A virtio-rng, alone in its group, at the unit of the first.
    Rng,
    /// A virtio-blk, likewise.
    Blk,
    /// An NVMe, likewise.
    Nvme,
}

impl Who {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::One,
        Self::Two,
        Self::Pair,
        Self::Twin,
        Self::Other,
        Self::Rng,
        Self::Blk,
        Self::Nvme,
    ];
    /// One of each kind of place: groups to attach one by one.
    pub const KINDS: [Self; 3] = [Self::One, Self::Pair, Self::Other];
    /// One per group.
    pub const GROUPS: [Self; 4] = [Self::One, Self::Two, Self::Pair, Self::Other];
}

/// How a device is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seat {
    /// To the registry.
    pub device: DeviceId,
    /// To its unit.
    pub endpoint: EndpointId,
    /// The index of its unit.
    pub unit: usize,
}

/// Memory that devices can reach, in pages of 4 KiB. While nothing happens all of it is filled, so
/// that the judge sees every stray write.
pub trait Store: Sync {
    /// Takes `pages` pages that follow each other.
    fn alloc(&self, pages: usize) -> Option<PhysAddr>;

    /// Gives them back.
    fn free(&self, start: PhysAddr);

    /// How many pages are in use.
    fn in_use(&self) -> usize;

    /// The byte at `at`, which is in use.
    fn read(&self, at: PhysAddr) -> u8;

    /// Writes the byte at `at`, which is in use. The judge takes anything but [`FILL`] for a stray
    /// write.
    fn write(&self, at: PhysAddr, value: u8);
}

/// What every byte of the memory of a case is while nothing happens.
pub const FILL: u8 = 0xee;

/// What an access came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Outcome {
    /// It did what it was to do, without a fault.
    Arrived,
    /// It was refused: nothing changed, and the fault names this address and reason.
    Refused {
        /// The address in the record.
        address: u64,
        /// Why.
        reason: FaultReason,
        /// The bits of [`Access`] in the record.
        access: u32,
    },
    /// Neither: the words say what was seen.
    Wrong(&'static str),
}

impl Outcome {
    /// Whether it is a refusal at `iova` for the reason that means "not mapped for you".
    #[must_use]
    pub fn is_refused_at(self, iova: u64) -> bool {
        matches!(self, Self::Refused { address, reason: FaultReason::Mapping, .. } if address == iova)
    }

    /// Whether it is one that says that `access` alone was refused, as for a missing permission.
    #[must_use]
    pub fn is_refused_for(self, iova: u64, access: Access) -> bool {
        self.is_refused_at(iova)
            && matches!(self, Self::Refused { access: seen, .. } if seen == access.bits())
    }
}

/// One device reads memory into itself, and then writes what it read somewhere else.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Which device.
    pub who: Who,
    /// Where it reads.
    pub from: u64,
    /// The memory that this should lead to; the judge puts a pattern there.
    pub source: PhysAddr,
    /// Where it writes, and the memory that this should lead to; `None` if it only reads.
    pub to: Option<(u64, PhysAddr)>,
    /// What came of the read. Without a `to`, "arrived" means only that no fault was raised.
    pub read: Outcome,
    /// What came of the write: of what was read, or of zeros if the read was refused.
    pub write: Outcome,
    /// How many bytes from the start came to `to`.
    pub written: usize,
}

impl Transfer {
    /// A transfer that was not run yet.
    #[must_use]
    pub const fn new(who: Who, from: u64, source: PhysAddr, to: Option<(u64, PhysAddr)>) -> Self {
        let not_run = Outcome::Wrong("it was not run");
        Self { who, from, source, to, read: not_run, write: not_run, written: 0 }
    }
}

const _: Option<&dyn Bench> = None; // cases take any bench
