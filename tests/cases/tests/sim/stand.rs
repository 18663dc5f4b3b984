//! The bench of the matrix of refused DMA on the host: a device of each kind as a few lines of
//! software. Those with a queue fetch their order first and report its end last; all of them keep what
//! they read, and show it on demand. Where an access leads is asked of the unit, byte by byte.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use iommu::addr::PhysAddr;
use iommu::fault::Access;
use iommu::prot::Prot;
use iommu_cases::bench::FILL;
use iommu_cases::matrix::{Aim, Kind, Matrix, Need};
use iommu_cases::{Outcome, Over, Store, Who};

use crate::bench::{HostBench, Pages, refusal};
use crate::unit::Unit;

/// A bench with devices of all kinds.
pub struct HostStand<U> {
    bench: HostBench<U>,
    devices: Vec<Device>,
    /// What memory has while nobody may read it: another value each time.
    secret: AtomicU8,
}

/// A device, of one kind.
struct Device {
    kind: Kind,
    /// Where it finds its orders and reports their end; none for one that is told by its registers.
    queue: Option<Need>,
    /// Where it shows what it has read.
    landing: Option<Need>,
    /// What it has read last; of what was refused, nothing.
    kept: Mutex<Vec<u8>>,
}

/// Where the memory of the devices is mapped: each has a mebibyte from here on.
const NEEDS: u64 = 0x5000_0000;
/// The values of secrets. What may be read, what devices write and the fill are others.
const SECRETS: core::ops::RangeInclusive<u8> = 201..=0xed;

impl<U: Unit> HostStand<U> {
    /// A bench with this unit.
    pub fn new(judge: U) -> Self {
        let bench = HostBench::with_all_kinds(judge);
        let devices = Kind::ALL.into_iter().zip(0..).map(|(kind, number)| {
            let need = |page: u64, prot| Need {
                iova: NEEDS + (number << 20) + page * 0x1000,
                phys: bench.pages().alloc(1).expect("there are numbers"),
                pages: 1,
                prot,
            };
            let is_told_by_registers = matches!(kind.who(), Who::One | Who::Two);
            Device {
                kind,
                queue: (!is_told_by_registers).then(|| need(0, Prot::RW)),
                landing: (kind.access() == Access::READ).then(|| need(1, Prot::WRITE)),
                kept: Mutex::default(),
            }
        });
        let devices = devices.collect();
        Self { bench, devices, secret: AtomicU8::new(*SECRETS.start()) }
    }

    fn device(&self, kind: Kind) -> &Device {
        self.devices.iter().find(|device| device.kind == kind).expect("there is one of each")
    }

    fn pages(&self) -> &'static Pages {
        self.bench.pages()
    }

    /// One byte of a device's access: where it led, and the record that the unit gave of a refusal.
    fn reach(&self, kind: Kind, iova: u64, access: Access) -> Result<PhysAddr, Outcome> {
        self.bench.access(kind.who(), iova, access).map_err(|fault| refusal(fault, iova))
    }

    /// The device's own memory, which has to lead where it is.
    fn own(&self, kind: Kind, need: Need, access: Access) -> Result<(), Outcome> {
        match self.reach(kind, need.iova, access)? {
            phys if phys == need.phys => Ok(()),
            _ => Err(Outcome::Wrong("the device's own memory is somewhere else")),
        }
    }

    /// The access: bytes that are read are kept, those that are written are `ours`.
    fn run(&self, kind: Kind, iova: u64) -> Result<(), Outcome> {
        let device = self.device(kind);
        let access = kind.access();
        let mut kept = device.kept.lock().unwrap();
        kept.clear();
        if let Some(queue) = device.queue {
            self.own(kind, queue, Access::READ)?;
        }
        for at in 0..kind.len() {
            let phys = self.reach(kind, iova + at, access)?;
            match access {
                Access::READ => kept.push(self.pages().read_anywhere(phys)),
                _ => self.pages().write_anywhere(phys, ours(at)),
            }
        }
        device.queue.map_or(Ok(()), |queue| self.own(kind, queue, Access::WRITE))
    }

    /// What the device shows of what it has read.
    fn show(&self, kind: Kind) -> Vec<u8> {
        let device = self.device(kind);
        let landing = device.landing.expect("it is a device that reads");
        let kept = device.kept.lock().unwrap();
        let shown = kept.iter().zip(0..).map(|(byte, at)| {
            let phys = self.reach(kind, landing.iova + at, Access::WRITE).expect("it is mapped");
            assert_eq!(phys.0, landing.phys.0 + at, "the landing is somewhere else");
            *byte
        });
        shown.collect()
    }
}

/// The byte that a device writes.
fn ours(at: u64) -> u8 {
    1 + at as u8 % 100
}

/// The byte that a device is to read.
fn theirs(at: u64) -> u8 {
    101 + at as u8 % 100
}

impl<U: Unit> Matrix for HostStand<U> {
    fn needs(&self, kind: Kind, each: &mut dyn FnMut(Need)) {
        let Device { queue, landing, .. } = self.device(kind);
        queue.iter().chain(landing).copied().for_each(each);
    }

    fn first(&self, kind: Kind, iova: u64) -> u64 {
        self.device(kind).queue.map_or(iova, |queue| queue.iova)
    }

    fn access(&self, kind: Kind, iova: u64, aim: Aim) -> Outcome {
        let reads = kind.access() == Access::READ;
        let (start, inside) = match aim {
            Aim::Nothing => (PhysAddr(0), 0),
            Aim::Memory(phys) => (phys, kind.len()),
            Aim::Part(phys, inside) => (phys, inside),
        };
        let aimed = || (0..inside).map(|at| (PhysAddr(start.0 + at), at));
        if reads {
            let last = self.secret.load(Ordering::Relaxed);
            let next = if last == *SECRETS.end() { *SECRETS.start() } else { last + 1 };
            self.secret.store(next, Ordering::Relaxed);
            self.pages().fill_with(next);
            aimed().for_each(|(phys, at)| self.pages().write(phys, theirs(at)));
        }
        let outcome = self.run(kind, iova);
        let mut written = self.pages().written();
        let mut is_there = true;
        for (phys, at) in aimed() {
            let expected = if reads { theirs(at) } else { ours(at) };
            is_there &= written.remove(&phys.0) == Some(expected);
        }
        self.pages().fill_with(FILL);
        match outcome {
            _ if !written.is_empty() => Outcome::Wrong("something else was written"),
            Err(refusal) => refusal,
            Ok(()) if !matches!(aim, Aim::Memory(_)) => Outcome::Wrong("it was not refused"),
            Ok(()) if !is_there => Outcome::Wrong("not all arrived"),
            Ok(()) if reads && self.show(kind).into_iter().ne((0..kind.len()).map(theirs)) => {
                Outcome::Wrong("the device does not show what it was to read")
            }
            Ok(()) => Outcome::Arrived,
        }
    }

    fn tells(&self, kind: Kind) -> bool {
        self.device(kind).landing.is_some()
            && self.show(kind).iter().any(|byte| SECRETS.contains(byte))
    }

    fn tries_in_vain(&self, kind: Kind, iova: u64) -> bool {
        let device = self.device(kind);
        let places = device.queue.into_iter().chain(device.landing).map(|need| need.iova);
        let mut places = places.chain([iova]);
        places.all(|iova| self.bench.leads(kind.who(), iova, kind.access()).is_none())
    }

    fn silence(&self, who: Who) {
        self.bench.judge(who).silence();
    }

    fn renew(&mut self) {
        self.bench.renew();
    }
}

impl<U: Unit> Over for HostStand<U> {
    type Below = HostBench<U>;

    fn below(&self) -> &HostBench<U> {
        &self.bench
    }
}
