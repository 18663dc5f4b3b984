//! The ACPI table VIOT (ACPI 6.4 §5.2.34): the virtual IOMMUs of a machine, and what is behind them.
//!
//! | what | file |
//! |---|---|
//! | the table checked, and looked up in | here |
//! | the nodes, byte by byte | `node.rs` |
//! | why a table is refused | `error.rs` |

mod error;
mod node;
#[cfg(test)]
pub(super) mod tests;

pub use error::ViotError;
pub use node::{IommuPlace, MmioEndpoint, PciRange, ViotNode};

use crate::driver::EndpointId;
use node::{Node, u16_at, u32_at};

/// The header that every ACPI table begins with.
const ACPI_HEADER_LEN: usize = 36;
/// With the fields of VIOT's own: number of nodes, offset of the first one.
const HEADER_LEN: usize = ACPI_HEADER_LEN + 12;
const LENGTH: usize = 4;
const NODE_COUNT: usize = 36;
const FIRST_NODE: usize = 38;

/// The table, whole and checked (rules C-069, C-070).
///
/// [`new`](Self::new) looks at every byte that is used later, so that looking up can't fail. Each
/// call walks the table: it is short.
///
/// ```
/// use iommu::driver::EndpointId;
/// use iommu::firmware::{IommuPlace, Viot, ViotError};
/// # let mut bytes = vec![0; 88];
/// # bytes[..5].copy_from_slice(b"VIOT\x58");
/// # bytes[36..40].copy_from_slice(&[2, 0, 48, 0]);
/// # bytes[48..56].copy_from_slice(&[3, 0, 16, 0, 0, 0, 8, 0]);
/// # bytes[64..68].copy_from_slice(&[1, 0, 24, 0]);
/// # bytes[78..82].copy_from_slice(&[0xff, 0xff, 48, 0]);
/// # bytes[9] = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
/// // `bytes`, from the firmware: all of segment 0 behind the virtio-iommu at 00:01.0.
/// let viot = Viot::new(&bytes)?;
/// let iommu = IommuPlace::Pci { segment: 0, function: 8 };
/// assert_eq!(viot.iommus().collect::<Vec<_>>(), [iommu]);
/// assert_eq!(viot.pci(0, 0x10), Some((iommu, EndpointId(0x10))));
/// assert_eq!(viot.pci(0, 8), None, "the IOMMU is not behind itself, although it is in the range");
/// assert_eq!(viot.pci(1, 0x10), None, "another segment");
/// # Ok::<(), ViotError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Viot<'a> {
    table: &'a [u8],
    first: usize,
    count: u16,
}

impl<'a> Viot<'a> {
    /// Checks the table at the start of `bytes`: signature, length, sum, and that every node lies
    /// inside and is as long as its kind needs. Bytes after the table are ignored.
    ///
    /// # Errors
    ///
    /// [`ViotError`] names the first thing that is wrong, and where.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ViotError> {
        if !bytes.starts_with(b"VIOT") {
            return Err(ViotError::Signature);
        }
        let told = u32_at(bytes, LENGTH).ok_or(ViotError::Length { told: 0, have: bytes.len() })?;
        let wrong = ViotError::Length { told, have: bytes.len() };
        let len = usize::try_from(told).map_err(|_| wrong)?;
        let table = bytes.get(..len).filter(|table| table.len() >= HEADER_LEN).ok_or(wrong)?;
        if table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) != 0 {
            return Err(ViotError::Checksum);
        }
        let (Some(count), Some(first)) = (u16_at(table, NODE_COUNT), u16_at(table, FIRST_NODE))
        else {
            return Err(wrong);
        };
        let viot = Self { table, first: first.into(), count };
        if count > 0 && viot.first < HEADER_LEN {
            return Err(ViotError::NodeOffset { offset: first.into() });
        }
        let mut at = viot.first;
        for _ in 0..count {
            at += Node::check(table, at)?;
        }
        Ok(viot)
    }

    /// The nodes in the table's order, unknown kinds included.
    pub fn nodes(&self) -> impl Iterator<Item = ViotNode> + use<'a> {
        self.walk().map(|(_, node)| node.parse())
    }

    /// The IOMMUs, in the table's order. Who lists functions to add skips these.
    pub fn iommus(&self) -> impl Iterator<Item = IommuPlace> + use<'a> {
        self.nodes().filter_map(|node| match node {
            ViotNode::Iommu(place) => Some(place),
            _ => None,
        })
    }

    /// The IOMMU in front of a PCI function, and the endpoint id under which it knows it.
    ///
    /// The first range that fits and leads to an IOMMU of the table decides. `None`: the function is
    /// behind no IOMMU, or it is that IOMMU itself, which ranges may include (QEMU's do) although
    /// no unit translates for itself.
    #[must_use]
    pub fn pci(&self, segment: u16, requester: u16) -> Option<(IommuPlace, EndpointId)> {
        let found = self.nodes().find_map(|node| {
            let ViotNode::PciRange(range) = node else { return None };
            Some((self.iommu_at(range.iommu)?, range.endpoint(segment, requester)?))
        });
        found.filter(|(iommu, _)| *iommu != IommuPlace::Pci { segment, function: requester })
    }

    /// The IOMMU in front of a device that is not on PCI, and the endpoint id under which it knows
    /// it. `base` is the address of the device's *first* range of registers.
    ///
    /// `None`: behind no IOMMU, or itself, as for [`pci`](Self::pci).
    #[must_use]
    pub fn mmio(&self, base: u64) -> Option<(IommuPlace, EndpointId)> {
        let found = self.nodes().find_map(|node| {
            let ViotNode::MmioEndpoint(one) = node else { return None };
            let iommu = self.iommu_at(one.iommu)?;
            (one.base == base).then_some((iommu, one.endpoint))
        });
        found.filter(|(iommu, _)| *iommu != IommuPlace::Mmio { base })
    }

    /// The IOMMU whose node begins at `offset`; `None` if none does.
    #[must_use]
    pub fn iommu_at(&self, offset: u16) -> Option<IommuPlace> {
        let (_, node) = self.walk().find(|(at, _)| *at == usize::from(offset))?;
        match node.parse() {
            ViotNode::Iommu(place) => Some(place),
            _ => None,
        }
    }

    /// The nodes with their offsets; [`new`](Self::new) found each of them whole.
    fn walk(&self) -> impl Iterator<Item = (usize, Node<'a>)> + use<'a> {
        let table = self.table;
        let (mut at, mut left) = (self.first, self.count);
        core::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let node = Node::at(table, at)?;
            let found = (at, node);
            at += node.len();
            Some(found)
        })
    }
}
