//! VIOT: a table that QEMU wrote, every kind of node, and every way to be wrong.

use std::string::ToString;
use std::vec;
use std::vec::Vec;

use super::node::NODE_HEADER_LEN;
use super::*;

/// What QEMU 7.2 gives a q35 machine with a virtio-iommu at 00:01.0: the IOMMU, and a range for the
/// root bus, in which it is itself.
const QEMU: &[u8] = b"VIOT\x58\0\0\0\0\x66BOCHS BXPC    \x01\0\0\0BXPC\x01\0\0\0\
    \x02\0\x30\0\0\0\0\0\0\0\0\0\
    \x03\0\x10\0\0\0\x08\0\0\0\0\0\0\0\0\0\
    \x01\0\x18\0\0\0\0\0\0\0\0\0\0\0\xff\0\x30\0\0\0\0\0\0\0";

/// A table with these nodes and a right sum.
pub(in crate::firmware) fn table(nodes: &[Vec<u8>]) -> Vec<u8> {
    let mut table = vec![0; HEADER_LEN];
    table[..4].copy_from_slice(b"VIOT");
    table[NODE_COUNT..][..2].copy_from_slice(&(nodes.len() as u16).to_le_bytes());
    table[FIRST_NODE] = HEADER_LEN as u8;
    table.extend(nodes.iter().flatten());
    let len = table.len() as u32;
    table[LENGTH..][..4].copy_from_slice(&len.to_le_bytes());
    fix_sum(&mut table);
    table
}

fn fix_sum(table: &mut [u8]) {
    table[9] = 0;
    table[9] = table.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte));
}

fn node(kind: u8, fields: &[&[u8]], len: usize) -> Vec<u8> {
    let mut node = vec![kind, 0, len as u8, 0];
    node.extend(fields.iter().copied().flatten());
    node.resize(len.max(NODE_HEADER_LEN), 0);
    node
}

pub(in crate::firmware) fn pci_range(
    endpoint: u32,
    segments: [u16; 2],
    functions: [u16; 2],
    iommu: u16,
) -> Vec<u8> {
    let [first, last] = segments.map(u16::to_le_bytes);
    let [low, high] = functions.map(u16::to_le_bytes);
    node(1, &[&endpoint.to_le_bytes(), &first, &last, &low, &high, &iommu.to_le_bytes()], 24)
}

pub(in crate::firmware) fn mmio_endpoint(endpoint: u32, base: u64, iommu: u16) -> Vec<u8> {
    node(2, &[&endpoint.to_le_bytes(), &base.to_le_bytes(), &iommu.to_le_bytes()], 24)
}

pub(in crate::firmware) fn pci_iommu(segment: u16, function: u16) -> Vec<u8> {
    node(3, &[&segment.to_le_bytes(), &function.to_le_bytes()], 16)
}

pub(in crate::firmware) fn mmio_iommu(base: u64) -> Vec<u8> {
    node(4, &[&[0; 4], &base.to_le_bytes()], 16)
}

const PCI: IommuPlace = IommuPlace::Pci { segment: 0, function: 8 };
const MMIO: IommuPlace = IommuPlace::Mmio { base: 0xa00_3e00 };

#[test]
fn c069_the_table_that_qemu_writes() {
    let viot = Viot::new(QEMU).unwrap();
    assert_eq!(viot.iommus().collect::<Vec<_>>(), [PCI]);
    assert_eq!(viot.pci(0, 0x10), Some((PCI, EndpointId(0x10))));
    assert_eq!(viot.pci(0, 0xff), Some((PCI, EndpointId(0xff))));
    assert_eq!(viot.pci(0, 0x100), None, "bus 1 is not told");
    assert_eq!(viot.pci(0, 8), None, "C-070: a unit never translates itself");
    assert_eq!(viot.mmio(0), None);
}

#[test]
fn c069_every_kind_of_node() {
    let bytes = table(&[
        pci_iommu(0, 8),                                 // at 48
        mmio_iommu(0xa00_3e00),                          // at 64
        pci_range(0x100, [0, 1], [0x10, 0x1f], 48),      // at 80
        pci_range(0x8000_0000, [2, 2], [0, 0xffff], 64), // at 104
        mmio_endpoint(7, 0x900_0000, 64),                // at 128
    ]);
    let viot = Viot::new(&bytes).unwrap();
    assert_eq!(viot.iommus().collect::<Vec<_>>(), [PCI, MMIO]);
    assert_eq!(viot.nodes().count(), 5);
    assert_eq!(
        (viot.iommu_at(48), viot.iommu_at(64), viot.iommu_at(80)),
        (Some(PCI), Some(MMIO), None)
    );
    assert_eq!(viot.pci(0, 0x10), Some((PCI, EndpointId(0x100))));
    assert_eq!(viot.pci(1, 0x1f), Some((PCI, EndpointId(0x1_010f))), "a segment further");
    assert_eq!((viot.pci(0, 0xf), viot.pci(1, 0x20), viot.pci(3, 0x10)), (None, None, None));
    assert_eq!(viot.pci(2, 8), Some((MMIO, EndpointId(0x8000_0008))), "not that segment's IOMMU");
    assert_eq!(viot.mmio(0x900_0000), Some((MMIO, EndpointId(7))));
    assert_eq!(viot.mmio(0x900_0001), None, "the first range begins at the base, or it is another");
}

#[test]
fn c070_unknown_nodes_and_endpoints_without_an_iommu_are_skipped() {
    let bytes = table(&[
        pci_range(0x100, [0, 0], [0x10, 0x1f], 72), // leads into the middle of a node
        pci_range(0x200, [0, 0], [0x10, 0x1f], 0xfff0), // leads outside
        node(9, &[], 4),                            // a kind of tomorrow
        pci_range(0x300, [0, 0], [0x10, 0x1f], 48), // leads to a range
        pci_range(0x400, [0, 0], [0x10, 0x1f], 148),
        pci_iommu(0, 8), // at 148
        mmio_endpoint(1, 0x1000, 0),
        mmio_endpoint(2, 0x1000, 148),
    ]);
    let viot = Viot::new(&bytes).unwrap();
    assert_eq!(viot.nodes().nth(2), Some(ViotNode::Unknown { kind: 9 }));
    assert_eq!(viot.pci(0, 0x10), Some((PCI, EndpointId(0x400))));
    assert_eq!(viot.mmio(0x1000), Some((PCI, EndpointId(2))));
}

#[test]
fn c070_an_iommu_is_never_its_own_endpoint() {
    let bytes = table(&[
        mmio_iommu(0xa00_3e00),                   // at 48
        pci_iommu(3, 8),                          // at 64
        mmio_endpoint(1, 0xa00_3e00, 48),         // itself
        pci_range(0, [3, 3], [0, 0xff], 64),      // itself among others
        pci_range(0x9000, [0, 0], [0, 0xff], 64), // the same function number, elsewhere
    ]);
    let viot = Viot::new(&bytes).unwrap();
    assert_eq!(viot.mmio(0xa00_3e00), None);
    assert_eq!(viot.pci(3, 8), None);
    assert_eq!(viot.pci(0, 8).map(|(_, endpoint)| endpoint), Some(EndpointId(0x9008)));
    assert_eq!(viot.pci(3, 9).map(|(_, endpoint)| endpoint), Some(EndpointId(9)));
}

#[test]
fn an_endpoint_id_that_does_not_fit_is_none() {
    let range = pci_range(u32::MAX - 1, [0, u16::MAX], [0, u16::MAX], 48);
    let bytes = table(&[pci_iommu(9, 0), range]);
    let viot = Viot::new(&bytes).unwrap();
    assert_eq!(viot.pci(0, 1).map(|(_, endpoint)| endpoint), Some(EndpointId(u32::MAX)));
    assert_eq!((viot.pci(0, 2), viot.pci(u16::MAX, u16::MAX)), (None, None));
    let backwards = table(&[pci_iommu(9, 0), pci_range(0, [2, 1], [9, 8], 48)]);
    let viot = Viot::new(&backwards).unwrap();
    assert!((0..4).all(|segment| (0..12).all(|function| viot.pci(segment, function).is_none())));
}

#[test]
fn c070_a_table_that_is_wrong_is_refused() {
    let refused = |bytes: &[u8]| Viot::new(bytes).err();
    assert_eq!(refused(b"VIO"), Some(ViotError::Signature));
    assert_eq!(refused(b"IORT"), Some(ViotError::Signature));
    assert_eq!(refused(b"VIOT"), Some(ViotError::Length { told: 0, have: 4 }));
    for have in [47, 87] {
        let wanted = ViotError::Length { told: 88, have };
        assert_eq!(refused(&QEMU[..have]), Some(wanted));
    }
    let mut short = QEMU.to_vec();
    short[LENGTH] = 47;
    fix_sum(&mut short);
    assert_eq!(refused(&short), Some(ViotError::Length { told: 47, have: 88 }));
    for at in 0..QEMU.len() {
        let mut wrong = QEMU.to_vec();
        wrong[at] ^= 1;
        assert!(refused(&wrong).is_some(), "byte {at}: the sum is wrong, or what it guards");
    }
    let mut longer = QEMU.to_vec();
    longer.extend([1; 100]);
    assert!(refused(&longer).is_none(), "bytes after the table are not of it");
}

#[test]
fn c070_a_node_that_is_wrong_ends_it() {
    let with = |change: fn(&mut Vec<u8>)| {
        let mut bytes = QEMU.to_vec();
        change(&mut bytes);
        fix_sum(&mut bytes);
        Viot::new(&bytes).err()
    };
    let offset = |offset| Some(ViotError::NodeOffset { offset });
    let length = |offset, length| Some(ViotError::NodeLength { offset, length });
    assert_eq!(with(|bytes| bytes[FIRST_NODE] = 47), offset(47));
    assert_eq!(with(|bytes| bytes[FIRST_NODE] = 88), offset(88));
    assert_eq!(with(|bytes| bytes[FIRST_NODE + 1] = 0xff), offset(0xff30));
    assert_eq!(with(|bytes| bytes[NODE_COUNT] = 3), offset(88), "more nodes than bytes");
    assert_eq!(with(|bytes| bytes[50] = 3), length(48, 3), "below the header: no way forward");
    assert_eq!(with(|bytes| bytes[50] = 0), length(48, 0));
    assert_eq!(with(|bytes| bytes[50] = 15), length(48, 15), "below what the kind has");
    assert_eq!(with(|bytes| bytes[66] = 23), length(64, 23));
    assert_eq!(with(|bytes| bytes[66] = 25), length(64, 25), "beyond the end");
    assert_eq!(with(|bytes| bytes[67] = 0xff), length(64, 0xff18));
    let none = with(|bytes| bytes[NODE_COUNT] = 0);
    assert_eq!(none, None, "a table without nodes tells nothing, and is right");
}

#[test]
fn errors_name_the_cause_and_where_to_look() {
    let told = [
        (ViotError::Signature, "whole table"),
        (ViotError::Length { told: 9, have: 7 }, "9 bytes, 7 are there"),
        (ViotError::Checksum, "read whole"),
        (ViotError::NodeOffset { offset: 47 }, "offset 47"),
        (ViotError::NodeLength { offset: 64, length: 3 }, "offset 64 can't have 3 bytes"),
    ];
    for (error, part) in told {
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(error.errno(), 22);
    }
}
