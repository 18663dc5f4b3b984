//! What the image needs of the device tree: memory, PCI host, arguments.

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};
use iommu::firmware::{IommuMap, MsiMap};

use crate::firmware::{Description, Missing, PciHost, RootBuses, Span, Topology};

/// The device tree.
#[derive(Clone, Copy, Debug)]
pub struct DeviceTree<'a> {
    fdt: Fdt<'a>,
}

/// A frame of registers that takes interrupt messages, and the interrupt controller that it is part of.
#[derive(Clone, Copy, Debug)]
pub struct MessageFrame {
    /// The registers of the frame.
    pub frame: Span,
    /// The registers of the controller.
    pub controller: Span,
}

/// The mark of a range of 32-bit memory space in a PCI host's `ranges`.
const PCI_MEMORY_32: u32 = 0x0200_0000;

impl<'a> DeviceTree<'a> {
    /// Reads the tree that begins at `blob`; `None` if it is not one.
    #[must_use]
    pub fn new(blob: &'a [u8]) -> Option<Self> {
        Fdt::new(blob).ok().map(|fdt| Self { fdt })
    }

    /// The first range of RAM.
    #[must_use]
    pub fn memory(&self) -> Option<Span> {
        let node =
            self.fdt.root().children().find(|node| node.name_without_address() == "memory")?;
        let cells = cells(&node, "reg")?;
        Some(Span { base: wide(&cells, 0)?, len: wide(&cells, 2)? })
    }

    /// The arguments given with `-append`, or an empty text.
    #[must_use]
    pub fn arguments(&self) -> &'a str {
        let chosen = self.fdt.find_node("/chosen");
        let bytes = chosen.and_then(|node| value(&node, "bootargs")).unwrap_or_default();
        core::str::from_utf8(bytes).unwrap_or_default().trim_end_matches('\0')
    }

    fn host_node(&self) -> Option<FdtNode<'a>> {
        let root = self.fdt.root();
        let in_soc = self.fdt.find_node("/soc");
        let below_soc = in_soc.iter().flat_map(|soc| soc.children());
        let mut all = root.children().chain(below_soc);
        all.find(|node| is_compatible(node, "pci-host-ecam-generic"))
    }

    /// Which interrupt controller takes the messages of which PCI function, if that is told.
    #[must_use]
    pub fn msi_map(&self) -> Option<MsiMap<'a>> {
        let host = self.host_node()?;
        let mask = cells(&host, "msi-map-mask").and_then(|cells| cells.first().copied());
        Some(MsiMap::new(value(&host, "msi-map")?, mask))
    }

    /// The frame of a GICv2 that has `phandle`.
    #[must_use]
    pub fn gicv2m(&self, phandle: u32) -> Option<MessageFrame> {
        let span = |node: &FdtNode<'a>| {
            let reg = cells(node, "reg")?;
            Some(Span { base: wide(&reg, 0)?, len: wide(&reg, 2)? })
        };
        self.fdt.root().children().find_map(|controller| {
            let frame = controller.children().find(|node| {
                cells(node, "phandle").is_some_and(|cells| cells.first() == Some(&phandle))
                    && is_compatible(node, "arm,gic-v2m-frame")
            })?;
            Some(MessageFrame { frame: span(&frame)?, controller: span(&controller)? })
        })
    }

    /// The first PCI host bridge with ECAM, and which endpoint ids stand for its functions.
    #[must_use]
    pub fn pci_host(&self) -> Option<(PciHost, Topology<'a>)> {
        let node = self.host_node()?;
        let reg = cells(&node, "reg")?;
        let ecam = Span { base: wide(&reg, 0)?, len: wide(&reg, 2)? };
        let ranges = cells(&node, "ranges")?;
        let window = ranges.chunks_exact(7).find_map(|range| {
            let [kind, high, low, cpu_high, cpu_low, len_high, len_low] = *range else {
                return None;
            };
            let same = (high, low) == (cpu_high, cpu_low);
            let base = join(cpu_high, cpu_low);
            (kind & 0x0300_0000 == PCI_MEMORY_32 && same)
                .then_some(Span { base, len: join(len_high, len_low) })
        })?;
        let mask = cells(&node, "iommu-map-mask").and_then(|cells| cells.first().copied());
        let topology = match value(&node, "iommu-map") {
            Some(map) => Topology::IommuMap(IommuMap::new(map, mask)),
            None => Topology::Untold,
        };
        Some((PciHost { ecam, window, roots: RootBuses::new() }, topology))
    }

    /// All of it.
    ///
    /// # Errors
    ///
    /// [`Missing`] names what the tree does not tell.
    pub fn describe(&self) -> Result<Description<'a>, Missing> {
        let memory = self.memory().ok_or(Missing::Memory)?;
        let (host, topology) = self.pci_host().ok_or(Missing::PciHost)?;
        Ok(Description { memory, host, arguments: self.arguments(), topology, tree: Some(*self) })
    }
}

/// The most cells of a property that is read here: seven ranges of a PCI host.
type Cells = heapless::Vec<u32, 56>;

fn value<'a>(node: &FdtNode<'a>, name: &str) -> Option<&'a [u8]> {
    let property = node.properties().find(|property| property.name() == name)?;
    property.value_as::<&'a [u8]>().ok()
}

fn is_compatible(node: &FdtNode<'_>, wanted: &str) -> bool {
    let compatible = value(node, "compatible").unwrap_or_default();
    compatible.split(|byte| *byte == 0).any(|one| one == wanted.as_bytes())
}

fn cells(node: &FdtNode<'_>, name: &str) -> Option<Cells> {
    let bytes = value(node, name)?;
    let cell = |bytes: &[u8]| bytes.try_into().map(u32::from_be_bytes).unwrap_or_default();
    Some(bytes.chunks_exact(4).take(56).map(cell).collect())
}

fn wide(cells: &[u32], index: usize) -> Option<u64> {
    Some(join(*cells.get(index)?, *cells.get(index + 1)?))
}

fn join(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}
