//! The device tree property `iommu-map` of a PCI host bridge: requester id to endpoint id.

use crate::driver::EndpointId;

/// The property's bytes, read entry by entry (rule C-067).
///
/// Each entry is four big-endian cells: first requester id, phandle of the IOMMU, first endpoint
/// id, how many. An incomplete entry at the end is ignored.
///
/// ```
/// use iommu::{driver::EndpointId, firmware::IommuMap};
/// // Requester ids 0..8 and 9..=0xffff behind the IOMMU with phandle 0x8000, which itself is 8.
/// let mut bytes = [0; 32];
/// bytes[4..8].copy_from_slice(&0x8000_u32.to_be_bytes());
/// bytes[12..16].copy_from_slice(&8_u32.to_be_bytes());
/// bytes[16..20].copy_from_slice(&9_u32.to_be_bytes());
/// bytes[20..24].copy_from_slice(&0x8000_u32.to_be_bytes());
/// bytes[24..28].copy_from_slice(&9_u32.to_be_bytes());
/// bytes[28..32].copy_from_slice(&0xfff7_u32.to_be_bytes());
/// let map = IommuMap::new(&bytes, None);
/// assert_eq!(map.translate(0x10), Some((0x8000, EndpointId(0x10))));
/// assert_eq!(map.translate(8), None, "the IOMMU is not behind itself");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct IommuMap<'a> {
    bytes: &'a [u8],
    mask: u32,
}

/// One entry of the map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapEntry {
    /// The first requester id.
    pub requester: u32,
    /// The phandle of the IOMMU's node.
    pub phandle: u32,
    /// The endpoint id of the first requester id.
    pub endpoint: u32,
    /// How many ids.
    pub len: u32,
}

impl<'a> IommuMap<'a> {
    /// Reads `bytes`; `mask` is the value of `iommu-map-mask`, if there is one.
    #[must_use]
    pub const fn new(bytes: &'a [u8], mask: Option<u32>) -> Self {
        let mask = match mask {
            Some(mask) => mask,
            None => u32::MAX,
        };
        Self { bytes, mask }
    }

    /// The entries, in the property's order.
    pub fn entries(&self) -> impl Iterator<Item = MapEntry> + use<'a> {
        self.bytes.chunks_exact(16).map(|entry| {
            let cell = |index: usize| {
                let bytes =
                    entry.get(index * 4..index * 4 + 4).and_then(|cell| cell.try_into().ok());
                u32::from_be_bytes(bytes.unwrap_or_default())
            };
            MapEntry { requester: cell(0), phandle: cell(1), endpoint: cell(2), len: cell(3) }
        })
    }

    /// The IOMMU's phandle and the endpoint id of a requester id; the first entry that fits wins.
    /// `None`: the function is behind no IOMMU.
    #[must_use]
    pub fn translate(&self, requester: u16) -> Option<(u32, EndpointId)> {
        let masked = u32::from(requester) & self.mask;
        self.entries().find_map(|entry| {
            let offset = masked.checked_sub(entry.requester).filter(|at| *at < entry.len)?;
            Some((entry.phandle, EndpointId(entry.endpoint.checked_add(offset)?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn bytes(entries: &[[u32; 4]]) -> Vec<u8> {
        entries.iter().flatten().flat_map(|cell| cell.to_be_bytes()).collect()
    }

    #[test]
    fn ids_outside_every_entry_are_behind_no_iommu() {
        let map = bytes(&[[0x100, 7, 0x1000, 0x10]]);
        let map = IommuMap::new(&map, None);
        assert_eq!(map.translate(0xff), None);
        assert_eq!(map.translate(0x100), Some((7, EndpointId(0x1000))));
        assert_eq!(map.translate(0x10f), Some((7, EndpointId(0x100f))));
        assert_eq!(map.translate(0x110), None);
    }

    #[test]
    fn a_mask_joins_functions_and_a_torn_entry_is_ignored() {
        let mut map = bytes(&[[0, 7, 0, 0x100]]);
        map.extend([0; 15]);
        let map = IommuMap::new(&map, Some(0xfff8));
        assert_eq!(map.entries().count(), 1);
        assert_eq!(map.translate(0x0b), Some((7, EndpointId(8))));
    }

    #[test]
    fn an_entry_that_wraps_gives_nothing() {
        let map = bytes(&[[0, 7, u32::MAX, 2]]);
        let map = IommuMap::new(&map, None);
        assert_eq!(map.translate(0), Some((7, EndpointId(u32::MAX))));
        assert_eq!(map.translate(1), None);
    }
}
