//! NVMe: one queue pair for orders to the controller, one for transfers; each order is waited for.
//! NVM Express 1.4, sections 3.1 (registers), 5 (orders) and 6 (transfers).

use core::sync::atomic::{Ordering, fence};

use iommu::fault::Access;
use iommu::prot::Prot;
use iommu::virtio::transport::MmioRegion;
use iommu_cases::disk::{Content, SCRATCH, SECTOR};
use iommu_cases::matrix::Need;

use super::{Engine, LIMIT_NS, Wait, Yard, wait};

const CONFIGURATION: usize = 0x14;
const STATUS: usize = 0x1c;
const ADMIN_SIZES: usize = 0x24;
const ADMIN_SUBMISSION: usize = 0x28;
const ADMIN_COMPLETION: usize = 0x30;
const DOORBELLS: usize = 0x1000;

/// Enabled; entries of 64 bytes to the device and of 16 from it; pages of 4 KiB.
const ENABLED: u32 = 1 | 6 << 16 | 4 << 20;
const STATUS_READY: u32 = 1;
const STATUS_FATAL: u32 = 2;

const CREATE_SUBMISSION: u32 = 0x01;
const CREATE_COMPLETION: u32 = 0x05;
const IDENTIFY: u32 = 0x06;
const WRITE: u32 = 0x01;
const READ: u32 = 0x02;
const CONTIGUOUS: u32 = 1;

/// Entries of a queue.
const SIZE: u16 = 8;
/// The pages of the two queue pairs, submission before completion, and where things are shown.
const LANDING: usize = 4;
/// The sector that writes to memory are of: one that nobody changes.
const SOURCE_SECTOR: u64 = 7;
const PAGE: u64 = 0x1000;

/// One controller with its first namespace.
pub struct NvmeEngine {
    registers: MmioRegion,
    yard: Yard<5>,
    queues: [Queue; 2],
    state: State,
}

/// What the controller is ready for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be reset.
    Unknown,
    /// Transfers.
    Ready,
}

/// Where we are in a queue pair.
#[derive(Clone, Copy, Default)]
struct Queue {
    /// The next free entry.
    tail: u16,
    /// The next completion, and the phase bit that it comes with is the opposite of `wrapped`.
    head: u16,
    wrapped: bool,
}

/// An order: opcode, namespace, two addresses, and three words of its own.
struct Order {
    opcode: u32,
    namespace: u32,
    places: [u64; 2],
    words: [u32; 3],
}

impl NvmeEngine {
    /// Takes the controller.
    #[must_use]
    pub fn new(registers: MmioRegion, number: u64) -> Self {
        let rights = [Prot::READ, Prot::WRITE, Prot::READ, Prot::WRITE, Prot::WRITE];
        let yard = Yard::new(number, rights);
        Self { registers, yard, queues: [Queue::default(); 2], state: State::Unknown }
    }

    /// Makes the controller forget everything, and tells it where the first queue pair is. No DMA.
    fn restart(&mut self) {
        self.registers.write_u32(CONFIGURATION, 0);
        let ready = |registers: &MmioRegion| registers.read_u32(STATUS) & STATUS_READY != 0;
        assert!(wait(|| !ready(&self.registers)), "the controller stops");
        (0..LANDING).for_each(|page| self.yard.clear(page));
        self.queues = [Queue::default(); 2];
        let sizes = u32::from(SIZE - 1);
        self.registers.write_u32(ADMIN_SIZES, sizes << 16 | sizes);
        for (register, page) in [(ADMIN_SUBMISSION, 0), (ADMIN_COMPLETION, 1)] {
            let at = self.yard.iova(page);
            self.registers.write_u32(register, at as u32);
            self.registers.write_u32(register + 4, (at >> 32) as u32);
        }
        self.registers.write_u32(CONFIGURATION, ENABLED);
        assert!(wait(|| ready(&self.registers)), "the controller starts");
    }

    /// One order through queue pair `pair`, to its end or to that of the wait. True if it went well.
    fn order(&mut self, pair: usize, order: &Order, wait: &mut Wait<'_>) -> bool {
        let Self { registers, yard, queues, .. } = self;
        let queue = &mut queues[pair];
        let (submission, completion) = (pair * 2, pair * 2 + 1);
        let entry = usize::from(queue.tail) * 64;
        yard.put(submission, entry, &[0; 64]);
        yard.put(submission, entry, &order.opcode.to_le_bytes());
        yard.put(submission, entry + 4, &order.namespace.to_le_bytes());
        yard.put(submission, entry + 24, &order.places[0].to_le_bytes());
        yard.put(submission, entry + 32, &order.places[1].to_le_bytes());
        for (index, word) in order.words.iter().enumerate() {
            yard.put(submission, entry + 40 + index * 4, &word.to_le_bytes());
        }
        queue.tail = (queue.tail + 1) % SIZE;
        fence(Ordering::SeqCst); // the order is there before the device looks
        registers.write_u32(DOORBELLS + submission * 4, queue.tail.into());
        let status = usize::from(queue.head) * 16 + 14;
        let done = wait.until(|| {
            let phase = yard.u16(completion, status) & 1 == 1;
            phase != queue.wrapped || registers.read_u32(STATUS) & STATUS_FATAL != 0
        });
        fence(Ordering::SeqCst); // the phase is read before what it is about
        let answered = yard.u16(completion, status) & 1 == u16::from(!queue.wrapped);
        if !(done && answered) {
            self.state = State::Unknown;
            registers.write_u32(CONFIGURATION, 0); // whatever goes on ends here
            let stopped = super::wait(|| registers.read_u32(STATUS) & STATUS_READY == 0);
            assert!(stopped, "the controller stops");
            return false;
        }
        let went_well = yard.u16(completion, status) >> 1 == 0;
        queue.head = (queue.head + 1) % SIZE;
        queue.wrapped ^= queue.head == 0;
        registers.write_u32(DOORBELLS + completion * 4, queue.head.into());
        went_well
    }

    /// Has the second queue pair made, if it is not there.
    fn make_ready(&mut self, wait: &mut Wait<'_>) -> bool {
        if self.state == State::Ready {
            return true;
        }
        self.restart();
        let id_and_size = u32::from(SIZE - 1) << 16 | 1;
        let rows =
            [(CREATE_COMPLETION, 3, CONTIGUOUS), (CREATE_SUBMISSION, 2, 1 << 16 | CONTIGUOUS)];
        let made = rows.into_iter().all(|(opcode, page, flags)| {
            let places = [self.yard.iova(page), 0];
            let order = Order { opcode, namespace: 0, places, words: [id_and_size, flags, 0] };
            self.order(0, &order, wait)
        });
        if made {
            self.state = State::Ready;
        }
        made
    }

    fn transfer(
        &mut self,
        opcode: u32,
        sector: u64,
        at: u64,
        len: usize,
        wait: &mut Wait<'_>,
    ) -> bool {
        let sectors = len.div_ceil(SECTOR) as u32;
        let words = [sector as u32, (sector >> 32) as u32, sectors - 1];
        self.make_ready(wait)
            && self.order(1, &Order { opcode, namespace: 1, places: places(at, len), words }, wait)
    }

    /// Lets the controller write the 4096 bytes that say what it is to bus address `at`.
    pub fn identify(&mut self, at: u64, wait: &mut Wait<'_>) -> bool {
        let words = [1, 0, 0]; // the controller, not a namespace
        let order =
            Order { opcode: IDENTIFY, namespace: 0, places: places(at, PAGE as usize), words };
        self.make_ready(wait) && self.order(0, &order, wait)
    }

    /// Transfers sectors between the disk and bus address `at`: at most two pages.
    pub fn sectors(
        &mut self,
        access: Access,
        sector: u64,
        at: u64,
        len: usize,
        wait: &mut Wait<'_>,
    ) -> bool {
        let opcode = if access == Access::WRITE { READ } else { WRITE };
        self.transfer(opcode, sector, at, len, wait)
    }
}

/// Where the bytes are: the device takes the first page from the first address on, and the second
/// page as a whole.
fn places(at: u64, len: usize) -> [u64; 2] {
    let second = (at | (PAGE - 1)) + 1;
    [at, if at + len as u64 > second { second } else { 0 }]
}

impl Engine for NvmeEngine {
    fn needs(&self) -> &[Need] {
        &self.yard.needs
    }

    /// The order, in the queue that comes next.
    fn first(&self, _: u64) -> u64 {
        match self.state {
            State::Ready => self.yard.iova(2) + u64::from(self.queues[1].tail) * 64,
            State::Unknown => self.yard.iova(0),
        }
    }

    fn run(&mut self, access: Access, iova: u64, len: usize, wait: &mut Wait<'_>) -> bool {
        let sector = if access == Access::WRITE { SOURCE_SECTOR } else { SCRATCH.start };
        self.sectors(access, sector, iova, len, wait)
    }

    fn written(&self, at: usize) -> Option<u8> {
        Some(Content::Nvme.byte(SOURCE_SECTOR, at))
    }

    fn show(&mut self, len: usize) -> bool {
        let mut watch = || false;
        let mut wait = Wait::new(LIMIT_NS, &mut watch);
        let at = self.yard.iova(LANDING);
        self.sectors(Access::WRITE, SCRATCH.start, at, len, &mut wait)
    }

    fn shown(&self, at: usize) -> u8 {
        self.yard.byte(LANDING, at)
    }
}
