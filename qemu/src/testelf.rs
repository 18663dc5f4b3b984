//! Small ELF images with a defmt table, and the frames that belong to them: for tests only.
//!
//! No compiler for the target is needed, so the tests of the tool run on every host.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use object::write::{Object, StandardSection, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags};
use object::{SymbolKind, SymbolScope};

/// A made-up test image.
pub struct TestImage {
    /// The ELF file.
    pub path: PathBuf,
    cases: u64,
    _dir: Scratch,
}

impl TestImage {
    /// Makes an image with these defmt-test cases, or a plain one without any.
    pub fn new(cases: &[&str]) -> Self {
        Self::build(cases, !cases.is_empty())
    }

    /// Makes one whose linker dropped `DEFMT_TEST_COUNT`.
    pub fn without_count(cases: &[&str]) -> Self {
        Self::build(cases, false)
    }

    /// Returns the frame that announces case `number`, counted from 1.
    pub fn running(&self, number: u64) -> Vec<u8> {
        let numbers = [number as u32, self.cases as u32].map(u32::to_le_bytes).concat();
        frame(FIRST_CASE + (number as u16 - 1), &numbers)
    }

    /// Returns the frames at the end of all cases: the DMA, and that all passed.
    pub fn all_passed(&self) -> Vec<u8> {
        self.all_passed_with("dma: 7 arrived, 5 refused")
    }

    /// Returns the same with another report of the DMA.
    pub fn all_passed_with(&self, dma: &str) -> Vec<u8> {
        [self.print(dma), frame(ALL_PASSED, &[])].concat()
    }

    /// Returns the frame of a plain print with a text made on the target.
    pub fn print(&self, text: &str) -> Vec<u8> {
        let len = (text.len() as u32).to_le_bytes();
        frame(PRINT, &[&len, text.as_bytes()].concat())
    }

    /// Returns a log frame with a text made on the target.
    pub fn log(&self, level: &str, text: &str) -> Vec<u8> {
        let index = LEVELS.iter().position(|name| *name == level).expect("a level");
        let len = (text.len() as u32).to_le_bytes();
        frame(1 + index as u16, &[&len, text.as_bytes()].concat())
    }

    fn build(cases: &[&str], with_count: bool) -> Self {
        let mut elf = Object::new(BinaryFormat::Elf, Architecture::Aarch64, Endianness::Little);
        let table = elf.add_section(Vec::new(), b".defmt".to_vec(), SectionKind::ReadOnlyData);
        elf.append_section_data(table, &[0; 256], 1);
        let mut add = |index: u16, tag: &str, data: &str| {
            let disambiguator = index.to_string();
            let name = serde_json::json!({
                "package": "p", "disambiguator": disambiguator, "tag": tag, "data": data,
                "crate_name": "c",
            });
            let section = SymbolSection::Section(table);
            elf.add_symbol(symbol(&name.to_string(), index.into(), section));
        };
        for (index, level) in (1..).zip(LEVELS) {
            add(index, &format!("defmt_{level}"), "{=str}");
        }
        add(ALL_PASSED, "defmt_println", "all tests passed!");
        add(PRINT, "defmt_println", "{=str}");
        for (index, case) in (FIRST_CASE..).zip(cases) {
            let text = format!("({{=usize}}/{{=usize}}) running `{case}`...");
            add(index, "defmt_println", &text);
        }
        for marker in ["_defmt_version_ = 4", "_defmt_encoding_ = rzcobs"] {
            elf.add_symbol(symbol(marker, 0, SymbolSection::Absolute));
        }
        if with_count {
            let data = elf.section_id(StandardSection::ReadOnlyData);
            let count = cases.len() as u64;
            let at = elf.append_section_data(data, &count.to_le_bytes(), 8);
            elf.add_symbol(symbol("DEFMT_TEST_COUNT", at, SymbolSection::Section(data)));
        }
        let dir = Scratch::new();
        let path = dir.path().join("image.elf");
        std::fs::write(&path, elf.write().expect("valid ELF")).expect("writes");
        Self { path, cases: cases.len() as u64, _dir: dir }
    }
}

/// An empty folder that no other test uses; removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes the folder.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("iommu-qemu-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).expect("temporary folder");
        Self(dir)
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn frame(index: u16, args: &[u8]) -> Vec<u8> {
    let mut encoded = rzcobs::encode(&[&index.to_le_bytes(), args].concat());
    encoded.push(0);
    encoded
}

fn symbol(name: &str, value: u64, section: SymbolSection) -> Symbol {
    Symbol {
        name: name.into(),
        value,
        size: 1,
        kind: SymbolKind::Data,
        scope: SymbolScope::Linkage,
        weak: false,
        section,
        flags: SymbolFlags::None,
    }
}

const LEVELS: [&str; 5] = ["trace", "debug", "info", "warn", "error"];
const PRINT: u16 = 7;
const ALL_PASSED: u16 = 10;
const FIRST_CASE: u16 = 20;
