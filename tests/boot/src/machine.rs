//! The machine, as the firmware describes it: memory, PCI functions, where the IOMMUs are.
#![expect(unsafe_code, reason = "says which physical addresses are memory and which are registers")]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use heapless::Vec;
use iommu::device::DeviceId;
use iommu::driver::EndpointId;
use iommu::pool::Pool;
use iommu::virtio::transport::MmioRegion;
use iommu_runtime::devicetree::DeviceTree;
use iommu_runtime::dma;
use iommu_runtime::edu::{self, Edu};
use iommu_runtime::firmware::{Description, Missing, Span, Topology};
use iommu_runtime::pci::{Function, Pci};

use crate::arch;

/// Memory for DMA, and the clock.
pub static PLATFORM: dma::Machine = dma::Machine::new(arch::now_ns);
/// Where the library's nodes come from.
pub static POOL: Pool = Pool::heap();

/// PCI ids of a virtio-iommu.
pub const VIRTIO_IOMMU: (u16, u16) = (0x1af4, 0x1057);
/// How many bytes of registers a virtio-mmio device has.
const MMIO_LEN: usize = 0x200;
const HEAP_LEN: usize = 32 << 20;
const DMA_LEN: usize = 16 << 20;
/// What a firmware may have put at the end of RAM: a device tree, tables.
const FIRMWARE_LEN: usize = 16 << 20;

/// What was found.
pub struct Machine {
    /// All of memory.
    pub memory: Span,
    /// The arguments given with `-append`.
    pub arguments: &'static str,
    /// Which endpoint id stands for which PCI function.
    pub topology: Topology<'static>,
    /// The device tree, if there is one.
    pub tree: Option<DeviceTree<'static>>,
    /// The PCI functions.
    pub pci: Pci,
    /// The IOMMUs: first the one on PCI, then those on MMIO.
    pub iommus: Vec<IommuPlace, 2>,
    /// The test devices, in the order of the scan.
    pub devices: Vec<TestDevice, 8>,
    /// The other devices that images drive, in the order of the scan. Most machines have none.
    pub others: Vec<OtherDevice, 8>,
    /// Whether the memory above heap and DMA was asked for.
    is_free_taken: AtomicBool,
}

/// Where a virtio-iommu is.
#[derive(Clone, Copy, Debug)]
pub enum IommuPlace {
    /// On PCI.
    Pci(Function),
    /// On MMIO, which no firmware describes: the arguments do.
    Mmio {
        /// Its registers.
        registers: u64,
        /// The PCI root bus that it serves.
        root: u8,
    },
}

/// An `edu`, and how its IOMMU knows it.
#[derive(Clone, Copy, Debug)]
pub struct TestDevice {
    /// The device.
    pub edu: Edu,
    /// Its PCI function.
    pub function: Function,
    /// Which of the machine's IOMMUs translates for it.
    pub unit: usize,
    /// By which id.
    pub endpoint: EndpointId,
}

/// A device of another kind, and how its IOMMU knows it.
#[derive(Clone, Copy, Debug)]
pub struct OtherDevice {
    /// Its PCI function.
    pub function: Function,
    /// Which of the machine's IOMMUs translates for it.
    pub unit: usize,
    /// By which id.
    pub endpoint: EndpointId,
}

impl OtherDevice {
    /// Its name in the registry.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        DeviceId(self.function.id.into())
    }

    /// PCI vendor and device id.
    #[must_use]
    pub fn ids(&self) -> (u16, u16) {
        (self.function.vendor, self.function.device)
    }
}

/// PCI ids of the other devices that images drive.
pub mod ids {
    /// A virtio-net.
    pub const NET: (u16, u16) = (0x1af4, 0x1041);
    /// A virtio-blk.
    pub const BLK: (u16, u16) = (0x1af4, 0x1042);
    /// A virtio-rng.
    pub const RNG: (u16, u16) = (0x1af4, 0x1044);
    /// QEMU's NVMe.
    pub const NVME: (u16, u16) = (0x1b36, 0x0010);
    /// All of them.
    pub const ALL: [(u16, u16); 4] = [NET, BLK, RNG, NVME];
}

impl TestDevice {
    /// Its name in the registry.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        DeviceId(self.function.id.into())
    }
}

impl Machine {
    /// Reads what the firmware tells, sets heap and DMA memory up, and brings PCI up. Call it once, first.
    ///
    /// # Errors
    ///
    /// [`Missing`] names what is not there.
    pub fn bring_up() -> Result<Self, Missing> {
        static CALLED: AtomicBool = AtomicBool::new(false);
        if CALLED.swap(true, Ordering::Relaxed) {
            return Err(Missing::FirstCall);
        }
        let Description { memory, host, arguments, topology, tree } = arch::describe()?;
        let end = memory.base.saturating_add(memory.len);
        if end < (arch::IMAGE_END + HEAP_LEN + DMA_LEN) as u64 {
            return Err(Missing::Memory);
        }
        // SAFETY: RAM above the image, inside what the firmware calls memory; used for this alone, and
        // once: `CALLED` was clear.
        unsafe { iommu_runtime::heap::init(arch::IMAGE_END, HEAP_LEN) };
        // SAFETY: as above, and above the heap; the page table maps it one to one, cached.
        unsafe { PLATFORM.give(arch::IMAGE_END + HEAP_LEN, DMA_LEN) };

        #[cfg(iommu_sabotage)]
        break_what_is_asked(arguments);
        let ecam = registers(host.ecam.base, host.ecam.len as usize).ok_or(Missing::PciHost)?;
        let on_mmio: Vec<_, 2> = mmio_iommus(arguments).take(2).collect();
        let mut roots = host.roots;
        let served = on_mmio.iter().filter_map(|place| match place {
            IommuPlace::Mmio { root, .. } => Some(*root),
            IommuPlace::Pci(_) => None,
        });
        for root in core::iter::once(0).chain(served) {
            if !roots.contains(&root) {
                let _ = roots.push(root); // no machine of ours has more than two
            }
        }
        let pci = Pci::bring_up(ecam, host.window, &roots);
        let on_pci = pci.find(VIRTIO_IOMMU.0, VIRTIO_IOMMU.1).copied().map(IommuPlace::Pci);
        let iommus: Vec<_, 2> = on_pci.take(1).chain(on_mmio).take(2).collect();
        let devices = test_devices(&pci, &topology, &iommus);
        let others = other_devices(&pci, &topology, &iommus);
        let is_free_taken = AtomicBool::new(false);
        Ok(Self { memory, arguments, topology, tree, pci, iommus, devices, others, is_free_taken })
    }

    /// What follows `key` and `=` in the arguments, up to the next space.
    #[must_use]
    pub fn argument(&self, key: &str) -> Option<&'static str> {
        argument(self.arguments, key)
    }

    /// Whether there is a virtio-iommu at all.
    #[must_use]
    pub fn has_iommu(&self) -> bool {
        !self.iommus.is_empty()
    }

    /// The first of `len` bytes of RAM above heap and DMA memory, mapped one to one, which are the
    /// caller's for good. `None` if there are not so many, or for a second call.
    ///
    /// What the firmware left at the end of RAM is its own: keep some distance.
    #[must_use]
    pub fn take_free(&self, len: usize) -> Option<usize> {
        let start = arch::IMAGE_END + HEAP_LEN + DMA_LEN;
        let end = start.checked_add(len)?.checked_add(FIRMWARE_LEN)?;
        let fits = end as u64 <= self.memory.end()? && end <= arch::MAPPED_END;
        (fits && !self.is_free_taken.swap(true, Ordering::Relaxed)).then_some(start)
    }

    /// The registers of BAR `index` of a function.
    #[must_use]
    pub fn bar(&self, function: &Function, index: usize) -> Option<MmioRegion> {
        bar(function, index)
    }

    /// The registers of a virtio-mmio device at `base`.
    #[must_use]
    pub fn mmio(&self, base: u64) -> Option<MmioRegion> {
        registers(base, MMIO_LEN)
    }
}

fn argument(arguments: &'static str, key: &str) -> Option<&'static str> {
    let mut words = arguments.split_ascii_whitespace();
    words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// `sabotage=NAME`: for the mutation check, which looks that the image says so.
#[cfg(iommu_sabotage)]
fn break_what_is_asked(arguments: &'static str) {
    if let Some(name) = argument(arguments, "sabotage") {
        assert!(iommu::sabotage::choose(name), "no sabotage has the name {name}");
        defmt::println!("sabotage: {=str}", name);
    }
}

/// `iommu.mmio=ADDRESS:BUS`: the address in hexadecimal with 0x, the bus in decimal. One word for
/// each instance.
fn mmio_iommus(arguments: &str) -> impl Iterator<Item = IommuPlace> {
    let words = arguments.split_ascii_whitespace();
    words.filter_map(|word| {
        let (address, root) = word.strip_prefix("iommu.mmio=")?.split_once(':')?;
        let registers = u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
        Some(IommuPlace::Mmio { registers, root: root.parse().ok()? })
    })
}

fn test_devices(pci: &Pci, told: &Topology<'_>, iommus: &[IommuPlace]) -> Vec<TestDevice, 8> {
    let found = pci.find(edu::IDS.0, edu::IDS.1).filter_map(|function| {
        let edu = Edu::new(bar(function, 0)?, pci.config(function))?;
        let (unit, endpoint) = served_by(function, told, iommus);
        Some(TestDevice { edu, function: *function, unit, endpoint })
    });
    found.take(8).collect()
}

fn other_devices(pci: &Pci, told: &Topology<'_>, iommus: &[IommuPlace]) -> Vec<OtherDevice, 8> {
    let is_known = |function: &&Function| ids::ALL.contains(&(function.vendor, function.device));
    let found = pci.functions().iter().filter(is_known).map(|function| {
        let (unit, endpoint) = served_by(function, told, iommus);
        OtherDevice { function: *function, unit, endpoint }
    });
    found.take(8).collect()
}

/// Which IOMMU translates for a function, and by which id it knows it.
fn served_by(
    function: &Function,
    told: &Topology<'_>,
    iommus: &[IommuPlace],
) -> (usize, EndpointId) {
    // The first root bus is the PCI instance's, wherever the others are said to be.
    let has_pci = iommus.iter().any(|place| matches!(place, IommuPlace::Pci(_)));
    let serves = |place: &IommuPlace, bus: u8| match place {
        IommuPlace::Pci(_) => false, // what it serves is told
        IommuPlace::Mmio { root, .. } => *root == bus && (bus != 0 || !has_pci),
    };
    let own = EndpointId(function.requester.into());
    match iommus.iter().position(|one| serves(one, function.root)) {
        Some(unit) => (unit, own),
        None => (0, told.endpoint(function.requester).unwrap_or(own)),
    }
}

fn bar(function: &Function, index: usize) -> Option<MmioRegion> {
    let span = function.bars.get(index).copied().flatten()?;
    registers(span.base, span.len as usize)
}

fn registers(base: u64, len: usize) -> Option<MmioRegion> {
    let base = NonNull::new(core::ptr::with_exposed_provenance_mut(base as usize))?;
    // SAFETY: the callers name configuration space and BARs of the PCI host, or the registers that
    // the arguments name, all of which the page table maps as device memory for good.
    Some(unsafe { MmioRegion::new(base, len) })
}
