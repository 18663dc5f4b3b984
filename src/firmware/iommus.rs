//! The device tree property `iommus` of a device that is not on PCI: its endpoint ids, one by one.

use core::fmt;

use super::cell;
use crate::driver::EndpointId;
use crate::error::errno;

/// The property `iommus` (rule C-066): a phandle of an IOMMU, then as many cells as that node's
/// `#iommu-cells` says; again, for as many ids as the device can emit.
///
/// ```
/// use iommu::{driver::EndpointId, firmware::{Iommus, IommusError}};
/// // Two ids of one device behind the IOMMU with phandle 0x8000, whose `#iommu-cells` is 1.
/// let bytes: Vec<u8> = [0x8000_u32, 0x20, 0x8000, 0x21].iter().flat_map(|c| c.to_be_bytes()).collect();
/// let cells_of = |phandle| (phandle == 0x8000).then_some(1); // what the host's reader finds
/// let ids: Result<Vec<_>, _> = Iommus::new(&bytes).entries(cells_of)
///     .map(|entry| entry.map(|iommu| (iommu.phandle(), iommu.endpoint())))
///     .collect();
/// assert_eq!(ids?, [(0x8000, Some(EndpointId(0x20))), (0x8000, Some(EndpointId(0x21)))]);
/// # Ok::<(), IommusError>(())
/// ```
///
/// No search in parent nodes: a device without the property is behind no IOMMU that the tree knows.
#[derive(Clone, Copy, Debug)]
pub struct Iommus<'a> {
    bytes: &'a [u8],
}

/// One entry: an IOMMU, and how it knows the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IommuRef<'a> {
    phandle: u32,
    cells: &'a [u8],
}

/// Why an entry can't be read, and nothing after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum IommusError {
    /// The property has no entry. `ENODEV`.
    Empty,
    /// Nobody knows how many cells the IOMMU's ids have: there is no node with the phandle, it is
    /// disabled, or it has no `#iommu-cells`. `ENODEV`.
    UnknownIommu {
        /// The phandle.
        phandle: u32,
    },
    /// The property ends in the middle of an entry. `EINVAL`.
    Torn,
}

impl<'a> Iommus<'a> {
    /// Reads `bytes`, the property's value.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The entries, in the property's order. `cells_of` tells the `#iommu-cells` of the node with a
    /// phandle; `None` if there is no such node, or it is disabled.
    ///
    /// # Errors
    ///
    /// As [`IommusError`]; it is the last item. Take none of the entries then: a device of which
    /// some ids are unknown can't be isolated.
    pub fn entries<F>(
        &self,
        mut cells_of: F,
    ) -> impl Iterator<Item = Result<IommuRef<'a>, IommusError>> + use<'a, F>
    where
        F: FnMut(u32) -> Option<u32>,
    {
        let mut rest = Some(self.bytes);
        let mut is_first = true;
        core::iter::from_fn(move || {
            let bytes = rest.take()?;
            let is_end = bytes.is_empty() && !is_first;
            is_first = false;
            if is_end {
                return None;
            }
            Some(take(bytes, &mut cells_of).map(|(entry, left)| {
                rest = Some(left);
                entry
            }))
        })
    }
}

fn take<'a>(
    bytes: &'a [u8],
    cells_of: &mut impl FnMut(u32) -> Option<u32>,
) -> Result<(IommuRef<'a>, &'a [u8]), IommusError> {
    if bytes.is_empty() {
        return Err(IommusError::Empty);
    }
    let (phandle, rest) = bytes.split_at_checked(4).ok_or(IommusError::Torn)?;
    let phandle = cell(phandle, 0).ok_or(IommusError::Torn)?;
    let count = cells_of(phandle).ok_or(IommusError::UnknownIommu { phandle })?;
    let len = usize::try_from(count).ok().and_then(|count| count.checked_mul(4));
    let parts = len.and_then(|len| rest.split_at_checked(len));
    let (cells, rest) = parts.ok_or(IommusError::Torn)?;
    Ok((IommuRef { phandle, cells }, rest))
}

impl<'a> IommuRef<'a> {
    /// The phandle of the IOMMU's node.
    #[must_use]
    pub const fn phandle(&self) -> u32 {
        self.phandle
    }

    /// The cells behind the phandle; what they mean is the IOMMU's.
    pub fn cells(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        self.cells.chunks_exact(4).map(|bytes| cell(bytes, 0).unwrap_or_default())
    }

    /// The endpoint id, for an IOMMU whose `#iommu-cells` is 1, as virtio-iommu's; else `None`, and
    /// the binding of the IOMMU says what the cells are.
    #[must_use]
    pub fn endpoint(&self) -> Option<EndpointId> {
        let mut cells = self.cells();
        (cells.len() == 1).then(|| cells.next()).flatten().map(EndpointId)
    }
}

impl IommusError {
    /// The stable errno of this variant (a positive number).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::Empty | Self::UnknownIommu { .. } => errno::ENODEV,
            Self::Torn => errno::EINVAL,
        }
    }
}

impl fmt::Display for IommusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("`iommus` has no entry: the device is behind no IOMMU"),
            Self::UnknownIommu { phandle } => write!(
                f,
                "`iommus` names phandle {phandle:#x}, which is no enabled node with `#iommu-cells`"
            ),
            Self::Torn => f.write_str(
                "`iommus` ends in the middle of an entry: compare it with the IOMMU's `#iommu-cells`",
            ),
        }
    }
}

impl core::error::Error for IommusError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;
    use std::vec::Vec;

    fn bytes(cells: &[u32]) -> Vec<u8> {
        cells.iter().flat_map(|cell| cell.to_be_bytes()).collect()
    }

    /// Phandle `n` has `n` cells, up to 3; others are not there.
    fn cells_of(phandle: u32) -> Option<u32> {
        (phandle <= 3).then_some(phandle)
    }

    fn read(bytes: &[u8]) -> Vec<Result<(u32, Vec<u32>), IommusError>> {
        let entries = Iommus::new(bytes).entries(cells_of);
        entries.map(|entry| entry.map(|one| (one.phandle(), one.cells().collect()))).collect()
    }

    #[test]
    fn c066_every_entry_adds_ids_and_iommus_may_differ_in_cells() {
        let all = bytes(&[2, 0x20, 0xff, 0, 1, 7, 3, 1, 2, 3]);
        let wanted = [
            (2, [0x20, 0xff].to_vec()),
            (0, [].to_vec()),
            (1, [7].to_vec()),
            (3, [1, 2, 3].into()),
        ];
        assert_eq!(read(&all), wanted.map(Ok));
        let ids: Vec<_> =
            Iommus::new(&all).entries(cells_of).map(|one| one.unwrap().endpoint()).collect();
        assert_eq!(ids, [None, None, Some(EndpointId(7)), None]);
    }

    #[test]
    fn c066_the_first_error_ends_it() {
        assert_eq!(read(&[]), [Err(IommusError::Empty)]);
        let unknown = IommusError::UnknownIommu { phandle: 9 };
        assert_eq!(read(&bytes(&[1, 5, 9, 1, 1, 5])), [Ok((1, [5].into())), Err(unknown)]);
        assert_eq!(read(&bytes(&[1, 5, 2, 1])), [Ok((1, [5].into())), Err(IommusError::Torn)]);
        assert_eq!(read(&bytes(&[1, 5])[..7]), [Err(IommusError::Torn)]);
        assert_eq!(read(&[0, 0, 0]), [Err(IommusError::Torn)]);
        let many = Iommus::new(&[0; 64]);
        assert_eq!(many.entries(|_| Some(u32::MAX)).next(), Some(Err(IommusError::Torn)));
    }

    #[test]
    fn errors_name_the_cause_and_where_to_look() {
        let unknown = IommusError::UnknownIommu { phandle: 0x8000 };
        assert_eq!((unknown.errno(), IommusError::Torn.errno()), (19, 22));
        assert!(unknown.to_string().contains("0x8000"));
        assert!(IommusError::Torn.to_string().contains("#iommu-cells"));
        assert!(IommusError::Empty.to_string().contains("no entry"));
    }
}
