//! The ACPI table VIOT, from the device `fw_cfg`: files that QEMU has for a firmware. There is none here,
//! so the tables lie unlinked in one of them; each is whole, but for the sum.
#![expect(unsafe_code, reason = "reads the registers of fw_cfg")]

use iommu_runtime::firmware::Viot;
use spin::Once;

use crate::board;

/// The data register, a byte at a time, and that of the selector, big-endian.
const DATA: usize = board::FW_CFG;
const SELECTOR: usize = board::FW_CFG + 8;
/// The key of the list of files: their number, and for each its size, key, two bytes and its name.
const DIRECTORY: u16 = 0x19;
const NAME_LEN: usize = 56;
const TABLES: &[u8] = b"etc/acpi/tables";
/// More than the table has on any of our machines.
const MOST: usize = 512;

/// The table, if QEMU made one.
#[must_use]
pub fn viot() -> Option<Viot<'static>> {
    static TABLE: Once<Option<[u8; MOST]>> = Once::new();
    Viot::new(TABLE.call_once(find).as_ref()?).ok()
}

/// Looks for the table by its signature.
fn find() -> Option<[u8; MOST]> {
    let (key, len) = file(TABLES)?;
    select(key);
    let mut last = [0; 4];
    for _ in 0..len {
        last = [last[1], last[2], last[3], byte()];
        if last != *b"VIOT" {
            continue;
        }
        let len = [byte(), byte(), byte(), byte()];
        let mut table = [0; MOST];
        table[..4].copy_from_slice(&last);
        table[4..8].copy_from_slice(&len);
        let len = (u32::from_le_bytes(len) as usize).min(MOST);
        table[..len].iter_mut().skip(8).for_each(|place| *place = byte());
        // The sum is the loader's affair, which is a firmware's.
        table[SUM] = 0;
        table[SUM] = table.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
        return Some(table);
    }
    None
}

/// Where a table has its sum.
const SUM: usize = 9;

/// The key and the length of a file.
fn file(wanted: &[u8]) -> Option<(u16, u32)> {
    select(DIRECTORY);
    let count = number();
    for _ in 0..count {
        let len = number();
        let key = u16::from_be_bytes([byte(), byte()]);
        let _reserved = [byte(), byte()];
        let name: [u8; NAME_LEN] = core::array::from_fn(|_| byte());
        if name.starts_with(wanted) && name.get(wanted.len()) == Some(&0) {
            return Some((key, len));
        }
    }
    None
}

fn number() -> u32 {
    u32::from_be_bytes([byte(), byte(), byte(), byte()])
}

fn select(key: u16) {
    let selector = core::ptr::with_exposed_provenance_mut::<u16>(SELECTOR);
    // SAFETY: the board has the register there, mapped as device memory; selecting what is read next
    // changes no memory.
    unsafe { selector.write_volatile(key.to_be()) };
}

fn byte() -> u8 {
    let data = core::ptr::with_exposed_provenance::<u8>(DATA);
    // SAFETY: as in `select`; a read gives the next byte, or zero.
    unsafe { data.read_volatile() }
}
