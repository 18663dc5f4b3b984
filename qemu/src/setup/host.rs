//! What the set-up asks of the machine it runs on: one trait, so that a test can play any machine.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cmd::Cmd;
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::process::{self, Captured, End};

/// The machine under the tool.
pub trait Host {
    /// Tells whether we may install packages as we are.
    fn is_root(&self) -> bool;
    /// Tells whether somebody can type a password.
    fn on_terminal(&self) -> bool;
    /// Finds a program on the path.
    fn find(&self, program: &str) -> Option<PathBuf>;
    /// Tells whether a file or folder exists.
    fn exists(&self, path: &Path) -> bool;
    /// Tells whether the package manager has ever loaded its lists.
    fn has_package_lists(&self) -> bool;
    /// Runs a short question; `None` if the program can't be started.
    fn ask(&self, cmd: &Cmd) -> Result<Option<Captured>, Error>;
    /// Runs a step that may be killed half way; its output is shown.
    fn step(&self, cmd: &Cmd) -> Result<End, Error>;
    /// Runs a step that must not be killed half way, and may ask for a password.
    fn attended(&self, cmd: &Cmd) -> Result<End, Error>;
    /// Tells the user what is going on.
    fn say(&self, text: &str);
}

/// The real machine.
pub struct RealHost {
    /// The user's wish to stop.
    pub interrupt: Interrupt,
}

impl Host for RealHost {
    fn is_root(&self) -> bool {
        rustix::process::geteuid().is_root()
    }

    fn on_terminal(&self) -> bool {
        io::stdin().is_terminal()
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        let path = env::var_os("PATH")?;
        let mut places = env::split_paths(&path).map(|dir| dir.join(program));
        places.find(|place| {
            place
                .metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn has_package_lists(&self) -> bool {
        let Ok(entries) = std::fs::read_dir("/var/lib/apt/lists") else { return false };
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    }

    fn ask(&self, cmd: &Cmd) -> Result<Option<Captured>, Error> {
        match process::capture(cmd, QUESTION, &self.interrupt) {
            Ok(captured) => Ok(Some(captured)),
            Err(Error::Io { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn step(&self, cmd: &Cmd) -> Result<End, Error> {
        process::lines(cmd, &self.interrupt, &mut |line| self.say(line))
    }

    fn attended(&self, cmd: &Cmd) -> Result<End, Error> {
        process::attended(cmd, &self.interrupt)
    }

    fn say(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// How long a question like `--version` may take.
const QUESTION: Duration = Duration::from_secs(20);
