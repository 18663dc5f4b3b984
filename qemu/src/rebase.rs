//! Moves the section `.defmt` of an ELF file to address 0, where the decoder expects it.
//!
//! The address of a symbol in that section is the number of a text. On riscv64 the section can't be at
//! 0: code at 2 GiB reaches addresses within 2 GiB of its own only. It lies at a multiple of 64 KiB
//! there, and the image sends the low 16 bits.

use object::elf::{FileHeader64, SHT_SYMTAB};
use object::read::elf::{ElfFile64, FileHeader, SectionHeader};
use object::{LittleEndian, Object, ObjectSection};

/// Sizes and places in the structures of a 64-bit ELF file.
const SECTION_LEN: u64 = 64;
const SECTION_ADDRESS: u64 = 16;
const SYMBOL_LEN: u64 = 24;
const SYMBOL_SECTION: u64 = 6;
const SYMBOL_VALUE: u64 = 8;

/// What is to be changed.
struct Plan {
    section_address: u64,
    symbol_values: Vec<(u64, u64)>,
}

/// Moves the section, if it is elsewhere, and its symbols with it.
pub fn to_zero(bytes: &mut [u8]) {
    let Some(Plan { section_address, symbol_values }) = plan(bytes) else { return };
    put(bytes, section_address, 0);
    for (at, value) in symbol_values {
        put(bytes, at, value);
    }
}

fn plan(bytes: &[u8]) -> Option<Plan> {
    let elf = ElfFile64::<LittleEndian>::parse(bytes).ok()?;
    let section = elf.section_by_name(".defmt").filter(|section| section.address() != 0)?;
    let (base, index) = (section.address(), section.index().0);
    let header: &FileHeader64<_> = elf.elf_header();
    let headers = header.e_shoff(LittleEndian);
    let section_address = headers + index as u64 * SECTION_LEN + SECTION_ADDRESS;
    let mut symbol_values = Vec::new();
    for table in elf.elf_section_table().iter() {
        if table.sh_type(LittleEndian) != SHT_SYMTAB {
            continue;
        }
        let start = table.sh_offset(LittleEndian);
        for at in (start..start + table.sh_size(LittleEndian)).step_by(SYMBOL_LEN as usize) {
            let number = get(bytes, at + SYMBOL_SECTION, 2)?;
            if number == index as u64 {
                let value = get(bytes, at + SYMBOL_VALUE, 8)?;
                symbol_values.push((at + SYMBOL_VALUE, value.wrapping_sub(base)));
            }
        }
    }
    Some(Plan { section_address, symbol_values })
}

fn get(bytes: &[u8], at: u64, len: usize) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let bytes = bytes.get(at..at + len)?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn put(bytes: &mut [u8], at: u64, value: u64) {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    if let Some(place) = bytes.get_mut(at..at.saturating_add(8)) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testelf::TestImage;
    use object::ObjectSymbol;

    fn numbers(bytes: &[u8]) -> Vec<(String, u64)> {
        let elf = ElfFile64::<LittleEndian>::parse(bytes).expect("valid ELF");
        let name = |symbol: &object::read::elf::ElfSymbol64<'_, '_, LittleEndian>| {
            (symbol.name().expect("a name").to_owned(), symbol.address())
        };
        elf.symbols().map(|symbol| name(&symbol)).collect()
    }

    #[test]
    fn a_section_elsewhere_is_moved_with_its_symbols_and_no_others() {
        const BASE: u64 = 0x8009_0000;
        let image = TestImage::new(&["a", "b"]);
        let original = std::fs::read(&image.path).expect("reads");
        let mut moved = original.clone();
        to_zero(&mut moved);
        assert_eq!(moved, original, "it was at 0");
        // The same moves, the other way.
        let elf = ElfFile64::<LittleEndian>::parse(&*original).expect("valid ELF");
        let index = elf.section_by_name(".defmt").expect("is there").index().0 as u64;
        let header: &FileHeader64<_> = elf.elf_header();
        let headers = header.e_shoff(LittleEndian);
        put(&mut moved, headers + index * SECTION_LEN + SECTION_ADDRESS, BASE);
        let away = plan(&moved).expect("is elsewhere");
        for (at, value) in &away.symbol_values {
            put(&mut moved, *at, value.wrapping_add(BASE).wrapping_add(BASE));
        }
        assert_ne!(numbers(&moved), numbers(&original));
        to_zero(&mut moved);
        assert_eq!(moved, original);
    }
}
