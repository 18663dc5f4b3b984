//! Finds QEMU, and judges its version.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::cmd::Cmd;
use crate::error::Error;
use crate::machine::Machine;

use super::apt;
use super::host::Host;

/// A QEMU that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    /// The program.
    pub path: PathBuf,
    /// What it says of itself.
    pub version: Version,
}

/// Major and minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The oldest QEMU with the devices that the images need and that the machine line was tried on.
pub const MIN_VERSION: Version = Version(7, 2);

/// Looks for QEMU without changing anything.
///
/// # Errors
///
/// [`Error::Missing`] if it is not there, does not run, or is too old.
pub fn find(host: &dyn Host, machine: &Machine, given: Option<&Path>) -> Result<Qemu, Error> {
    let missing = |what: String| Error::Missing { what, command: command(host, machine) };
    let path = match given {
        Some(path) if path.components().count() == 1 => host
            .find(&path.to_string_lossy())
            .ok_or_else(|| missing(format!("--qemu {} is not on the path", path.display())))?,
        Some(path) => path.to_owned(),
        None => host
            .find(machine.qemu)
            .ok_or_else(|| missing(format!("{} is missing", machine.qemu)))?,
    };
    if !host.exists(&path) {
        return Err(missing(format!("QEMU is missing: there is no {}", path.display())));
    }
    let cmd = Cmd::new(&path).arg("--version");
    let Some(answer) = host.ask(&cmd)? else {
        return Err(missing(format!("{} can't be started", path.display())));
    };
    let Some(version) = version_of(&answer.stdout).filter(|_| answer.ok()) else {
        let said = [answer.stdout.trim(), answer.stderr.trim()].join(" ");
        return Err(missing(format!(
            "`{cmd}` does not tell a QEMU version; it ended with {:?} and said: {}",
            answer.end,
            said.trim()
        )));
    };
    if version < MIN_VERSION {
        return Err(missing(format!(
            "{} is QEMU {version}, which is too old: {MIN_VERSION} or newer is needed",
            path.display()
        )));
    }
    Ok(Qemu { path, version })
}

/// Finds QEMU, or installs it if it is not there at all.
///
/// A QEMU that the user chose, and one that is too old, stay as they are: replacing them is not ours
/// to decide.
pub fn ensure(host: &dyn Host, machine: &Machine, given: Option<&Path>) -> Result<Qemu, Error> {
    let found = find(host, machine, given);
    if found.is_ok() || given.is_some() || host.find(machine.qemu).is_some() {
        return found;
    }
    apt::install(host, machine.qemu, &[machine.qemu_package])?;
    find(host, machine, None)
}

/// Returns the command that installs QEMU.
pub fn command(host: &dyn Host, machine: &Machine) -> String {
    apt::command(host, &[machine.qemu_package])
}

fn version_of(text: &str) -> Option<Version> {
    let numbers = text.strip_prefix("QEMU emulator version ")?;
    let mut parts = numbers.split(|c: char| !c.is_ascii_digit());
    Some(Version(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::fake::FakeHost;

    const GOOD: &str = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright";

    fn machine() -> &'static Machine {
        crate::machine::all()[0]
    }

    fn text(result: Result<Qemu, Error>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.exit_code(), 3);
        error.to_string()
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version_of(GOOD), Some(Version(7, 2)));
        assert_eq!(version_of("QEMU emulator version 10.0.2"), Some(Version(10, 0)));
        assert_eq!(version_of("qemu-img version 7.2"), None);
        assert!(Version(7, 1) < MIN_VERSION && MIN_VERSION <= Version(10, 0));
    }

    #[test]
    fn a_qemu_on_the_path_is_taken_and_nothing_installed() {
        let host = FakeHost::root().program(machine().qemu).answers("--version", GOOD);
        let qemu = ensure(&host, machine(), None).expect("found");
        assert_eq!(qemu.version, Version(7, 2));
        assert!(host.commands().is_empty());
    }

    #[test]
    fn an_old_qemu_is_named_with_its_version_and_left_alone() {
        let old = "QEMU emulator version 5.2.0 (Debian)";
        let host = FakeHost::root().program("apt-get").program(machine().qemu);
        let host = host.answers("--version", old);
        let text = text(ensure(&host, machine(), None));
        assert!(text.contains("5.2") && text.contains("too old") && text.contains("7.2"), "{text}");
        assert!(host.commands().is_empty());
    }

    #[test]
    fn a_missing_qemu_is_installed() {
        let host = FakeHost::root().program("apt-get").answers("--version", GOOD);
        let host = host.installs("qemu-system-arm", machine().qemu);
        ensure(&host, machine(), None).expect("installed");
        assert!(host.commands().iter().any(|line| line.contains("qemu-system-arm")));
    }

    #[test]
    fn a_missing_qemu_that_was_chosen_is_not_replaced() {
        let host = FakeHost::root().program("apt-get");
        let text = text(ensure(&host, machine(), Some(Path::new("/opt/none/qemu"))));
        assert!(text.contains("/opt/none/qemu"), "{text}");
        assert!(host.commands().is_empty());
    }

    #[test]
    fn a_program_that_is_no_qemu_is_refused() {
        let host = FakeHost::root().program(machine().qemu).answers("--version", "hello");
        assert!(text(ensure(&host, machine(), None)).contains("does not tell a QEMU version"));
    }
}
