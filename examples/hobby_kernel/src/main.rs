//! The smallest kernel that has its devices under control. Read it from top to bottom.
//!
//! It has no heap: the crate's nodes come from a static buffer. What it does have, as any kernel, is
//! pages, a clock, and a PCI bus; what it adds for the IOMMU stands between `glue: begin` and
//! `glue: end`. `cargo qemu example hobby_kernel` boots it, `--arch x86_64` and `riscv64` as well.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "says which addresses are memory and which are registers")]

#[cfg(target_arch = "aarch64")]
use iommu_aarch64 as arch;
#[cfg(target_arch = "riscv64")]
use iommu_riscv64 as arch;
#[cfg(target_arch = "x86_64")]
use iommu_x86_64 as arch;

use core::fmt::Display;
use core::ptr::NonNull;

use arch::entry;
use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::device::DeviceId;
use iommu::domain::PagingDomain;
use iommu::driver::EndpointId;
use iommu::drivers::virtio_iommu::{Options, VirtioIommu};
use iommu::error::{MapError, ProbeError};
use iommu::fault::{Access, Fault};
use iommu::group::{Group, OwnerId};
use iommu::instance::Instance;
use iommu::platform::IdentityPlatform;
use iommu::pool::{Pool, Shared, StaticPool};
use iommu::prot::Prot;
use iommu::registry::{DeviceInfo, Registry};
use iommu::virtio::transport::MmioRegion;
use iommu::virtio::transport::mmio::MmioTransport;
use iommu_runtime::edu::{self, Edu};
use iommu_runtime::pci::{Function, Pci};

// 1. What this kernel has anyway.

/// Page frames: a static array, and a mark for each that is taken.
mod frames {
    use core::cell::UnsafeCell;
    use core::num::NonZeroUsize;
    use core::ptr::NonNull;

    use spin::Mutex;

    const COUNT: usize = 64;
    const PAGE: usize = 4096;

    #[repr(C, align(4096))]
    struct Frames(UnsafeCell<[[u8; PAGE]; COUNT]>);

    // SAFETY: nothing reads or writes a frame but whoever was handed it.
    unsafe impl Sync for Frames {}

    static FRAMES: Frames = Frames(UnsafeCell::new([[0; PAGE]; COUNT]));
    static TAKEN: Mutex<[bool; COUNT]> = Mutex::new([false; COUNT]);

    /// The first run of `count` free frames.
    pub fn alloc(count: NonZeroUsize) -> Option<NonNull<u8>> {
        let mut taken = TAKEN.lock();
        let is_free = |run: &[bool]| run.iter().all(|taken| !taken);
        let first = taken.windows(count.get()).position(is_free)?;
        taken.iter_mut().skip(first).take(count.get()).for_each(|taken| *taken = true);
        NonNull::new(FRAMES.0.get().cast::<u8>().wrapping_add(first * PAGE))
    }

    /// Takes a run back.
    pub fn free(start: NonNull<u8>, count: NonZeroUsize) {
        let first = (start.as_ptr().addr() - FRAMES.0.get().addr()) / PAGE;
        TAKEN.lock().iter_mut().skip(first).take(count.get()).for_each(|taken| *taken = false);
    }
}

/// Registers at a physical address: everything is mapped one to one.
fn registers(base: u64, len: u64) -> MmioRegion {
    let base = core::ptr::with_exposed_provenance_mut(base as usize);
    let base = NonNull::new(base).expect("no registers are at address 0");
    // SAFETY: the callers name what the firmware calls configuration space, a BAR, or a virtio
    // device, all of which the page table maps as device memory for good.
    unsafe { MmioRegion::new(base, len as usize) }
}

// 2. What it adds for the IOMMU: memory for the crate's nodes, the machine, and the devices.

// glue: begin
static NODES: StaticPool<{ 64 << 10 }> = StaticPool::new();
static POOL: Pool = NODES.pool();
// SAFETY: all memory is mapped one to one, cached and coherent; a frame is handed out once.
static PLATFORM: IdentityPlatform =
    unsafe { IdentityPlatform::new(frames::alloc, frames::free, arch::now_ns) };

/// Starts the IOMMU, and blocks every device behind it.
fn block_all(
    iommu: VirtioIommu<&'static IdentityPlatform, MmioTransport>,
    functions: &[Function],
) -> Result<(Registry, Shared<Instance>), ProbeError> {
    let registry = Registry::new(&POOL);
    let iommu = registry.add_instance(iommu)?;
    for function in functions.iter().filter(|function| function.class != BRIDGE) {
        let endpoints = [EndpointId(function.requester.into())];
        let id = DeviceId(function.id.into());
        registry.add_device(&iommu, &DeviceInfo { id, endpoints: &endpoints, with: None })?;
    }
    Ok((registry, iommu))
}
// glue: end

/// The PCI class of bridges: the crate is told of devices.
const BRIDGE: u8 = 6;

// 3. Boot.

entry!(main);

fn main(_: u64, _: u64, _: u64, _: u64) -> ! {
    let machine = arch::describe().expect("the firmware describes the machine");
    // Number the PCI buses first: an IOMMU may remember them.
    let (place, root) = iommu_place(machine.arguments).expect("the arguments name the IOMMU");
    let (ecam, window) = (machine.host.ecam, machine.host.window);
    let pci = Pci::bring_up(registers(ecam.base, ecam.len), window, &[root]);
    let device = pci.find(edu::IDS.0, edu::IDS.1).next().expect("a device that does DMA");
    let bar = device.bars[0].expect("the device has registers");
    let edu = Edu::new(registers(bar.base, bar.len), pci.config(device)).expect("an edu");

    // Until here the device writes where it likes.
    let page = frames::alloc(core::num::NonZeroUsize::MIN).expect("a page");
    let at = page.as_ptr().expose_provenance() as u64;
    check(wrote(&edu, at, page), "before the IOMMU is driven, a device writes where it likes");

    let transport = must(MmioTransport::new(registers(place, 0x200)));
    let unit = must(VirtioIommu::new(&PLATFORM, transport, &POOL, Options::default()));
    let (registry, iommu) = must(block_all(unit, pci.functions()));
    let groups = registry.group_count();
    defmt::println!("the IOMMU at {=u64:#x} blocks {=usize} groups of devices", place, groups);
    while registry.next_fault(&iommu).is_some() {}

    let id = DeviceId(device.id.into());
    check(!wrote(&edu, at, page), "now it does not: the write is refused");
    check(refused(&registry, &iommu, id, at), "and told, with the device and the address");

    // A driver gets an address space of its own, and one page in it.
    let group = registry.group_of(id).expect("the device was added");
    let domain = must(PagingDomain::new(&iommu, &POOL));
    let iova = IovaRange::from_len(Iova(0x10_0000), 0x1000).expect("a page");
    must(domain.map(iova, PhysAddr(at), Prot::RW));
    let owned = must(Group::claim(&group, OwnerId(1)));
    let attached = owned.attach(&domain).unwrap_or_else(|refused| panic!("{}", refused.error));
    check(wrote(&edu, 0x10_0000, page), "attached and mapped, its write arrives");
    check(!wrote(&edu, at, page), "at the address that was mapped, and nowhere else");
    check(refused(&registry, &iommu, id, at), "which is told as well");

    // The buffer for nodes is small on purpose: full is an ordinary error.
    let mut pages = 1;
    let full = loop {
        let more = IovaRange::from_len(Iova(0x20_0000 + pages * 0x2000), 0x1000).expect("a page");
        match domain.map(more, PhysAddr(at), Prot::READ) {
            Ok(()) => pages += 1,
            Err(error) => break error,
        }
    };
    check(full == MapError::OutOfMemory, "there is no heap: what does not fit is refused");
    defmt::println!("{=u64} mappings fit into {}", pages, defmt::Debug2Format(&NODES));
    check(wrote(&edu, 0x10_0000, page), "and what was mapped still is");

    must(domain.unmap(iova));
    check(!wrote(&edu, 0x10_0000, page), "unmapped, it is refused again");
    drop(attached);
    check(!wrote(&edu, 0x20_2000, page), "detached, it reaches nothing");
    drop((domain, group, iommu, registry));
    check(NODES.used() == 0, "all memory is back");
    arch::exit(0)
}

/// `iommu.mmio=ADDRESS:BUS` in the arguments: where a virtio-iommu is that no firmware describes, and
/// the PCI root bus that it serves. One that the firmware does describe is found with
/// `iommu::firmware`.
fn iommu_place(arguments: &str) -> Option<(u64, u8)> {
    let mut words = arguments.split_ascii_whitespace();
    let (address, root) =
        words.find_map(|word| word.strip_prefix("iommu.mmio=0x")?.split_once(':'))?;
    Some((u64::from_str_radix(address, 16).ok()?, root.parse().ok()?))
}

/// Lets the device write to `address`, and says whether that changed the page.
fn wrote(edu: &Edu, address: u64, page: NonNull<u8>) -> bool {
    let word = page.cast::<u32>();
    // SAFETY: the page is ours, aligned, and only the device writes to it besides.
    unsafe { word.write_volatile(0) };
    edu.poke(address, 0x5aa5).expect("the device can write");
    // SAFETY: as above.
    unsafe { word.read_volatile() == 0x5aa5 }
}

/// Whether the next fault tells of this write. The record may come a little later than the refusal.
fn refused(registry: &Registry, iommu: &Instance, device: DeviceId, address: u64) -> bool {
    let is_it = |fault: Fault| {
        fault.device == Some(device)
            && fault.record.address == Some(Iova(address))
            && fault.record.access != Access::READ // some units say neither or both
    };
    let deadline = arch::now_ns() + 1_000_000_000;
    while arch::now_ns() < deadline {
        if let Some(fault) = registry.next_fault(iommu) {
            defmt::println!("  {}", defmt::Display2Format(&fault));
            return is_it(fault);
        }
    }
    false
}

/// A kernel that can't block its devices does not go on.
fn must<T, E: Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

fn check(held: bool, what: &str) {
    assert!(held, "does not hold: {what}");
    defmt::println!("{=str}", what);
}
