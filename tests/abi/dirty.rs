//! DIRTY_PAGES: rules T1-417 to T1-426, layouts T1-547 to T1-549.

use iommu::container::DirtyRange;
use iommu::container::abi::{Bitmap, Command, Errno, request};
use proptest::prelude::*;

use crate::memory::{Fields, TOP, decode, decode_at, faults_below, first};

const DIRTY: u32 = request::IOMMU_DIRTY_PAGES;

fn head(argsz: u32, flags: u32) -> Fields {
    Fields::default().u32(argsz).u32(flags)
}

fn get(argsz: u32, flags: u32, [iova, size]: [u64; 2], bitmap: [u64; 3]) -> Fields {
    head(argsz, flags).u64(iova).u64(size).u64(bitmap[0]).u64(bitmap[1]).u64(bitmap[2])
}

fn good(argsz: u32, flags: u32) -> Fields {
    get(argsz, flags, [0x10_0000, 0x2000], [0x1000, 8, 0x5000])
}

/// T1-548, T1-549: offsets 0, 4, then 8, 16, and 24, 32, 40 for the bitmap.
#[test]
fn layout() {
    #[cfg(target_endian = "little")]
    {
        #[rustfmt::skip]
        let bytes = [
            48, 0, 0, 0,  4, 0, 0, 0,
            0, 0x10, 0, 0, 2, 0, 0, 0,
            0, 0, 0x10, 0, 0, 0, 0, 0,
            0, 0x10, 0, 0, 0, 0, 0, 0,
            0x20, 0, 0, 0, 0, 0, 0, 0,
            0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0, 0,
        ];
        let range = DirtyRange { iova: 0x2_0000_1000, size: 0x10_0000, page_size: 0x1000 };
        let bitmap = Bitmap { page_size: 0x1000, bytes: 0x20, address: 0x3344_5566_7788 };
        let expected = Command::DirtyGet(range, bitmap);
        assert_eq!(decode(0x3B75, &Fields(bytes.to_vec())), Ok(expected));
    }
    assert_eq!(decode(DIRTY, &head(8, 1)), Ok(Command::DirtyStart));
    assert_eq!(decode(DIRTY, &head(8, 2)), Ok(Command::DirtyStop));
}

/// T1-418, T1-419: exactly one of three flags.
#[test]
fn every_flag() {
    for flags in 0..8_u32 {
        let result = decode(DIRTY, &good(48, flags));
        assert_eq!(result.is_ok(), flags.count_ones() == 1, "{flags}");
        assert!(result.is_ok() || result == Err(Errno::INVAL));
    }
    for bit in 3..32 {
        for with in [0, 1, 2, 4] {
            let result = decode(DIRTY, &good(48, 1 << bit | with));
            assert_eq!(result, Err(Errno::INVAL), "bit {bit}");
        }
    }
}

#[test]
fn every_argsz() {
    for argsz in (0..=56).chain([u32::MAX]) {
        for (flags, least) in [(1, 8), (2, 8), (4, 48)] {
            let result = decode(DIRTY, &good(argsz, flags));
            assert_eq!(result.is_ok(), argsz >= least, "{argsz}");
            assert!(result.is_ok() || result == Err(Errno::INVAL));
        }
    }
}

#[test]
fn every_fault_position() {
    let tail = |fields: Fields| Fields([fields.0, vec![0; 8]].concat());
    faults_below(DIRTY, &tail(head(8, 1)), 8);
    faults_below(DIRTY, &tail(head(8, 2)), 8);
    faults_below(DIRTY, &tail(head(0, 0)), 8);
    faults_below(DIRTY, &tail(good(48, 4)), 48);
    faults_below(DIRTY, &tail(good(47, 4)), 8); // T1-420 before T1-421
    faults_below(DIRTY, &tail(good(48, 5)), 8); // T1-419 as well
}

#[test]
fn every_alignment_of_the_structure() {
    for shift in 1..16 {
        let result = decode_at(DIRTY, &good(48, 4), shift, |_| {});
        assert_eq!(result, decode(DIRTY, &good(48, 4)));
    }
}

/// Of two faults the first in the order of the rules.
#[test]
fn two_faults() {
    let (max, no_bitmap) = (u64::MAX, [0, 0, u64::MAX]);
    let cases = [
        ([max, 0], Errno::INVAL, "size 0 before a wrap"),
        ([max, 2], Errno::OVERFLOW, "a wrap before the bitmap"),
        ([0, 0x1000], Errno::INVAL, "the bitmap at last"),
    ];
    for (range, errno, why) in cases {
        assert_eq!(decode(DIRTY, &get(48, 4, range, no_bitmap)), Err(errno), "{why}");
    }
    let last = get(48, 4, [max - 0xfff, 0x1000], [0x1000, 8, 0]);
    assert!(decode(DIRTY, &last).is_ok(), "a range may end at the last address");
    let on_32_bit = |range| {
        let fields = get(48, 4, range, no_bitmap);
        decode_at(DIRTY, &fields, 0, |user| user.native_max.set(u32::MAX.into()))
    };
    assert_eq!(on_32_bit([1 << 32, 0]), Err(Errno::OVERFLOW), "T1-422 before T1-423");
    assert_eq!(on_32_bit([0, 1 << 32]), Err(Errno::OVERFLOW));
}

proptest! {
    /// The decoder against the list of checks.
    #[test]
    fn as_the_rules_list_it(
        argsz in prop_oneof![6..10_u32, 46..50_u32],
        flags in prop_oneof![0..10_u32, Just(4_u32)],
        iova in prop_oneof![0..0x10_0000_u64, any::<u64>(), u64::MAX - 0x8_0000..=u64::MAX],
        size in prop_oneof![0..0x10_0000_u64, any::<u64>()],
        shift in 0..14_u32,
        bytes in prop_oneof![0..64_u64, any::<u64>()],
        data in prop_oneof![Just(0x5000), TOP - 70..TOP, any::<u64>()],
        there in prop_oneof![6..50_usize, Just(48_usize)],
    ) {
        let pgsize = if shift == 13 { 0 } else { 1 << shift };
        let pages = if pgsize == 0 { 0 } else { size >> shift };
        let words = u128::from(pages).div_ceil(64);
        let is_get = flags == 4;
        let wraps = u128::from(iova) + u128::from(size) > 1 << 64;
        let expected = first(&[
            (there < 8, Errno::FAULT),                                              // T1-417
            (argsz < 8 || flags > 7, Errno::INVAL),                                 // T1-418
            (flags.count_ones() != 1, Errno::INVAL),                                // T1-419
            (is_get && argsz < 48, Errno::INVAL),                                   // T1-420
            (is_get && there < 48, Errno::FAULT),                                   // T1-421
            (is_get && size == 0, Errno::INVAL),                                    // T1-423
            (is_get && wraps, Errno::OVERFLOW),                                     // T1-424
            (is_get && u128::from(data) + u128::from(bytes) > u128::from(TOP), Errno::INVAL),
            (is_get && (pages == 0 || bytes == 0 || bytes > 1 << 28), Errno::INVAL), // T1-426
            (is_get && u128::from(bytes) < 8 * words, Errno::INVAL),
        ]);
        let mut fields = get(argsz, flags, [iova, size], [pgsize, bytes, data]);
        fields.0.truncate(there);
        prop_assert_eq!(decode(DIRTY, &fields).err(), expected);
    }
}
