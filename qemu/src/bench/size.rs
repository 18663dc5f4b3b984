//! How much code a kernel gains with the library, for each set of features.
//!
//! A program that is never run (`benches/size`) is linked with and without the library, as a kernel is:
//! what is not reached from its entry is left out. The difference of the sections is the answer. So all
//! of it counts: our code, the parts of `core` that it needs, texts of errors, and the few lines of the
//! program that make the calls.

use std::path::Path;

use object::read::elf::ElfFile64;
use object::{Object, ObjectSection};

use super::results::Op;
use crate::actions::Tool;
use crate::error::Error;
use crate::image::Which;
use crate::machine::Machine;
use crate::setup::toolchain::Toolchain;

/// A set of features.
pub struct Set {
    /// How results name it, behind the `@`.
    pub word: &'static str,
    /// In words.
    pub title: &'static str,
    /// The features of the program.
    features: &'static str,
    /// Whether a quick run measures it: as it is built for speed.
    is_quick: bool,
}

/// How a kernel may be built.
pub struct Profile {
    /// Cargo's name.
    name: &'static str,
    /// The operations with the sizes of code and of constants.
    pub words: [&'static str; 2],
    /// In words.
    pub title: &'static str,
    is_quick: bool,
}

#[rustfmt::skip] // one set per line
pub const SETS: [Set; 6] = [
    Set { word: "virtio", title: "`virtio-iommu`, no heap", features: "virtio-iommu", is_quick: true },
    Set { word: "alloc", title: "`virtio-iommu`, `alloc`", features: "virtio-iommu,alloc", is_quick: false },
    Set { word: "container", title: "`virtio-iommu`, `alloc`, `container`", features: "virtio-iommu,alloc,container", is_quick: false },
    Set { word: "dma", title: "`virtio-iommu`, `alloc`, `dma`", features: "virtio-iommu,alloc,dma", is_quick: false },
    Set { word: "all", title: "all of them: the default", features: "virtio-iommu,alloc,container,dma", is_quick: true },
    Set { word: "all_mmio", title: "the default, and the unit on MMIO as well", features: "virtio-iommu,alloc,container,dma,mmio", is_quick: false },
];

pub const PROFILES: [Profile; 2] = [
    Profile { name: "kernel", words: ["text", "rodata"], title: "`opt-level` 3", is_quick: true },
    Profile {
        name: "small",
        words: ["text_small", "rodata_small"],
        title: "`opt-level` \"s\"",
        is_quick: false,
    },
];

/// Tells whether an operation is the size of something.
pub fn is_size(op: &str) -> bool {
    parts(op).is_some()
}

/// Tells whether an operation is a size that a quick run leaves out.
pub fn is_long(op: &str) -> bool {
    parts(op).is_some_and(|(profile, set)| !(profile.is_quick && set.is_quick))
}

/// Returns a size in words.
pub fn title(op: &str) -> Option<String> {
    let (profile, set) = parts(op)?;
    let section = if op.starts_with("text") { ".text" } else { ".rodata" };
    Some(format!("{section}, {}, {}", profile.title, set.title).replace('`', ""))
}

fn parts(op: &str) -> Option<(&'static Profile, &'static Set)> {
    let (section, word) = op.split_once('@')?;
    let profile = PROFILES.iter().find(|profile| profile.words.contains(&section))?;
    Some((profile, SETS.iter().find(|set| set.word == word)?))
}

/// Code and constants of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes([u64; 2]);

impl Tool {
    /// Links the program for one architecture with each set, and returns what each adds.
    pub(super) fn sizes(
        &self,
        machine: &Machine,
        toolchain: &Toolchain,
        quick: bool,
    ) -> Result<Vec<Op>, Error> {
        let linked = |profile: &Profile, features| {
            let which = Which::Size { features, profile: profile.name };
            let programs = self.build(which, machine, toolchain)?;
            sizes(programs.first().ok_or_else(|| Error::Failed("cargo built nothing".into()))?)
        };
        let mut ops = Vec::new();
        for profile in PROFILES.iter().filter(|profile| !quick || profile.is_quick) {
            let Sizes(without) = linked(profile, "")?;
            for set in SETS.iter().filter(|set| !quick || set.is_quick) {
                self.progress.begin(&format!("size of {} on {}", set.word, machine.name), 0);
                let with = linked(profile, set.features);
                self.progress.end();
                let Sizes(with) = with?;
                for ((section, with), without) in profile.words.iter().zip(with).zip(without) {
                    let op = format!("{section}@{}", set.word);
                    let bytes = with.checked_sub(without).ok_or_else(|| {
                        Error::Failed(format!("{op}: the program is smaller with the library"))
                    })?;
                    ops.push(Op { op, bytes: Some(bytes), ..Op::default() });
                }
            }
        }
        Ok(ops)
    }
}

/// Reads the sections of the ELF file at `path`. Tables for unwinding, zeros and debugging are not
/// counted: a kernel has them or drops them, whatever it links.
fn sizes(path: &Path) -> Result<Sizes, Error> {
    let bytes = std::fs::read(path).map_err(Error::io(format!("read {}", path.display())))?;
    let file = ElfFile64::<object::Endianness>::parse(&*bytes)
        .map_err(|error| Error::Failed(format!("{}: {error}", path.display())))?;
    let sum = |names: &[&str]| {
        let is_one = |name: &str| {
            let part_of = |whole: &&str| {
                name.strip_prefix(*whole)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            names.iter().any(part_of)
        };
        let sections = file.sections().filter(|section| section.name().is_ok_and(is_one));
        sections.map(|section| section.size()).sum()
    };
    // Constants with addresses in them may have a section of their own.
    Ok(Sizes([sum(&[".text"]), sum(&[".rodata", ".data.rel.ro"])]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testelf::Scratch;
    use object::{Architecture, BinaryFormat, Endianness, SectionKind};

    #[test]
    fn code_and_constants_are_added_up_and_the_rest_is_not() {
        let dir = Scratch::new();
        let path = dir.path().join("program");
        let sections = [
            (".text", 100),
            (".text.cold", 20),
            (".textual", 1_000),
            (".rodata", 40),
            (".rodata.str1.1", 2),
            (".data.rel.ro", 8),
            (".data", 1_000),
            (".eh_frame", 1_000),
        ];
        let mut elf = object::write::Object::new(
            BinaryFormat::Elf,
            Architecture::Aarch64,
            Endianness::Little,
        );
        for (name, len) in sections {
            let id = elf.add_section(Vec::new(), name.into(), SectionKind::ReadOnlyData);
            elf.append_section_data(id, &vec![0; len], 1);
        }
        std::fs::write(&path, elf.write().expect("valid ELF")).expect("writes");
        assert_eq!(sizes(&path).expect("an ELF file"), Sizes([120, 50]));
        std::fs::write(&path, b"no ELF").expect("writes");
        assert_eq!(sizes(&path).unwrap_err().exit_code(), 1);
    }

    #[test]
    fn a_quick_run_has_two_sets_of_one_profile() {
        let all = PROFILES.iter().flat_map(|profile| {
            profile.words.into_iter().flat_map(|word| SETS.iter().map(move |set| (word, set.word)))
        });
        let all: Vec<String> = all.map(|(section, set)| format!("{section}@{set}")).collect();
        assert_eq!(all.len(), 24);
        assert!(all.iter().all(|op| is_size(op) && title(op).is_some()));
        let quick: Vec<_> = all.iter().filter(|op| !is_long(op)).collect();
        assert_eq!(quick, ["text@virtio", "text@all", "rodata@virtio", "rodata@all"]);
        assert!(!is_size("map_4k@1k") && !is_size("text") && !is_size("text@other"));
    }
}
