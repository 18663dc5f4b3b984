//! The bench of the bare machine: real devices do the DMA, and the judge looks at all memory of
//! the case and at the fault records.
//!
//! Refused counts only if everything is seen: memory untouched, a fault of the right endpoint,
//! address, access and reason. Its control, the same access while it is allowed, is the case's.

use heapless::Vec;
use iommu::addr::PhysAddr;
use iommu::fault::DriverFault;
use iommu::instance::Instance;
use iommu::platform::Platform;
use iommu::pool::Shared;
use iommu::registry::Registry;
pub use iommu_cases::bench::FILL;
use iommu_cases::{Bench, Outcome, Seat, Store, Transfer, Who};
use iommu_runtime::dma::Buffer;
use iommu_runtime::edu::Direction;
use spin::Mutex;

use crate::machine::{PLATFORM, TestDevice, ids};
use crate::world::{World, place};
use crate::{probe, tally};

/// How many pieces of memory a case may have.
const PIECES: usize = 16;

/// The memory of the running case.
pub static MEMORY: Pieces = Pieces(Mutex::new(Vec::new()));

/// Pieces of memory for DMA.
pub struct Pieces(Mutex<Vec<Buffer, PIECES>>);

impl Store for Pieces {
    fn alloc(&self, pages: usize) -> Option<PhysAddr> {
        let buffer = Buffer::new(&PLATFORM, pages).ok()?;
        let start = buffer.phys();
        buffer.fill(FILL);
        self.0.lock().push(buffer).ok()?;
        Some(start)
    }

    fn free(&self, start: PhysAddr) {
        self.0.lock().retain(|piece| piece.phys() != start);
    }

    fn in_use(&self) -> usize {
        PLATFORM.pages_in_use()
    }

    fn read(&self, at: PhysAddr) -> u8 {
        let mut byte = FILL;
        self.bytes(at, 1, |_, piece, offset| byte = piece.read(offset));
        byte
    }

    fn write(&self, at: PhysAddr, value: u8) {
        self.put(at, 1, |_| value);
    }
}

impl Pieces {
    /// Calls `each` with the piece and the offset of every byte from `start` on.
    fn bytes(&self, start: PhysAddr, len: usize, mut each: impl FnMut(usize, &Buffer, usize)) {
        let pieces = self.0.lock();
        let inside = |piece: &&Buffer| {
            let end = piece.phys().0 + piece.len() as u64;
            (piece.phys().0..end).contains(&start.0)
        };
        let piece = pieces.iter().find(inside).expect("the memory is the case's");
        let offset = (start.0 - piece.phys().0) as usize;
        (0..len).for_each(|at| each(at, piece, offset + at));
    }

    /// Writes `byte(n)` to the n-th byte from `start` on.
    pub fn put(&self, start: PhysAddr, len: usize, byte: impl Fn(usize) -> u8) {
        self.bytes(start, len, |at, piece, offset| piece.write(offset, byte(at)));
    }

    /// Whether the bytes from `start` on are `byte(n)`.
    #[must_use]
    pub fn holds(&self, start: PhysAddr, len: usize, byte: impl Fn(usize) -> u8) -> bool {
        let mut holds = true;
        self.bytes(start, len, |at, piece, offset| holds &= piece.read(offset) == byte(at));
        holds
    }

    /// How many bytes from `start` on are `byte(n)` without a break. They are filled again.
    pub fn take(&self, start: PhysAddr, len: usize, byte: impl Fn(usize) -> u8) -> usize {
        let mut count = 0;
        self.bytes(start, len, |at, piece, offset| {
            if at == count && piece.read(offset) == byte(at) {
                piece.write(offset, FILL);
                count += 1;
            }
        });
        count
    }

    /// How many bytes from `start` on are `value`.
    #[must_use]
    pub fn count(&self, start: PhysAddr, len: usize, value: u8) -> usize {
        let mut count = 0;
        self.bytes(start, len, |_, piece, offset| {
            count += usize::from(piece.read(offset) == value);
        });
        count
    }

    /// Whether no byte of any piece was written.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.is_filled(FILL)
    }

    /// Whether every byte of every piece is `value`.
    #[must_use]
    pub fn is_filled(&self, value: u8) -> bool {
        self.0.lock().iter().all(|piece| piece.is_filled(value))
    }

    /// Makes it so again.
    pub fn fill_again(&self) {
        self.fill_with(FILL);
    }

    /// Fills all memory with another value.
    pub fn fill_with(&self, value: u8) {
        self.0.lock().iter().for_each(|piece| piece.fill(value));
    }

    /// Whether the `len` bytes from `start` on are `value`.
    #[must_use]
    pub fn is_filled_from(&self, start: PhysAddr, len: usize, value: u8) -> bool {
        self.holds(start, len, |_| value)
    }
}

impl World {
    fn test_device(&self, who: Who) -> &TestDevice {
        self.device(index(who))
    }
}

impl Bench for World {
    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn units(&self) -> &[Shared<Instance>] {
        &self.units
    }

    fn find_seat(&self, who: Who) -> Option<Seat> {
        // Behind the one unit of a machine, the device at that place is not what the table asks for.
        if who == Who::Other && !self.has_two_units() {
            return None;
        }
        let other = match who {
            Who::Rng => Some(ids::RNG),
            Who::Blk => Some(ids::BLK),
            Who::Nvme => Some(ids::NVME),
            _ => None,
        };
        if let Some(ids) = other {
            let other = self.other(ids)?;
            return Some(Seat { device: other.id(), endpoint: other.endpoint, unit: other.unit });
        }
        let device = self.devices.get(index(who))?;
        Some(Seat { device: device.id(), endpoint: device.endpoint, unit: device.unit })
    }

    fn store(&self) -> &'static dyn Store {
        &MEMORY
    }

    fn platform(&self) -> &'static dyn Platform {
        &PLATFORM
    }

    fn copy(&self, who: Who, from: u64, to: u64, len: usize) -> [Outcome; 2] {
        let device = self.test_device(who);
        let run = |direction, address| {
            probe::transfer(core::iter::once((device, address)), direction, len);
            let records = self.first_records();
            let strays = records.iter().any(|(_, record)| record.endpoint != device.endpoint);
            let outcome = self.told(&records, who).unwrap_or(Outcome::Arrived);
            if strays { Outcome::Wrong("another device faulted") } else { outcome }
        };
        [run(Direction::FromMemory, from), run(Direction::ToMemory, to)]
    }

    fn write(&self, who: Who, iova: u64, target: Option<PhysAddr>) -> Outcome {
        const VALUE: u16 = 0x5aa5;
        let device = self.test_device(who);
        if device.edu.poke(iova, VALUE).is_err() {
            return Outcome::Wrong("the device has no MSI");
        }
        let bytes = u32::from(VALUE).to_le_bytes();
        let arrived = target.map_or(0, |at| MEMORY.take(at, bytes.len(), |n| bytes[n]));
        if !MEMORY.is_untouched() {
            MEMORY.fill_again();
            return Outcome::Wrong("something else was written");
        }
        let unit = self.unit(who);
        tally::judged(match arrived == bytes.len() {
            false => probe::refusal(unit, device.endpoint),
            true if unit.next_fault().is_none() => Outcome::Arrived,
            true => Outcome::Wrong("the write arrived, and raised a fault"),
        })
    }

    fn touch(&self, who: Who, iova: u64) {
        self.test_device(who).edu.poke(iova, 1).expect("the device has an MSI");
    }

    fn carry(&self, who: Who, from: u64, to: u64) {
        for (direction, address) in [(Direction::FromMemory, from), (Direction::ToMemory, to)] {
            probe::transfer([(self.test_device(who), address)].into_iter(), direction, 4);
        }
    }

    fn transfer(&self, jobs: &mut [Transfer], len: usize) {
        for job in jobs.iter() {
            MEMORY.put(job.source, len, |at| pattern(job.source, at));
        }
        let reads = jobs.iter().map(|job| (self.test_device(job.who), job.from));
        probe::transfer(reads, Direction::FromMemory, len);
        let records = self.first_records();
        let mut strays = self.has_strays(&records, jobs);
        for job in jobs.iter_mut() {
            job.read = self.told(&records, job.who).unwrap_or(Outcome::Arrived);
        }

        // The memory that was read must be whole; then it is taken away, so that what arrives now
        // came through the device.
        let whole =
            jobs.iter().all(|job| MEMORY.holds(job.source, len, |at| pattern(job.source, at)));
        for job in jobs.iter() {
            MEMORY.put(job.source, len, |_| FILL);
        }
        let writes = jobs.iter().filter_map(|job| Some((self.test_device(job.who), job.to?.0)));
        probe::transfer(writes, Direction::ToMemory, len);
        let records = self.first_records();
        strays |= self.has_strays(&records, jobs);
        for job in jobs.iter_mut() {
            let Some((_, target)) = job.to else { continue };
            let was_read = job.read == Outcome::Arrived;
            let expected = |at| if was_read { pattern(job.source, at) } else { 0 };
            job.written = MEMORY.take(target, len, expected);
            job.write = match (job.written == len, self.told(&records, job.who)) {
                (true, None) => Outcome::Arrived,
                (true, Some(_)) => Outcome::Wrong("all bytes arrived, and a fault was raised"),
                (false, None) => Outcome::Wrong("bytes are missing, and no fault was raised"),
                (false, Some(refusal)) => refusal,
            };
        }
        if !whole || strays || !MEMORY.is_untouched() {
            MEMORY.fill_again();
            let wrong = Outcome::Wrong("something else was written, or faulted");
            jobs.iter_mut().for_each(|job| (job.read, job.write) = (wrong, wrong));
        }
        // Of a read that is not written somewhere nobody saw that it arrived.
        let seen = |job: &&mut Transfer| job.to.is_some() || job.read != Outcome::Arrived;
        for job in jobs.iter_mut().filter(seen) {
            job.read = tally::judged(job.read);
            if job.to.is_some() {
                job.write = tally::judged(job.write);
            }
        }
    }
}

/// The first record of each endpoint that raised any, with the index of its unit.
type Records = Vec<(usize, DriverFault), 8>;

impl World {
    /// Takes all records. One access raises one per 4 bytes; the first one tells where it began.
    fn first_records(&self) -> Records {
        let mut records = Records::new();
        for (unit, instance) in self.units.iter().enumerate() {
            while let Some(record) = instance.next_fault() {
                let known = |(at, old): &(usize, DriverFault)| {
                    *at == unit && old.endpoint == record.endpoint
                };
                if !records.iter().any(known) {
                    records.push((unit, record)).expect("there are fewer devices");
                }
            }
        }
        records
    }

    /// What the records say of a device.
    fn told(&self, records: &Records, who: Who) -> Option<Outcome> {
        let Seat { endpoint, unit, .. } = self.seat(who);
        let mut mine = records.iter().filter(|(at, one)| *at == unit && one.endpoint == endpoint);
        mine.next().map(|(_, record)| probe::outcome(*record))
    }

    /// Whether a record is of a device that did nothing.
    fn has_strays(&self, records: &Records, jobs: &[Transfer]) -> bool {
        let seats = || jobs.iter().map(|job| self.seat(job.who));
        let known = |(unit, record): &(usize, DriverFault)| {
            seats().any(|seat| seat.unit == *unit && seat.endpoint == record.endpoint)
        };
        !records.iter().all(known)
    }
}

/// Bytes that tell their place and their memory; none is 0, as a refused read gives, and none is
/// the fill.
pub(crate) fn pattern(source: PhysAddr, at: usize) -> u8 {
    let seed = (source.0 >> 12) as usize * 7 + source.0 as usize;
    1 + (at * 31 + (at >> 8) + seed) as u8 % 200
}

fn index(who: Who) -> usize {
    match who {
        Who::One => place::ROOT,
        Who::Two => place::ROOT_2,
        Who::Pair => place::BRIDGE,
        Who::Twin => place::BRIDGE_2,
        Who::Other => place::OTHER,
        Who::Rng | Who::Blk | Who::Nvme => usize::MAX, // no test device
    }
}
