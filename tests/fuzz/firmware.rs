//! Firmware's bytes: an input is a property of a device tree, or a table VIOT, and the ids to look up.
//!
//! Each parser is compared with a reading that was written here on its own, from the Devicetree
//! bindings and ACPI 6.4 §5.2.34; no parser panics, and none goes on for ever.

use std::collections::BTreeMap;

use iommu::driver::EndpointId;
use iommu::firmware::{IommuMap, IommuPlace, Iommus, IommusError, MsiMap, Viot, ViotNode};

use super::input::Input;

/// Plays the input.
pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    match input.below(4) {
        0 => maps(&mut input),
        1 => references(&mut input),
        2 => viot(&mut input, false),
        _ => viot(&mut input, true),
    }
}

fn maps(input: &mut Input<'_>) {
    let mask = (input.below(2) == 1).then(|| input.u32());
    let ids = [input.u16(), input.u16() % 32, input.u16() % 32, 0, u16::MAX];
    let bytes = input.0;
    let word = |at: usize| u64::from(u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()));
    for id in ids {
        let key = u64::from(u32::from(id) & mask.unwrap_or(u32::MAX));
        let mut wanted = None;
        let mut at = 0;
        while at + 16 <= bytes.len() && wanted.is_none() {
            let (first, output, len) = (word(at), word(at + 8), word(at + 12));
            if key >= first && key < first + len && output + (key - first) <= u64::from(u32::MAX) {
                wanted = Some((word(at + 4) as u32, (output + (key - first)) as u32));
            }
            at += 16;
        }
        assert_eq!(MsiMap::new(bytes, mask).translate(id), wanted);
        let endpoint = wanted.map(|(phandle, id)| (phandle, EndpointId(id)));
        assert_eq!(IommuMap::new(bytes, mask).translate(id), endpoint);
    }
    assert_eq!(IommuMap::new(bytes, mask).entries().count(), bytes.len() / 16);
}

fn references(input: &mut Input<'_>) {
    // The cells of the phandles 0 to 3; 0xff stands for one that is not there, 0xfe for many.
    let cells: [u8; 4] = input.array();
    let cells_of = |phandle: u32| match cells.get(phandle as usize)? {
        0xff => None,
        0xfe => Some(u32::MAX),
        count => Some(u32::from(*count)),
    };
    let bytes = input.0;
    let mut at = 0;
    let mut entries = Iommus::new(bytes).entries(cells_of);
    loop {
        let entry = entries.next();
        let Some(header) = bytes.get(at..at + 4) else {
            let is_end = at == bytes.len();
            match entry {
                None => assert!(is_end && at > 0),
                Some(Err(IommusError::Empty)) => assert!(is_end && at == 0),
                Some(Err(IommusError::Torn)) => assert!(!is_end),
                other => panic!("{other:?} at the end"),
            }
            break;
        };
        let phandle = u32::from_be_bytes(header.try_into().unwrap());
        let Some(count) = cells_of(phandle) else {
            assert_eq!(entry, Some(Err(IommusError::UnknownIommu { phandle })));
            break;
        };
        let len = 4 * u64::from(count);
        if (at + 4) as u64 + len > bytes.len() as u64 {
            assert_eq!(entry, Some(Err(IommusError::Torn)));
            break;
        }
        let iommu = entry.expect("an entry").expect("a whole one");
        let cells: Vec<u8> = iommu.cells().flat_map(u32::to_be_bytes).collect();
        assert_eq!((iommu.phandle(), &*cells), (phandle, &bytes[at + 4..at + 4 + len as usize]));
        assert_eq!(iommu.endpoint().is_some(), count == 1);
        at += 4 + len as usize;
    }
    assert!(entries.next().is_none(), "nothing comes after the end, or after an error");
}

/// A table as it is read here: where each node begins, and its bytes.
type Nodes = BTreeMap<usize, Vec<u8>>;

fn viot(input: &mut Input<'_>, is_whole: bool) {
    let ids: [u16; 4] = std::array::from_fn(|_| input.u16());
    let base = u64::from(input.u16());
    let mut bytes = input.0.to_vec();
    if is_whole {
        // Signature, length and sum are right, so that the nodes are what is tried.
        bytes.resize(bytes.len().max(48), 0);
        bytes[..4].copy_from_slice(b"VIOT");
        let len = bytes.len() as u32;
        bytes[4..8].copy_from_slice(&len.to_le_bytes());
        bytes[9] = 0;
        bytes[9] = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    }
    let wanted = read(&bytes);
    let viot = match (Viot::new(&bytes), &wanted) {
        (Ok(viot), Some(_)) => viot,
        (Err(error), None) => {
            assert!(!error.to_string().is_empty());
            return;
        }
        (have, wanted) => panic!("{have:?}, but read here: {wanted:?}"),
    };
    let nodes = wanted.unwrap_or_default();
    assert_eq!(viot.nodes().count(), nodes.len());
    for node in viot.nodes().zip(nodes.values()) {
        let kind = node.1[0];
        assert_eq!(matches!(node.0, ViotNode::Unknown { .. }), !(1..=4).contains(&kind));
    }
    for segment in [0, 1, ids[0]] {
        for function in [0, 8, 9, 0x100, u16::MAX, ids[1], ids[2], ids[3]] {
            let own = IommuPlace::Pci { segment, function };
            let id = |node: &[u8]| {
                let (segments, functions) =
                    ((half(node, 8), half(node, 10)), (half(node, 12), half(node, 14)));
                let is_in = node[0] == 1
                    && (segments.0..=segments.1).contains(&segment)
                    && (functions.0..=functions.1).contains(&function);
                is_in.then(|| {
                    u64::from(segment - segments.0) * 0x1_0000 + u64::from(function - functions.0)
                })
            };
            assert_eq!(viot.pci(segment, function), first(&nodes, own, id));
        }
    }
    for base in [0, base] {
        let id = |node: &[u8]| (node[0] == 2 && long(node, 8) == base).then_some(0);
        assert_eq!(viot.mmio(base), first(&nodes, IommuPlace::Mmio { base }, id));
    }
}

/// The nodes, or `None` for a table that is wrong.
fn read(bytes: &[u8]) -> Option<Nodes> {
    if bytes.len() < 48 || &bytes[..4] != b"VIOT" {
        return None;
    }
    let len = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    if len < 48 || len > bytes.len() {
        return None;
    }
    let bytes = &bytes[..len];
    if bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>() % 256 != 0 {
        return None;
    }
    let (count, mut at) = (half(bytes, 36), usize::from(half(bytes, 38)));
    let mut nodes = Nodes::new();
    for _ in 0..count {
        if at < 48 || at + 4 > len {
            return None;
        }
        let node_len = usize::from(half(bytes, at + 2));
        let least = match bytes[at] {
            1 | 2 => 24,
            3 | 4 => 16,
            _ => 4,
        };
        if node_len < least || at + node_len > len {
            return None;
        }
        nodes.insert(at, bytes[at..at + node_len].to_vec());
        at += node_len;
    }
    Some(nodes)
}

/// The first node with an id that leads to an IOMMU, unless that is the one that asks.
fn first(
    nodes: &Nodes,
    own: IommuPlace,
    id: impl Fn(&[u8]) -> Option<u64>,
) -> Option<(IommuPlace, EndpointId)> {
    for node in nodes.values().filter(|node| matches!(node[0], 1 | 2)) {
        let Some(offset) = id(node) else { continue };
        let endpoint = u64::from(u32::from_le_bytes(node[4..8].try_into().unwrap())) + offset;
        let Ok(endpoint) = u32::try_from(endpoint) else { continue };
        let place = match nodes.get(&usize::from(half(node, 16))) {
            Some(iommu) if iommu[0] == 3 => {
                IommuPlace::Pci { segment: half(iommu, 4), function: half(iommu, 6) }
            }
            Some(iommu) if iommu[0] == 4 => IommuPlace::Mmio { base: long(iommu, 8) },
            _ => continue,
        };
        return (place != own).then_some((place, EndpointId(endpoint)));
    }
    None
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
