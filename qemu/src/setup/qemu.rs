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
    /// Why it can't start a machine with the board's firmware, if it can't.
    pub lacks_firmware: Option<String>,
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
    let lacks_firmware = lacks_firmware(host, machine, &path)?;
    Ok(Qemu { path, version, lacks_firmware })
}

/// Why the firmware of the board can't be had, with the command that installs it; `None` if it is there
/// or no machine wants it.
fn lacks_firmware(
    host: &dyn Host,
    machine: &Machine,
    qemu: &Path,
) -> Result<Option<String>, Error> {
    let Some((file, packages)) = machine.firmware else { return Ok(None) };
    let answer = host.ask(&Cmd::new(qemu).args(["-L", "help"]))?;
    let folders = answer.map_or_else(String::new, |answer| answer.stdout);
    if folders.lines().any(|folder| host.exists(&Path::new(folder).join(file))) {
        return Ok(None);
    }
    let command = apt::command(host, packages);
    Ok(Some(format!("{file} is in no folder of this QEMU; to install it: {command}")))
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

/// The oldest QEMU that leaves no case out that every architecture has.
const WHOLE_VERSION: Version = Version(9, 0);

/// How a newer QEMU can be had, for one that leaves cases out; `None` if it doesn't. Installing one is
/// not ours to decide: nothing is changed.
pub fn advice(host: &dyn Host, machine: &Machine, have: Version) -> Result<Option<String>, Error> {
    let whole = machine.whole_since().max(WHOLE_VERSION);
    if have >= whole {
        return Ok(None);
    }
    let package = machine.qemu_package;
    let list = Cmd::new("apt-cache").args(["madison", package]);
    let lists = match host.find("apt-cache") {
        Some(_) => host.ask(&list)?.map_or_else(String::new, |answer| answer.stdout),
        None => String::new(),
    };
    let offers = lists.lines().filter_map(offer);
    let newest = offers.filter(|(version, _)| *version >= whole).max();
    let how = match newest {
        Some((version, suite)) => {
            let suite = format!("--target-release={suite}");
            let command = apt::command(host, &[&suite, package]);
            format!("QEMU {version} of the distribution has them: {command}")
        }
        None => format!("the package lists offer no newer {package}; --qemu takes another QEMU"),
    };
    Ok(Some(format!("cases that need QEMU {whole} are skipped; {how}")))
}

/// Reads a line of `apt-cache madison`: package, version and source, with the suite in the source.
fn offer(line: &str) -> Option<(Version, &str)> {
    let mut fields = line.split('|').skip(1).map(str::trim);
    let (version, source) = (fields.next()?, fields.next()?);
    let version = version.split_once(':').map_or(version, |(_epoch, rest)| rest);
    let suite = source.split_ascii_whitespace().nth(1)?.split('/').next()?;
    Some((numbers(version)?, suite))
}

fn version_of(text: &str) -> Option<Version> {
    numbers(text.strip_prefix("QEMU emulator version ")?)
}

fn numbers(text: &str) -> Option<Version> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
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

    const OFFERS: &str = "\
 qemu-system-arm | 1:10.0.2+ds-2~bpo12+1 | http://mirror/debian bookworm-backports/main amd64 Packages
 qemu-system-arm | 1:7.2+dfsg-7+deb12u18 | http://mirror/debian bookworm/main amd64 Packages
";

    #[test]
    fn a_newer_qemu_of_the_distribution_is_named_with_its_command_and_not_installed() {
        let host = FakeHost::root().program("apt-get").program("apt-cache");
        let host = host.answers("madison qemu-system-arm", OFFERS);
        let advice = advice(&host, machine(), Version(7, 2)).expect("an answer").expect("some");
        assert!(advice.contains("cases that need QEMU 9.0 are skipped"), "{advice}");
        assert!(advice.contains("QEMU 10.0 of the distribution"), "{advice}");
        let command = "--target-release=bookworm-backports qemu-system-arm";
        assert!(advice.ends_with(command), "{advice}");
        assert!(host.commands().is_empty());
    }

    #[test]
    fn without_an_offer_the_way_is_another_qemu_and_a_new_one_needs_no_advice() {
        let old = OFFERS.lines().last().expect("a line");
        let host = FakeHost::user().program("apt-cache").answers("madison", old);
        let told = advice(&host, machine(), Version(7, 2)).expect("an answer").expect("some");
        assert!(told.contains("offer no newer qemu-system-arm; --qemu"), "{told}");
        let none = advice(&FakeHost::user(), machine(), Version(8, 2)).expect("an answer");
        assert!(none.is_some_and(|told| told.contains("--qemu")));
        assert_eq!(advice(&host, machine(), Version(9, 0)).expect("an answer"), None);
    }

    #[test]
    fn firmware_that_is_missing_is_no_trouble_but_a_reason_with_its_command() {
        let machine = crate::machine::find(Some(crate::cli::Arch::Riscv64));
        let host = || {
            let host = FakeHost::root().program("apt-get").program(machine.qemu);
            host.answers("--version", GOOD).answers("-L help", "/none\n/usr/share/data\n")
        };
        let lacks = |host: &FakeHost| find(host, machine, None).expect("found").lacks_firmware;
        let why = lacks(&host()).expect("a reason");
        assert!(why.contains("opensbi-riscv64-generic-fw_dynamic.bin is in no folder"), "{why}");
        assert!(why.ends_with("qemu-system-data opensbi"), "{why}");
        let there = "/usr/share/data/opensbi-riscv64-generic-fw_dynamic.bin";
        assert_eq!(lacks(&host().file(there)), None);
        assert!(host().commands().is_empty());
    }

    #[test]
    fn an_architecture_with_more_in_newer_ones_is_advised_so() {
        let machine = crate::machine::find(Some(crate::cli::Arch::Riscv64));
        let told = advice(&FakeHost::user(), machine, Version(9, 2)).expect("an answer");
        assert!(told.is_some_and(|told| told.contains("cases that need QEMU 10.0 are skipped")));
        let none = advice(&FakeHost::user(), machine, Version(10, 0)).expect("an answer");
        assert_eq!(none, None);
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
