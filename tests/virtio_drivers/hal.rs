//! `Behind`: a `Hal` for the driver of one device.
#![expect(unsafe_code, reason = "calls a `Hal`, and lets a device read and write memory")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use iommu::adapters::virtio_drivers::{Behind, HalPlatform, Identity, InUse};
use iommu::addr::Iova;
use iommu::device::DeviceId;
use iommu::dma::{DmaDevice, DmaOptions};
use iommu::driver::EndpointId;
use iommu::group::{Group, OwnerId};
use iommu::platform::Platform;
use iommu::pool::{Pool, Shared};
use iommu::registry::{DeviceInfo, Registry};
use iommu::sim::{Refusal, Sim, SimPlatform};
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

const PAGE: usize = 0x1000;

iommu::virtio_devices! {
    Exact;
    Rings;
    Empty;
    Short;
    Refused;
    Left;
    Pair[2];
}

/// The program's memory, at its own addresses.
struct Host;

static PAGES: AtomicUsize = AtomicUsize::new(0);
static NO_MEMORY: AtomicBool = AtomicBool::new(false);
/// Tests that count pages of the host, one at a time.
static COUNTING: Mutex<()> = Mutex::new(());

fn layout(pages: usize) -> Layout {
    Layout::from_size_align(pages * PAGE, PAGE).unwrap()
}

// SAFETY: the global allocator hands memory out once, aligned and zeroed.
unsafe impl Hal for Host {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        if NO_MEMORY.load(Ordering::Relaxed) {
            return (0, NonNull::dangling());
        }
        // SAFETY: the tests allocate at least a page.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout(pages)) }).unwrap();
        PAGES.fetch_add(pages, Ordering::Relaxed);
        (memory.as_ptr().expose_provenance() as u64, memory)
    }

    unsafe fn dma_dealloc(at: PhysAddr, memory: NonNull<u8>, pages: usize) -> i32 {
        assert_eq!(at, memory.as_ptr().addr() as u64, "what `dma_alloc` returned");
        PAGES.fetch_sub(pages, Ordering::Relaxed);
        // SAFETY: `dma_alloc` took it with this layout.
        unsafe { dealloc(memory.as_ptr(), layout(pages)) };
        0
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        unreachable!("no test has registers")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr().expose_provenance() as u64
    }

    unsafe fn unshare(at: PhysAddr, buffer: NonNull<[u8]>, _: BufferDirection) {
        assert_eq!(at, buffer.cast::<u8>().as_ptr().addr() as u64, "what `share` returned");
    }
}

struct World {
    pool: &'static Pool,
    machine: &'static SimPlatform,
    registry: Registry,
    sim: Sim,
    instance: Shared<iommu::instance::Instance>,
}

impl World {
    fn new() -> Self {
        let pool: &'static Pool = Box::leak(Box::new(Pool::heap()));
        let machine: &'static SimPlatform = Box::leak(Box::default());
        let registry = Registry::new(pool);
        let sim = Sim::new();
        let instance = registry.add_instance(sim.driver()).unwrap();
        Self { pool, machine, registry, sim, instance }
    }

    /// Puts the handle of a new device with this endpoint into the slot of `I`.
    fn plug<I>(&self, endpoint: u32) -> Shared<Group>
    where
        I: Identity<Platform = &'static dyn Platform, Lock = iommu::sync::SpinLock>,
    {
        let endpoints = [EndpointId(endpoint)];
        let info = DeviceInfo { id: DeviceId(endpoint.into()), endpoints: &endpoints, with: None };
        let group = self.registry.add_device(&self.instance, &info).unwrap();
        let machine: &'static dyn Platform = self.machine;
        let dma = DmaDevice::new(&group, machine, &DmaOptions::default()).unwrap();
        I::slot().fill(dma).unwrap();
        group
    }

    fn read(&self, endpoint: u32, at: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        // SAFETY: the tests map memory of theirs only, and are one thread each.
        let read = unsafe { self.sim.read(EndpointId(endpoint), Iova(at), &mut bytes) };
        read.ok().map(|()| bytes)
    }

    fn write(&self, endpoint: u32, at: u64, bytes: &[u8]) -> bool {
        // SAFETY: as above.
        unsafe { self.sim.write(EndpointId(endpoint), Iova(at), bytes) }.is_ok()
    }
}

fn share<I: Identity>(buffer: &mut [u8], direction: BufferDirection) -> u64 {
    // SAFETY: the buffer of a test, which it leaves alone until `unshare`.
    unsafe { Behind::<Host, I>::share(NonNull::from(buffer), direction) }
}

fn unshare<I: Identity>(at: u64, buffer: &mut [u8], direction: BufferDirection) {
    // SAFETY: it was shared with this address.
    unsafe { Behind::<Host, I>::unshare(at, NonNull::from(buffer), direction) }
}

/// A device reaches the bytes of a buffer, in the direction that was said, and neither its neighbours nor
/// the buffer afterwards.
#[test]
fn a_device_reaches_what_is_shared_and_no_more() {
    let world = World::new();
    let group = world.plug::<Exact>(8);
    let mut memory = [7; 300];
    let buffer = &mut memory[100..200];
    let at = share::<Exact>(buffer, BufferDirection::DriverToDevice);
    assert_eq!(world.read(8, at, 100), Some(vec![7; 100]));
    assert!(!world.write(8, at, &[1]), "it was for reading");
    let around = world.read(8, at & !0xfff, PAGE).unwrap();
    assert_eq!(around.iter().filter(|byte| **byte != 0).count(), 100, "the neighbours are zeros");
    unshare::<Exact>(at, buffer, BufferDirection::DriverToDevice);
    assert_eq!(world.read(8, at, 1), None);

    let at = share::<Exact>(buffer, BufferDirection::DeviceToDriver);
    assert_eq!(world.read(8, at, 1), None, "it was for writing");
    assert!(world.write(8, at, &[9; 100]));
    assert!(world.write(8, (at & !0xfff) + 100 - 1, &[9]), "beside it, in a page of its own");
    assert_eq!(buffer[0], 7, "the CPU sees it when it is taken back");
    unshare::<Exact>(at, buffer, BufferDirection::DeviceToDriver);
    assert!(!world.write(8, at, &[1]));
    assert_eq!(memory[100..200], [9; 100]);
    assert!(memory[..100].iter().chain(&memory[200..]).all(|byte| *byte == 7));
    Exact::slot().empty().unwrap();
    assert_eq!((world.machine.pages(), Exact::slot().refused()), (0, 0));
    drop(Group::claim(&group, OwnerId(1)).unwrap());
}

/// Rings are mapped both ways: devices read what they are to write only.
#[test]
fn allocations_are_mapped_both_ways_until_they_are_freed() {
    let counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.plug::<Rings>(8);
    let (at, memory) = Behind::<Host, Rings>::dma_alloc(2, BufferDirection::DeviceToDriver);
    assert_eq!(Rings::slot().allocations(), 1);
    assert_ne!(at, memory.as_ptr().addr() as u64, "it is an address for the device");
    assert!(world.write(8, at + PAGE as u64, &[5]));
    assert_eq!(world.read(8, at + PAGE as u64, 1), Some(vec![5]));
    // SAFETY: the second page.
    let second = unsafe { memory.add(PAGE) };
    // SAFETY: as above.
    assert_eq!(unsafe { second.read_volatile() }, 5);
    assert_eq!(world.read(8, at + 2 * PAGE as u64, 1), None);
    assert_eq!(Rings::slot().empty(), Err(InUse(1)), "the driver is there");
    // SAFETY: `dma_alloc` returned these.
    assert_eq!(unsafe { Behind::<Host, Rings>::dma_dealloc(at, memory, 2) }, 0);
    assert_eq!(world.read(8, at, 1), None);
    assert_eq!((PAGES.load(Ordering::Relaxed), Rings::slot().allocations()), (0, 0));
    Rings::slot().empty().unwrap();
    drop(counting);
}

/// Without a device in its slot a driver gets nothing.
#[test]
fn an_empty_slot_gives_nothing() {
    let counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut buffer = [0; 16];
    assert_eq!(share::<Empty>(&mut buffer, BufferDirection::DriverToDevice), 0);
    unshare::<Empty>(0, &mut buffer, BufferDirection::DriverToDevice);
    let (at, memory) = Behind::<Host, Empty>::dma_alloc(1, BufferDirection::Both);
    assert_eq!((at, PAGES.load(Ordering::Relaxed)), (0, 0));
    assert_eq!(Empty::slot().refused(), 2);
    // SAFETY: nothing is done for an address that was not handed out.
    assert_eq!(unsafe { Behind::<Host, Empty>::dma_dealloc(0x1000, memory, 1) }, -22);
    drop(counting);
}

/// Each thing that can run out runs out once: the address is 0, which a device does not reach, and
/// nothing is left behind.
#[test]
fn what_can_not_be_mapped_is_at_an_address_that_is_refused() {
    let counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.plug::<Short>(8);
    let mut buffer = [7; 64];
    // It stays: no address is spare, so each of the next ones asks for a node.
    let (first, page) = Behind::<Host, Short>::dma_alloc(1, BufferDirection::Both);
    let usage = world.pool.usage();
    let slot = Short::slot();
    world.machine.refuse_nth(0); // the page to bounce through
    assert_eq!(share::<Short>(&mut buffer, BufferDirection::Both), 0);
    assert_eq!(world.machine.refuse_none(), 1);
    NO_MEMORY.store(true, Ordering::Relaxed);
    assert_eq!(Behind::<Host, Short>::dma_alloc(1, BufferDirection::Both).0, 0);
    NO_MEMORY.store(false, Ordering::Relaxed);
    assert_eq!(slot.refused(), 1, "the host refused the last one itself");
    for n in 0.. {
        world.pool.refuse_nth(n, false);
        let shared = share::<Short>(&mut buffer, BufferDirection::Both);
        let failed = world.pool.refuse_none() > 0;
        assert_eq!(shared == 0, failed, "node {n}");
        if !failed {
            assert!(n > 0, "the sweep met a failure");
            unshare::<Short>(shared, &mut buffer, BufferDirection::Both);
            break;
        }
        assert_eq!(world.pool.usage(), usage, "node {n}");
        let before = slot.refused();
        world.pool.refuse_nth(n, false);
        let (at, _) = Behind::<Host, Short>::dma_alloc(1, BufferDirection::Both);
        if world.pool.refuse_none() > 0 {
            assert_eq!((at, slot.refused()), (0, before + 1), "node {n}");
        } else {
            let memory = NonNull::new(std::ptr::with_exposed_provenance_mut(
                world.sim.reach(EndpointId(8), Iova(at), iommu::fault::Access::READ).unwrap().0
                    as usize,
            ));
            // SAFETY: `dma_alloc` returned the first; the memory is at its own address.
            unsafe { Behind::<Host, Short>::dma_dealloc(at, memory.unwrap(), 1) };
        }
    }
    assert_eq!(world.read(8, 0, 1), None, "nothing is ever mapped at address 0");
    // SAFETY: `dma_alloc` returned both.
    unsafe { Behind::<Host, Short>::dma_dealloc(first, page, 1) };
    assert_eq!((PAGES.load(Ordering::Relaxed), slot.allocations()), (0, 0));
    slot.empty().unwrap();
    assert_eq!(world.machine.pages(), 0, "the handle kept a page to bounce through");
    drop(counting);
}

/// The unit refuses: a map is refused, an unmap leaks the memory, because the device may still reach it.
#[test]
fn a_unit_that_refuses_gets_no_memory_back() {
    let counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new();
    world.plug::<Refused>(8);
    let mut buffer = [7; 64];
    world.sim.refuse(0, Refusal::ONCE);
    assert_eq!(share::<Refused>(&mut buffer, BufferDirection::Both), 0);
    assert_eq!(world.sim.refuse_none(), 1);
    let (at, memory) = Behind::<Host, Refused>::dma_alloc(1, BufferDirection::Both);
    world.sim.refuse(0, Refusal::FOREVER);
    // SAFETY: `dma_alloc` returned these.
    assert_eq!(unsafe { Behind::<Host, Refused>::dma_dealloc(at, memory, 1) }, 0);
    assert_eq!(PAGES.swap(0, Ordering::Relaxed), 1, "it was not given back");
    assert_eq!(Refused::slot().allocations(), 0);
    // A map that is not answered: the device may have the page, so nobody else gets it.
    world.sim.refuse_none();
    world.sim.refuse(0, Refusal::SILENCE);
    let before = Refused::slot().refused();
    assert_eq!(Behind::<Host, Refused>::dma_alloc(1, BufferDirection::Both).0, 0);
    assert_eq!(PAGES.swap(0, Ordering::Relaxed), 1, "it was not given back");
    assert_eq!((Refused::slot().allocations(), Refused::slot().refused()), (0, before + 1));
    drop(counting);
}

/// Two devices of one kind, each with what was shared for it.
#[test]
fn devices_are_apart() {
    let world = World::new();
    world.plug::<Pair<0>>(8);
    world.plug::<Pair<1>>(16);
    let (mut one, mut two) = (vec![1; 100], vec![2; 100]);
    let at = share::<Pair<0>>(&mut one, BufferDirection::DriverToDevice);
    let there = share::<Pair<1>>(&mut two, BufferDirection::DriverToDevice);
    assert_eq!(at & !0xfff, there & !0xfff, "each has addresses of its own");
    assert_eq!(world.read(8, at, 100), Some(vec![1; 100]));
    assert_eq!(world.read(16, there, 100), Some(vec![2; 100]));
    unshare::<Pair<0>>(at, &mut one, BufferDirection::DriverToDevice);
    assert_eq!(world.read(8, at, 1), None);
    assert_eq!(world.read(16, there, 100), Some(vec![2; 100]));
    unshare::<Pair<1>>(there, &mut two, BufferDirection::DriverToDevice);
    Pair::<0>::slot().empty().unwrap();
    Pair::<1>::slot().empty().unwrap();
}

/// A driver that is dropped forgets what it shared; emptying the slot ends it.
#[test]
fn emptying_a_slot_unmaps_what_was_forgotten() {
    let world = World::new();
    let group = world.plug::<Left>(8);
    let occupied = Left::slot().fill(
        DmaDevice::new(&group, world.machine as &dyn Platform, &DmaOptions::default()).unwrap(),
    );
    drop(occupied.expect_err("there is one").0);
    let mut buffer = [7; 64];
    let at = share::<Left>(&mut buffer, BufferDirection::Both);
    assert!(world.read(8, at, 64).is_some());
    Left::slot().empty().unwrap();
    assert_eq!(world.read(8, at, 1), None);
    assert_eq!(world.machine.pages(), 0);
    drop(Group::claim(&group, OwnerId(1)).unwrap());
}

/// A platform made of a `Hal`: its memory, and where buffers are.
#[test]
fn a_hal_is_a_platform() {
    let counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let platform = HalPlatform::<Host>::new(|| 42);
    assert_eq!(platform.now_ns(), 42);
    let memory = platform.alloc_dma(std::num::NonZeroUsize::new(3).unwrap()).unwrap();
    assert_eq!(memory.device.0, memory.cpu.as_ptr().addr() as u64);
    assert_eq!((memory.pages.get(), PAGES.load(Ordering::Relaxed)), (3, 3));
    assert_eq!(platform.phys_of(memory.cpu), Some(memory.device));
    // SAFETY: it came from this platform.
    unsafe { platform.free_dma(memory) };
    assert_eq!(PAGES.load(Ordering::Relaxed), 0);
    NO_MEMORY.store(true, Ordering::Relaxed);
    assert!(platform.alloc_dma(std::num::NonZeroUsize::MIN).is_err());
    NO_MEMORY.store(false, Ordering::Relaxed);
    drop(counting);
}
