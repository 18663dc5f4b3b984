//! What the image needs of the ACPI tables: the way to them, and configuration space (MCFG); which
//! IOMMU serves which PCI function (VIOT) is read by the library. No AML. Every table is checked by
//! its length and sum.
//!
//! The crate `acpi` has no VIOT, and asks for two dozen functions of the kernel to read a table.

use iommu::firmware::Viot;

use crate::firmware::Span;

/// Reads `len` bytes of the firmware's memory from a physical address on; `None` if they are not.
pub type Read<'a> = fn(u64, usize) -> Option<&'a [u8]>;

/// The tables.
#[derive(Clone, Copy)]
pub struct Tables<'a> {
    read: Read<'a>,
    /// The entries of the root table.
    entries: &'a [u8],
    /// How long an entry is: 4 in an RSDT, 8 in an XSDT.
    entry_len: usize,
}

const RSDP_SIGNATURE: &[u8] = b"RSD PTR ";
const RSDP_LEN: usize = 20;
const RSDP_2_LEN: usize = 36;
const RSDP_REVISION: usize = 15;
const RSDP_RSDT: usize = 16;
const RSDP_XSDT: usize = 24;
/// The header that all other tables begin with.
const HEADER_LEN: usize = 36;
/// No table that is read here is longer.
const MAX_LEN: usize = 1 << 20;

impl<'a> Tables<'a> {
    /// The tables that the root pointer at `rsdp` leads to; `None` if it is not one.
    #[must_use]
    pub fn new(rsdp: u64, read: Read<'a>) -> Option<Self> {
        let root = read(rsdp, RSDP_LEN)?;
        if !root.starts_with(RSDP_SIGNATURE) || sum(root) != 0 {
            return None;
        }
        let xsdt = (*root.get(RSDP_REVISION)? >= 2)
            .then(|| read(rsdp, RSDP_2_LEN).and_then(|root| number(root, RSDP_XSDT, 8)))
            .flatten()
            .filter(|at| *at != 0);
        let (at, signature, entry_len) = match xsdt {
            Some(at) => (at, b"XSDT", 8),
            None => (number(root, RSDP_RSDT, 4)?, b"RSDT", 4),
        };
        let entries = table(read, at, signature)?.get(HEADER_LEN..)?;
        Some(Self { read, entries, entry_len })
    }

    /// The first table with this signature, header included.
    #[must_use]
    pub fn find(&self, signature: &[u8; 4]) -> Option<&'a [u8]> {
        self.entries.chunks_exact(self.entry_len).find_map(|entry| {
            let at = number(entry, 0, self.entry_len)?;
            table(self.read, at, signature)
        })
    }

    /// The configuration space of PCI segment 0, from bus 0 on.
    #[must_use]
    pub fn ecam(&self) -> Option<Span> {
        const ENTRIES: usize = HEADER_LEN + 8;
        const BUS_LEN: u64 = 1 << 20;
        let entries = self.find(b"MCFG")?.get(ENTRIES..)?;
        entries.chunks_exact(16).find_map(|entry| {
            let (base, segment) = (number(entry, 0, 8)?, number(entry, 8, 2)?);
            let (first, last) = (number(entry, 10, 1)?, number(entry, 11, 1)?);
            (segment == 0 && first == 0).then_some(Span { base, len: (last + 1) * BUS_LEN })
        })
    }

    /// The table VIOT, if there is one without an error.
    #[must_use]
    pub fn viot(&self) -> Option<Viot<'a>> {
        Viot::new(self.find(b"VIOT")?).ok()
    }
}

fn table<'a>(read: Read<'a>, at: u64, signature: &[u8; 4]) -> Option<&'a [u8]> {
    let header = read(at, HEADER_LEN)?;
    let len = number(header, 4, 4)? as usize;
    if !header.starts_with(signature) || !(HEADER_LEN..=MAX_LEN).contains(&len) {
        return None;
    }
    read(at, len).filter(|table| sum(table) == 0)
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// The little-endian number of `len` bytes at `at`.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}
