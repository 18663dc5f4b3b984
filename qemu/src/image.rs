//! Builds images with cargo and finds the files it made.

use std::path::PathBuf;

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
    /// The program that measures Linux.
    Peer,
}

impl Which {
    fn package(self) -> &'static str {
        match self {
            Self::Demo | Self::Bench | Self::Tests => "--package=iommu-boot",
            Self::Examples => "--package=iommu-examples",
            Self::Peer => "--package=iommu-peer",
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
        Which::Examples => &["build", "--bins"],
        Which::Peer => &["build", "--bin=iommu-peer", "--release"],
    };
    toolchain
        .cargo(machine.target, what[0])
        .args(&what[1..])
        .args([which.package(), "--message-format=json-render-diagnostics"])
}

/// Reads one of cargo's messages; returns the image if it tells of one.
fn executable(which: Which, line: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    let kind = match which {
        Which::Demo | Which::Bench | Which::Examples | Which::Peer => "bin",
        Which::Tests => "test",
    };
    let is_kind = message["target"]["kind"].as_array()?.iter().any(|have| have == kind);
    let path = message["executable"].as_str()?;
    is_kind.then(|| path.into())
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
        let examples = command_line(Which::Examples, machine, &toolchain).to_string();
        assert!(examples.contains("--bins --package=iommu-examples"), "{examples}");
        let bench = command_line(Which::Bench, machine, &toolchain).to_string();
        assert!(bench.contains("--bin=bench --profile=kernel"), "{bench}");
    }
}
