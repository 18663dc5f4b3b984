//! The tool as cargo's compiler wrapper: one more `--cfg` for the packages of the workspace.
//!
//! `RUSTFLAGS` would do the same for every dependency and the standard library as well, which would all
//! be built once more. Cargo keeps what a wrapper built apart from what was built without.

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
    let error = Command::new(&compiler).args(args).arg("--cfg").arg(cfg).exec();
    eprintln!("error: cannot start {}: {error}", compiler.display());
    ExitCode::FAILURE
}
