//! MAP_DMA: rules T1-260 to T1-265, layout T1-545.

use iommu::container::abi::{Command, Errno, request};
use iommu::container::{MapDma, UpdateVaddr};
use iommu::prot::Prot;
use proptest::prelude::*;

use crate::memory::{Fields, decode, decode_at, faults_below, first};

const MAP: u32 = request::IOMMU_MAP_DMA;

fn fields(argsz: u32, flags: u32, vaddr: u64, iova: u64, size: u64) -> Fields {
    Fields::default().u32(argsz).u32(flags).u64(vaddr).u64(iova).u64(size)
}

fn good() -> Fields {
    fields(32, 3, 0x7000, 0x10_0000, 0x2000)
}

/// T1-545: offsets 0, 4, 8, 16, 24.
#[test]
fn layout() {
    #[cfg(target_endian = "little")]
    {
        #[rustfmt::skip]
        let bytes = [
            32, 0, 0, 0,  1, 0, 0, 0,
            0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
            0, 0x10, 0, 0, 2, 0, 0, 0,
            0, 0x20, 0, 0, 0, 0, 0, 0,
        ];
        let map = MapDma {
            vaddr: 0x1122_3344_5566_7788,
            iova: 0x2_0000_1000,
            size: 0x2000,
            prot: Prot::READ,
        };
        assert_eq!(decode(0x3B71, &Fields(bytes.to_vec())), Ok(Command::Map(map)));
    }
}

#[test]
fn flags_become_rights() {
    let map = |prot| Command::Map(MapDma { vaddr: 0x7000, iova: 0x10_0000, size: 0x2000, prot });
    let update = Command::UpdateVaddr(UpdateVaddr { vaddr: 0x7000, iova: 0x10_0000, size: 0x2000 });
    let expected = [
        Err(Errno::INVAL),
        Ok(map(Prot::READ)),
        Ok(map(Prot::WRITE)),
        Ok(map(Prot::RW)),
        Ok(update),
        Err(Errno::INVAL),
        Err(Errno::INVAL),
        Err(Errno::INVAL),
    ];
    for (flags, expected) in (0..).zip(expected) {
        assert_eq!(decode(MAP, &fields(32, flags, 0x7000, 0x10_0000, 0x2000)), expected, "{flags}");
    }
    for bit in 3..32 {
        let flags = 1 << bit | 3;
        let result = decode(MAP, &fields(32, flags, 0x7000, 0x10_0000, 0x2000));
        assert_eq!(result, Err(Errno::INVAL), "bit {bit}");
    }
}

#[test]
fn every_argsz() {
    for argsz in (0..=40).chain([u32::MAX]) {
        let result = decode(MAP, &fields(argsz, 3, 0x7000, 0x10_0000, 0x2000));
        assert_eq!(result.is_ok(), argsz >= 32, "{argsz}");
        assert!(result.is_ok() || result == Err(Errno::INVAL));
    }
}

/// T1-260: all 32 bytes, whatever argsz says.
#[test]
fn every_fault_position() {
    faults_below(MAP, &Fields([good().0, vec![0; 8]].concat()), 32);
    faults_below(MAP, &Fields([fields(0, 0, 0, 0, 0).0, vec![0; 8]].concat()), 32);
}

#[test]
fn every_alignment_of_the_structure() {
    for shift in 1..16 {
        assert_eq!(decode_at(MAP, &good(), shift, |_| {}), decode(MAP, &good()));
    }
}

/// Of two faults the first in the order of the rules.
#[test]
fn two_faults() {
    let max = u64::MAX;
    let cases = [
        (fields(31, 3, max, max, 0), Errno::INVAL, "argsz before all"),
        (fields(32, 3, 0, max, 0), Errno::INVAL, "size 0 before a wrap"),
        (fields(32, 0, 0, max, 2), Errno::OVERFLOW, "wrap of the IOVA before flags"),
        (fields(32, 7, max, 0, 2), Errno::OVERFLOW, "wrap of the address before flags"),
        (fields(32, 8, max, 0, 2), Errno::INVAL, "an unknown flag before a wrap"),
    ];
    for (fields, errno, why) in cases {
        assert_eq!(decode(MAP, &fields), Err(errno), "{why}");
    }
    for fields in [fields(32, 3, max, 1, 1), fields(32, 3, 0, 0, max), fields(32, 3, 1, 1, max)] {
        assert!(decode(MAP, &fields).is_ok(), "the last byte of the space is a byte");
    }
}

/// T1-262: on a 32-bit host, after argsz and flags, before the size.
#[test]
fn numbers_that_the_host_does_not_hold() {
    let on_32_bit =
        |fields| decode_at(MAP, &fields, 0, |user| user.native_max.set(u32::MAX.into()));
    let large = 1 << 32;
    for (vaddr, iova, size) in [(large, 0, 0), (0, large, 0), (0, 0, large), (0, large - 1, 2)] {
        assert_eq!(on_32_bit(fields(32, 3, vaddr, iova, size)), Err(Errno::OVERFLOW));
    }
    assert_eq!(on_32_bit(fields(31, 3, large, 0, 0)), Err(Errno::INVAL));
    assert_eq!(on_32_bit(fields(32, 8, large, 0, 0)), Err(Errno::INVAL));
    assert!(on_32_bit(fields(32, 3, 0, large - 1, 1)).is_ok());
}

fn edge() -> impl Strategy<Value = u64> {
    let near = prop_oneof![Just(0), Just(u64::MAX), Just(1 << 32), Just(0x1000), any::<u64>()];
    (near, 0..4_u64).prop_map(|(at, by)| at.wrapping_add(by).wrapping_sub(2))
}

proptest! {
    /// The decoder against the list of checks.
    #[test]
    fn as_the_rules_list_it(
        argsz in prop_oneof![28..36_u32, Just(32_u32)],
        flags in 0..10_u32,
        [vaddr, iova, size] in [edge(), edge(), edge()],
        max in prop_oneof![Just(u64::MAX), Just(u64::from(u32::MAX))],
    ) {
        let wraps = |first: u64| {
            size > 0 && u128::from(first) + u128::from(size) - 1 > u128::from(max)
        };
        let expected = first(&[
            (argsz < 32 || flags > 7, Errno::INVAL),                      // T1-261
            (vaddr > max || iova > max || size > max, Errno::OVERFLOW),   // T1-262
            (size == 0, Errno::INVAL),                                    // T1-263
            (wraps(iova) || wraps(vaddr), Errno::OVERFLOW),               // T1-264
            (flags & 7 == 0 || (flags & 4 != 0 && flags & 3 != 0), Errno::INVAL), // T1-265
        ]);
        let fields = fields(argsz, flags, vaddr, iova, size);
        let result = decode_at(MAP, &fields, 3, |user| user.native_max.set(max));
        prop_assert_eq!(result.err(), expected);
    }
}
