//! Dirty bits in user memory, against a model that goes bit by bit (rules T1-435, T1-437).

use iommu::container::abi::{Bitmap, DirtySink, UserBitmap, UserFault};
use proptest::prelude::*;

use crate::memory::{BASE, User};

const BYTES: usize = 0x400;

fn bitmap(bytes: u64, shift: u64) -> Bitmap {
    Bitmap { page_size: 0x1000, bytes, address: BASE + shift }
}

/// T1-437 literally: bits below `first` in its word stay, those above the last become 0.
fn model(memory: &mut [u8], first: u64, count: u64, bits: &[u64]) {
    let end = (first + count).next_multiple_of(64);
    for bit in first..end {
        let source = bit - first;
        let word = bits.get((source / 64) as usize).copied().unwrap_or(0);
        let set = source < count && word >> (source % 64) & 1 == 1;
        let byte = &mut memory[(bit / 8) as usize];
        *byte = *byte & !(1 << (bit % 8)) | u8::from(set) << (bit % 8);
    }
}

#[test]
fn words_are_little_endian_and_holes_stay() {
    let user = User::new(32);
    let mut sink = UserBitmap::new(&user, bitmap(32, 0));
    sink.put(64, 16, &[0x8001]).unwrap();
    let mut expected = vec![0xA5; 32];
    expected[8..16].copy_from_slice(&[0x01, 0x80, 0, 0, 0, 0, 0, 0]);
    assert_eq!(user.bytes(), expected);
    sink.put(84, 4, &[!0]).unwrap(); // in the same word, four bits further on
    expected[8..16].copy_from_slice(&[0x01, 0x80, 0xf0, 0, 0, 0, 0, 0]);
    assert_eq!(user.bytes(), expected);
    sink.put(0, 0, &[]).unwrap();
    assert_eq!(user.bytes(), expected);
}

#[test]
fn nothing_is_written_beyond_the_bitmap() {
    let user = User::new(64);
    let mut sink = UserBitmap::new(&user, bitmap(20, 0));
    for (first, count) in [
        (0, 129),
        (128, 1), // its word ends at byte 24
        (160, 1),
        (64, 65),
        (0, u64::MAX),
        (u64::MAX, 1),
        (u64::MAX, u64::MAX),
        (63, u64::MAX),
    ] {
        assert_eq!(sink.put(first, count, &[!0; 4]), Err(UserFault), "{first}, {count}");
    }
    assert_eq!(user.bytes(), [0xA5; 64]);
    sink.put(0, 128, &[0; 2]).unwrap();
}

#[test]
fn faults_are_told() {
    let user = User::new(16);
    let mut sink = UserBitmap::new(&user, bitmap(64, 0));
    assert_eq!(sink.put(128, 1, &[1]), Err(UserFault), "not there");
    assert_eq!(sink.put(129, 1, &[1]), Err(UserFault), "not there, read");
    user.read_only.set(BASE + 8);
    assert_eq!(sink.put(65, 1, &[1]), Err(UserFault), "read-only");
    assert_eq!(user.bytes(), [0xA5; 16]);
}

proptest! {
    #[test]
    fn as_bit_by_bit(
        puts in prop::collection::vec(
            (0..4096_u64, 0..4096_u64, prop::collection::vec(any::<u64>(), 0..64)), 1..4),
        shift in 0..8_u64,
    ) {
        let user = User::new(BYTES + 8);
        let mut sink = UserBitmap::new(&user, bitmap(BYTES as u64, shift));
        let mut expected = user.bytes();
        for (first, count, bits) in puts {
            sink.put(first, count, &bits).unwrap();
            model(&mut expected[shift as usize..], first, count, &bits);
        }
        prop_assert_eq!(user.bytes(), expected);
    }

    /// A mapping may come in pieces (the bits of a word that come later are 0 until then).
    #[test]
    fn pieces_are_as_one(first in 0..512_u64, bits in prop::collection::vec(any::<u64>(), 1..20),
        piece in 1..8_usize, last in 1..=64_u64)
    {
        let count = (bits.len() as u64 - 1) * 64 + last;
        let (one, many) = (User::new(BYTES), User::new(BYTES));
        UserBitmap::new(&one, bitmap(BYTES as u64, 0)).put(first, count, &bits).unwrap();
        let mut sink = UserBitmap::new(&many, bitmap(BYTES as u64, 0));
        for (index, words) in bits.chunks(piece).enumerate() {
            let done = (index * piece * 64) as u64;
            sink.put(first + done, (count - done).min(words.len() as u64 * 64), words).unwrap();
        }
        prop_assert_eq!(one.bytes(), many.bytes());
    }
}
