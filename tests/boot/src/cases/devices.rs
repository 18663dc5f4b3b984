//! Ready-made drivers and their devices behind the IOMMU: the drivers of `virtio-drivers`, unchanged,
//! and a small one for NVMe.
//!
//! In each refused case the same driver asks for the same transfer, and only the buffer is not mapped:
//! the `Hal` under it ([`Forgetful`]) takes it out of the domain as soon as it is shared. The record names the device, the
//! address that the driver was given, and the memory on both sides is as it was.
#![expect(unsafe_code, reason = "requests that are not waited for hold on to borrowed buffers")]

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use iommu::adapters::virtio_drivers::{Behind, Identity, Slot, Translated};
use iommu::addr::{Iova, PhysAddr};
use iommu::dma::{DmaDevice, DmaOptions};
use iommu::fault::Access;
use iommu::platform::Platform;
use iommu::prot::Prot;
use iommu_cases::disk::{Content, KEPT, REPLACED, SCRATCH, SECTOR};
use iommu_cases::matrix::Need;
use iommu_cases::steps;
use iommu_cases::{Bench, Outcome, Who};
use iommu_runtime::dma::Buffer;
use virtio_drivers::device::blk::{BlkReq, BlkResp, VirtIOBlk};
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::{BufferDirection, Hal, PhysAddr as Address};

use crate::engines::{Engine, LIMIT_NS, NvmeEngine, Wait};
use crate::hal::{Ram, transport};
use crate::harness::State;
use crate::machine::{OtherDevice, PLATFORM, ids};
use crate::{probe, tally};

iommu::virtio_devices! {
    /// The disk.
    Disk;
    /// The source of random numbers.
    Random;
    /// The two networks.
    Network[2];
}

/// A `Hal` that forgets to keep what it shared, if it has the length that [`FORGET`] says.
struct Forgetful<I>(PhantomData<I>);

/// Buffers of this length are unmapped at once; 0: none.
static FORGET: AtomicU64 = AtomicU64::new(0);
/// Where the last of them was.
static FORGOTTEN: AtomicU64 = AtomicU64::new(0);

// SAFETY: all is done by `Behind`; what is unmapped early is reached by no device, which harms no
// memory.
unsafe impl<I: Identity> Hal for Forgetful<I> {
    fn dma_alloc(pages: usize, direction: BufferDirection) -> (Address, NonNull<u8>) {
        Behind::<Ram, I>::dma_alloc(pages, direction)
    }

    unsafe fn dma_dealloc(at: Address, cpu: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: the caller's promise.
        unsafe { Behind::<Ram, I>::dma_dealloc(at, cpu, pages) }
    }

    unsafe fn mmio_phys_to_virt(at: Address, size: usize) -> NonNull<u8> {
        // SAFETY: the caller's promise.
        unsafe { Behind::<Ram, I>::mmio_phys_to_virt(at, size) }
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> Address {
        // SAFETY: the caller's promise.
        let at = unsafe { Behind::<Ram, I>::share(buffer, direction) };
        if buffer.len() as u64 == FORGET.load(Ordering::Relaxed) {
            FORGOTTEN.store(at, Ordering::Relaxed);
            // Behind the back of the adapter, so that its addresses are not used again meanwhile.
            let first = at & !(steps::PAGE - 1);
            let pages = (at + buffer.len() as u64 - first).div_ceil(steps::PAGE);
            let device = I::slot().device().expect("the slot is filled");
            let unmapped = device.used().domain().unmap(steps::range(first, pages));
            assert_eq!(unmapped, Ok(pages * steps::PAGE));
        }
        at
    }

    unsafe fn unshare(at: Address, buffer: NonNull<[u8]>, direction: BufferDirection) {
        // SAFETY: the caller's promise; of what was unmapped before nothing is left to unmap.
        unsafe { Behind::<Ram, I>::unshare(at, buffer, direction) };
    }
}

type Blk = VirtIOBlk<Forgetful<Disk>, Translated<PciTransport>>;
type Rng = VirtIORng<Forgetful<Random>, Translated<PciTransport>>;
type Net<const N: usize> = VirtIONetRaw<Forgetful<Network<N>>, Translated<PciTransport>, 4>;

/// A device, with its slot filled; emptied when this goes, after the driver.
struct Place<'a> {
    state: &'a State,
    device: &'a OtherDevice,
    slot: &'static Slot,
}

impl<'a> Place<'a> {
    fn new<I>(state: &'a State, ids: (u16, u16), number: usize) -> Self
    where
        I: Identity<Platform = &'static dyn Platform, Lock = iommu::sync::SpinLock>,
    {
        let mut found = state.world.others.iter().filter(|other| other.ids() == ids);
        let device = found.nth(number).expect("the machine has the device");
        let group = state.world.registry.group_of(device.id()).expect("it is in a group");
        let options = DmaOptions::default();
        let dma = DmaDevice::new(&group, &PLATFORM as &dyn Platform, &options);
        I::slot().fill(dma.expect("the group is free")).expect("the slot is empty");
        Self { state, device, slot: I::slot() }
    }

    fn transport(&self) -> Translated<PciTransport> {
        let transport = transport(&self.state.machine, &self.device.function);
        Translated::new(transport).expect("the device goes through the IOMMU")
    }

    /// The refusal of the buffer that was forgotten: the record of this device, at its address.
    #[track_caller]
    fn refused(&self) {
        let unit = &self.state.world.units[self.device.unit];
        let outcome = tally::judged(probe::refusal(unit, self.device.endpoint));
        let at = FORGOTTEN.load(Ordering::Relaxed);
        assert!(outcome.is_refused_at(at), "at {at:#x}: {outcome:?}");
    }

    /// The driver is gone and its device was reset: takes the other records of what was refused, one
    /// per 4 bytes, which may have come after the first was looked at.
    #[track_caller]
    fn settled(&self) {
        let unit = &self.state.world.units[self.device.unit];
        while let Some(record) = unit.next_fault() {
            assert_eq!(record.endpoint, self.device.endpoint, "another device was refused");
        }
    }

    /// No record: all that the devices did was allowed.
    #[track_caller]
    fn arrived(&self) {
        let fault = self.state.world.units[self.device.unit].next_fault();
        assert_eq!(fault, None, "what was allowed raised a fault");
        tally::arrived();
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        FORGET.store(0, Ordering::Relaxed);
        assert_eq!(self.slot.empty(), Ok(()), "the driver is gone");
    }
}

/// Waits for the device, at most as long as any may take.
#[track_caller]
fn wait(mut done: impl FnMut() -> bool) {
    let deadline = PLATFORM.now_ns() + LIMIT_NS;
    while !done() {
        assert!(PLATFORM.now_ns() < deadline, "the device does not answer");
        core::hint::spin_loop();
    }
}

/// Sectors at a time.
const BATCH: u64 = 16;
const BATCH_LEN: usize = BATCH as usize * SECTOR;

/// Memory that begins in the middle of a page, so that its ends are bounced.
struct Odd([u8; BATCH_LEN + 3]);

impl Odd {
    fn bytes(&mut self) -> &mut [u8] {
        &mut self.0[3..]
    }
}

fn fill(bytes: &mut [u8], first: u64, content: Content) {
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = content.byte(first + (at / SECTOR) as u64, at % SECTOR);
    }
}

fn holds(bytes: &[u8], first: u64, content: Content) -> bool {
    let mut bytes = bytes.iter().enumerate();
    bytes.all(|(at, byte)| *byte == content.byte(first + (at / SECTOR) as u64, at % SECTOR))
}

/// The whole part of the disk that nobody changes is what the host wrote.
pub fn virtio_blk_reads_what_the_host_wrote(state: &State) {
    let place = Place::new::<Disk>(state, ids::BLK, 0);
    let mut blk = Blk::new(place.transport()).expect("the disk starts");
    let mut memory = Odd([0xee; _]);
    for first in KEPT.step_by(BATCH as usize) {
        blk.read_blocks(first as usize, memory.bytes()).expect("reads");
        assert!(holds(memory.bytes(), first, Content::Blk), "sector {first}");
        assert_eq!(memory.0[..3], [0xee; 3], "the bytes before the buffer");
        place.arrived();
    }
    drop(blk);
    assert_eq!(place.slot.refused(), 0);
}

/// What is written here the host compares after the run.
pub fn virtio_blk_writes_what_the_host_finds(state: &State) {
    let place = Place::new::<Disk>(state, ids::BLK, 0);
    let mut blk = Blk::new(place.transport()).expect("the disk starts");
    let mut memory = Odd([0; _]);
    for first in REPLACED.step_by(BATCH as usize) {
        fill(memory.bytes(), first, Content::NewBlk);
        blk.write_blocks(first as usize, memory.bytes()).expect("writes");
        place.arrived();
    }
    blk.flush().expect("flushes");
    memory.0.fill(0);
    blk.read_blocks(REPLACED.start as usize, memory.bytes()).expect("reads");
    assert!(holds(memory.bytes(), REPLACED.start, Content::NewBlk));
    drop(blk);
}

/// The same read, and its buffer is not mapped.
pub fn virtio_blk_reads_into_nothing(state: &State) {
    let place = Place::new::<Disk>(state, ids::BLK, 0);
    let mut blk = Blk::new(place.transport()).expect("the disk starts");
    let mut memory = [0xee; SECTOR];
    let (mut request, mut response) = (BlkReq::default(), BlkResp::default());
    FORGET.store(SECTOR as u64, Ordering::Relaxed);
    // SAFETY: all three live until the driver is gone, and are not touched before.
    let token =
        unsafe { blk.read_blocks_nb(3, &mut request, &mut memory, &mut response) }.expect("fits");
    place.refused();
    wait(|| blk.peek_used() == Some(token));
    drop(blk);
    place.settled();
    assert_eq!(memory, [0xee; SECTOR], "memory is untouched");
    FORGET.store(0, Ordering::Relaxed);
    let mut blk = Blk::new(place.transport()).expect("the disk starts again");
    blk.read_blocks(3, &mut memory).expect("reads");
    assert!(holds(&memory, 3, Content::Blk), "the control");
    place.arrived();
    drop(blk);
}

/// The same write, and what is to be written is not mapped: it is not on the disk afterwards.
pub fn virtio_blk_writes_from_nothing(state: &State) {
    const SECRET: u8 = 0xf5;
    let place = Place::new::<Disk>(state, ids::BLK, 0);
    let mut blk = Blk::new(place.transport()).expect("the disk starts");
    let sector = SCRATCH.start as usize;
    let memory = [SECRET; SECTOR];
    let (mut request, mut response) = (BlkReq::default(), BlkResp::default());
    FORGET.store(SECTOR as u64, Ordering::Relaxed);
    // SAFETY: all three live until the driver is gone, and are not touched before.
    let token =
        unsafe { blk.write_blocks_nb(sector, &mut request, &memory, &mut response) }.expect("fits");
    place.refused();
    wait(|| blk.peek_used() == Some(token));
    drop(blk);
    place.settled();
    FORGET.store(0, Ordering::Relaxed);
    let mut blk = Blk::new(place.transport()).expect("the disk starts again");
    let mut seen = [SECRET; SECTOR];
    blk.read_blocks(sector, &mut seen).expect("reads");
    assert!(!seen.contains(&SECRET), "what could not be read is not on the disk");
    blk.write_blocks(sector, &memory).expect("writes");
    blk.read_blocks(sector, &mut seen).expect("reads");
    assert_eq!(seen, memory, "the control");
    place.arrived();
    drop(blk);
}

/// Random numbers come, and they are not twice the same; into a buffer that is not mapped none come.
pub fn virtio_rng_gives_random_numbers(state: &State) {
    let place = Place::new::<Random>(state, ids::RNG, 0);
    let mut rng = Rng::new(place.transport()).expect("the device starts");
    let mut first = [0; 64];
    let mut second = [0; 64];
    for numbers in [&mut first, &mut second] {
        assert_eq!(rng.request_entropy(numbers), Ok(64));
        place.arrived();
    }
    assert_ne!(first, second);
    FORGET.store(64, Ordering::Relaxed);
    let before = second;
    assert_eq!(rng.request_entropy(&mut second), Ok(64), "the device says so");
    place.refused();
    place.settled(); // it has said that it is done
    assert_eq!(second, before, "memory is untouched");
    FORGET.store(0, Ordering::Relaxed);
    assert_eq!(rng.request_entropy(&mut second), Ok(64));
    assert_ne!(second, before, "the control");
    place.arrived();
    drop(rng);
}

const HEADER: usize = 12;
const FRAME: usize = HEADER + 200;
/// Long enough for any frame, and for no other buffer.
const RECEIVE: usize = 2048;

/// A frame to everyone, of a type that nobody else speaks.
fn frame(seed: u8) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[HEADER..HEADER + 6].fill(0xff);
    frame[HEADER + 6..HEADER + 12].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 1]);
    frame[HEADER + 12..HEADER + 14].copy_from_slice(&[0x88, 0xb5]);
    let text = frame[HEADER + 14..].iter_mut().enumerate();
    text.for_each(|(at, byte)| *byte = seed ^ (at as u8).wrapping_mul(29));
    frame
}

/// Sends, and returns when the device has taken it.
fn send<const N: usize>(net: &mut Net<N>, frame: &[u8]) {
    // SAFETY: the frame lives until it is complete.
    let token = unsafe { net.transmit_begin(frame) }.expect("fits");
    wait(|| net.poll_transmit() == Some(token));
    // SAFETY: the frame that was begun with.
    unsafe { net.transmit_complete(token, frame) }.expect("it was sent");
}

/// Receives what is sent meanwhile; returns its length without the header.
fn receive<const N: usize>(
    net: &mut Net<N>,
    into: &mut [u8; RECEIVE],
    meanwhile: impl FnOnce(),
) -> usize {
    // SAFETY: the buffer lives until it is complete, and is not touched before.
    let token = unsafe { net.receive_begin(into) }.expect("fits");
    meanwhile();
    wait(|| net.poll_receive() == Some(token));
    // SAFETY: the buffer that was begun with.
    let (header, packet) = unsafe { net.receive_complete(token, into) }.expect("it came");
    assert_eq!(header, HEADER);
    packet
}

/// A frame goes from one network to the other, and is whole.
pub fn virtio_net_sends_and_receives(state: &State) {
    let (near, far) = (
        Place::new::<Network<0>>(state, ids::NET, 0),
        Place::new::<Network<1>>(state, ids::NET, 1),
    );
    let mut from = Net::<0>::new(near.transport()).expect("the network starts");
    let mut to = Net::<1>::new(far.transport()).expect("the network starts");
    for seed in 1..4 {
        let sent = frame(seed);
        let mut came = [0; RECEIVE];
        let len = receive(&mut to, &mut came, || send(&mut from, &sent));
        assert_eq!(came[HEADER..HEADER + len], sent[HEADER..]);
        near.arrived();
        far.arrived();
    }
    drop((from, to));
}

/// The buffer for the frame is not mapped: it is not in memory.
pub fn virtio_net_receives_into_nothing(state: &State) {
    let (near, far) = (
        Place::new::<Network<0>>(state, ids::NET, 0),
        Place::new::<Network<1>>(state, ids::NET, 1),
    );
    let mut from = Net::<0>::new(near.transport()).expect("the network starts");
    let mut to = Net::<1>::new(far.transport()).expect("the network starts");
    FORGET.store(RECEIVE as u64, Ordering::Relaxed);
    let mut into = [0xee; RECEIVE];
    // SAFETY: the buffer lives until the driver is gone, and is not touched before.
    unsafe { to.receive_begin(&mut into) }.expect("fits");
    let sent = frame(9);
    send(&mut from, &sent);
    far.refused();
    drop(to);
    far.settled();
    assert_eq!(into, [0xee; RECEIVE], "memory is untouched");
    FORGET.store(0, Ordering::Relaxed);
    let mut to = Net::<1>::new(far.transport()).expect("the network starts again");
    let len = receive(&mut to, &mut into, || send(&mut from, &sent));
    assert_eq!(into[HEADER..HEADER + len], sent[HEADER..], "the control");
    far.arrived();
    drop((from, to));
}

/// The frame to send is not mapped: whatever goes out, it is not what is in memory.
pub fn virtio_net_sends_from_nothing(state: &State) {
    let (near, far) = (
        Place::new::<Network<0>>(state, ids::NET, 0),
        Place::new::<Network<1>>(state, ids::NET, 1),
    );
    let mut from = Net::<0>::new(near.transport()).expect("the network starts");
    let mut to = Net::<1>::new(far.transport()).expect("the network starts");
    let mut into = [0; RECEIVE];
    // SAFETY: the buffer lives until the driver is gone; it is read only after.
    unsafe { to.receive_begin(&mut into) }.expect("fits");
    FORGET.store(FRAME as u64, Ordering::Relaxed);
    let secret = frame(0x77);
    // SAFETY: the frame lives until the driver is gone.
    unsafe { from.transmit_begin(&secret) }.expect("fits");
    near.refused();
    drop((from, to));
    near.settled();
    let text = &secret[HEADER + 14..HEADER + 30];
    assert!(!into.windows(text.len()).any(|seen| seen == text), "it was not to be read");
    FORGET.store(0, Ordering::Relaxed);
    let mut from = Net::<0>::new(near.transport()).expect("the network starts again");
    let mut to = Net::<1>::new(far.transport()).expect("the network starts again");
    let len = receive(&mut to, &mut into, || send(&mut from, &secret));
    assert_eq!(into[HEADER..HEADER + len], secret[HEADER..], "the control");
    near.arrived();
    drop((from, to));
}

/// What a driver had in its device's hands when it was dropped is unmapped with the slot: the driver forgets it.
pub fn a_dropped_driver_leaves_nothing_mapped(state: &State) {
    let place = Place::new::<Network<1>>(state, ids::NET, 1);
    let group = state.world.registry.group_of(place.device.id()).expect("it is in a group");
    let mut net = Net::<1>::new(place.transport()).expect("the network starts");
    let mut into = [0; RECEIVE];
    // SAFETY: the buffer lives until the driver is gone.
    unsafe { net.receive_begin(&mut into) }.expect("fits");
    assert!(place.slot.empty().is_err(), "the driver is there");
    drop(net);
    drop(place);
    assert!(group.owner().is_none());
    let free = iommu::group::Group::claim(&group, iommu::group::OwnerId(1));
    assert!(free.is_ok(), "no driver uses the group, and nothing of it is mapped");
}

/// The NVMe, with all that it needs mapped.
fn nvme(
    state: &State,
    with: impl FnOnce(&mut NvmeEngine, &dyn Fn(u64, &Buffer, Prot), &dyn Fn(Outcome)),
) {
    let other = state.world.other(ids::NVME).expect("the machine has an NVMe");
    let registers = state.machine.bar(&other.function, 0).expect("it has registers");
    let mut engine = NvmeEngine::new(registers, 0);
    let domain = steps::domain_for(&state.world, Who::Nvme);
    for Need { iova, phys, pages, prot } in engine.needs() {
        domain.map(steps::range(*iova, *pages), *phys, *prot).expect("a new domain is empty");
    }
    let attached = steps::attach(&state.world, Who::Nvme, &domain);
    let map = |iova, buffer: &Buffer, prot| {
        let pages = buffer.len() as u64 / steps::PAGE;
        domain.map(steps::range(iova, pages), buffer.phys(), prot).expect("is free");
    };
    let expect = |expected: Outcome| {
        let unit = state.world.unit(Who::Nvme);
        let seen = match expected {
            Outcome::Arrived if unit.next_fault().is_none() => Outcome::Arrived,
            _ => probe::refusal(unit, other.endpoint),
        };
        assert_eq!(tally::judged(seen), expected);
    };
    with(&mut engine, &map, &expect);
    drop(attached);
}

fn refused_at(address: u64) -> Outcome {
    let (reason, access) = (iommu::fault::FaultReason::Mapping, Access::empty().bits());
    Outcome::Refused { address, reason, access }
}

/// What it says about itself is refused, and then is in memory; so are the sectors of its disk.
pub fn nvme_identifies_itself_and_reads(state: &State) {
    nvme(state, |engine, map, expect| {
        let memory = Buffer::new(&PLATFORM, 2).expect("there is memory for DMA");
        memory.fill(0xee);
        let mut patient = || false;
        engine.identify(steps::AT, &mut Wait::new(LIMIT_NS, &mut patient));
        expect(refused_at(steps::AT));
        assert!(memory.is_filled(0xee), "memory is untouched");
        map(steps::AT, &memory, Prot::WRITE);
        assert!(engine.identify(steps::AT, &mut Wait::new(LIMIT_NS, &mut patient)));
        expect(Outcome::Arrived);
        let text = |at: usize, expected: &[u8]| {
            (0..expected.len()).all(|n| memory.read(at + n) == expected[n])
        };
        assert!(text(0, &[0x36, 0x1b]), "the vendor");
        assert!(text(4, b"1   ") && text(24, b"QEMU NVMe Ctrl"), "serial number and model");
        for first in KEPT.step_by(16) {
            memory.fill(0xee);
            let len = 16 * SECTOR;
            let mut wait = Wait::new(LIMIT_NS, &mut patient);
            assert!(engine.sectors(Access::WRITE, first, steps::AT, len, &mut wait));
            let whole = (0..len).all(|at| {
                memory.read(at) == Content::Nvme.byte(first + (at / SECTOR) as u64, at % SECTOR)
            });
            assert!(whole, "sector {first}");
            expect(Outcome::Arrived);
        }
    });
}

/// What is written here the host compares after the run.
pub fn nvme_writes_what_the_host_finds(state: &State) {
    nvme(state, |engine, map, expect| {
        let memory = Buffer::new(&PLATFORM, 2).expect("there is memory for DMA");
        map(steps::AT, &memory, Prot::READ);
        let mut patient = || false;
        for first in REPLACED.step_by(16) {
            for at in 0..memory.len() {
                let sector = first + (at / SECTOR) as u64;
                memory.write(at, Content::NewNvme.byte(sector, at % SECTOR));
            }
            let mut wait = Wait::new(LIMIT_NS, &mut patient);
            let len = memory.len();
            assert!(engine.sectors(Access::READ, first, steps::AT, len, &mut wait));
            expect(Outcome::Arrived);
        }
    });
}

/// The queue of the IOMMU itself is not translated: with its addresses mapped elsewhere for a device, and
/// written to by the device, the unit does what it is asked.
pub fn the_queue_of_the_iommu_is_not_translated(state: &State) {
    let world = &state.world;
    let memory = steps::Memory::new(world, 1);
    let own = PLATFORM.first_in_use().expect("the units have queues").0 & !(steps::PAGE - 1);
    steps::refused(world, Who::One, own);
    let domain = steps::domain_for(world, Who::One);
    steps::map(&domain, own, &memory, Prot::RW);
    let attached = steps::attach(world, Who::One, &domain);
    for offset in (0..64).step_by(4) {
        steps::arrives(world, Who::One, own + offset, &memory, offset);
    }
    let beyond = steps::Memory::new(world, 1);
    let sent =
        steps::cost_of(world, Who::One, || steps::map(&domain, steps::AT, &beyond, Prot::RW));
    assert_eq!((sent.map, sent.notifies), (1, 1));
    steps::arrives(world, Who::One, steps::AT, &beyond, 0);
    steps::unmap(&domain, steps::AT, 1);
    steps::refused(world, Who::One, steps::AT);
    assert_eq!(domain.iova_to_phys(Iova(own)), Some(PhysAddr(memory.phys().0)));
    drop(attached);
}
