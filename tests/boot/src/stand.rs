//! The bench of the matrix of refused DMA: real devices of several kinds, one access at a time.
//!
//! Refused counts only if everything is seen: all memory of the case as it was, and a record of the
//! right endpoint and address, first of all. What a device was not to read is a value that occurs
//! nowhere else; later, when the device works, it shows what it has, and must not have that.

use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use iommu::fault::{Access, DriverFault};
use iommu::virtio::transport::pci::PciTransport;
use iommu_cases::matrix::{self, Aim, Kind, Matrix, Need};
use iommu_cases::{Bench, Outcome, Over, Seat, Who, steps};
use spin::Mutex;

use crate::bench::{FILL, MEMORY, pattern};
use crate::engines::{EduEngine, Engine, LIMIT_NS, MessageEngine, NvmeEngine, VirtioEngine, Wait};
use crate::machine::{Machine, ids};
use crate::world::{MUFFLERS, World, place};
use crate::{probe, tally};

/// The machine, its IOMMUs, and one device of each kind.
pub struct Stand {
    machine: Machine,
    world: World,
    engines: Mutex<Engines>,
    secrets: Secrets,
}

struct Engines {
    edu_reads: EduEngine,
    edu_writes: EduEngine,
    message: MessageEngine,
    rng: VirtioEngine,
    blk: VirtioEngine,
    nvme: NvmeEngine,
}

impl Engines {
    fn new(machine: &Machine) -> Self {
        let edu = |index: usize| machine.devices.get(index).expect("there is an edu").edu;
        let function = |ids| {
            let mut found = machine.others.iter().filter(|other| other.ids() == ids);
            found.next().expect("the machine has a device of each kind").function
        };
        let virtio = |ids, number| {
            let function = function(ids);
            let bars = core::array::from_fn(|index| machine.bar(&function, index));
            let transport = PciTransport::new(&machine.pci.config(&function), &bars);
            VirtioEngine::new(transport.expect("it is a virtio device"), number)
        };
        let registers = machine.bar(&function(ids::NVME), 0).expect("the NVMe has registers");
        Self {
            edu_reads: EduEngine::new(edu(place::ROOT_2), 0),
            edu_writes: EduEngine::new(edu(place::ROOT), 1),
            message: MessageEngine::new(edu(place::ROOT)),
            rng: virtio(ids::RNG, 2),
            blk: virtio(ids::BLK, 3),
            nvme: NvmeEngine::new(registers, 4),
        }
    }

    fn of(&mut self, kind: Kind) -> &mut dyn Engine {
        match kind {
            Kind::EduReads => &mut self.edu_reads,
            Kind::EduWrites => &mut self.edu_writes,
            Kind::Message => &mut self.message,
            Kind::RngWrites => &mut self.rng,
            Kind::BlkReads | Kind::BlkWrites => &mut self.blk,
            Kind::NvmeReads | Kind::NvmeWrites => &mut self.nvme,
        }
    }
}

/// Values that memory has while nobody may read it. Not among those of patterns, disks and fill.
struct Secrets {
    last: AtomicU8,
    /// Whether a device was refused a read since it showed what it has.
    refused: AtomicBool,
}

impl Secrets {
    const FIRST: u8 = 201;
    const LAST: u8 = FILL - 1;
    /// What may be read beside a secret.
    const PLAIN: u8 = 0xf0;

    fn next(&self) -> u8 {
        let last = self.last.load(Ordering::Relaxed);
        let next = if last == Self::LAST { Self::FIRST } else { last + 1 };
        self.last.store(next, Ordering::Relaxed);
        next
    }
}

impl Stand {
    /// Brings the machine up, starts its IOMMUs, and gets each device ready.
    ///
    /// # Panics
    ///
    /// When that fails, or when the machine lacks a device.
    #[must_use]
    pub fn start() -> Self {
        let machine = Machine::bring_up().expect("the machine can be brought up");
        let world = World::start(&machine).expect("the IOMMUs start");
        world.reach_peak();
        let engines = Mutex::new(Engines::new(&machine));
        let secrets =
            Secrets { last: AtomicU8::new(Secrets::LAST), refused: AtomicBool::new(false) };
        let stand = Self { machine, world, engines, secrets };
        for kind in Kind::ALL {
            let who = kind.who();
            let domain = steps::domain_for(&stand, who);
            stand.needs(kind, &mut |need| {
                let range = steps::range(need.iova, need.pages);
                domain.map(range, need.phys, need.prot).expect("a new domain is empty");
            });
            let attached = steps::attach(&stand, who, &domain);
            stand.engines.lock().of(kind).prepare();
            drop(attached);
        }
        stand
    }

    /// Plays a case of the matrix.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn run(&mut self, situation: &str, kind: Kind) {
        matrix::run(self, situation, kind);
    }

    /// Lets a device do an access. Returns whether it says that it is done, and the first record.
    fn attempt(&self, kind: Kind, iova: u64, limit_ns: u64) -> (bool, Option<DriverFault>) {
        let unit = self.unit(kind.who());
        let mut first = None;
        let mut watch = || {
            first = first.or_else(|| unit.next_fault());
            first.is_some()
        };
        let mut engines = self.engines.lock();
        let mut wait = Wait::new(limit_ns, &mut watch);
        let done = engines.of(kind).run(kind.access(), iova, kind.len() as usize, &mut wait);
        watch();
        (done, first)
    }

    /// A read. The secret is wherever the device may not read.
    fn read(&self, kind: Kind, iova: u64, aim: Aim) -> Outcome {
        let len = kind.len() as usize;
        let secret = self.secrets.next();
        MEMORY.fill_with(secret);
        match aim {
            Aim::Nothing => {}
            Aim::Memory(phys) => MEMORY.put(phys, len, |at| pattern(phys, at)),
            Aim::Part(phys, inside) => MEMORY.put(phys, inside as usize, |_| Secrets::PLAIN),
        }
        let (done, first) = self.attempt(kind, iova, LIMIT_NS);
        let is_whole = match aim {
            Aim::Nothing => true,
            Aim::Memory(phys) => MEMORY.holds(phys, len, |at| pattern(phys, at)),
            Aim::Part(phys, inside) => MEMORY.is_filled_from(phys, inside as usize, Secrets::PLAIN),
        };
        match aim {
            Aim::Nothing => {}
            Aim::Memory(phys) => MEMORY.put(phys, len, |_| secret),
            Aim::Part(phys, inside) => MEMORY.put(phys, inside as usize, |_| secret),
        }
        let is_untouched = is_whole && MEMORY.is_filled(secret);
        MEMORY.fill_again();
        if !is_untouched {
            return Outcome::Wrong("the device wrote instead of reading");
        }
        if let Some(first) = first {
            self.secrets.refused.store(true, Ordering::Relaxed);
            return self.refusal(kind, first);
        }
        let Aim::Memory(phys) = aim else {
            return Outcome::Wrong("it was not to be read, and no fault was reported");
        };
        let mut engines = self.engines.lock();
        let engine = engines.of(kind);
        match done && engine.show(len) && (0..len).all(|at| engine.shown(at) == pattern(phys, at)) {
            true if self.unit(kind.who()).next_fault().is_none() => Outcome::Arrived,
            true => Outcome::Wrong("all was read, and a fault was raised"),
            false => Outcome::Wrong("the device does not show what it was to read"),
        }
    }

    fn write(&self, kind: Kind, iova: u64, aim: Aim) -> Outcome {
        let len = kind.len() as usize;
        let (done, first) = self.attempt(kind, iova, LIMIT_NS);
        let written = |at| self.engines.lock().of(kind).written(at);
        let is_all_there = match aim {
            Aim::Nothing => true,
            // Nobody knows what a source of random numbers writes; few bytes of it are the fill.
            Aim::Memory(phys) if written(0).is_none() => {
                let same = MEMORY.count(phys, len, FILL);
                MEMORY.put(phys, len, |_| FILL);
                same <= len / 4
            }
            Aim::Memory(phys) => MEMORY.take(phys, len, |at| written(at).unwrap_or(FILL)) == len,
            Aim::Part(phys, inside) => {
                MEMORY.put(phys, inside as usize, |_| FILL);
                true
            }
        };
        if !MEMORY.is_untouched() {
            MEMORY.fill_again();
            return Outcome::Wrong("something else was written");
        }
        match (first, aim) {
            (Some(first), _) => self.refusal(kind, first),
            (None, Aim::Memory(_)) if done && is_all_there => Outcome::Arrived,
            (None, Aim::Memory(_)) => Outcome::Wrong("not all arrived, and no fault was reported"),
            (None, _) => Outcome::Wrong("it was not to be written, and no fault was reported"),
        }
    }

    fn refusal(&self, kind: Kind, first: DriverFault) -> Outcome {
        let Seat { endpoint, .. } = self.seat(kind.who());
        probe::refusal_from(first, self.unit(kind.who()), endpoint)
    }
}

impl Over for Stand {
    type Below = World;

    fn below(&self) -> &World {
        &self.world
    }
}

impl Matrix for Stand {
    fn needs(&self, kind: Kind, each: &mut dyn FnMut(Need)) {
        self.engines.lock().of(kind).needs().iter().copied().for_each(each);
    }

    fn first(&self, kind: Kind, iova: u64) -> u64 {
        self.engines.lock().of(kind).first(iova)
    }

    fn access(&self, kind: Kind, iova: u64, aim: Aim) -> Outcome {
        tally::judged(match kind.access() {
            Access::READ => self.read(kind, iova, aim),
            _ => self.write(kind, iova, aim),
        })
    }

    fn tells(&self, kind: Kind) -> bool {
        let was_refused = self.secrets.refused.swap(false, Ordering::Relaxed);
        if kind.access() != Access::READ || !was_refused {
            return false;
        }
        let mut engines = self.engines.lock();
        let (engine, len) = (engines.of(kind), kind.len() as usize);
        assert!(engine.show(len), "{kind:?} shows what it has read");
        let secrets = Secrets::FIRST..=Secrets::LAST;
        (0..len).any(|at| secrets.contains(&engine.shown(at)))
    }

    fn tries_in_vain(&self, kind: Kind, iova: u64) -> bool {
        const SHORT_NS: u64 = 20_000_000;
        let secret = self.secrets.next();
        let reads = kind.access() == Access::READ;
        MEMORY.fill_with(if reads { secret } else { FILL });
        let (_, first) = self.attempt(kind, iova, SHORT_NS);
        assert_eq!(first, None, "nobody is there to record it");
        let is_untouched = MEMORY.is_filled(if reads { secret } else { FILL });
        MEMORY.fill_again();
        self.secrets.refused.store(reads, Ordering::Relaxed);
        if is_untouched {
            tally::refused();
        }
        is_untouched
    }

    fn silence(&self, who: Who) {
        defmt::info!("a unit is silenced on purpose: the warnings below are about it");
        MUFFLERS[self.seat(who).unit].store(true, Ordering::Relaxed);
    }

    fn renew(&mut self) {
        MUFFLERS.iter().for_each(|muffler| muffler.store(false, Ordering::Relaxed));
        drop(core::mem::take(&mut self.world));
        self.world = World::start(&self.machine).expect("the IOMMUs start again");
        self.world.reach_peak();
    }
}
