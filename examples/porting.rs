//! The code of `docs/porting.md`, whole, on a machine that is this program.
//!
//! Run it with `cargo run --example porting --features sim,virtio-drivers`. The device model of the crate's
//! own tests stands for the IOMMU; nothing else is made up. A test compares the guide with this file.
#![expect(
    unsafe_code,
    reason = "a platform promises facts about memory that the compiler can't see"
)]
#![expect(unused, reason = "each step of the guide is here; one kernel takes one way of several")]

use core::num::NonZeroUsize;
use core::ptr::NonNull;
use std::error::Error;

use iommu::addr::{Iova, PhysAddr};
use iommu::device::DeviceId;
use iommu::dma::{Direction, DmaDevice, DmaOptions};
use iommu::driver::EndpointId;
use iommu::drivers::virtio_iommu::{Options, VirtioIommu};
use iommu::error::OutOfMemory;
use iommu::group::Group;
use iommu::instance::Instance;
use iommu::pci::{PciConfig, check_no_dma, stop_dma};
use iommu::platform::{DmaPages, IdentityPlatform, Platform, check};
use iommu::pool::{Pool, Shared, StaticPool};
use iommu::registry::{DeviceInfo, Registry};
use iommu::selftest::{self, Broken, Probe};
use iommu::virtio::transport::Transport;
use iommu::virtio::transport::fake::{FakeConfig, FakeMachine};

/// Page frames: what a kernel has anyway.
mod frames {
    use core::num::NonZeroUsize;
    use core::ptr::NonNull;
    use std::alloc::{Layout, alloc_zeroed, dealloc};

    fn layout(pages: usize) -> Layout {
        Layout::from_size_align(pages * 4096, 4096).expect("a few pages")
    }

    pub fn alloc_zeroed_run(pages: usize) -> Option<NonNull<u8>> {
        // SAFETY: the layout has a size.
        NonNull::new(unsafe { alloc_zeroed(layout(pages)) })
    }

    pub fn alloc(pages: NonZeroUsize) -> Option<NonNull<u8>> {
        alloc_zeroed_run(pages.get())
    }

    /// # Safety
    ///
    /// `alloc` gave it, with this length.
    pub unsafe fn free(start: NonNull<u8>, pages: NonZeroUsize) {
        // SAFETY: the caller's promise.
        unsafe { dealloc(start.as_ptr(), layout(pages.get())) };
    }
}

/// A clock, which a kernel has anyway.
mod clock {
    use std::sync::OnceLock;
    use std::time::Instant;

    pub fn nanoseconds() -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

struct Machine;

// SAFETY: physical memory is mapped one to one, coherent, and the allocator hands a page out once.
unsafe impl Platform for Machine {
    fn alloc_dma(&self, pages: NonZeroUsize) -> Result<DmaPages, OutOfMemory> {
        let cpu = frames::alloc_zeroed_run(pages.get()).ok_or(OutOfMemory)?;
        Ok(DmaPages { cpu, device: PhysAddr(cpu.addr().get() as u64), pages })
    }
    unsafe fn free_dma(&self, memory: DmaPages) {
        // SAFETY: the caller's promise: `alloc_dma` gave it.
        unsafe { frames::free(memory.cpu, memory.pages) };
    }
    fn now_ns(&self) -> u64 {
        clock::nanoseconds()
    }
    fn phys_of(&self, cpu: NonNull<u8>) -> Option<PhysAddr> {
        Some(PhysAddr(cpu.addr().get() as u64)) // for `dma`; leave it out until you need it
    }
}

// SAFETY: memory is mapped one to one, cached and coherent; `frames` hands a page out once.
static PLATFORM: IdentityPlatform =
    unsafe { IdentityPlatform::new(frames::alloc, frames::free, clock::nanoseconds) };

static NODES: StaticPool<{ 64 << 10 }> = StaticPool::new();
static POOL: Pool = NODES.pool();

/// A PCI function: its address, and the id under which its DMA arrives at the IOMMU.
struct Function {
    address: u16,
    endpoint: u32,
}

fn bring_up<P: Platform + 'static, T: Transport + 'static>(
    machine: P,
    transport: T,
    registry: &Registry,
    functions: &[Function],
) -> Result<Shared<Instance>, Box<dyn Error>> {
    let driver = VirtioIommu::new(machine, transport, &POOL, Options::default())?;
    let instance = registry.add_instance(driver)?;
    for function in functions {
        let id = DeviceId(function.address.into());
        let endpoints = [EndpointId(function.endpoint)];
        registry.add_device(&instance, &DeviceInfo { id, endpoints: &endpoints, with: None })?;
    }
    Ok(instance)
}

fn quiet(functions: &[(u16, &dyn PciConfig)]) {
    for (function, config) in functions {
        if let Err(early) = check_no_dma(*function, *config) {
            println!("{early}"); // which one, and what may have come of it
            stop_dma(*config);
        }
    }
}

fn prove<P: Platform>(group: &Shared<Group>, machine: &P, probe: &mut dyn Probe) -> bool {
    let endpoint = EndpointId(0x10);
    let report = selftest::run(group, endpoint, machine, &POOL, probe);
    println!("{report}"); // each step, and what to do about one that failed
    report.has_held()
}

fn drive<P: Platform>(group: &Shared<Group>, machine: P, mask: u64) -> Result<(), Box<dyn Error>> {
    let buffer: Box<[u8]> = vec![0x55; 1500].into();
    let dma = DmaDevice::new(group, machine, &DmaOptions { mask, ..DmaOptions::default() })?;
    let mapped = dma.map(buffer, Direction::ToDevice)?; // the device's, at `mapped.iova()`
    let buffer = mapped.unmap()?; // yours again: the device is cut off
    assert_eq!(*buffer, [0x55; 1500]);
    Ok(())
}

/// Drivers of the crate `virtio-drivers`, behind the IOMMU.
#[cfg(feature = "virtio-drivers")]
mod adapter {
    use std::error::Error;

    use iommu::adapters::virtio_drivers::{Behind, HalPlatform, Identity, Translated};
    use iommu::dma::{DmaDevice, DmaOptions};
    use iommu::group::Group;
    use iommu::platform::Platform;
    use iommu::pool::Shared;
    use virtio_drivers::Hal;
    use virtio_drivers::device::blk::VirtIOBlk;
    use virtio_drivers::transport::Transport;

    iommu::virtio_devices! {
        /// The disk.
        pub Disk;
        /// The network cards, by number: `Card<0>` to `Card<3>`.
        pub Card[4];
    }

    pub type BehindDisk<H, T> = VirtIOBlk<Behind<H, Disk>, Translated<T>>;

    pub fn disk<H: Hal, T: Transport>(
        group: &Shared<Group>,
        machine: &'static dyn Platform,
        transport: T,
    ) -> Result<BehindDisk<H, T>, Box<dyn Error>> {
        let dma = DmaDevice::new(group, machine, &DmaOptions::default())?;
        Disk::slot().fill(dma).map_err(|_| "there is a disk already")?;
        let transport = Translated::new(transport).map_err(|_| "it ignores the IOMMU")?;
        Ok(VirtIOBlk::new(transport)?)
    }

    pub fn no_disk<H: Hal, T: Transport>(disk: BehindDisk<H, T>) -> Result<(), Box<dyn Error>> {
        drop(disk);
        Disk::slot().empty()?; // ends what the driver shared and never took back
        Ok(())
    }

    pub const fn platform<H: Hal>() -> HalPlatform<H> {
        HalPlatform::new(crate::clock::nanoseconds)
    }
}

/// A device that does no DMA at all: the self-test says so.
struct Dead;

impl Probe for Dead {
    fn write(&mut self, _: Iova) -> Result<(), Broken> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    check(&Machine)?;
    check(&PLATFORM)?;
    let machine = FakeMachine::new(FakeConfig::default());
    let registry = Registry::new(&POOL);
    let functions = [Function { address: 0x10, endpoint: 0x10 }];
    let instance = bring_up(machine.clone(), machine.transport(), &registry, &functions)?;
    let group = registry.group_of(DeviceId(0x10)).expect("it was added");
    assert!(!prove(&group, &Machine, &mut Dead), "nothing was written, and that is told");
    drive(&group, Machine, u64::MAX)?;
    drop((group, instance, registry));
    println!("{:?}", NODES);
    assert_eq!(NODES.used(), 0, "everything is back");
    Ok(())
}
