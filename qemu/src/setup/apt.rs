//! Installs Debian packages: as root, or through sudo.

use crate::cmd::Cmd;
use crate::error::Error;
use crate::process::End;

use super::host::Host;

/// Installs `packages`, which give `what`.
///
/// # Errors
///
/// [`Error::Missing`] with the command to run: no apt-get, no right to use it, or it failed.
pub fn install(host: &dyn Host, what: &str, packages: &[&str]) -> Result<(), Error> {
    let missing = |why: &str| Error::Missing {
        what: format!("{what} is missing and was not installed: {why}"),
        command: command(host, packages),
    };
    if host.find("apt-get").is_none() {
        return Err(missing("this system has no apt-get"));
    }
    let Some(power) = power(host)? else {
        return Err(missing("that needs root, or sudo on a terminal"));
    };
    host.say(&format!("{what} is missing; installing {}", packages.join(" ")));
    let install = apt_get(power).args(INSTALL).args(packages);
    let mut is_fresh = false;
    if !host.has_package_lists() {
        update(host, power)?;
        is_fresh = true;
    }
    let mut end = host.attended(&install)?;
    if end != End::Code(0) && !is_fresh {
        // Old lists name package versions that the server no longer has.
        update(host, power)?;
        end = host.attended(&install)?;
    }
    match end {
        End::Code(0) => Ok(()),
        _ => Err(missing("apt-get failed; its messages are above")),
    }
}

/// Returns the command line that installs `packages`, for a person to run.
pub fn command(host: &dyn Host, packages: &[&str]) -> String {
    if host.find("apt-get").is_none() {
        return format!(
            "install the equivalent of Debian's {} with your package manager",
            packages.join(" ")
        );
    }
    let sudo = if host.is_root() { "" } else { "sudo " };
    let update = match host.has_package_lists() {
        true => String::new(),
        false => format!("{sudo}apt-get update && "),
    };
    format!("{update}{sudo}apt-get {} {}", INSTALL.join(" "), packages.join(" "))
}

/// By what right packages can be installed.
#[derive(Clone, Copy)]
enum Power {
    Root,
    /// Through sudo, which may ask for a password.
    Sudo,
    /// Through sudo, which needs none.
    SilentSudo,
}

fn power(host: &dyn Host) -> Result<Option<Power>, Error> {
    if host.is_root() {
        return Ok(Some(Power::Root));
    }
    if host.find("sudo").is_none() {
        return Ok(None);
    }
    if host.on_terminal() {
        return Ok(Some(Power::Sudo));
    }
    let silent = host.ask(&Cmd::new("sudo").args(["-n", "true"]))?;
    Ok(silent.is_some_and(|answer| answer.ok()).then_some(Power::SilentSudo))
}

fn apt_get(power: Power) -> Cmd {
    const QUIET: &str = "DEBIAN_FRONTEND=noninteractive";
    match power {
        Power::Root => Cmd::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive"),
        Power::Sudo => Cmd::new("sudo").args(["env", QUIET, "apt-get"]),
        Power::SilentSudo => Cmd::new("sudo").args(["-n", "env", QUIET, "apt-get"]),
    }
}

/// Loads the package lists. A failure is not the end: the lists at hand may do.
fn update(host: &dyn Host, power: Power) -> Result<(), Error> {
    if host.attended(&apt_get(power).arg("update"))? != End::Code(0) {
        host.say("apt-get update failed; going on with the package lists at hand");
    }
    Ok(())
}

const INSTALL: [&str; 3] = ["install", "--yes", "--no-install-recommends"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::fake::FakeHost;

    const PACKAGES: &[&str] = &["one", "two"];

    fn text(host: &FakeHost) -> String {
        let error = install(host, "QEMU", PACKAGES).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        error.to_string()
    }

    #[test]
    fn root_installs_and_loads_missing_lists_first() {
        let host = FakeHost::root().program("apt-get");
        install(&host, "QEMU", PACKAGES).expect("apt-get works");
        let env = "DEBIAN_FRONTEND=noninteractive apt-get";
        let install_line = format!("{env} install --yes --no-install-recommends one two");
        assert_eq!(host.commands(), [format!("{env} update"), install_line]);
    }

    #[test]
    fn lists_that_are_there_are_loaded_again_only_after_a_failure() {
        let fresh = FakeHost::root().program("apt-get").package_lists();
        install(&fresh, "QEMU", PACKAGES).expect("apt-get works");
        assert_eq!(fresh.commands().len(), 1);

        let stale = FakeHost::root().program("apt-get").package_lists();
        let stale = stale.fails_once("apt-get install");
        install(&stale, "QEMU", PACKAGES).expect("the second try works");
        assert_eq!(stale.commands().len(), 3);
    }

    #[test]
    fn a_failing_apt_ends_with_the_command_to_run() {
        let host = FakeHost::root().program("apt-get").fails("apt-get");
        let text = text(&host);
        assert!(text.contains("apt-get failed"), "{text}");
        assert!(text.contains("apt-get install --yes --no-install-recommends one two"), "{text}");
    }

    #[test]
    fn without_root_and_sudo_nothing_is_run() {
        let host = FakeHost::user().program("apt-get");
        let text = text(&host);
        assert!(text.contains("needs root, or sudo on a terminal"), "{text}");
        assert!(text.contains("sudo apt-get install"), "{text}");
        assert!(host.commands().is_empty());
    }

    #[test]
    fn sudo_is_used_on_a_terminal_or_when_it_asks_nothing() {
        let terminal = FakeHost::user().program("apt-get").program("sudo").terminal();
        install(&terminal, "QEMU", PACKAGES).expect("sudo works");
        assert!(terminal.commands()[0].starts_with("sudo env DEBIAN_FRONTEND"));

        let silent =
            FakeHost::user().program("apt-get").program("sudo").answers("sudo -n true", "");
        install(&silent, "QEMU", PACKAGES).expect("sudo works");
        assert!(silent.commands()[0].starts_with("sudo -n env DEBIAN_FRONTEND"));

        let locked = FakeHost::user().program("apt-get").program("sudo");
        assert!(text(&locked).contains("needs root, or sudo on a terminal"));
    }

    #[test]
    fn a_system_without_apt_is_told_what_it_needs() {
        let text = text(&FakeHost::root());
        assert!(text.contains("no apt-get") && text.contains("one two"), "{text}");
    }
}
