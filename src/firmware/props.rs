//! What was written is read back, whatever it was: the parsers against a slow and obvious reading of
//! the values that the bytes were made from.

use std::vec::Vec;

use proptest::prelude::*;

use super::viot::tests::{mmio_endpoint, mmio_iommu, pci_iommu, pci_range, table};
use super::*;
use crate::driver::EndpointId;

/// Small numbers, so that entries meet, and any other.
fn small() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0_u32..24, 1 => any::<u32>()]
}

fn small16() -> impl Strategy<Value = u16> {
    prop_oneof![4 => 0_u16..6, 1 => any::<u16>()]
}

#[derive(Clone, Copy, Debug)]
enum Written {
    Range { endpoint: u32, segments: [u16; 2], functions: [u16; 2], iommu: usize },
    Mmio { endpoint: u32, base: u64, iommu: usize },
    Iommu(IommuPlace),
}

fn written() -> impl Strategy<Value = Written> {
    let pair = || [small16(), small16()];
    prop_oneof![
        (small(), pair(), pair(), 0_usize..8).prop_map(|(endpoint, segments, functions, iommu)| {
            Written::Range { endpoint, segments, functions, iommu }
        }),
        (small(), 0_u64..4, 0_usize..8).prop_map(|(endpoint, base, iommu)| Written::Mmio {
            endpoint,
            base,
            iommu
        }),
        (small16(), small16()).prop_map(|(segment, function)| {
            Written::Iommu(IommuPlace::Pci { segment, function })
        }),
        (0_u64..4).prop_map(|base| Written::Iommu(IommuPlace::Mmio { base })),
    ]
}

/// The bytes of the nodes; `iommu` counts nodes.
fn bytes(nodes: &[Written]) -> Vec<u8> {
    let len = |node: &Written| if matches!(node, Written::Iommu(_)) { 16 } else { 24 };
    let offset = |node: usize| 48 + nodes.iter().take(node).map(len).sum::<u16>();
    let bytes: Vec<_> = nodes
        .iter()
        .map(|node| match *node {
            Written::Range { endpoint, segments, functions, iommu } => {
                pci_range(endpoint, segments, functions, offset(iommu))
            }
            Written::Mmio { endpoint, base, iommu } => mmio_endpoint(endpoint, base, offset(iommu)),
            Written::Iommu(IommuPlace::Pci { segment, function }) => pci_iommu(segment, function),
            Written::Iommu(IommuPlace::Mmio { base }) => mmio_iommu(base),
        })
        .collect();
    table(&bytes)
}

/// The first node that has an answer and leads to an IOMMU decides.
fn model(
    nodes: &[Written],
    own: IommuPlace,
    endpoint: impl Fn(&Written) -> Option<u64>,
) -> Option<(IommuPlace, EndpointId)> {
    for node in nodes {
        let (Written::Range { iommu, .. } | Written::Mmio { iommu, .. }) = node else { continue };
        let Some(Written::Iommu(place)) = nodes.get(*iommu) else { continue };
        let Some(id) = endpoint(node).and_then(|id| u32::try_from(id).ok()) else { continue };
        return (*place != own).then_some((*place, EndpointId(id)));
    }
    None
}

proptest! {
    #[test]
    fn c069_a_viot_says_what_was_written(
        nodes in prop::collection::vec(written(), 0..8),
        asked in prop::collection::vec((small16(), small16()), 8),
    ) {
        let bytes = bytes(&nodes);
        let viot = Viot::new(&bytes).unwrap();
        prop_assert_eq!(viot.nodes().count(), nodes.len());
        for (segment, function) in asked {
            let wanted = model(&nodes, IommuPlace::Pci { segment, function }, |node| {
                let Written::Range { endpoint, segments: [a, b], functions: [c, d], .. } = *node else {
                    return None;
                };
                let inside = (a..=b).contains(&segment) && (c..=d).contains(&function);
                let offset = || u64::from(segment - a) * 0x1_0000 + u64::from(function - c);
                inside.then(|| u64::from(endpoint) + offset())
            });
            prop_assert_eq!(viot.pci(segment, function), wanted);
        }
        for at in 0..4 {
            let wanted = model(&nodes, IommuPlace::Mmio { base: at }, |node| match *node {
                Written::Mmio { endpoint, base, .. } if base == at => Some(endpoint.into()),
                _ => None,
            });
            prop_assert_eq!(viot.mmio(at), wanted);
        }
    }

    #[test]
    fn c067_a_map_says_what_was_written(
        entries in prop::collection::vec([small(), small(), small(), small()], 0..6),
        torn in prop::collection::vec(any::<u8>(), 0..16),
        mask in prop::option::of(any::<u32>()),
        asked in prop::collection::vec(0_u16..64, 8),
    ) {
        let mut bytes: Vec<u8> =
            entries.iter().flatten().flat_map(|cell| cell.to_be_bytes()).collect();
        bytes.extend(torn);
        for requester in asked {
            let id = u64::from(u32::from(requester) & mask.unwrap_or(u32::MAX));
            let wanted = entries.iter().find_map(|[first, phandle, output, len]| {
                let first = u64::from(*first);
                if id < first || id >= first + u64::from(*len) {
                    return None;
                }
                let output = u32::try_from(u64::from(*output) + id - first).ok()?;
                Some((*phandle, output))
            });
            prop_assert_eq!(MsiMap::new(&bytes, mask).translate(requester), wanted);
            let endpoint = wanted.map(|(phandle, id)| (phandle, EndpointId(id)));
            prop_assert_eq!(IommuMap::new(&bytes, mask).translate(requester), endpoint);
        }
    }

    #[test]
    fn c066_references_are_what_was_written(
        entries in prop::collection::vec(prop::collection::vec(any::<u32>(), 0..4), 1..6),
        lost in 1_usize..4,
    ) {
        // The phandle is the number of cells.
        let cells = entries.iter().flat_map(|entry| {
            core::iter::once(entry.len() as u32).chain(entry.iter().copied())
        });
        let bytes: Vec<u8> = cells.flat_map(u32::to_be_bytes).collect();
        let read: Result<Vec<Vec<u32>>, _> = Iommus::new(&bytes)
            .entries(Some)
            .map(|entry| entry.map(|iommu| iommu.cells().collect()))
            .collect();
        prop_assert_eq!(read.as_ref(), Ok(&entries));
        let torn = Iommus::new(&bytes[..bytes.len() - lost]).entries(Some).last();
        prop_assert_eq!(torn, Some(Err(IommusError::Torn)));
    }
}
