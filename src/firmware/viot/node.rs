//! The nodes of VIOT: what each kind's bytes say. ACPI 6.4 §5.2.34.

use super::ViotError;
use crate::driver::EndpointId;

/// Kind, a reserved byte, length.
pub(super) const NODE_HEADER_LEN: usize = 4;

const PCI_RANGE: u8 = 1;
const MMIO_ENDPOINT: u8 = 2;
const VIRTIO_IOMMU_PCI: u8 = 3;
const VIRTIO_IOMMU_MMIO: u8 = 4;

/// A node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ViotNode {
    /// PCI functions behind an IOMMU (kind 1).
    PciRange(PciRange),
    /// Another device behind an IOMMU (kind 2).
    MmioEndpoint(MmioEndpoint),
    /// A virtio-iommu (kinds 3 and 4).
    Iommu(IommuPlace),
    /// A kind that is not known here.
    Unknown {
        /// Its number.
        kind: u8,
    },
}

/// Where a virtio-iommu is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum IommuPlace {
    /// On PCI (kind 3).
    Pci {
        /// The PCI segment.
        segment: u16,
        /// Bus, device and function as a requester id.
        function: u16,
    },
    /// On MMIO (kind 4).
    Mmio {
        /// The physical address of its registers.
        base: u64,
    },
}

/// Every function of `first_function..=last_function` in every segment of
/// `first_segment..=last_segment`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PciRange {
    /// The endpoint id of the first function of the first segment.
    pub first_endpoint: EndpointId,
    /// The first PCI segment.
    pub first_segment: u16,
    /// The last one.
    pub last_segment: u16,
    /// The first requester id in each segment.
    pub first_function: u16,
    /// The last one.
    pub last_function: u16,
    /// The offset of the IOMMU's node in the table: [`Viot::iommu_at`](super::Viot::iommu_at).
    pub iommu: u16,
}

/// A device that is not on PCI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MmioEndpoint {
    /// Its endpoint id.
    pub endpoint: EndpointId,
    /// The physical address of its first range of registers.
    pub base: u64,
    /// The offset of the IOMMU's node in the table: [`Viot::iommu_at`](super::Viot::iommu_at).
    pub iommu: u16,
}

impl PciRange {
    /// The endpoint id of a function; `None` if it is not in the range, or its id would not fit.
    ///
    /// A segment further is 2^16 endpoint ids further (rule C-069).
    #[must_use]
    pub fn endpoint(&self, segment: u16, requester: u16) -> Option<EndpointId> {
        if segment > self.last_segment || requester > self.last_function {
            return None;
        }
        let segments = segment.checked_sub(self.first_segment)?;
        let functions = requester.checked_sub(self.first_function)?;
        let offset = u32::from(segments) << 16 | u32::from(functions);
        self.first_endpoint.0.checked_add(offset).map(EndpointId)
    }
}

/// The bytes of one node, as long as its kind needs at least.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    bytes: &'a [u8],
}

impl<'a> Node<'a> {
    /// Checks the node at offset `at` and returns its length.
    pub(super) fn check(table: &'a [u8], at: usize) -> Result<usize, ViotError> {
        let header = at.checked_add(NODE_HEADER_LEN).and_then(|end| table.get(at..end));
        let header = header.ok_or(ViotError::NodeOffset { offset: at })?;
        let kind = u8_at(header, 0).unwrap_or_default();
        let length = u16_at(header, 2).unwrap_or_default();
        let node = Self::at(table, at).ok_or(ViotError::NodeLength { offset: at, length })?;
        if node.bytes.len() < least_len(kind) {
            return Err(ViotError::NodeLength { offset: at, length });
        }
        Ok(node.bytes.len())
    }

    /// The node at offset `at`: its header and as many bytes as that says.
    pub(super) fn at(table: &'a [u8], at: usize) -> Option<Self> {
        let len = usize::from(u16_at(table, at.checked_add(2)?)?);
        let bytes = table.get(at..at.checked_add(len)?)?;
        (len >= NODE_HEADER_LEN).then_some(Self { bytes })
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn parse(&self) -> ViotNode {
        let kind = u8_at(self.bytes, 0).unwrap_or_default();
        self.known(kind).unwrap_or(ViotNode::Unknown { kind })
    }

    fn known(&self, kind: u8) -> Option<ViotNode> {
        let node = self.bytes;
        Some(match kind {
            PCI_RANGE => ViotNode::PciRange(PciRange {
                first_endpoint: EndpointId(u32_at(node, 4)?),
                first_segment: u16_at(node, 8)?,
                last_segment: u16_at(node, 10)?,
                first_function: u16_at(node, 12)?,
                last_function: u16_at(node, 14)?,
                iommu: u16_at(node, 16)?,
            }),
            MMIO_ENDPOINT => ViotNode::MmioEndpoint(MmioEndpoint {
                endpoint: EndpointId(u32_at(node, 4)?),
                base: u64_at(node, 8)?,
                iommu: u16_at(node, 16)?,
            }),
            VIRTIO_IOMMU_PCI => ViotNode::Iommu(IommuPlace::Pci {
                segment: u16_at(node, 4)?,
                function: u16_at(node, 6)?,
            }),
            VIRTIO_IOMMU_MMIO => ViotNode::Iommu(IommuPlace::Mmio { base: u64_at(node, 8)? }),
            _ => return None,
        })
    }
}

/// How long a node of this kind is at least.
fn least_len(kind: u8) -> usize {
    match kind {
        PCI_RANGE | MMIO_ENDPOINT => 24,
        VIRTIO_IOMMU_PCI | VIRTIO_IOMMU_MMIO => 16,
        _ => NODE_HEADER_LEN,
    }
}

pub(super) fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}
