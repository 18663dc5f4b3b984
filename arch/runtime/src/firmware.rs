//! What an image needs to know of its machine, whoever tells it: a device tree, ACPI tables.

use heapless::Vec;
use iommu::driver::EndpointId;
use iommu::firmware::{IommuMap, ViotNode};

pub use iommu::firmware::Viot;

use crate::devicetree::DeviceTree;

/// A contiguous range of physical addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    /// The first address.
    pub base: u64,
    /// How many bytes.
    pub len: u64,
}

impl Span {
    /// The address after the last, if there is one.
    #[must_use]
    pub fn end(self) -> Option<u64> {
        self.base.checked_add(self.len)
    }

    /// Whether `address` is in it.
    #[must_use]
    pub fn contains(self, address: u64) -> bool {
        address.checked_sub(self.base).is_some_and(|offset| offset < self.len)
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        (self.len > 0 && other.contains(self.base)) || (other.len > 0 && self.contains(other.base))
    }
}

/// The numbers of the root buses that are told; none means that it is bus 0 alone.
pub type RootBuses = Vec<u8, 4>;

/// The PCI host bridge (ECAM).
#[derive(Clone, Debug)]
pub struct PciHost {
    /// The configuration space.
    pub ecam: Span,
    /// The window for 32-bit BARs; CPU and PCI addresses are the same.
    pub window: Span,
    /// The root buses, if they are told.
    pub roots: RootBuses,
}

/// Which endpoint id stands for which PCI function.
#[derive(Clone, Copy, Debug)]
pub enum Topology<'a> {
    /// A device tree's property `iommu-map`.
    IommuMap(IommuMap<'a>),
    /// The ACPI table VIOT.
    Viot(Viot<'a>),
    /// Nobody tells.
    Untold,
}

impl Topology<'_> {
    /// The endpoint id of a requester id; `None` if it is not told, or behind no IOMMU.
    #[must_use]
    pub fn endpoint(&self, requester: u16) -> Option<EndpointId> {
        match self {
            Self::IommuMap(map) => map.translate(requester).map(|(_, endpoint)| endpoint),
            Self::Viot(viot) => viot.pci(0, requester).map(|(_, endpoint)| endpoint),
            Self::Untold => None,
        }
    }

    /// Whether anything is told.
    #[must_use]
    pub fn is_told(&self) -> bool {
        !matches!(self, Self::Untold)
    }
}

/// The buses that the ranges of PCI segment 0 begin with. QEMU writes a range per root bus.
#[must_use]
pub fn root_buses(viot: &Viot<'_>) -> RootBuses {
    let mut roots = RootBuses::new();
    for node in viot.nodes() {
        let ViotNode::PciRange(range) = node else { continue };
        let bus = (range.first_function >> 8) as u8;
        if range.first_segment == 0 && !roots.contains(&bus) && roots.push(bus).is_err() {
            break;
        }
    }
    roots
}

/// The machine as the firmware describes it.
#[derive(Clone, Debug)]
pub struct Description<'a> {
    /// The memory that the image is in.
    pub memory: Span,
    /// The PCI host.
    pub host: PciHost,
    /// The arguments given with `-append`, or an empty text.
    pub arguments: &'a str,
    /// Which IOMMU serves which function.
    pub topology: Topology<'a>,
    /// The device tree, if it was one that told this.
    pub tree: Option<DeviceTree<'a>>,
}

/// What is missing for the machine to be brought up.
#[derive(Clone, Copy, Debug, defmt::Format)]
pub enum Missing {
    /// A first call: the machine is up, and its memory must not be handed out twice.
    FirstCall,
    /// The level that the entry code prepares: the CPU started at another one.
    ExceptionLevel,
    /// A device tree or ACPI tables where the board has them.
    Description,
    /// Enough memory, in what the firmware tells.
    Memory,
    /// A PCI host with ECAM, in what the firmware tells.
    PciHost,
}
