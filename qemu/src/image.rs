//! Builds images with cargo and finds the files it made.

use std::path::{Path, PathBuf};

use object::read::elf::ElfFile64;
use object::{Object, ObjectSymbol};
use serde_json::Value;

use crate::cmd::Cmd;
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::process::{self, End};
use crate::progress::Progress;
use crate::setup::toolchain::Toolchain;

/// Which images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that tells the story.
    Demo,
    /// The one that counts what things cost, built as a kernel is.
    Bench,
    /// Every test target.
    Tests,
    /// Every example that boots.
    Examples,
    /// The one without a heap. In a build of its own: features of others would bring one.
    HobbyKernel,
    /// The program that measures Linux.
    Peer,
    /// The program whose sections are looked at, and how it is built.
    Size {
        /// Its features, with commas.
        features: &'static str,
        /// Cargo's profile.
        profile: &'static str,
    },
}

impl Which {
    fn package(self) -> &'static str {
        match self {
            Self::Demo | Self::Bench | Self::Tests => "--package=iommu-boot",
            Self::Examples => "--package=iommu-examples",
            Self::HobbyKernel => "--package=iommu-hobby-kernel",
            Self::Peer => "--package=iommu-peer",
            Self::Size { .. } => "--package=iommu-size",
        }
    }
}

/// Builds them and returns their ELF files.
///
/// # Errors
///
/// [`Error::Failed`] if cargo fails (it has shown why) or made no image.
pub fn build(
    which: Which,
    machine: &Machine,
    toolchain: &Toolchain,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Vec<PathBuf>, Error> {
    let cmd = command_line(which, machine, toolchain);
    progress.command(&cmd);
    let mut images = Vec::new();
    let end = process::lines(&cmd, interrupt, &mut |line| {
        images.extend(executable(which, line));
    })?;
    if end != End::Code(0) {
        return Err(Error::Failed(format!(
            "the {} images do not build; cargo's messages are above",
            machine.name
        )));
    }
    images.sort();
    if images.is_empty() {
        return Err(Error::Failed(format!("`{cmd}` made no image")));
    }
    Ok(images)
}

fn command_line(which: Which, machine: &Machine, toolchain: &Toolchain) -> Cmd {
    let what: &[&str] = match which {
        Which::Demo => &["build", "--bin=demo"],
        Which::Bench => &["build", "--bin=bench", "--profile=kernel"],
        // Only test targets: the others can't have a harness without std.
        Which::Tests => &["test", "--no-run", "--test=*"],
        Which::Examples | Which::HobbyKernel => &["build", "--bins"],
        Which::Peer => &["build", "--bin=iommu-peer", "--release"],
        // Many builds one after the other: what each compiles is of no interest.
        Which::Size { .. } => &["build", "--bin=iommu-size", "--quiet"],
    };
    let cmd = toolchain
        .cargo(machine.target, what[0])
        .args(&what[1..])
        .args([which.package(), "--message-format=json-render-diagnostics"]);
    match which {
        Which::Size { features, profile } => {
            cmd.arg(format!("--features={features}")).arg(format!("--profile={profile}"))
        }
        _ => cmd,
    }
}

/// Reads one of cargo's messages; returns the image if it tells of one.
fn executable(which: Which, line: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    let kind = match which {
        Which::Tests => "test",
        _ => "bin",
    };
    let is_kind = message["target"]["kind"].as_array()?.iter().any(|have| have == kind);
    let path = message["executable"].as_str()?;
    is_kind.then(|| path.into())
}

/// The first symbol of a global allocator that is linked into the ELF file at `path`.
///
/// # Errors
///
/// [`Error::Io`], and [`Error::Failed`] for what is no ELF file, or has no symbols to look at.
pub fn allocator_symbol(path: &Path) -> Result<Option<String>, Error> {
    let bytes = std::fs::read(path).map_err(Error::io(format!("reading {}", path.display())))?;
    let file = ElfFile64::<object::Endianness>::parse(&*bytes)
        .map_err(|error| Error::Failed(format!("{}: {error}", path.display())))?;
    if file.symbols().next().is_none() {
        return Err(Error::Failed(format!("{} has no symbols", path.display())));
    }
    let mut names = file.symbols().filter_map(|symbol| symbol.name().ok());
    Ok(names.find(|name| is_allocator(name)).map(str::to_owned))
}

/// What the compiler calls the global allocator's functions, whatever the mangling around it.
fn is_allocator(symbol: &str) -> bool {
    ["__rust_alloc", "__rust_realloc", "__rust_dealloc", "__rg_alloc", "__rdl_alloc"]
        .iter()
        .any(|name| symbol.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST: &str = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"boot"},
        "profile":{"test":true},"executable":"/t/boot-0123456789abcdef"}"#;

    #[test]
    fn images_are_found_among_cargos_messages() {
        let found = executable(Which::Tests, TEST);
        assert_eq!(found, Some("/t/boot-0123456789abcdef".into()));
        assert_eq!(executable(Which::Demo, TEST), None);
        let others = [
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"]},"executable":null}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "running 3 tests",
        ];
        assert!(others.iter().all(|line| executable(Which::Tests, line).is_none()));
    }

    #[test]
    fn cargo_is_asked_for_one_kind_of_target_only() {
        let toolchain = Toolchain::active_for_test();
        let machine = crate::machine::all()[0];
        let tests = command_line(Which::Tests, machine, &toolchain).to_string();
        assert!(tests.contains("test --target=aarch64-unknown-none"), "{tests}");
        assert!(tests.contains("--no-run '--test=*' --package=iommu-boot"), "{tests}");
        let demo = command_line(Which::Demo, machine, &toolchain).to_string();
        assert!(demo.contains("--bin=demo") && !demo.contains("--test"), "{demo}");
        let hobby = command_line(Which::HobbyKernel, machine, &toolchain).to_string();
        assert!(hobby.contains("--bins --package=iommu-hobby-kernel"), "{hobby}");
        let examples = command_line(Which::Examples, machine, &toolchain).to_string();
        assert!(examples.contains("--bins --package=iommu-examples"), "{examples}");
        let bench = command_line(Which::Bench, machine, &toolchain).to_string();
        assert!(bench.contains("--bin=bench --profile=kernel"), "{bench}");
    }

    #[test]
    fn allocators_are_known_by_their_names() {
        let mangled = ["_RNvCsc1b_7___rustc12___rust_alloc", "__rust_dealloc", "__rg_alloc"];
        assert!(mangled.iter().all(|name| is_allocator(name)));
        let others = ["iommu::pool::Pool::allocate", "allocate_first_fit", "main"];
        assert!(!others.iter().any(|name| is_allocator(name)));
    }

    /// What the documentation promises of a kernel in which memory is mapped one to one.
    #[test]
    fn the_glue_of_an_identity_mapped_kernel_is_at_most_20_lines() {
        let source = include_str!("../../examples/hobby_kernel/src/main.rs");
        let (_, rest) = source.split_once("// glue: begin\n").expect("the glue begins");
        let (glue, rest) = rest.split_once("// glue: end\n").expect("the glue ends");
        assert!(!rest.contains("// glue"), "one piece of glue");
        let lines = glue.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("//"));
        let count = lines.count();
        assert!((5..=20).contains(&count), "{count} lines of glue");
    }
}
