//! Finds a compiler for the bare-metal target, and builds cargo's command lines with it.
//!
//! What is there comes first, in this order: the active toolchain has the target; the
//! distribution's toolchain is complete. Then what can be had: rustup adds the target; the
//! package manager installs the distribution's toolchain.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::cmd::Cmd;
use crate::error::Error;
use crate::machine::Machine;
use crate::process::End;
use crate::wrapper;

use super::apt;
use super::host::Host;

/// A toolchain that builds for the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    kind: Kind,
    root: PathBuf,
    target_dir: PathBuf,
    /// What is compiled beside the ordinary code.
    cfg: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// The one that built this tool; it has the target.
    Active,
    /// Debian's, with `core` and `alloc` built from its own sources.
    Distribution { linker: PathBuf },
}

impl Toolchain {
    fn new(kind: Kind, root: &Path) -> Self {
        // A folder of its own: the lock of a host build never blocks an image build.
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
        let target_dir =
            std::path::absolute(target.join("boot")).unwrap_or_else(|_| target.join("boot"));
        Self { kind, root: root.to_owned(), target_dir, cfg: None }
    }

    /// Returns the same toolchain, which compiles code of the workspace that is marked with this `cfg`.
    pub fn with_cfg(&self, cfg: &'static str) -> Self {
        Self { cfg: Some(cfg), ..self.clone() }
    }

    /// Returns the folder that everything for bare machines is built in.
    pub fn target_dir(&self) -> &Path {
        &self.target_dir
    }

    /// Says which one it is.
    pub fn describe(&self) -> &'static str {
        match self.kind {
            Kind::Active => "the active toolchain",
            Kind::Distribution { .. } => {
                "the distribution's toolchain, with core and alloc from source"
            }
        }
    }

    /// Returns the command line with which its compiler tells its version.
    pub fn rustc_version(&self) -> Cmd {
        let cmd = match &self.kind {
            Kind::Active => clean(Cmd::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))),
            Kind::Distribution { .. } => clean(Cmd::new(DEBIAN_RUSTC)),
        };
        cmd.arg("--version").dir(&self.root)
    }

    /// Returns the command line `cargo SUBCOMMAND` for `target`.
    pub fn cargo(&self, target: &str, subcommand: &str) -> Cmd {
        let cmd = match &self.kind {
            Kind::Active => host_cargo(&self.root).arg(subcommand),
            Kind::Distribution { linker } => {
                // cargo would run another toolchain's clippy, which it looks for in its own home first.
                let cmd = match subcommand {
                    "clippy" => clean(Cmd::new(DEBIAN_CLIPPY)).arg("clippy"),
                    _ => clean(Cmd::new(DEBIAN_CARGO)).arg(subcommand),
                };
                let upper = target.to_uppercase().replace('-', "_");
                let flavor = "-Clinker-flavor=ld.lld";
                let cmd = match env::var("RUSTFLAGS") {
                    // Cargo takes this one instead of the target's own flags, not in addition.
                    Ok(flags) => cmd.env("RUSTFLAGS", format!("{flags} {flavor}")),
                    Err(_) => cmd.env(format!("CARGO_TARGET_{upper}_RUSTFLAGS"), flavor),
                };
                cmd.env_remove("RUSTUP_TOOLCHAIN")
                    .env_remove("LD_LIBRARY_PATH")
                    .env("CARGO", DEBIAN_CARGO)
                    .env("RUSTC", DEBIAN_RUSTC)
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env(format!("CARGO_TARGET_{upper}_LINKER"), linker)
                    .arg("-Zbuild-std=core,alloc")
                    .dir(&self.root)
            }
        };
        let cmd = match (self.cfg, env::current_exe()) {
            (Some(cfg), Ok(tool)) => {
                cmd.env("RUSTC_WORKSPACE_WRAPPER", tool).env(wrapper::VARIABLE, cfg)
            }
            _ => cmd,
        };
        let cmd = cmd.env("CARGO_TARGET_DIR", &self.target_dir);
        // defmt leaves out every message below this level at build time; its default is `error`.
        let cmd = match env::var_os("DEFMT_LOG") {
            None => cmd.env("DEFMT_LOG", "info"),
            Some(_) => cmd,
        };
        cmd.arg(format!("--target={target}"))
    }

    #[cfg(test)]
    pub fn active_for_test() -> Self {
        Self::new(Kind::Active, Path::new("/w"))
    }
}

/// Returns the command line `cargo` for the host, with the toolchain that runs this tool.
pub fn host_cargo(root: &Path) -> Cmd {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    clean(Cmd::new(cargo)).dir(root)
}

/// Looks for a toolchain without changing anything; `None` if there is none.
pub fn find(host: &dyn Host, machine: &Machine, root: &Path) -> Result<Option<Toolchain>, Error> {
    if active_has(host, machine.target, root)? {
        return Ok(Some(Toolchain::new(Kind::Active, root)));
    }
    let linker = distribution(host)?.ok();
    Ok(linker.map(|linker| Toolchain::new(Kind::Distribution { linker }, root)))
}

/// Finds a toolchain, or makes one.
pub fn ensure(host: &dyn Host, machine: &Machine, root: &Path) -> Result<Toolchain, Error> {
    if let Some(found) = find(host, machine, root)? {
        return Ok(found);
    }
    if host.find("rustup").is_some() {
        let cmd = clean(Cmd::new("rustup")).args(["target", "add", machine.target]).dir(root);
        host.say(&format!("the target {} is missing; running `{cmd}`", machine.target));
        let end = host.step(&cmd)?;
        if end == End::Code(0) && active_has(host, machine.target, root)? {
            return Ok(Toolchain::new(Kind::Active, root));
        }
        host.say("rustup did not add it; trying the distribution's toolchain");
    }
    let what = format!("a compiler for {}", machine.target);
    apt::install(host, &what, DEBIAN_PACKAGES)?;
    match distribution(host)? {
        Ok(linker) => Ok(Toolchain::new(Kind::Distribution { linker }, root)),
        Err(why) => Err(Error::Missing {
            what: format!("{what} is missing: its packages are installed, but {why}"),
            command: command(host, machine),
        }),
    }
}

/// Returns the command that gives us a toolchain.
pub fn command(host: &dyn Host, machine: &Machine) -> String {
    let apt = apt::command(host, DEBIAN_PACKAGES);
    match host.find("rustup") {
        Some(_) => format!("rustup target add {}   (or: {apt})", machine.target),
        None => apt,
    }
}

/// Makes sure that `toolchain` has clippy.
pub fn ensure_clippy(host: &dyn Host, toolchain: &Toolchain, no_setup: bool) -> Result<(), Error> {
    match toolchain.kind {
        Kind::Active => {
            let ask = host_cargo(&toolchain.root).args(["clippy", "--version"]);
            if host.ask(&ask)?.is_some_and(|answer| answer.ok()) {
                return Ok(());
            }
            let add = clean(Cmd::new("rustup")).args(["component", "add", "clippy"]);
            if !no_setup && host.find("rustup").is_some() && host.step(&add)? == End::Code(0) {
                return Ok(());
            }
            Err(Error::Missing { what: "clippy is missing".into(), command: add.to_string() })
        }
        Kind::Distribution { .. } if host.exists(Path::new(DEBIAN_CLIPPY)) => Ok(()),
        Kind::Distribution { .. } if no_setup => Err(Error::Missing {
            what: "clippy is missing".into(),
            command: apt::command(host, DEBIAN_CLIPPY_PACKAGES),
        }),
        Kind::Distribution { .. } => apt::install(host, "clippy", DEBIAN_CLIPPY_PACKAGES),
    }
}

fn active_has(host: &dyn Host, target: &str, root: &Path) -> Result<bool, Error> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let cmd =
        clean(Cmd::new(rustc)).args(["--print", "target-libdir", "--target", target]).dir(root);
    let Some(answer) = host.ask(&cmd)?.filter(|answer| answer.ok()) else { return Ok(false) };
    let dir = answer.stdout.trim();
    Ok(!dir.is_empty() && host.exists(Path::new(dir)))
}

/// Returns the linker if the distribution's toolchain is complete, or what is wrong with it.
fn distribution(host: &dyn Host) -> Result<Result<PathBuf, String>, Error> {
    for program in [DEBIAN_RUSTC, DEBIAN_CARGO] {
        if !host.exists(Path::new(program)) {
            return Ok(Err(format!("there is no {program}")));
        }
    }
    let ask = |args: [&str; 2]| {
        let cmd = clean(Cmd::new(DEBIAN_RUSTC)).env_remove("RUSTUP_TOOLCHAIN");
        host.ask(&cmd.env_remove("LD_LIBRARY_PATH").args(args))
    };
    let version = ask(["--version", "--verbose"])?.map(|answer| answer.stdout).unwrap_or_default();
    let minor = minor_version(version.strip_prefix("rustc ").unwrap_or_default());
    if minor < minor_version(MIN_RUST) {
        let first = version.lines().next().unwrap_or_default();
        return Ok(Err(format!("{DEBIAN_RUSTC} is `{first}`, and Rust {MIN_RUST} is needed")));
    }
    let sysroot = ask(["--print", "sysroot"])?.map(|answer| answer.stdout).unwrap_or_default();
    let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml");
    if !host.exists(&core) {
        return Ok(Err(format!("the sources of core are not in {}", core.display())));
    }
    Ok(host.find("ld.lld").ok_or_else(|| "there is no linker ld.lld on the path".into()))
}

fn minor_version(text: &str) -> Option<u32> {
    text.strip_prefix("1.")?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Removes what `cargo run` set for this tool and what another cargo must not see.
///
/// `CARGO_HOME`, registries, network and profile settings stay: they are the user's.
fn clean(cmd: Cmd) -> Cmd {
    env::vars_os().map(|(name, _)| name).filter(is_leak).fold(cmd, Cmd::env_remove)
}

fn is_leak(name: &OsString) -> bool {
    const PREFIXES: [&str; 6] =
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CFG_", "CARGO_FEATURE_", "DEP_"];
    const NAMES: [&str; 9] = [
        "CARGO",
        "CARGO_CRATE_NAME",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_TARGET_TMPDIR",
        "CARGO_BUILD_TARGET",
        "CARGO_ENCODED_RUSTFLAGS",
        "OUT_DIR",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
    ];
    let name = name.to_string_lossy();
    NAMES.contains(&&*name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";
const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "lld"];
const DEBIAN_CLIPPY_PACKAGES: &[&str] = &["rust-web-clippy"];
/// The workspace's own `rust-version`.
const MIN_RUST: &str = env!("CARGO_PKG_RUST_VERSION");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::fake::FakeHost;

    const LIBDIR: &str = "/rust/lib/aarch64-unknown-none/lib";
    const CORE: &str = "/usr/lib/rustlib/src/rust/library/core/Cargo.toml";

    fn machine() -> &'static Machine {
        crate::machine::all()[0]
    }

    fn ensure(host: &FakeHost) -> Result<Toolchain, Error> {
        super::ensure(host, machine(), Path::new("/w"))
    }

    /// A host whose compilers answer; which of their files are there is up to the test.
    fn host(host: FakeHost) -> FakeHost {
        host.answers("target-libdir", LIBDIR)
            .answers("/usr/bin/rustc --version", "rustc 1.96.0 (abc 2026-05-25)\nbinary: rustc\n")
            .answers("/usr/bin/rustc --print sysroot", "/usr\n")
    }

    fn with_distribution(host: FakeHost) -> FakeHost {
        host.file(DEBIAN_CARGO).file(DEBIAN_RUSTC).file(CORE).program("ld.lld")
    }

    #[test]
    fn the_active_toolchain_comes_first() {
        let host = with_distribution(host(FakeHost::user())).file(LIBDIR).program("rustup");
        assert_eq!(ensure(&host).expect("found").kind, Kind::Active);
        assert!(host.commands().is_empty());
    }

    #[test]
    fn a_complete_distribution_toolchain_is_used_as_it_is() {
        let host = with_distribution(host(FakeHost::user())).program("rustup");
        assert!(matches!(ensure(&host).expect("found").kind, Kind::Distribution { .. }));
        assert!(host.commands().is_empty());
    }

    #[test]
    fn rustup_adds_the_target() {
        let host = host(FakeHost::user()).program("rustup").makes("rustup target add", LIBDIR);
        assert_eq!(ensure(&host).expect("added").kind, Kind::Active);
        assert_eq!(host.commands().len(), 1);
    }

    #[test]
    fn when_rustup_refuses_the_distribution_is_installed() {
        let host = host(FakeHost::root()).program("rustup").program("apt-get").package_lists();
        let host = host.fails("rustup").installs("lld", "ld.lld");
        let host = [DEBIAN_CARGO, DEBIAN_RUSTC, CORE]
            .into_iter()
            .fold(host, |host, file| host.makes("apt-get install", file));
        assert!(matches!(ensure(&host).expect("installed").kind, Kind::Distribution { .. }));
        let said = host.said();
        assert!(said.contains("rustup did not add it"), "{said}");
    }

    #[test]
    fn no_way_at_all_ends_with_both_commands() {
        let host = host(FakeHost::user()).program("rustup").program("apt-get").fails("rustup");
        let error = ensure(&host).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let text = format!("{error} {}", command(&host, machine()));
        assert!(text.contains("rustup target add aarch64-unknown-none"), "{text}");
        assert!(text.contains("rustc-web cargo-web rust-web-src lld"), "{text}");
    }

    #[test]
    fn packages_that_are_too_old_are_named() {
        let host = FakeHost::root().program("apt-get").package_lists();
        let host = host.file(DEBIAN_CARGO).file(DEBIAN_RUSTC);
        let host = host.answers("/usr/bin/rustc --version", "rustc 1.63.0 (abc)\n");
        let error = ensure(&host).unwrap_err().to_string();
        assert!(error.contains("1.63.0") && error.contains(MIN_RUST), "{error}");
    }

    #[test]
    fn a_machine_without_any_rustc_is_an_answer_too() {
        assert_eq!(find(&FakeHost::user(), machine(), Path::new("/w")).expect("no error"), None);
    }

    #[test]
    fn the_distribution_is_run_with_its_own_compiler_and_linker() {
        let kind = Kind::Distribution { linker: "/usr/bin/ld.lld".into() };
        let line = Toolchain::new(kind, Path::new("/w"))
            .cargo("aarch64-unknown-none", "build")
            .to_string();
        for part in [
            "RUSTC=/usr/bin/rustc",
            "RUSTC_BOOTSTRAP=1",
            "CARGO_TARGET_AARCH64_UNKNOWN_NONE_LINKER=/usr/bin/ld.lld",
            "linker-flavor=ld.lld",
            "/usr/bin/cargo build -Zbuild-std=core,alloc --target=aarch64-unknown-none",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn only_what_cargo_set_for_us_is_removed() {
        let leaks = |name: &str| is_leak(&name.into());
        assert!(leaks("CARGO_PKG_NAME") && leaks("CARGO_MANIFEST_DIR") && leaks("CARGO"));
        for kept in
            ["CARGO_HOME", "CARGO_REGISTRIES_X_INDEX", "CARGO_NET_OFFLINE", "CARGO_HTTP_PROXY"]
        {
            assert!(!leaks(kept), "{kept}");
        }
    }
}
