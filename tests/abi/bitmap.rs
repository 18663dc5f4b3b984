//! The words of a bitmap in user memory (rules T1-353, T1-425, T1-435). Which bits go where is tested
//! in `tests/container/dirty.rs`.

use iommu::container::abi::{Bitmap, UserBitmap};
use iommu::container::{BitmapFault, DirtyBitmap};
use proptest::prelude::*;

use crate::memory::{BASE, User};

const BYTES: usize = 0x400;

fn bitmap(bytes: u64, shift: u64) -> Bitmap {
    Bitmap { page_size: 0x1000, bytes, address: BASE + shift }
}

#[test]
fn words_are_little_endian_and_others_stay() {
    let user = User::new(32);
    let mut words = UserBitmap::new(&user, bitmap(32, 0));
    assert_eq!(words.bytes(), 32);
    words.store(1, &[0x8001]).unwrap();
    let mut expected = vec![0xA5; 32];
    expected[8..16].copy_from_slice(&[0x01, 0x80, 0, 0, 0, 0, 0, 0]);
    assert_eq!(user.bytes(), expected);
    assert_eq!(words.load(1), Ok(0x8001));
    assert_eq!(words.load(3), Ok(0xA5A5_A5A5_A5A5_A5A5));
    words.store(0, &[]).unwrap();
    assert_eq!(user.bytes(), expected);
}

#[test]
fn nothing_beyond_the_bitmap_is_touched() {
    let user = User::new(64);
    let mut words = UserBitmap::new(&user, bitmap(20, 0));
    for (index, count) in [(0, 3), (1, 2), (2, 1), (3, 1), (u64::MAX / 8, 1), (u64::MAX, 4)] {
        assert_eq!(words.store(index, &vec![!0; count]), Err(BitmapFault), "{index}, {count}");
    }
    for index in [2, 3, u64::MAX / 8, u64::MAX] {
        assert_eq!(words.load(index), Err(BitmapFault), "{index}: its word ends at byte 24");
    }
    assert_eq!(user.bytes(), [0xA5; 64]);
    words.store(0, &[0; 2]).unwrap();
}

#[test]
fn faults_are_told() {
    let user = User::new(16);
    let mut words = UserBitmap::new(&user, bitmap(64, 0));
    assert_eq!(words.store(2, &[1]), Err(BitmapFault), "not there");
    assert_eq!(words.load(2), Err(BitmapFault), "not there");
    user.read_only.set(BASE + 8);
    assert_eq!(words.store(1, &[1]), Err(BitmapFault), "read-only");
    assert!(words.load(1).is_ok());
    assert_eq!(user.bytes(), [0xA5; 16]);
    let high = Bitmap { address: u64::MAX - 12, ..bitmap(16, 0) };
    let mut words = UserBitmap::new(&user, high);
    assert_eq!(words.store(1, &[1]), Err(BitmapFault), "the address wraps");
    assert_eq!(words.load(1), Err(BitmapFault));
}

proptest! {
    /// Long rows go in pieces, to any address, and come back.
    #[test]
    fn as_a_row_of_words(
        stores in prop::collection::vec(
            (0..128_u64, prop::collection::vec(any::<u64>(), 0..130)), 1..4),
        shift in 0..8_u64,
    ) {
        let user = User::new(BYTES + 8);
        let mut words = UserBitmap::new(&user, bitmap(BYTES as u64, shift));
        let mut expected = user.bytes();
        for (index, row) in stores {
            let fits = index as usize * 8 + row.len() * 8 <= BYTES;
            prop_assert_eq!(words.store(index, &row).is_ok(), fits);
            if !fits {
                continue;
            }
            for (at, word) in (index..).zip(&row) {
                let first = shift as usize + at as usize * 8;
                expected[first..first + 8].copy_from_slice(&word.to_le_bytes());
                prop_assert_eq!(words.load(at), Ok(*word));
            }
        }
        prop_assert_eq!(user.bytes(), expected);
    }
}
