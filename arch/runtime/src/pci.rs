//! PCI bring-up, whether or not a firmware did it before: numbers the buses, sizes and places the BARs, opens the
//! bridges, and tells under which requester id each function's DMA arrives.
#![expect(unsafe_code, reason = "`pci_types` marks every access to configuration space as unsafe")]

use heapless::Vec;
use iommu::pci::PciConfig;
use iommu::virtio::transport::MmioRegion;
use pci_types::{ConfigRegionAccess, HeaderType, PciAddress, PciHeader};

use crate::firmware::Span;

/// The most functions that an image looks at; further ones are left as they are.
pub const MAX_FUNCTIONS: usize = 64;

/// One PCI function, placed.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// Bus, device and function as its own requester id.
    pub id: u16,
    /// The requester id that its DMA carries at the root: a bridge's where one hides it.
    pub requester: u16,
    /// The root bus that it is below.
    pub root: u8,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Base class, 6 for bridges.
    pub class: u8,
    /// The memory BARs, where they were placed.
    pub bars: [Option<Span>; 6],
}

/// The machine's PCI functions, in the order of the scan.
pub struct Pci {
    access: Ecam,
    functions: Vec<Function, MAX_FUNCTIONS>,
}

/// Configuration space by memory access.
#[derive(Clone, Copy, Debug)]
struct Ecam {
    registers: MmioRegion,
}

/// Configuration space of one function.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    access: Ecam,
    id: u16,
}

/// Where the scan is.
struct Scan {
    /// One more than the last number given: up to 256.
    next_bus: u16,
    /// The last number for a bus below this root: the next root, or the end of ECAM, comes after.
    last_bus: u8,
    next_address: u64,
    end: u64,
}

/// What a bus inherits from the bridges above it.
#[derive(Clone, Copy)]
struct Above {
    root: u8,
    alias: Option<u16>,
}

const COMMAND: u16 = 0x04;
const COMMAND_MEMORY_AND_MASTER: u16 = 0b110;
const COMMAND_DECODE_AND_MASTER: u16 = 0b111;
const BAR_0: u16 = 0x10;
const BUS_NUMBERS: u16 = 0x18;
const IO_WINDOW: u16 = 0x1c;
const MEMORY_WINDOW: u16 = 0x20;
const PREFETCH_WINDOW: u16 = 0x24;
/// A window whose base is above its limit: closed.
const CLOSED: u32 = 0x0000_fff0;
/// The secondary bus of a closed bridge; above its subordinate, so nothing is forwarded. Not 0 as
/// after reset: QEMU's IOMMU finds endpoints by bus number, and would take it for the root bus.
const NO_BUS: u8 = 0xff;
/// How many bytes of configuration space a bus has.
const BUS_LEN: usize = 1 << 20;
/// Bridges forward memory in steps of this many bytes.
const WINDOW_STEP: u64 = 1 << 20;

impl Pci {
    /// Scans the buses from `roots` on and places everything in `window`.
    ///
    /// `ecam` is the mapped configuration space. A root bus that no bridge leads to (`pxb`) must be
    /// named; bus numbers below each root are given in order from the root's own, and end before the
    /// next root. A bridge for which no number is left stays closed.
    #[must_use]
    pub fn bring_up(ecam: MmioRegion, window: Span, roots: &[u8]) -> Self {
        let access = Ecam { registers: ecam };
        let buses = (ecam.len() / BUS_LEN).clamp(1, 256);
        let last_bus = (buses - 1) as u8;
        let mut pci = Self { access, functions: Vec::new() };
        let mut scan = Scan {
            next_bus: 0,
            last_bus: 0,
            next_address: window.base,
            end: window.base + window.len,
        };
        for root in roots.iter().filter(|root| **root <= last_bus) {
            let next_root = roots.iter().copied().filter(|other| other > root).min();
            scan.last_bus = next_root.map_or(last_bus, |next| last_bus.min(next - 1));
            scan.next_bus = u16::from(*root) + 1;
            pci.scan_bus(*root, Above { root: *root, alias: None }, &mut scan);
        }
        pci
    }

    /// The functions.
    #[must_use]
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// The functions with these ids.
    pub fn find(&self, vendor: u16, device: u16) -> impl Iterator<Item = &Function> {
        self.functions.iter().filter(move |f| (f.vendor, f.device) == (vendor, device))
    }

    /// Configuration space of a function.
    #[must_use]
    pub fn config(&self, function: &Function) -> Config {
        Config { access: self.access, id: function.id }
    }

    fn scan_bus(&mut self, bus: u8, above: Above, scan: &mut Scan) {
        for device in 0..32 {
            for function in 0..8 {
                let header = PciHeader::new(PciAddress::new(0, bus, device, function));
                let (vendor, product) = header.id(self.access);
                if vendor == 0xffff {
                    if function == 0 {
                        break;
                    }
                    continue;
                }
                let is_single = function == 0 && !header.has_multiple_functions(self.access);
                self.place(header, vendor, product, above, scan);
                if is_single {
                    break;
                }
            }
        }
    }

    fn place(
        &mut self,
        header: PciHeader,
        vendor: u16,
        product: u16,
        above: Above,
        scan: &mut Scan,
    ) {
        let address = header.address();
        let id = id_of(address);
        let config = Config { access: self.access, id };
        let is_bridge = header.header_type(self.access) == HeaderType::PciPciBridge;
        // A firmware may have placed and enabled it: it must not answer while its BARs move.
        let command = config.read_u16(COMMAND) & !COMMAND_DECODE_AND_MASTER;
        config.write_u16(COMMAND, command);
        let (bars, all_placed) = config.place_bars(if is_bridge { 2 } else { 6 }, scan);
        let (_, class, _, _) = header.revision_and_class(self.access);
        let requester = above.alias.unwrap_or(id);
        let function =
            Function { id, requester, root: above.root, vendor, device: product, class, bars };
        if self.functions.push(function).is_err() {
            return; // more than an image has a use for
        }
        let number = u8::try_from(scan.next_bus).ok().filter(|bus| *bus <= scan.last_bus);
        if is_bridge && let Some(secondary) = number {
            scan.next_bus += 1;
            config.write_u32(
                BUS_NUMBERS,
                u32::from_le_bytes([address.bus(), secondary, scan.last_bus, 0]),
            );
            scan.next_address = scan.next_address.next_multiple_of(WINDOW_STEP);
            let first = scan.next_address;
            let alias = above.alias.or(config.alias_of_bridge(secondary));
            self.scan_bus(secondary, Above { alias, ..above }, scan);
            scan.next_address = scan.next_address.next_multiple_of(WINDOW_STEP);
            let last = [address.bus(), secondary, (scan.next_bus - 1) as u8, 0];
            config.write_u32(BUS_NUMBERS, u32::from_le_bytes(last));
            config.open_window(first, scan.next_address);
        } else if is_bridge {
            config.write_u32(BUS_NUMBERS, u32::from_le_bytes([address.bus(), NO_BUS, 0, 0]));
            config.open_window(0, 0);
        }
        if !is_bridge && !all_placed {
            return; // enabled, it would answer at an address that is not its own
        }
        config.write_u16(COMMAND, command | COMMAND_MEMORY_AND_MASTER);
    }
}

impl Config {
    /// Sizes the memory BARs and places them below 4 GiB. False if one did not fit.
    fn place_bars(&self, count: u16, scan: &mut Scan) -> ([Option<Span>; 6], bool) {
        let mut bars = [None; 6];
        let mut all_placed = true;
        let mut index = 0;
        while index < count {
            let slot = usize::from(index);
            let offset = BAR_0 + index * 4;
            self.write_u32(offset, !0);
            let low = self.read_u32(offset);
            index += 1;
            if low & 1 == 1 || low == 0 {
                self.write_u32(offset, 0); // I/O, or absent
                continue;
            }
            let is_wide = low & 0b110 == 0b100;
            let mut high = u32::MAX;
            if is_wide {
                self.write_u32(offset + 4, !0);
                high = self.read_u32(offset + 4);
                index += 1;
            }
            let mask = u64::from(high) << 32 | u64::from(low & !0xf);
            let len = 1 << mask.trailing_zeros();
            let base = scan.next_address.next_multiple_of(len);
            if base + len > scan.end {
                self.write_u32(offset, 0);
                if is_wide {
                    self.write_u32(offset + 4, 0);
                }
                all_placed = false;
                continue;
            }
            scan.next_address = base + len;
            self.write_u32(offset, base as u32);
            if is_wide {
                self.write_u32(offset + 4, (base >> 32) as u32);
            }
            if let Some(bar) = bars.get_mut(slot) {
                *bar = Some(Span { base, len });
            }
        }
        (bars, all_placed)
    }

    fn open_window(&self, first: u64, end: u64) {
        let memory = if first == end {
            CLOSED
        } else {
            (first >> 16) as u32 & 0xfff0 | ((end - 1) as u32 & 0xfff0_0000)
        };
        self.write_u32(MEMORY_WINDOW, memory);
        self.write_u32(PREFETCH_WINDOW, CLOSED);
        self.write_u32(IO_WINDOW, 0x0000_00f0);
    }

    /// Under which id a bridge forwards DMA from below it, if not under the sender's own.
    fn alias_of_bridge(&self, secondary: u8) -> Option<u16> {
        const PCI_EXPRESS: u8 = 0x10;
        let mut at = self.read_u8(0x34);
        for _ in 0..48 {
            if at < 0x40 {
                return Some(self.id); // a conventional bridge
            }
            if self.read_u8(at.into()) == PCI_EXPRESS {
                return match self.read_u16(u16::from(at) + 2) >> 4 & 0xf {
                    7 => Some(u16::from(secondary) << 8), // PCIe to PCI
                    8 => Some(self.id),                   // PCI to PCIe
                    _ => None,                            // ports pass the id on
                };
            }
            at = self.read_u8(u16::from(at) + 1);
        }
        Some(self.id)
    }

    /// Writes an aligned `u32` of the configuration space.
    pub fn write_u32(&self, offset: u16, value: u32) {
        self.access.registers.write_u32(self.offset(offset), value);
    }

    fn offset(&self, offset: u16) -> usize {
        usize::from(self.id) << 12 | usize::from(offset)
    }
}

impl PciConfig for Config {
    fn read_u8(&self, offset: u16) -> u8 {
        self.access.registers.read_u8(self.offset(offset))
    }

    fn read_u16(&self, offset: u16) -> u16 {
        self.access.registers.read_u16(self.offset(offset))
    }

    fn read_u32(&self, offset: u16) -> u32 {
        self.access.registers.read_u32(self.offset(offset))
    }

    fn write_u16(&self, offset: u16, value: u16) {
        self.access.registers.write_u16(self.offset(offset), value);
    }
}

impl ConfigRegionAccess for Ecam {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        Config { access: *self, id: id_of(address) }.read_u32(offset)
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        Config { access: *self, id: id_of(address) }.write_u32(offset, value);
    }
}

fn id_of(address: PciAddress) -> u16 {
    u16::from(address.bus()) << 8 | u16::from(address.device()) << 3 | u16::from(address.function())
}
