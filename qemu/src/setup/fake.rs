//! A made-up machine for the tests of the set-up.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::cmd::Cmd;
use crate::error::Error;
use crate::process::{Captured, End};

use super::host::Host;

/// A machine where nothing is installed; the builder methods put things on it.
#[derive(Default)]
pub struct FakeHost {
    root: bool,
    terminal: bool,
    lists: bool,
    files: RefCell<BTreeSet<PathBuf>>,
    answers: Vec<(String, String)>,
    /// A command that contains the first text makes the file.
    makes: Vec<(String, PathBuf)>,
    fails: Vec<String>,
    fails_once: RefCell<Vec<String>>,
    commands: RefCell<Vec<String>>,
    said: RefCell<String>,
}

impl FakeHost {
    /// A machine on which we are an ordinary user.
    pub fn user() -> Self {
        Self::default()
    }

    /// A machine on which we are root.
    pub fn root() -> Self {
        Self { root: true, ..Self::default() }
    }

    /// Somebody sits at it.
    pub fn terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// The package lists are there.
    pub fn package_lists(mut self) -> Self {
        self.lists = true;
        self
    }

    /// This program is on the path.
    pub fn program(self, name: &str) -> Self {
        let path = on_path(name);
        self.file(path)
    }

    /// This file exists.
    pub fn file(self, path: impl Into<PathBuf>) -> Self {
        self.files.borrow_mut().insert(path.into());
        self
    }

    /// A question that contains `part` is answered so; any other finds no program.
    pub fn answers(mut self, part: &str, stdout: &str) -> Self {
        self.answers.push((part.into(), stdout.into()));
        self
    }

    /// A command that contains `part` makes a file.
    pub fn makes(mut self, part: &str, path: &str) -> Self {
        self.makes.push((part.into(), path.into()));
        self
    }

    /// Installing `package` gives a program.
    pub fn installs(self, package: &str, program: &str) -> Self {
        let path = on_path(program);
        self.makes(package, &path.to_string_lossy())
    }

    /// Commands that contain `part` fail.
    pub fn fails(mut self, part: &str) -> Self {
        self.fails.push(part.into());
        self
    }

    /// The first command that contains `part` fails.
    pub fn fails_once(self, part: &str) -> Self {
        self.fails_once.borrow_mut().push(part.into());
        self
    }

    /// Returns the commands that would have changed the machine.
    pub fn commands(&self) -> Vec<String> {
        self.commands.borrow().clone()
    }

    /// Returns what the user was told.
    pub fn said(&self) -> String {
        self.said.borrow().clone()
    }
}

impl Host for FakeHost {
    fn is_root(&self) -> bool {
        self.root
    }

    fn on_terminal(&self) -> bool {
        self.terminal
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        let path = on_path(program);
        self.exists(&path).then_some(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.files.borrow().contains(path)
    }

    fn has_package_lists(&self) -> bool {
        self.lists
    }

    fn ask(&self, cmd: &Cmd) -> Result<Option<Captured>, Error> {
        let line = cmd.to_string();
        let answer = self.answers.iter().find(|(part, _)| line.contains(part));
        Ok(answer.map(|(_, stdout)| Captured {
            end: End::Code(0),
            stdout: stdout.clone(),
            stderr: String::new(),
        }))
    }

    fn step(&self, cmd: &Cmd) -> Result<End, Error> {
        let line = cmd.to_string();
        self.commands.borrow_mut().push(line.clone());
        let mut once = self.fails_once.borrow_mut();
        if let Some(at) = once.iter().position(|part| line.contains(part)) {
            once.remove(at);
            return Ok(End::Code(100));
        }
        if self.fails.iter().any(|part| line.contains(part)) {
            return Ok(End::Code(100));
        }
        let made = self.makes.iter().filter(|(part, _)| line.contains(part));
        self.files.borrow_mut().extend(made.map(|(_, path)| path.clone()));
        Ok(End::Code(0))
    }

    fn attended(&self, cmd: &Cmd) -> Result<End, Error> {
        self.step(cmd)
    }

    fn say(&self, text: &str) {
        *self.said.borrow_mut() += &format!("{text}\n");
    }
}

fn on_path(program: &str) -> PathBuf {
    Path::new("/path").join(program)
}
