//! The machine, as the firmware describes it: memory, PCI functions, where the IOMMUs are.
#![expect(unsafe_code, reason = "says which physical addresses are memory and which are registers")]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use heapless::Vec;
use iommu::device::DeviceId;
use iommu::driver::EndpointId;
use iommu::firmware::IommuMap;
use iommu::pool::Pool;
use iommu::virtio::transport::MmioRegion;
use iommu_runtime::devicetree::{DeviceTree, PciHost, Span};
use iommu_runtime::dma;
use iommu_runtime::edu::{self, Edu};
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

/// What was found.
pub struct Machine {
    /// All of memory.
    pub memory: Span,
    /// The PCI host.
    pub host: PciHost<'static>,
    /// The PCI functions.
    pub pci: Pci,
    /// The MMIO instance that the arguments name.
    pub mmio_iommu: Option<MmioIommu>,
    /// The test devices, in the order of the scan.
    pub devices: Vec<TestDevice, 8>,
}

/// A virtio-iommu over MMIO, which no firmware describes.
#[derive(Clone, Copy, Debug)]
pub struct MmioIommu {
    /// Its registers.
    pub registers: u64,
    /// The PCI root bus that it serves.
    pub root: u8,
}

/// An `edu`, and how its IOMMU knows it.
#[derive(Clone, Copy, Debug)]
pub struct TestDevice {
    /// The device.
    pub edu: Edu,
    /// Its PCI function.
    pub function: Function,
    /// Which unit translates for it: the PCI instance is the first, if there is one.
    pub unit: usize,
    /// By which id.
    pub endpoint: EndpointId,
}

impl TestDevice {
    /// Its name in the registry.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        DeviceId(self.function.id.into())
    }
}

/// Why the machine can't be brought up.
#[derive(Clone, Copy, Debug, defmt::Format)]
pub enum Missing {
    /// A first call: the machine is up, and its memory must not be handed out twice.
    FirstCall,
    /// The level that the entry code prepares: the CPU started at another one.
    ExceptionLevel,
    /// No device tree where the board has it.
    DeviceTree,
    /// No memory in the device tree.
    Memory,
    /// No PCI host in the device tree.
    PciHost,
}

impl Machine {
    /// Reads the device tree, sets heap and DMA memory up, and brings PCI up. Call it once, first.
    ///
    /// # Errors
    ///
    /// [`Missing`] names what is not there.
    pub fn bring_up() -> Result<Self, Missing> {
        static CALLED: AtomicBool = AtomicBool::new(false);
        if CALLED.swap(true, Ordering::Relaxed) {
            return Err(Missing::FirstCall);
        }
        if !arch::is_at_entry_level() {
            return Err(Missing::ExceptionLevel);
        }
        let blob = core::ptr::with_exposed_provenance(arch::DEVICE_TREE);
        // SAFETY: the board has RAM there, which the image leaves alone, so it is readable and
        // nobody writes it; what it holds is checked by the parser.
        let blob = unsafe { core::slice::from_raw_parts(blob, arch::DEVICE_TREE_LEN) };
        let tree = DeviceTree::new(blob).ok_or(Missing::DeviceTree)?;
        let memory = tree.memory().ok_or(Missing::Memory)?;
        let end = memory.base.saturating_add(memory.len);
        if end < (arch::IMAGE_END + HEAP_LEN + DMA_LEN) as u64 {
            return Err(Missing::Memory);
        }
        // SAFETY: RAM above the image, inside what the tree calls memory; used for this alone, and
        // once: `CALLED` was clear.
        unsafe { iommu_runtime::heap::init(arch::IMAGE_END, HEAP_LEN) };
        // SAFETY: as above, and above the heap; the page table maps it one to one, cached.
        unsafe { PLATFORM.give(arch::IMAGE_END + HEAP_LEN, DMA_LEN) };

        let host = tree.pci_host().ok_or(Missing::PciHost)?;
        let mmio_iommu = mmio_iommu(tree.arguments());
        let ecam = registers(host.ecam.base, host.ecam.len as usize).ok_or(Missing::PciHost)?;
        let roots: Vec<u8, 2> = [Some(0), mmio_iommu.map(|one| one.root).filter(|root| *root != 0)]
            .into_iter()
            .flatten()
            .collect();
        let pci = Pci::bring_up(ecam, host.window, &roots);
        let devices = test_devices(&pci, &host, mmio_iommu);
        Ok(Self { memory, host, pci, mmio_iommu, devices })
    }

    /// Whether there is a virtio-iommu at all.
    #[must_use]
    pub fn has_iommu(&self) -> bool {
        self.mmio_iommu.is_some() || self.pci.find(VIRTIO_IOMMU.0, VIRTIO_IOMMU.1).next().is_some()
    }

    /// The registers of BAR `index` of a function.
    #[must_use]
    pub fn bar(&self, function: &Function, index: usize) -> Option<MmioRegion> {
        bar(function, index)
    }

    /// The registers of the MMIO instance.
    #[must_use]
    pub fn mmio_registers(&self) -> Option<MmioRegion> {
        registers(self.mmio_iommu?.registers, MMIO_LEN)
    }
}

/// `iommu.mmio=ADDRESS:BUS`: the address in hexadecimal with 0x, the bus in decimal.
fn mmio_iommu(arguments: &str) -> Option<MmioIommu> {
    let words = arguments.split_ascii_whitespace();
    let value = words.filter_map(|word| word.strip_prefix("iommu.mmio=")).next()?;
    let (address, root) = value.split_once(':')?;
    let registers = u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
    Some(MmioIommu { registers, root: root.parse().ok()? })
}

fn test_devices(pci: &Pci, host: &PciHost<'_>, mmio: Option<MmioIommu>) -> Vec<TestDevice, 8> {
    let has_pci_iommu = pci.find(VIRTIO_IOMMU.0, VIRTIO_IOMMU.1).next().is_some();
    let map = IommuMap::new(host.iommu_map.unwrap_or_default(), host.iommu_map_mask);
    let found = pci.find(edu::IDS.0, edu::IDS.1).filter_map(|function| {
        let edu = Edu::new(bar(function, 0)?, pci.config(function))?;
        // The first root bus is the PCI instance's, wherever the other one is said to be.
        let is_free = function.root != 0 || !has_pci_iommu;
        let behind_mmio = is_free && mmio.is_some_and(|one| one.root == function.root);
        let (unit, endpoint) = if behind_mmio {
            (usize::from(has_pci_iommu), EndpointId(function.requester.into()))
        } else {
            let told = map.translate(function.requester).map(|(_, endpoint)| endpoint);
            (0, told.unwrap_or(EndpointId(function.requester.into())))
        };
        Some(TestDevice { edu, function: *function, unit, endpoint })
    });
    found.take(8).collect()
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
