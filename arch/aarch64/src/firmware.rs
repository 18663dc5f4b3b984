//! The device tree, where QEMU puts it; of what it does not tell, the table VIOT.
#![expect(unsafe_code, reason = "says that the device tree's place is memory")]

use iommu_runtime::devicetree::DeviceTree;
use iommu_runtime::firmware::{Description, Missing, Topology};

use crate::{board, fw_cfg, level};

/// Reads what the firmware tells.
///
/// # Errors
///
/// [`Missing`] names what it does not tell.
pub fn describe() -> Result<Description<'static>, Missing> {
    if !level::is_at_entry_level() {
        return Err(Missing::ExceptionLevel);
    }
    let blob = core::ptr::with_exposed_provenance(board::DEVICE_TREE);
    // SAFETY: the board has RAM there, which the image leaves alone, so it is readable and nobody
    // writes it; what it holds is checked by the parser.
    let blob = unsafe { core::slice::from_raw_parts(blob, board::DEVICE_TREE_LEN) };
    let mut told = DeviceTree::new(blob).ok_or(Missing::Description)?.describe()?;
    if !told.topology.is_told()
        && let Some(viot) = fw_cfg::viot()
    {
        told.topology = Topology::Viot(viot);
    }
    Ok(told)
}
