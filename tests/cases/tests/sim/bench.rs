//! The bench of the host: the units are the judges, and memory is numbers, but for that of drivers.
//! Of the numbers only what cases, `carry` and the devices of the matrix write is kept.
#![expect(unsafe_code, reason = "a device reads and writes memory by its address")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use iommu::addr::{Iova, PhysAddr};
use iommu::device::DeviceId;
use iommu::driver::EndpointId;
use iommu::fault::{Access, DriverFault};
use iommu::instance::Instance;
use iommu::platform::Platform;
use iommu::pool::{Pool, Shared};
use iommu::registry::{DeviceInfo, Registry};
use iommu::sim::SimPlatform;
use iommu_cases::bench::FILL;
use iommu_cases::{Bench, Outcome, Seat, Store, Transfer, Who};

use crate::unit::Unit;

/// One or two units, and the devices.
pub struct HostBench<U> {
    registry: Registry,
    judges: Vec<U>,
    units: Vec<Shared<Instance>>,
    pages: &'static Pages,
    /// Whether there is a virtio-rng, a virtio-blk and an NVMe as well.
    has_all_kinds: bool,
}

/// Memory by number: what is handed out, first address to pages. And memory of the program, for
/// drivers of the kernel.
pub struct Pages {
    taken: Mutex<BTreeMap<u64, u64>>,
    written: Mutex<BTreeMap<u64, u8>>,
    /// What everything else is.
    fill: AtomicU8,
    machine: SimPlatform,
}

impl<U: Unit> HostBench<U> {
    /// A bench with these units.
    pub fn new(judges: Vec<U>) -> Self {
        Self::with_kinds(judges, false)
    }

    /// A bench with this unit, and a device of each kind behind it.
    pub fn with_all_kinds(judge: U) -> Self {
        Self::with_kinds(vec![judge], true)
    }

    fn with_kinds(judges: Vec<U>, has_all_kinds: bool) -> Self {
        // Each test counts its own nodes; a few bytes per test are never given back.
        let pool: &'static Pool = Box::leak(Box::new(Pool::heap()));
        let pages = Box::leak(Box::new(Pages {
            taken: Mutex::default(),
            written: Mutex::default(),
            fill: AtomicU8::new(FILL),
            machine: SimPlatform::default(),
        }));
        let (registry, units) = (Registry::new(pool), Vec::new());
        let mut bench = Self { registry, judges, units, pages, has_all_kinds };
        bench.start();
        bench
    }

    /// Starts the units and adds every device.
    fn start(&mut self) {
        self.units = self.judges.iter().map(|judge| judge.add(&self.registry)).collect();
        for who in Who::ALL.into_iter().filter(|who| self.has(*who)) {
            let Seat { device, endpoint, .. } = self.seat(who);
            let info = DeviceInfo { id: device, endpoints: &[endpoint], with: None };
            self.registry.add_device(self.unit(who), &info).unwrap();
        }
    }

    /// Starts everything anew, in the same memory.
    pub fn renew(&mut self) {
        self.units.clear();
        self.registry = Registry::new(self.registry.pool());
        self.start();
    }

    /// The memory.
    pub fn pages(&self) -> &'static Pages {
        self.pages
    }

    /// The unit of a device.
    pub fn judge(&self, who: Who) -> &U {
        &self.judges[self.seat(who).unit]
    }

    /// Where an access leads, if anywhere. Nobody looks at the record.
    pub fn leads(&self, who: Who, iova: u64, access: Access) -> Option<PhysAddr> {
        self.judge(who).reach(self.seat(who).endpoint, Iova(iova), access).ok()
    }

    /// One access, and where it led. The record must come through the instance as the unit made it.
    pub fn access(&self, who: Who, iova: u64, access: Access) -> Result<PhysAddr, DriverFault> {
        let Seat { endpoint, unit, .. } = self.seat(who);
        let found = self.judges[unit].reach(endpoint, Iova(iova), access);
        if let Err(fault) = found {
            while let Some(record) = self.units[unit].next_fault() {
                assert_eq!(record, fault, "the unit's record, and no other");
            }
        }
        assert_eq!(self.units[unit].next_fault(), None, "an access that arrived raised a fault");
        found
    }

    /// An access of `len` bytes: how many came to `target`, and the outcome.
    fn run(
        &self,
        who: Who,
        iova: u64,
        target: PhysAddr,
        len: u64,
        access: Access,
    ) -> (u64, Outcome) {
        for at in 0..len {
            match self.access(who, iova + at, access) {
                Ok(phys) if phys.0 == target.0 + at && self.pages.has(phys) => {}
                Ok(_) => return (at, Outcome::Wrong("it went somewhere else")),
                Err(fault) => return (at, refusal(fault, iova + at)),
            }
        }
        (len, Outcome::Arrived)
    }
}

impl Pages {
    /// Makes all of it this value.
    pub fn fill_with(&self, value: u8) {
        self.written.lock().unwrap().clear();
        self.fill.store(value, Ordering::Relaxed);
    }

    /// What was written since, by address.
    pub fn written(&self) -> BTreeMap<u64, u8> {
        self.written.lock().unwrap().clone()
    }

    /// The byte at `at`, wherever that is.
    pub fn read_anywhere(&self, at: PhysAddr) -> u8 {
        let written = self.written.lock().unwrap().get(&at.0).copied();
        written.unwrap_or_else(|| self.fill.load(Ordering::Relaxed))
    }

    /// Writes the byte at `at`, wherever that is.
    pub fn write_anywhere(&self, at: PhysAddr, value: u8) {
        self.written.lock().unwrap().insert(at.0, value);
    }

    fn has(&self, phys: PhysAddr) -> bool {
        let taken = self.taken.lock().unwrap();
        let below = taken.range(..=phys.0).next_back();
        below.is_some_and(|(start, pages)| phys.0 < start + pages * 0x1000)
    }
}

impl Store for Pages {
    fn alloc(&self, pages: usize) -> Option<PhysAddr> {
        let mut taken = self.taken.lock().unwrap();
        let end =
            taken.last_key_value().map_or(0x8000_0000, |(start, pages)| start + pages * 0x1000);
        taken.insert(end, pages as u64);
        Some(PhysAddr(end))
    }

    fn free(&self, start: PhysAddr) {
        let pages = self.taken.lock().unwrap().remove(&start.0).expect("it was handed out");
        self.written
            .lock()
            .unwrap()
            .retain(|at, _| !(start.0..start.0 + pages * 0x1000).contains(at));
    }

    fn in_use(&self) -> usize {
        self.taken.lock().unwrap().values().sum::<u64>() as usize + self.machine.pages()
    }

    fn read(&self, at: PhysAddr) -> u8 {
        assert!(self.has(at), "{at:?} is not in use");
        self.read_anywhere(at)
    }

    fn write(&self, at: PhysAddr, value: u8) {
        assert!(self.has(at), "{at:?} is not in use");
        self.write_anywhere(at, value);
    }
}

impl<U: Unit> Bench for HostBench<U> {
    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn units(&self) -> &[Shared<Instance>] {
        &self.units
    }

    fn find_seat(&self, who: Who) -> Option<Seat> {
        // Endpoint ids of two units are independent although they are equal numbers.
        let (device, endpoint, unit) = match who {
            Who::One => (1, 0x10, 0),
            Who::Two => (2, 0x18, 0),
            Who::Pair => (3, 0x100, 0),
            Who::Twin => (4, 0x100, 0),
            Who::Other => (5, 0x10, 1),
            Who::Rng | Who::Blk | Who::Nvme if !self.has_all_kinds => return None,
            Who::Rng => (6, 0x40, 0),
            Who::Blk => (7, 0x48, 0),
            Who::Nvme => (8, 0x50, 0),
        };
        let seat = Seat { device: DeviceId(device), endpoint: EndpointId(endpoint), unit };
        (unit < self.units.len()).then_some(seat)
    }

    fn store(&self) -> &'static dyn Store {
        self.pages
    }

    fn platform(&self) -> &'static dyn Platform {
        &self.pages.machine
    }

    fn copy(&self, who: Who, from: u64, to: u64, len: usize) -> [Outcome; 2] {
        let mut bytes = vec![0; len];
        let each = |iova: u64, access, mut each: Box<dyn FnMut(usize, *mut u8) + '_>| {
            for at in 0..len {
                match self.access(who, iova + at as u64, access) {
                    Ok(phys) => {
                        each(at, core::ptr::with_exposed_provenance_mut(phys.0 as usize));
                    }
                    Err(fault) => return refusal(fault, iova + at as u64),
                }
            }
            Outcome::Arrived
        };
        // SAFETY: the cases copy between memory of the program that they mapped, on one thread.
        let read = |at: usize, from: *mut u8| bytes[at] = unsafe { from.read_volatile() };
        let read = each(from, Access::READ, Box::new(read));
        // SAFETY: as above.
        let write = |at: usize, to: *mut u8| unsafe { to.write_volatile(bytes[at]) };
        [read, each(to, Access::WRITE, Box::new(write))]
    }

    fn write(&self, who: Who, iova: u64, target: Option<PhysAddr>) -> Outcome {
        // No target: nothing is at the top of the address space, so arriving there is wrong.
        let target = target.unwrap_or(PhysAddr(u64::MAX - 3));
        self.run(who, iova, target, 4, Access::WRITE).1
    }

    fn touch(&self, who: Who, iova: u64) {
        let _ = self.leads(who, iova, Access::WRITE);
    }

    fn carry(&self, who: Who, from: u64, to: u64) {
        for at in 0..4 {
            let from = self.leads(who, from + at, Access::READ);
            let byte = from.map_or(0, |phys| self.pages.read(phys));
            if let Some(phys) = self.leads(who, to + at, Access::WRITE) {
                self.pages.write(phys, byte);
            }
        }
    }

    fn transfer(&self, jobs: &mut [Transfer], len: usize) {
        for job in jobs {
            let len = len as u64;
            job.read = self.run(job.who, job.from, job.source, len, Access::READ).1;
            let Some((to, target)) = job.to else { continue };
            let (written, outcome) = self.run(job.who, to, target, len, Access::WRITE);
            (job.written, job.write) = (written as usize, outcome);
        }
    }
}

/// What the record of a refusal at `iova` says.
pub fn refusal(fault: DriverFault, iova: u64) -> Outcome {
    match fault {
        DriverFault { address: Some(address), reason, access, .. } if address == Iova(iova) => {
            Outcome::Refused { address: address.0, reason, access: access.bits() }
        }
        _ => Outcome::Wrong("the record names another address"),
    }
}
