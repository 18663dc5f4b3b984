//! UNMAP_DMA: rules T1-350 to T1-353, T1-369, layouts T1-546 and T1-547.

use iommu::container::abi::{Bitmap, Command, Errno, Unmap, UnmapMode, request};
use proptest::prelude::*;

use crate::memory::{BASE, Fields, TOP, User, decode, decode_at, faults_below, first};

const UNMAP: u32 = request::IOMMU_UNMAP_DMA;

fn plain(argsz: u32, flags: u32, iova: u64, size: u64) -> Fields {
    Fields::default().u32(argsz).u32(flags).u64(iova).u64(size)
}

fn dirty(argsz: u32, flags: u32, size: u64, bitmap: [u64; 3]) -> Fields {
    plain(argsz, flags, 0x10_0000, size).u64(bitmap[0]).u64(bitmap[1]).u64(bitmap[2])
}

fn unmap(iova: u64, size: u64, all: bool, mode: UnmapMode) -> Command {
    Command::Unmap(Unmap { address: BASE, iova, size, all, mode })
}

/// T1-546, T1-547: offsets 0, 4, 8, 16, and 24, 32, 40 for the bitmap.
#[test]
fn layout() {
    #[cfg(target_endian = "little")]
    {
        #[rustfmt::skip]
        let bytes = [
            48, 0, 0, 0,  1, 0, 0, 0,
            0, 0x10, 0, 0, 2, 0, 0, 0,
            0, 0, 0x10, 0, 0, 0, 0, 0,
            0, 0x10, 0, 0, 0, 0, 0, 0,
            0x20, 0, 0, 0, 0, 0, 0, 0,
            0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0, 0,
        ];
        let bitmap = Bitmap { page_size: 0x1000, bytes: 0x20, address: 0x3344_5566_7788 };
        let expected = unmap(0x2_0000_1000, 0x10_0000, false, UnmapMode::Dirty(bitmap));
        assert_eq!(decode(0x3B72, &Fields(bytes.to_vec())), Ok(expected));
    }
}

#[test]
fn flags_become_a_mode() {
    let one = Bitmap { page_size: 0x1000, bytes: 8, address: 0x5000 };
    let expected = [
        Ok((false, UnmapMode::Remove)),
        Ok((false, UnmapMode::Dirty(one))),
        Ok((true, UnmapMode::Remove)),
        Err(Errno::INVAL), // T1-352
        Ok((false, UnmapMode::Vaddr)),
        Err(Errno::INVAL),
        Ok((true, UnmapMode::Vaddr)), // T1-400
        Err(Errno::INVAL),
    ];
    for (flags, expected) in (0..).zip(expected) {
        let result = decode(UNMAP, &dirty(48, flags, 0x2000, [0x1000, 8, 0x5000]));
        let expected = expected.map(|(all, mode)| unmap(0x10_0000, 0x2000, all, mode));
        assert_eq!(result, expected, "{flags}");
    }
    for bit in 3..32 {
        assert_eq!(decode(UNMAP, &plain(24, 1 << bit, 0, 0x1000)), Err(Errno::INVAL), "bit {bit}");
    }
}

#[test]
fn every_argsz() {
    for argsz in (0..=56).chain([u32::MAX]) {
        for flags in [0, 1] {
            let result = decode(UNMAP, &dirty(argsz, flags, 0x2000, [0x1000, 8, 0x5000]));
            let least = if flags == 0 { 24 } else { 48 };
            assert_eq!(result.is_ok(), argsz >= least, "{argsz}");
            assert!(result.is_ok() || result == Err(Errno::INVAL));
        }
    }
}

#[test]
fn every_fault_position() {
    let tail = |fields: Fields| Fields([fields.0, vec![0; 8]].concat());
    faults_below(UNMAP, &tail(plain(24, 0, 0, 0x1000)), 24);
    faults_below(UNMAP, &tail(plain(0, 0, 0, 0)), 24); // argsz is read first, and checked after
    faults_below(UNMAP, &tail(dirty(48, 1, 0x2000, [0x1000, 8, 0x5000])), 48);
    // Bad flags and a short argsz are found before the bitmap is read.
    faults_below(UNMAP, &tail(dirty(48, 3, 0x2000, [0x1000, 8, 0x5000])), 24);
    faults_below(UNMAP, &tail(dirty(47, 1, 0x2000, [0x1000, 8, 0x5000])), 24);
}

#[test]
fn every_alignment_of_the_structure() {
    for shift in 1..16 {
        let fields = dirty(48, 1, 0x2000, [0x1000, 8, 0x5003]);
        let Ok(Command::Unmap(at)) = decode_at(UNMAP, &fields, shift, |_| {}) else {
            panic!("shift {shift}")
        };
        assert_eq!(Ok(Command::Unmap(Unmap { address: BASE, ..at })), decode(UNMAP, &fields));
    }
}

/// T1-353, T1-432: what a bitmap has to be.
#[test]
fn bitmaps() {
    let cases = [
        (0x2000, [0x1000, 8, 0x5000], true, "64 pages need 8 bytes, 2 do too"),
        (0x2000, [0x1000, 7, 0x5000], false, "7 bytes are no word"),
        (64 << 12, [0x1000, 8, 0x5000], true, "64 pages"),
        (65 << 12, [0x1000, 8, 0x5000], false, "65 pages"),
        (65 << 12, [0x1000, 16, 0x5000], true, "65 pages, two words"),
        (0x2000, [0, 8, 0x5000], false, "page size 0"),
        (0x2000, [0x1000, 0, 0x5000], false, "no bytes"),
        (0, [0x1000, 8, 0x5000], false, "no pages"),
        (0xfff, [0x1000, 8, 0x5000], false, "less than a page"),
        (0x2000, [0x3000, 8, 0x5000], true, "the lowest bit counts; the backend refuses the rest"),
        (0x2000, [1 << 63, 8, 0x5000], false, "less than a page of 2^63"),
        (1 << 43, [0x1000, 1 << 28, 0], true, "the largest"),
        (1 << 43, [0x1000, (1 << 28) + 1, 0], false, "larger than the largest"),
        ((1 << 43) + 0x1000, [0x1000, 1 << 28, 0], false, "a page more than the largest"),
        (0x2000, [0x1000, 8, TOP - 8], true, "the last user bytes"),
        (0x2000, [0x1000, 8, TOP - 7], false, "one byte is not the user's"),
        (0x2000, [0x1000, 8, u64::MAX - 3], false, "it wraps"),
        (u64::MAX, [1, u64::MAX, 0], false, "everything"),
    ];
    for (size, bitmap, good, why) in cases {
        let result = decode(UNMAP, &dirty(48, 1, size, bitmap));
        assert_eq!(result.is_ok(), good, "{why}: {result:?}");
        assert!(good || result == Err(Errno::INVAL), "{why}");
    }
}

/// Decoding leaves range checks to the dispatch: T1-354 comes first.
#[test]
fn the_range_is_not_checked_yet() {
    for (iova, size) in [(1, 1), (u64::MAX, u64::MAX), (0, 0)] {
        let result = decode(UNMAP, &plain(24, 0, iova, size));
        assert_eq!(result, Ok(unmap(iova, size, false, UnmapMode::Remove)));
    }
}

/// T1-369: the size is written back, 8 bytes at offset 16.
#[test]
fn writing_the_size_back() {
    let user = User::new(40);
    let request = Unmap { address: BASE, iova: 0, size: 0, all: true, mode: UnmapMode::Remove };
    request.write_size(&user, 0x1122_3344_5566_7788).unwrap();
    let mut expected = vec![0xA5; 40];
    expected[16..24].copy_from_slice(&0x1122_3344_5566_7788_u64.to_ne_bytes());
    assert_eq!(user.bytes(), expected);
    for len in 0..24 {
        let user = User::new(len);
        assert_eq!(request.write_size(&user, 1), Err(Errno::FAULT));
        assert_eq!(user.bytes(), vec![0xA5; len]);
    }
    let high = Unmap { address: u64::MAX - 4, ..request };
    assert_eq!(high.write_size(&user, 1), Err(Errno::FAULT));
}

proptest! {
    /// The decoder against the list of checks.
    #[test]
    fn as_the_rules_list_it(
        argsz in prop_oneof![20..28_u32, 44..52_u32],
        flags in 0..10_u32,
        size in prop_oneof![0..0x10_0000_u64, any::<u64>()],
        shift in 0..14_u32,
        bytes in prop_oneof![0..64_u64, any::<u64>()],
        data in prop_oneof![Just(0x5000), TOP - 70..TOP, any::<u64>()],
        there in prop_oneof![20..50_usize, Just(48_usize)],
    ) {
        let pgsize = if shift == 13 { 0 } else { 1 << shift };
        let pages = if pgsize == 0 { 0 } else { size >> shift };
        let with_bitmap = flags & 1 != 0;
        let words = u128::from(pages).div_ceil(64);
        let expected = first(&[
            (there < 24, Errno::FAULT),                                             // T1-350
            (argsz < 24 || flags > 7, Errno::INVAL),                                // T1-351
            (with_bitmap && flags & 6 != 0, Errno::INVAL),                          // T1-352
            (with_bitmap && argsz < 48, Errno::INVAL),                              // T1-353
            (with_bitmap && there < 48, Errno::FAULT),
            (with_bitmap && u128::from(data) + u128::from(bytes) > u128::from(TOP), Errno::INVAL),
            (with_bitmap && (pages == 0 || bytes == 0 || bytes > 1 << 28), Errno::INVAL),
            (with_bitmap && u128::from(bytes) < 8 * words, Errno::INVAL),
        ]);
        let mut fields = dirty(argsz, flags, size, [pgsize, bytes, data]);
        fields.0.truncate(there);
        prop_assert_eq!(decode(UNMAP, &fields).err(), expected);
    }
}
