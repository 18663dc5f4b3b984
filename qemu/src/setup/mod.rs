//! The set-up: finds what a run needs, installs what is missing, and says which it took.

pub mod apt;
#[cfg(test)]
pub mod fake;
pub mod host;
pub mod qemu;
pub mod toolchain;

use std::path::Path;

use crate::error::Error;
use crate::machine::Machine;

use self::host::Host;
use self::qemu::Qemu;
use self::toolchain::Toolchain;

/// What the user said about the set-up.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The QEMU to use.
    pub qemu: Option<&'a Path>,
    /// Install nothing.
    pub no_setup: bool,
    /// The workspace.
    pub root: &'a Path,
}

/// Finds or installs QEMU.
pub fn qemu(host: &dyn Host, machine: &Machine, options: Options<'_>) -> Result<Qemu, Error> {
    if options.no_setup {
        qemu::find(host, machine, options.qemu)
    } else {
        qemu::ensure(host, machine, options.qemu)
    }
}

/// Finds or installs a toolchain for the machine's target.
pub fn toolchain(
    host: &dyn Host,
    machine: &Machine,
    options: Options<'_>,
) -> Result<Toolchain, Error> {
    if !options.no_setup {
        return toolchain::ensure(host, machine, options.root);
    }
    toolchain::find(host, machine, options.root)?.ok_or_else(|| Error::Missing {
        what: format!("a compiler for {} is missing", machine.target),
        command: toolchain::command(host, machine),
    })
}

/// One line of `setup --check`.
#[derive(Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub what: String,
    /// Where it is, or why not and the command that would install it.
    pub state: Result<String, (String, String)>,
}

/// Lists what is there and what is missing, and changes nothing.
pub fn check(host: &dyn Host, machine: &Machine, options: Options<'_>) -> Result<Vec<Item>, Error> {
    let qemu = match qemu::find(host, machine, options.qemu) {
        Ok(qemu) => {
            let advice = qemu::advice(host, machine, qemu.version)?;
            let advice = advice.map_or_else(String::new, |advice| format!("\n  {advice}"));
            Ok(format!("QEMU {} at {}{advice}", qemu.version, qemu.path.display()))
        }
        Err(Error::Missing { what, command }) => Err((what, command)),
        Err(error) => return Err(error),
    };
    let toolchain = match toolchain::find(host, machine, options.root)? {
        Some(toolchain) => Ok(toolchain.describe().to_owned()),
        None => Err((
            "neither the active toolchain nor the distribution's can build for it".into(),
            toolchain::command(host, machine),
        )),
    };
    Ok(vec![
        Item { what: machine.qemu.into(), state: qemu },
        Item { what: machine.target.into(), state: toolchain },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::fake::FakeHost;

    fn machine() -> &'static Machine {
        crate::machine::all()[0]
    }

    fn options() -> Options<'static> {
        Options { qemu: None, no_setup: true, root: Path::new("/w") }
    }

    #[test]
    fn check_on_an_empty_machine_names_every_command_and_runs_none() {
        let host = FakeHost::user().program("apt-get").program("rustup");
        let items = check(&host, machine(), options()).expect("an answer");
        let commands: Vec<_> = items.into_iter().map(|item| item.state.unwrap_err().1).collect();
        assert!(
            commands[0].contains("apt-get install --yes --no-install-recommends qemu-system-arm")
        );
        assert!(commands[1].contains("rustup target add aarch64-unknown-none"));
        assert!(commands[1].contains("rustc-web"));
        assert!(host.commands().is_empty());
    }

    #[test]
    fn no_setup_installs_nothing_and_says_what_would() {
        let host = FakeHost::root().program("apt-get").program("rustup");
        let errors = [
            qemu(&host, machine(), options()).map(drop).unwrap_err(),
            toolchain(&host, machine(), options()).map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.exit_code(), 3);
            assert!(error.to_string().contains("to install it: "), "{error}");
        }
        assert!(host.commands().is_empty());
    }
}
