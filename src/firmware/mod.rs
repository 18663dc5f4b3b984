//! What firmware tells about IOMMUs: pure parsers over bytes. They allocate nothing, never panic,
//! and trust nothing. No lock.
//!
//! | who tells | what | here |
//! |---|---|---|
//! | device tree, node of a PCI host | `iommu-map`: requester ids to endpoint ids | [`IommuMap`] |
//! | device tree, node of a PCI host | `msi-map`: requester ids to ids of an interrupt controller | [`MsiMap`] |
//! | device tree, node of another device | `iommus`: the device's endpoint ids | [`Iommus`] |
//! | ACPI, table VIOT | IOMMUs, PCI functions and other devices behind them | [`Viot`] |
//!
//! Finding a property in a device tree, or a table from the ACPI root pointer on, is the host's: any
//! reader of either does. The parsers take the property's value, or the whole table.
//!
//! What they tell goes into [`DeviceInfo::endpoints`](crate::registry::DeviceInfo). A PCI function
//! can emit other requester ids than its own, where a bridge stands in for it: translate every one
//! (rule C-067); [`Topology::requester_ids`](crate::topology::Topology::requester_ids) lists them.

mod id_map;
mod iommus;
#[cfg(test)]
mod props;
mod viot;

pub use id_map::{IommuMap, MapEntry, MsiMap};
pub use iommus::{IommuRef, Iommus, IommusError};
pub use viot::{IommuPlace, MmioEndpoint, PciRange, Viot, ViotError, ViotNode};

/// The big-endian cell at `at`, in bytes.
fn cell(bytes: &[u8], at: usize) -> Option<u32> {
    let cell = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(cell.try_into().ok()?))
}
