//! Devices that do one DMA at a time, at an address that a case chooses: what the matrix of refused
//! DMA is played with. A small driver each, for tests only; polled, with an end to every wait.
//!
//! - `edu`: the test device, and its interrupt message;
//! - `virtio`: virtio-rng and virtio-blk, on a ring of one request;
//! - `nvme`: NVMe, with one queue for orders and one for transfers.

mod edu;
mod nvme;
mod virtio;

use iommu::addr::PhysAddr;
use iommu::fault::Access;
use iommu::platform::{PAGE_SIZE, Platform};
use iommu::prot::Prot;
use iommu_cases::matrix::Need;
use iommu_runtime::dma::Buffer;

use crate::machine::PLATFORM;
pub use crate::probe::LIMIT_NS;
pub use edu::{EduEngine, MessageEngine};
pub use nvme::NvmeEngine;
pub use virtio::VirtioEngine;

/// Where the memory of the engines is mapped: each has a mebibyte from here on.
const NEEDS: u64 = 0x5000_0000;

/// One device.
pub trait Engine: Send {
    /// What has to be mapped for it to work, beside the target.
    fn needs(&self) -> &[Need];

    /// Where it is refused if nothing is mapped and it is to access `iova`.
    fn first(&self, iova: u64) -> u64;

    /// Lets it access `len` bytes from `iova` on, and waits: until it has done so, until `watch`
    /// says that it was refused, or until it is over by the clock. True if it says that all went
    /// well. Nothing of the access goes on when this returns.
    fn run(&mut self, access: Access, iova: u64, len: usize, wait: &mut Wait<'_>) -> bool;

    /// The n-th byte that it writes; `None` if nobody can know.
    fn written(&self, at: usize) -> Option<u8>;

    /// Lets it show what it has read last, while all of its needs are mapped. True if it says that
    /// all went well.
    fn show(&mut self, len: usize) -> bool;

    /// The n-th byte that it showed.
    fn shown(&self, at: usize) -> u8;

    /// Called once, while all of its needs are mapped.
    fn prepare(&mut self) {}
}

/// A wait for a device, with an end.
pub struct Wait<'a> {
    watch: &'a mut dyn FnMut() -> bool,
    deadline_ns: u64,
}

impl<'a> Wait<'a> {
    /// Until `watch` is true, at most `limit_ns`.
    pub fn new(limit_ns: u64, watch: &'a mut dyn FnMut() -> bool) -> Self {
        Self { watch, deadline_ns: PLATFORM.now_ns() + limit_ns }
    }

    /// Waits for `done`. False if something else ended the wait.
    fn until(&mut self, mut done: impl FnMut() -> bool) -> bool {
        loop {
            if done() {
                return true;
            }
            if (self.watch)() || PLATFORM.now_ns() > self.deadline_ns {
                return done();
            }
            core::hint::spin_loop();
        }
    }
}

/// Waits for a device that nothing can refuse what it is asked for.
fn wait(done: impl FnMut() -> bool) -> bool {
    Wait::new(LIMIT_NS, &mut || false).until(done)
}

/// Memory of an engine: pages, and where the device finds them.
struct Yard<const PAGES: usize> {
    buffer: Buffer,
    needs: [Need; PAGES],
}

impl<const PAGES: usize> Yard<PAGES> {
    /// Takes memory; `rights` says what the device does in each page.
    fn new(number: u64, rights: [Prot; PAGES]) -> Self {
        let buffer = Buffer::new(&PLATFORM, PAGES).expect("there is memory for DMA");
        let needs = core::array::from_fn(|page| {
            let offset = (page * PAGE_SIZE) as u64;
            Need {
                iova: NEEDS + (number << 20) + offset,
                phys: PhysAddr(buffer.phys().0 + offset),
                pages: 1,
                prot: rights[page],
            }
        });
        Self { buffer, needs }
    }

    /// Where the device finds a page.
    fn iova(&self, page: usize) -> u64 {
        self.needs[page].iova
    }

    fn put(&self, page: usize, offset: usize, bytes: &[u8]) {
        for (at, byte) in bytes.iter().enumerate() {
            self.buffer.write(page * PAGE_SIZE + offset + at, *byte);
        }
    }

    fn byte(&self, page: usize, offset: usize) -> u8 {
        self.buffer.read(page * PAGE_SIZE + offset)
    }

    fn u16(&self, page: usize, offset: usize) -> u16 {
        u16::from_le_bytes([self.byte(page, offset), self.byte(page, offset + 1)])
    }

    fn clear(&self, page: usize) {
        (0..PAGE_SIZE).for_each(|at| self.buffer.write(page * PAGE_SIZE + at, 0));
    }
}
