//! One PCI function, as far as grouping has to know it. Types only, no algorithm.

use core::{fmt, iter};

use super::acs::{Acs, AcsBits};

/// The name that a PCI request carries, and of the function that sends it: segment, bus, devfn.
///
/// Linux: `pci_domain_nr` with `PCI_DEVID`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RequesterId {
    /// Segment (Linux: domain).
    pub segment: u16,
    /// Bus number.
    pub bus: u8,
    /// Device number in the upper five bits, function number in the lower three; with ARI all
    /// eight are the function number.
    pub devfn: u8,
}

impl RequesterId {
    /// Function `function` of device `device`; bits beyond the fields are dropped.
    #[must_use]
    pub const fn new(segment: u16, bus: u8, device: u8, function: u8) -> Self {
        Self { segment, bus, devfn: device << 3 | function & 7 }
    }

    /// The device number, 0 to 31. Linux: `PCI_SLOT`.
    #[must_use]
    pub const fn device(self) -> u8 {
        self.devfn >> 3
    }

    /// The 16 bits that travel with a request: what `iommu-map` and VIOT translate to an endpoint
    /// id (rules C-067, C-069).
    #[must_use]
    pub const fn rid(self) -> u16 {
        u16::from_be_bytes([self.bus, self.devfn])
    }
}

impl fmt::Display for RequesterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, bus, devfn } = *self;
        write!(f, "{segment:04x}:{bus:02x}:{:02x}.{}", self.device(), devfn & 7)
    }
}

impl fmt::Debug for RequesterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a function is: the device/port type of its PCI Express capability, or that it has none.
///
/// Linux: `pci_pcie_type`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Kind {
    /// PCI Express endpoint.
    Endpoint,
    /// Legacy PCI Express endpoint.
    LegacyEndpoint,
    /// Endpoint integrated in the root complex.
    RcIntegratedEndpoint,
    /// Root complex event collector.
    EventCollector,
    /// Root port of the root complex.
    RootPort,
    /// Upstream port of a switch.
    UpstreamPort,
    /// Downstream port of a switch.
    DownstreamPort,
    /// Bridge with PCI Express above and conventional PCI or PCI-X below.
    PcieToPciBridge,
    /// Bridge with conventional PCI or PCI-X above and PCI Express below.
    PciToPcieBridge,
    /// Bridge without a PCI Express capability.
    ConventionalBridge,
    /// Function without a PCI Express capability that is no bridge. Also right for a function
    /// that the host can't classify: it is never believed to isolate (rule C-065).
    ConventionalDevice,
}

impl Kind {
    /// The kind that a device/port type means, or `None` for a reserved value.
    ///
    /// `port_type` is the field of that name in the PCI Express Capabilities register (bits 7:4,
    /// shifted down).
    #[must_use]
    pub const fn from_port_type(port_type: u8) -> Option<Self> {
        Some(match port_type {
            0x0 => Self::Endpoint,
            0x1 => Self::LegacyEndpoint,
            0x4 => Self::RootPort,
            0x5 => Self::UpstreamPort,
            0x6 => Self::DownstreamPort,
            0x7 => Self::PcieToPciBridge,
            0x8 => Self::PciToPcieBridge,
            0x9 => Self::RcIntegratedEndpoint,
            0xa => Self::EventCollector,
            _ => return None,
        })
    }

    /// Whether a bus can hang below such a function.
    #[must_use]
    pub const fn is_bridge(self) -> bool {
        use Kind::*;
        match self {
            RootPort | UpstreamPort | DownstreamPort => true,
            PcieToPciBridge | PciToPcieBridge | ConventionalBridge => true,
            Endpoint | LegacyEndpoint | RcIntegratedEndpoint => false,
            EventCollector | ConventionalDevice => false,
        }
    }

    /// Whether what hangs below is a link, on which there is one device only: whatever the upper
    /// five bits of its devfns say, they are its functions (ARI).
    pub(super) const fn has_link_below(self) -> bool {
        matches!(self, Self::RootPort | Self::DownstreamPort)
    }
}

/// A set of devfns on one bus. Linux: `pci_dev::dma_alias_mask`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct DevfnSet([u64; 4]);

impl DevfnSet {
    /// The empty set.
    pub const EMPTY: Self = Self([0; 4]);

    /// The set with `devfn` in it too. Linux: `pci_add_dma_alias`.
    #[must_use]
    pub const fn with(mut self, devfn: u8) -> Self {
        self.0[(devfn >> 6) as usize] |= 1 << (devfn & 63);
        self
    }

    /// Whether `devfn` is in the set.
    #[must_use]
    pub const fn contains(self, devfn: u8) -> bool {
        self.0[(devfn >> 6) as usize] >> (devfn & 63) & 1 == 1
    }

    /// The devfns of the set in ascending order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..4).zip(self.0).flat_map(|(word, bits)| {
            let without_lowest = |bits: &u64| Some(bits & bits.wrapping_sub(1));
            let rest = iter::successors(Some(bits), without_lowest).take_while(|bits| *bits != 0);
            rest.map(move |bits| word << 6 | bits.trailing_zeros() as u8)
        })
    }
}

impl fmt::Debug for DevfnSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// What is known of a function against, or beyond, what its registers say (rules C-051, C-055,
/// C-058).
///
/// The hook for the host's table of broken devices: this crate has no table of its own. It is
/// data and no callback, so the answer can't change between two looks. Linux: `drivers/pci/quirks.c`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Quirks {
    /// The ACS bits that the function honours whatever its registers say; asked before them.
    pub acs: Option<AcsBits>,
    /// The function whose requester id, and whose place in the tree, this one's DMA has.
    pub dma_function: Option<RequesterId>,
    /// Further devfns on its bus that the function sends with. Nothing needs to be there.
    pub alias_devfns: DevfnSet,
    /// A conventional bridge that sends as (secondary bus, devfn 0), not as itself.
    pub alias_is_secondary: bool,
    /// DMA from below is translated at this bridge, so bridges from here up rename nothing.
    pub translation_root: bool,
}

impl Quirks {
    /// Nothing special.
    pub const NONE: Self = Self {
        acs: None,
        dma_function: None,
        alias_devfns: DevfnSet::EMPTY,
        alias_is_secondary: false,
        translation_root: false,
    };
}

/// One function, as the host read it from configuration space. Linux: `struct pci_dev`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function {
    /// Where it is.
    pub id: RequesterId,
    /// What it is.
    pub kind: Kind,
    /// The bridge above; `None` on a root bus. For a virtual function: the bridge above its
    /// physical function.
    pub parent: Option<RequesterId>,
    /// The bus below a bridge; `None` if it has no number yet. Of no meaning otherwise.
    pub secondary: Option<u8>,
    /// The multi-function bit of the header type. One function that has it, or a second function
    /// that is there, is enough for its whole device.
    pub multifunction: bool,
    /// An SR-IOV virtual function: counts as single-function (rule C-062), and may sit on a bus
    /// that no bridge has below it.
    pub virtual_function: bool,
    /// The ACS extended capability; `None` without one.
    pub acs: Option<Acs>,
    /// Not to be trusted: outside the box, or a port that faces outwards (rules C-054, C-064).
    /// Has no influence on grouping.
    pub untrusted: bool,
    /// What the registers don't say.
    pub quirks: Quirks,
}

impl Function {
    /// A single function on a root bus, without ACS and quirks: fill in what differs.
    #[must_use]
    pub const fn new(id: RequesterId, kind: Kind) -> Self {
        Self {
            id,
            kind,
            parent: None,
            secondary: None,
            multifunction: false,
            virtual_function: false,
            acs: None,
            untrusted: false,
            quirks: Quirks::NONE,
        }
    }

    /// The segment and number of the bus below, if the function is a bridge that has one.
    pub(super) const fn bus_below(&self) -> Option<(u16, u8)> {
        match self.secondary {
            Some(bus) if self.kind.is_bridge() => Some((self.id.segment, bus)),
            _ => None,
        }
    }

    /// What a request from below carries when this bridge passes it on, if the bridge renames
    /// requests (rule C-055).
    pub(super) fn bridge_alias(&self) -> Option<RequesterId> {
        let secondary =
            self.bus_below().map(|(segment, bus)| RequesterId { segment, bus, devfn: 0 });
        match self.kind {
            Kind::PcieToPciBridge => secondary,
            Kind::ConventionalBridge if self.quirks.alias_is_secondary => secondary,
            Kind::ConventionalBridge | Kind::PciToPcieBridge => Some(self.id),
            _ => None,
        }
    }
}
