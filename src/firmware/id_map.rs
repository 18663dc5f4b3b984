//! The device tree properties `iommu-map` and `msi-map` of a PCI host bridge: requester id to
//! endpoint id, and to the id that an interrupt controller knows. Both have one form.

use super::cell;
use crate::driver::EndpointId;

/// Bytes of an entry: four cells.
const ENTRY_LEN: usize = 16;

/// The property `iommu-map`, read entry by entry (rule C-067).
///
/// Each entry is four big-endian cells: first requester id, phandle of the IOMMU, first endpoint
/// id, how many. An entry without ids says nothing, and an incomplete one at the end is ignored.
///
/// ```
/// use iommu::{driver::EndpointId, firmware::IommuMap};
/// // Requester ids 0..8 and 9..=0xffff behind the IOMMU with phandle 0x8000, which itself is 8.
/// let cells = [[0_u32, 0x8000, 0, 8], [9, 0x8000, 9, 0xfff7]];
/// let bytes: Vec<u8> = cells.iter().flatten().flat_map(|cell| cell.to_be_bytes()).collect();
/// let map = IommuMap::new(&bytes, None);
/// assert_eq!(map.translate(0x10), Some((0x8000, EndpointId(0x10))));
/// assert_eq!(map.translate(8), None, "the IOMMU is not behind itself");
/// ```
///
/// A tree may list the IOMMU's own function; the property does not tell which one that is. Leave it
/// out: the node of an IOMMU on PCI has its requester id in `reg`, as `id << 8`.
#[derive(Clone, Copy, Debug)]
pub struct IommuMap<'a> {
    map: IdMap<'a>,
}

/// The property `msi-map`, read entry by entry: which interrupt controller takes the message-signalled
/// interrupts of a function, and under which id.
///
/// The form is that of [`IommuMap`]; the mask is `msi-map-mask`. What the id means is the
/// controller's: for an Arm GIC ITS it is the device id.
///
/// ```
/// use iommu::firmware::MsiMap;
/// let cells = [0_u32, 0x8001, 0x1_0000, 0x1_0000]; // all functions of segment 1 to one ITS
/// let bytes: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
/// assert_eq!(MsiMap::new(&bytes, None).translate(0x10), Some((0x8001, 0x1_0010)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MsiMap<'a> {
    map: IdMap<'a>,
}

/// One entry of a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapEntry {
    /// The first requester id.
    pub requester: u32,
    /// The phandle of the node that the ids are for: an IOMMU, an interrupt controller.
    pub phandle: u32,
    /// What the first requester id is there: an endpoint id, an interrupt controller's id.
    pub output: u32,
    /// How many ids.
    pub len: u32,
}

#[derive(Clone, Copy, Debug)]
struct IdMap<'a> {
    bytes: &'a [u8],
    mask: u32,
}

impl<'a> IommuMap<'a> {
    /// Reads `bytes`; `mask` is the value of `iommu-map-mask`, if there is one.
    #[must_use]
    pub const fn new(bytes: &'a [u8], mask: Option<u32>) -> Self {
        Self { map: IdMap::new(bytes, mask) }
    }

    /// The entries, in the property's order.
    pub fn entries(&self) -> impl Iterator<Item = MapEntry> + use<'a> {
        self.map.entries()
    }

    /// The IOMMU's phandle and the endpoint id of a requester id; the first entry that fits wins.
    /// `None`: the function is behind no IOMMU.
    #[must_use]
    pub fn translate(&self, requester: u16) -> Option<(u32, EndpointId)> {
        self.map.translate(requester).map(|(phandle, id)| (phandle, EndpointId(id)))
    }
}

impl<'a> MsiMap<'a> {
    /// Reads `bytes`; `mask` is the value of `msi-map-mask`, if there is one.
    #[must_use]
    pub const fn new(bytes: &'a [u8], mask: Option<u32>) -> Self {
        Self { map: IdMap::new(bytes, mask) }
    }

    /// The entries, in the property's order.
    pub fn entries(&self) -> impl Iterator<Item = MapEntry> + use<'a> {
        self.map.entries()
    }

    /// The controller's phandle and its id for a requester id; the first entry that fits wins.
    /// `None`: no controller takes the function's messages.
    #[must_use]
    pub fn translate(&self, requester: u16) -> Option<(u32, u32)> {
        self.map.translate(requester)
    }
}

impl<'a> IdMap<'a> {
    const fn new(bytes: &'a [u8], mask: Option<u32>) -> Self {
        let mask = match mask {
            Some(mask) => mask,
            None => u32::MAX,
        };
        Self { bytes, mask }
    }

    fn entries(&self) -> impl Iterator<Item = MapEntry> + use<'a> {
        self.bytes.chunks_exact(ENTRY_LEN).map(|entry| {
            let cell = |index: usize| cell(entry, index * 4).unwrap_or_default();
            MapEntry { requester: cell(0), phandle: cell(1), output: cell(2), len: cell(3) }
        })
    }

    fn translate(&self, requester: u16) -> Option<(u32, u32)> {
        let masked = u32::from(requester) & self.mask;
        self.entries().find_map(|entry| {
            let offset = masked.checked_sub(entry.requester).filter(|at| *at < entry.len)?;
            Some((entry.phandle, entry.output.checked_add(offset)?))
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
    fn c067_ids_outside_every_entry_are_behind_no_iommu() {
        let map = bytes(&[[0x100, 7, 0x1000, 0x10]]);
        let map = IommuMap::new(&map, None);
        assert_eq!(map.translate(0xff), None);
        assert_eq!(map.translate(0x100), Some((7, EndpointId(0x1000))));
        assert_eq!(map.translate(0x10f), Some((7, EndpointId(0x100f))));
        assert_eq!(map.translate(0x110), None);
    }

    #[test]
    fn c067_a_mask_joins_functions_and_a_torn_entry_is_ignored() {
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

    #[test]
    fn an_entry_without_ids_says_nothing_and_the_first_that_fits_wins() {
        // As QEMU 10 writes it for a RISC-V IOMMU.
        let map = bytes(&[[0, 1, 0, 0], [0, 2, 0, 0xffff], [8, 3, 0, 1]]);
        assert_eq!(IommuMap::new(&map, None).translate(8), Some((2, EndpointId(8))));
        assert_eq!(IommuMap::new(&map, None).translate(0xffff), None);
    }

    #[test]
    fn interrupt_messages_are_mapped_by_the_same_rules() {
        let map = bytes(&[[0, 7, 0x5000, 8], [8, 9, 0, 0xfff8]]);
        assert_eq!(MsiMap::new(&map, None).translate(7), Some((7, 0x5007)));
        assert_eq!(MsiMap::new(&map, None).translate(8), Some((9, 0)));
        assert_eq!(MsiMap::new(&map, Some(0)).translate(8), Some((7, 0x5000)));
        assert_eq!(MsiMap::new(&map, None).entries().count(), 2);
    }
}
