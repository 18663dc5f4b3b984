//! GET_INFO: rules T1-520 to T1-528, layouts T1-540 to T1-544.

use iommu::addr::{Iova, IovaRange};
use iommu::container::Info;
use iommu::container::abi::{Command, Errno, GetInfo, request};

use crate::fake;
use crate::memory::{BASE, Fields, User, decode, faults_below};

const INFO: u32 = request::IOMMU_GET_INFO;

fn windows(count: u64) -> Vec<IovaRange> {
    let range = |index| IovaRange::from_len(Iova(index << 32), 0x1_0000 + index).unwrap();
    (0..count).map(range).collect()
}

fn info(windows: &[IovaRange]) -> Info {
    fake::info(0x4020_1000, 0xfffe, windows)
}

/// The whole answer by hand, from the rules' offsets.
fn expected(argsz: u32, cap_offset: u32, windows: &[IovaRange]) -> Vec<u8> {
    let fixed = Fields::default().u32(argsz).u32(3).u64(0x4020_1000).u32(cap_offset).u32(0);
    let migration = fixed.u16(2).u16(1).u32(56).u32(0).u32(0).u64(0x1000).u64(1 << 28);
    let next = if windows.is_empty() { 0 } else { 72 };
    let mut all = migration.u16(3).u16(1).u32(next).u32(0xfffe).u32(0);
    if !windows.is_empty() {
        all = all.u16(1).u16(1).u32(0).u32(windows.len() as u32).u32(0);
        for window in windows {
            all = all.u64(window.first().0).u64(window.last().0);
        }
    }
    all.0
}

/// T1-520: 16 bytes readable, then argsz.
#[test]
fn every_argsz_and_every_fault_position_of_the_request() {
    let fields = |argsz: u32| Fields::default().u32(argsz).u32(!0).u64(!0).u64(!0);
    for argsz in (0..=32).chain([u32::MAX]) {
        let expected = if argsz < 16 {
            Err(Errno::INVAL)
        } else {
            Ok(Command::GetInfo(GetInfo { address: BASE, argsz }))
        };
        assert_eq!(decode(INFO, &fields(argsz)), expected, "{argsz}; flags going in don't count");
    }
    faults_below(INFO, &fields(16), 16);
    faults_below(INFO, &fields(0), 16);
}

/// The bytes of the whole answer with one range, written down one by one.
#[test]
#[cfg(target_endian = "little")]
fn layout() {
    #[rustfmt::skip]
    let bytes = [
        104, 0, 0, 0,  3, 0, 0, 0,   0, 0x10, 0x20, 0x40, 0, 0, 0, 0, // argsz, flags, page sizes
        24, 0, 0, 0,   0, 0, 0, 0,                                    // offset of the chain
        2, 0,  1, 0,   56, 0, 0, 0,                                   // 24: MIGRATION
        0, 0, 0, 0,    0, 0, 0, 0,
        0, 0x10, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0x10, 0, 0, 0, 0,
        3, 0,  1, 0,   72, 0, 0, 0,                                   // 56: DMA_AVAIL
        0xfe, 0xff, 0, 0,  0, 0, 0, 0,
        1, 0,  1, 0,   0, 0, 0, 0,                                    // 72: IOVA_RANGE
        1, 0, 0, 0,    0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0,
        0xff, 0xff, 0, 0, 0, 0, 0, 0,
    ];
    let user = User::new(104);
    info(&windows(1)).write(&user, GetInfo { address: BASE, argsz: 104 }).unwrap();
    assert_eq!(user.bytes(), bytes);
}

/// T1-523, T1-525, T1-526: for every argsz from 16 on, and nothing beyond it.
#[test]
fn every_argsz_of_the_answer() {
    for count in [0, 1, 2, 15, 16, 17, 33] {
        let windows = windows(count);
        let needed = if count == 0 { 72 } else { 88 + 16 * count as u32 };
        assert_eq!(info(&windows).needed(), Ok(needed));
        for argsz in 16..=needed + 8 {
            let len = needed as usize + 16;
            let user = User::new(len);
            info(&windows).write(&user, GetInfo { address: BASE, argsz }).unwrap();
            let mut bytes = if argsz < needed {
                let fixed = expected(needed, 0, &windows);
                fixed[..argsz.min(24) as usize].to_vec()
            } else {
                expected(argsz, 24, &windows)
            };
            bytes.resize(len, 0xA5);
            assert_eq!(user.bytes(), bytes, "argsz {argsz}, {count} windows");
        }
    }
}

/// It is written from its end: if memory ends too early, nothing is written.
#[test]
fn every_fault_position_of_the_answer() {
    let windows = windows(20);
    let needed = info(&windows).needed().unwrap();
    for there in 0..needed {
        for argsz in [needed, needed + 8] {
            let user = User::new(needed as usize + 16);
            user.read_only.set(BASE + u64::from(there));
            let to = GetInfo { address: BASE, argsz };
            assert_eq!(info(&windows).write(&user, to), Err(Errno::FAULT), "{there}");
            assert_eq!(user.bytes(), vec![0xA5; needed as usize + 16]);
        }
    }
    for there in 0..24 {
        let user = User::new(24);
        user.read_only.set(BASE + there);
        let to = GetInfo { address: BASE, argsz: 24 };
        assert_eq!(info(&windows).write(&user, to), Err(Errno::FAULT));
        assert_eq!(user.bytes(), [0xA5; 24]);
    }
    for address in [0, u64::MAX - 20, u64::MAX - 90, u64::MAX] {
        let to = GetInfo { address, argsz: needed };
        assert_eq!(info(&windows).write(&User::new(64), to), Err(Errno::FAULT));
    }
}

#[test]
fn every_alignment_of_the_structure() {
    let windows = windows(3);
    for shift in 1..16 {
        let user = User::new(shift + 136);
        let to = GetInfo { address: BASE + shift as u64, argsz: 136 };
        info(&windows).write(&user, to).unwrap();
        assert_eq!(user.bytes()[shift..], expected(136, 24, &windows));
    }
}
