//! The tool as cargo's compiler wrapper: one more `--cfg` for the packages of the workspace.
//!
//! `RUSTFLAGS` would do the same for every dependency and the standard library as well, which would all
//! be built once more. Cargo keeps what a wrapper built apart from what was built without. What is
//! built for the host on the way, as build scripts need it, stays as it is.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// The variable that makes the tool a wrapper, with the `cfg`.
pub const VARIABLE: &str = "IOMMU_QEMU_WRAPPER_CFG";

/// Returns the `cfg` if cargo called us for the compiler.
pub fn asked() -> Option<OsString> {
    std::env::var_os(VARIABLE)
}

/// Becomes the compiler, which is our first argument.
pub fn run(cfg: &OsStr) -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let Some(compiler) = args.next() else {
        eprintln!("error: {VARIABLE} is for cargo: the first argument must be a compiler");
        return ExitCode::from(2);
    };
    let args: Vec<_> = args.collect();
    let mut command = Command::new(&compiler);
    command.args(&args);
    if is_for_a_target(&args) {
        command.arg("--cfg").arg(cfg);
    }
    let error = command.exec();
    eprintln!("error: cannot start {}: {error}", compiler.display());
    ExitCode::FAILURE
}

/// Whether the compiler is asked for something else than what runs on the host: cargo names a target
/// then, and none for the host.
fn is_for_a_target(args: &[OsString]) -> bool {
    args.iter().any(|arg| arg == "--target" || arg.as_encoded_bytes().starts_with(b"--target="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_built_for_a_target_takes_the_cfg() {
        let asked =
            |args: &[&str]| is_for_a_target(&args.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(asked(&["src/lib.rs", "--target", "aarch64-unknown-none"]));
        assert!(asked(&["src/lib.rs", "--target=aarch64-unknown-none"]));
        assert!(!asked(&["build.rs", "--crate-name", "build_script_build"]));
        assert!(!asked(&["-vV"]));
    }
}
