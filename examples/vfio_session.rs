//! A hypervisor's session with a type1 container, from open to close, on software IOMMUs.
//!
//! Run it with `cargo run --example vfio_session --features sim`. Each step says what it costs in
//! IOMMU operations and shows, with an access of the device itself, what the device reaches.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use iommu::addr::{Iova, PhysAddr};
use iommu::container::*;
use iommu::device::DeviceId;
use iommu::driver::EndpointId;
use iommu::fault::Access;
use iommu::group::{Group, GroupId, OwnerId, Ownership};
use iommu::instance::Instance;
use iommu::pool::{Pool, Shared};
use iommu::prot::Prot;
use iommu::registry::{DeviceInfo, Registry};
use iommu::sim::Sim;

/// Where all nodes of the library come from.
static POOL: Pool = Pool::heap();
const PAGE: u64 = 4096;

/// The memory of the guest, as the host kernel sees it: 2 MiB pieces that lie apart.
#[derive(Default)]
struct GuestMemory {
    locked: Mutex<u64>,
    bytes: Mutex<BTreeMap<u64, u8>>,
}

impl Memory for GuestMemory {
    fn page_size(&self) -> u64 {
        PAGE
    }

    fn pin(
        &self,
        _owner: MemoryOwner,
        vaddr: u64,
        pages: u64,
        _prot: Prot,
    ) -> Result<Pinned, PinError> {
        const PIECE: u64 = 2 << 20;
        let left = (PIECE - vaddr % PIECE) / PAGE;
        let phys = PhysAddr((vaddr / PIECE) * 2 * PIECE + vaddr % PIECE);
        Ok(Pinned { phys, pages: pages.min(left) })
    }

    fn unpin(&self, _run: Pinned, _prot: Prot) {}

    fn charge(&self, _owner: MemoryOwner, pages: u64) -> Result<(), PinError> {
        *self.locked.lock().unwrap() += pages;
        Ok(())
    }

    fn uncharge(&self, _owner: MemoryOwner, pages: u64) {
        *self.locked.lock().unwrap() -= pages;
    }

    fn write(&self, _owner: MemoryOwner, vaddr: u64, from: &[u8]) -> Result<(), PinError> {
        self.bytes.lock().unwrap().extend((vaddr..).zip(from.iter().copied()));
        Ok(())
    }
}

/// An emulated device. A good one calls `unpin_pages` when it is told; this one is slow.
struct EmulatedNic;

static TOLD: AtomicU32 = AtomicU32::new(0);

impl PinHolder for EmulatedNic {
    fn dma_unmap(&self, _range: iommu::addr::IovaRange) {
        TOLD.fetch_add(1, Ordering::Relaxed);
    }
}

type Vm<'a> = Container<&'a GuestMemory>;

/// A device that the host found, its group claimed for the hypervisor: blocked from here on.
fn claim(
    registry: &Registry,
    unit: &Shared<Instance>,
    id: u32,
) -> Result<Ownership, Box<dyn Error>> {
    let info = DeviceInfo { id: DeviceId(id.into()), endpoints: &[EndpointId(id)], with: None };
    let group = registry.add_device(unit, &info)?;
    Ok(Group::claim(&group, OwnerId(1))?)
}

fn attach(vm: &Vm, ownership: Ownership) -> Result<GroupId, Box<dyn Error>> {
    let (id, before) = (ownership.group().id(), vm.operations());
    vm.attach_group(ownership).map_err(|refused| refused.error)?;
    let cost = vm.operations().since(&before);
    println!(
        "   group {}: {} domain(s) allocated, {} attach(es) refused, {} run(s) mapped; {} domain(s)",
        id.0,
        cost.dom_alloc,
        cost.attach_fail,
        cost.dom_map,
        vm.domain_count(),
    );
    Ok(id)
}

fn main() -> Result<(), Box<dyn Error>> {
    let registry = Registry::new(&POOL);
    let (near, far) = (Sim::new(), Sim::new());
    let units = [registry.add_instance(near.driver())?, registry.add_instance(far.driver())?];
    let memory = GuestMemory::default();

    println!("1. Open a container.");
    // The software units don't isolate interrupts; a host says here that it accepts that.
    let options = Options { allow_unsafe_interrupts: true, ..Options::default() };
    let vm: Vm = Container::new(&POOL, &memory, options);
    assert!(vm.check_extension(Extension::UpdateVaddr));

    println!("2. Attach two groups behind one IOMMU: the second shares the domain of the first.");
    let disk = attach(&vm, claim(&registry, &units[0], 1)?)?;
    attach(&vm, claim(&registry, &units[0], 2)?)?;
    let reaches = |unit: &Sim, device: u32, iova: u64| {
        unit.reach(EndpointId(device), Iova(iova), Access::WRITE).ok()
    };
    assert_eq!(reaches(&near, 1, 0x1000), None, "nothing is mapped yet");

    println!("3. Map 16 MiB of guest memory.");
    let ram = MapDma { iova: 0, vaddr: 0x4000_0000, size: 16 << 20, prot: Prot::RW };
    vm.map_dma(&ram)?;
    println!("   {} pages are locked", memory.locked.lock().unwrap());
    assert!(reaches(&near, 1, 0x1000).is_some());
    assert_eq!(reaches(&near, 1, 0x1000), reaches(&near, 2, 0x1000));
    assert_eq!(vm.map_dma(&ram).unwrap_err().errno(), 17, "it is mapped already");

    println!("4. Hot-plug a third group behind another IOMMU: it gets a domain with all mappings.");
    let gpu = attach(&vm, claim(&registry, &units[1], 3)?)?;
    assert_eq!(reaches(&far, 3, 0x1000), reaches(&near, 1, 0x1000), "the same memory");

    println!("5. An emulated NIC joins; it pins what it needs and is told before it goes.");
    let nic = EmulatedId(9);
    vm.attach_emulated(nic)?;
    let told = vm.register_device(EmulatedNic)?;
    let mut frames = [None; 2];
    vm.pin_pages(nic, 0x10_0000, Prot::WRITE, &mut frames)?;
    println!("   it writes to {:?}", frames.map(|frame| frame.unwrap_or_default()));

    println!("6. Migrate: track dirty pages, read them twice, detach, read the rest.");
    vm.start_dirty_tracking()?;
    let page_size = vm.info()?.migration.page_size;
    let range = DirtyRange { iova: 0, size: 16 << 20, page_size };
    let count = |what: &str| -> Result<u32, DirtyError> {
        let mut bitmap = [0_u64; 64];
        vm.read_dirty(&range, bitmap.as_mut_slice())?;
        let dirty = bitmap.iter().map(|word| word.count_ones()).sum();
        println!("   {what}: {dirty} dirty page(s)");
        Ok(dirty)
    };
    assert_eq!(count("devices that may write anywhere")?, 4096);
    let mut back = vec![];
    for group in [disk, gpu] {
        back.extend(vm.detach_group(group));
    }
    assert_eq!(reaches(&far, 3, 0x1000), None, "blocked at once");
    assert_eq!(count("one such device is left")?, 4096);
    let last = GroupId(disk.0 + 1);
    back.extend(vm.detach_group(last));
    assert_eq!(count("it is gone, what it wrote counts once")?, 4096);
    vm.dma_write(0x20_0000, b"packet")?;
    assert_eq!(count("the NIC's pins, and a packet that it copied")?, 3);
    vm.stop_dirty_tracking()?;

    println!("7. Unmap. The NIC has to let go first.");
    let held = vm.unmap_dma(&UnmapDma::All).unwrap_err();
    println!("   told {} times, it still holds: {held}", TOLD.load(Ordering::Relaxed));
    vm.unpin_pages(0x10_0000, 2);
    assert_eq!(vm.unmap_dma(&UnmapDma::All)?.bytes, 16 << 20);
    vm.unregister_device(told);
    assert_eq!(*memory.locked.lock().unwrap(), 0, "nothing is locked any more");

    println!("8. Close.");
    drop(vm);
    drop(back); // the groups are released, and blocked
    println!("   done");
    Ok(())
}
