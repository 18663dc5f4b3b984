//! A guest: its memory in pieces all over the machine, and the program that drives a device.
//!
//! The guest knows addresses of its own alone. That they lead anywhere is the hypervisor's doing:
//! for the guest's CPU through [`GuestRam`], for its devices through the IOMMU.

use core::sync::atomic::{AtomicU32, Ordering};

use iommu::addr::PhysAddr;
use iommu::container::{Memory, MemoryOwner, PinError, Pinned};
use iommu::platform::Platform;
use iommu::prot::Prot;
use iommu_boot::machine::{PLATFORM, TestDevice};
use iommu_runtime::dma::{Buffer, Machine};
use iommu_runtime::edu::Direction;
use spin::Mutex;

/// The size of a page, of the guest and of the host.
pub const PAGE: u64 = 4096;
/// How many pages the guest has.
pub const PAGES: usize = 64;
/// The guest's memory in bytes, from its address 0 on.
pub const RAM: u64 = PAGES as u64 * PAGE;

/// The memory of a guest: page n of the guest is in frame n, and no two neighbours lie together.
pub struct GuestRam {
    frames: Mutex<[Buffer; PAGES]>,
    /// Where each frame is.
    places: [PhysAddr; PAGES],
    /// How often each page is pinned.
    pins: [AtomicU32; PAGES],
}

impl GuestRam {
    /// Takes memory for a guest, zeroed.
    ///
    /// # Panics
    ///
    /// When the machine has too little.
    #[must_use]
    pub fn new(machine: &'static Machine) -> Self {
        let mut frames: [Buffer; PAGES] =
            core::array::from_fn(|_| Buffer::new(machine, 1).expect("there is memory for a guest"));
        // As an allocator leaves it after a while: what came one after the other lies apart.
        let (low, high) = frames.split_at_mut(PAGES / 2);
        for (low, high) in low.iter_mut().zip(high).step_by(2) {
            core::mem::swap(low, high);
        }
        let places = core::array::from_fn(|page| frames[page].phys());
        let pins = [const { AtomicU32::new(0) }; PAGES];
        Self { frames: Mutex::new(frames), places, pins }
    }

    /// How many pages are pinned.
    #[must_use]
    pub fn pinned(&self) -> usize {
        self.pins.iter().filter(|pins| pins.load(Ordering::Relaxed) > 0).count()
    }

    /// Reads a byte at an address of the guest.
    ///
    /// # Panics
    ///
    /// When the guest has no memory there.
    #[must_use]
    pub fn read(&self, guest: u64) -> u8 {
        self.frames.lock()[(guest / PAGE) as usize].read((guest % PAGE) as usize)
    }

    /// Writes a byte at an address of the guest.
    ///
    /// # Panics
    ///
    /// When the guest has no memory there.
    pub fn write(&self, guest: u64, value: u8) {
        self.frames.lock()[(guest / PAGE) as usize].write((guest % PAGE) as usize, value);
    }

    fn pins_of(&self, run: Pinned) -> impl Iterator<Item = &AtomicU32> {
        let end = run.phys.0 + run.pages * PAGE;
        let inside = move |place: &PhysAddr| (run.phys.0..end).contains(&place.0);
        let both = self.places.iter().zip(&self.pins);
        both.filter(move |(place, _)| inside(place)).map(|(_, pins)| pins)
    }
}

/// What the container asks of a hypervisor: where guest memory is, and that it stays there.
impl Memory for &GuestRam {
    fn page_size(&self) -> u64 {
        PAGE
    }

    /// One page at a time, since no two lie together; the container joins what it can.
    fn pin(
        &self,
        _owner: MemoryOwner,
        vaddr: u64,
        _pages: u64,
        _prot: Prot,
    ) -> Result<Pinned, PinError> {
        let place = self.places.get((vaddr / PAGE) as usize).ok_or(PinError::Fault)?;
        let run = Pinned { phys: *place, pages: 1 };
        self.pins_of(run).for_each(|pins| {
            pins.fetch_add(1, Ordering::Relaxed);
        });
        Ok(run)
    }

    fn unpin(&self, run: Pinned, _prot: Prot) {
        self.pins_of(run).for_each(|pins| {
            pins.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// The program in the guest: it fills a page, lets its device copy it, and looks at the copy.
pub struct Driver<'g> {
    /// Its memory.
    pub ram: &'g GuestRam,
    /// Its device, whose registers the hypervisor passed through.
    pub device: &'g TestDevice,
}

impl Driver<'_> {
    /// Copies `len` bytes from one address of the guest to another with the device. Whether they
    /// arrived is for [`holds`](Self::holds) to say: a device does not tell.
    ///
    /// # Panics
    ///
    /// When the device does not finish.
    pub fn copy(&self, from: u64, to: u64, len: usize) {
        for (address, direction) in [(from, Direction::FromMemory), (to, Direction::ToMemory)] {
            self.device.edu.start(direction, address, len).expect("the length fits the device");
            let deadline = PLATFORM.now_ns() + 1_000_000_000;
            self.device.edu.finish(|| PLATFORM.now_ns(), deadline).expect("the device finishes");
        }
    }

    /// Fills memory with bytes that tell their place, different for each `seed`.
    pub fn fill(&self, at: u64, len: usize, seed: u8) {
        (at..).zip(0..len).for_each(|(at, n)| self.ram.write(at, byte(seed, n)));
    }

    /// Whether memory holds what [`fill`](Self::fill) writes.
    #[must_use]
    pub fn holds(&self, at: u64, len: usize, seed: u8) -> bool {
        (at..).zip(0..len).all(|(at, n)| self.ram.read(at) == byte(seed, n))
    }
}

fn byte(seed: u8, n: usize) -> u8 {
    seed.wrapping_add((n as u8).wrapping_mul(31)).wrapping_add((n >> 8) as u8)
}
