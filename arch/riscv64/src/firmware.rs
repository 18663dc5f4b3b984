//! The device tree, whose address the machine hands over.
#![expect(unsafe_code, reason = "says that the device tree's place is memory")]

use iommu_runtime::devicetree::DeviceTree;
use iommu_runtime::firmware::{Description, Missing};
use spin::Once;

use crate::board;

static TREE: Once<&'static [u8]> = Once::new();

/// Keeps the device tree at `address`, if there is one outside of the image.
pub fn keep(address: u64) {
    const MAGIC: u32 = 0xd00d_feed;
    const HEADER_LEN: usize = 40;
    let Ok(address) = usize::try_from(address) else { return };
    if address < board::IMAGE_END {
        return;
    }
    let tree = core::ptr::with_exposed_provenance::<u8>(address);
    // SAFETY: the machine started us with the address of RAM that holds its device tree; the image
    // leaves it alone, and nobody writes it.
    let header = unsafe { core::slice::from_raw_parts(tree, HEADER_LEN) };
    let word = |at: usize| {
        let bytes = header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_be_bytes)
    };
    let len = word(4) as usize;
    if word(0) != MAGIC || !(HEADER_LEN..=board::MAX_TREE).contains(&len) {
        return;
    }
    // SAFETY: as above; the header tells the length, and what the tree holds is checked by the parser.
    let tree = unsafe { core::slice::from_raw_parts(tree, len) };
    TREE.call_once(|| tree);
}

/// Reads what the firmware tells.
///
/// # Errors
///
/// [`Missing`] names what it does not tell.
pub fn describe() -> Result<Description<'static>, Missing> {
    let tree = TREE.get().copied().ok_or(Missing::Description)?;
    DeviceTree::new(tree).ok_or(Missing::Description)?.describe()
}
