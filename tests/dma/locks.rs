//! Which locks are held when the platform is called: none (docs/locking.md).
#![expect(unsafe_code, reason = "a raw lock that counts, and a platform that looks at the count")]

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use iommu::addr::PhysAddr;
use iommu::device::DeviceId;
use iommu::dma::{Direction, DmaDevice};
use iommu::driver::EndpointId;
use iommu::error::OutOfMemory;
use iommu::platform::{DmaPages, Platform};
use iommu::pool::{Pool, Usage};
use iommu::registry::{DeviceInfo, Registry};
use iommu::sim::{Sim, SimPlatform};
use iommu::sync::SpinLock;
use lock_api::RawMutex;

use crate::fixture::{PAGE, aligned, deferred};

thread_local! {
    /// How many locks this thread holds.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// The crate's own lock, counted.
struct Counted(SpinLock);

// SAFETY: every call goes to a lock that keeps the promises.
unsafe impl RawMutex for Counted {
    const INIT: Self = Self(SpinLock::INIT);
    type GuardMarker = <SpinLock as RawMutex>::GuardMarker;

    fn lock(&self) {
        RawMutex::lock(&self.0);
        HELD.set(HELD.get() + 1);
    }

    fn try_lock(&self) -> bool {
        let taken = RawMutex::try_lock(&self.0);
        HELD.set(HELD.get() + usize::from(taken));
        taken
    }

    unsafe fn unlock(&self) {
        HELD.set(HELD.get() - 1);
        // SAFETY: the caller's promise.
        unsafe { RawMutex::unlock(&self.0) };
    }
}

/// A machine that may sleep in its allocator.
#[derive(Default)]
struct Sleepy {
    machine: SimPlatform,
    calls: AtomicUsize,
}

impl Sleepy {
    fn called(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        assert_eq!(HELD.get(), 0, "a lock is held over a call of the platform");
    }
}

// SAFETY: every call goes to a platform that keeps the promises.
unsafe impl Platform for Sleepy {
    fn alloc_dma(&self, pages: NonZeroUsize) -> Result<DmaPages, OutOfMemory> {
        self.called();
        self.machine.alloc_dma(pages)
    }

    unsafe fn free_dma(&self, memory: DmaPages) {
        self.called();
        // SAFETY: the caller's promise.
        unsafe { self.machine.free_dma(memory) };
    }

    fn now_ns(&self) -> u64 {
        self.machine.now_ns()
    }

    fn phys_of(&self, cpu: NonNull<u8>) -> Option<PhysAddr> {
        self.called();
        self.machine.phys_of(cpu)
    }
}

/// Everything that takes or gives pages: bounced maps, coherent memory, a flush of more pages than a
/// handle keeps, the end of the handle.
#[test]
fn the_platform_is_called_with_no_lock_held() {
    let pool: &'static Pool = Box::leak(Box::new(Pool::heap()));
    let machine: &'static Sleepy = Box::leak(Box::default());
    let registry = Registry::<Counted>::with_lock(pool);
    let sim = Sim::new();
    let instance = registry.add_instance(sim.driver()).unwrap();
    let endpoints = [EndpointId(8)];
    let info = DeviceInfo { id: DeviceId(8), endpoints: &endpoints, with: None };
    let group = registry.add_device(&instance, &info).unwrap();
    let dma = DmaDevice::new(&group, machine, &deferred(1000)).unwrap();

    let mapped: Vec<_> = (0..40)
        .map(|n| {
            let buffer: &'static mut [u8] = &mut aligned(3 * PAGE)[1..1 + n * 100 + 1];
            dma.map(buffer, Direction::FromDevice).unwrap()
        })
        .collect();
    let waiting: Vec<_> = mapped.into_iter().map(|one| one.defer().unwrap()).collect();
    let freed = machine.machine.pages();
    dma.flush().unwrap();
    assert!(machine.machine.pages() < freed, "the flush gave pages back");
    drop(waiting);
    drop(dma.alloc_coherent(2 * PAGE).unwrap());
    drop(dma);
    assert_eq!((machine.machine.pages(), HELD.get()), (0, 0));
    let calls = machine.calls.load(Ordering::Relaxed);
    assert!(calls >= 82, "40 bounced buffers and the coherent memory, taken and given: {calls}");
    drop((group, instance, registry));
    assert_eq!(pool.usage(), Usage::default());
}
