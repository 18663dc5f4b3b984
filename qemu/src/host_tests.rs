//! Runs the tests of the workspace that need no image, and adds up what the harness prints.

use std::path::Path;

use crate::cmd::Cmd;
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::machine;
use crate::process::{self, End};
use crate::progress::Progress;
use crate::report::Totals;
use crate::setup::toolchain;

/// Runs them, shows their output, and returns the sum.
pub fn run(root: &Path, interrupt: &Interrupt, progress: &Progress) -> Result<Totals, Error> {
    let cmd = command_line(root);
    progress.command(&cmd);
    let mut totals = Totals::default();
    let end = process::lines(&cmd, interrupt, &mut |line| {
        progress.line(line);
        if let Some(result) = harness_result(line) {
            totals.add(result);
        }
    })?;
    let counted = with_end(totals, end);
    if counted != totals {
        let why = "without a failing test that says why; counted as a failure";
        progress.line(format_args!("host tests: cargo test ended with {end:?} {why}"));
    }
    Ok(counted)
}

fn command_line(root: &Path) -> Cmd {
    // The packages of the images build for their own targets only; a new example would be tried here.
    let mut packages = vec!["iommu-runtime", "iommu-boot", "iommu-examples"];
    packages.extend(machine::all().iter().flat_map(|machine| machine.packages));
    packages.sort_unstable();
    packages.dedup();
    let excluded = packages.iter().map(|package| format!("--exclude={package}"));
    toolchain::host_cargo(root)
        .args(["test", "--workspace"])
        .args(excluded)
        .args(["--features=iommu/sim", "--no-fail-fast"])
}

/// Adds a failure if cargo failed and no test says why: code that does not compile, a test program
/// that died before it printed its result.
fn with_end(mut totals: Totals, end: End) -> Totals {
    if end != End::Code(0) && totals.failed == 0 {
        totals.failed = 1;
    }
    totals
}

/// Reads the line that Rust's test harness prints at the end.
fn harness_result(line: &str) -> Option<Totals> {
    let rest = line.strip_prefix("test result: ")?;
    let (_, counts) = rest.split_once(". ")?;
    let number = |label: &str| {
        let part = counts.split("; ").find_map(|part| part.strip_suffix(label))?;
        part.trim().parse().ok()
    };
    Some(Totals { passed: number("passed")?, failed: number("failed")?, ..Totals::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(passed: u64, failed: u64) -> Totals {
        Totals { passed, failed, ..Totals::default() }
    }

    #[test]
    fn the_harness_line_is_read() {
        let ok = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s";
        assert_eq!(harness_result(ok), Some(totals(12, 0)));
        let bad = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(harness_result(bad), Some(totals(3, 2)));
        for line in ["test a ... ok", "running 3 tests", "test result: ok.", "test result: x. y"] {
            assert_eq!(harness_result(line), None, "{line}");
        }
    }

    #[test]
    fn a_cargo_that_fails_without_a_result_is_a_failure() {
        let sum = |passed, failed, end| with_end(totals(passed, failed), end);
        assert_eq!(sum(0, 0, End::Code(101)), totals(0, 1));
        assert_eq!(sum(4, 0, End::Signal(9)), totals(4, 1));
        assert_eq!(sum(4, 2, End::Code(101)), totals(4, 2));
        assert_eq!(sum(4, 0, End::Code(0)), totals(4, 0));
    }

    #[test]
    fn the_bare_metal_packages_stay_out() {
        let line = command_line(Path::new("/w")).to_string();
        for package in ["runtime", "aarch64", "x86_64", "riscv64", "harness", "boot", "examples"] {
            assert!(line.contains(&format!("--exclude=iommu-{package}")), "{line}");
        }
    }
}
