//! Who our figures stand beside: the runs of a peer in the same results, or those that are committed.

use std::path::Path;

use super::results::{Results, Run};
use crate::error::Error;

/// Where the figures of a peer are kept, from the root of the workspace.
pub const FILE: &str = "benches/linux.json";

/// A peer on one machine: as it is shipped, and without what is done for safety alone.
#[derive(Clone, Copy)]
pub struct Beside<'r> {
    /// As it is shipped.
    pub default: &'r Run,
    /// Lean, which claims quote.
    pub lean: &'r Run,
}

/// Reads the committed figures, unless `results` has some of its own.
///
/// # Errors
///
/// [`Error::Usage`]: the file is missing or something else.
pub fn load(results: &Results, root: &Path) -> Result<Results, Error> {
    if results.runs.iter().any(|run| !run.is_ours()) {
        return Ok(results.clone());
    }
    Results::load(&root.join(FILE))
}

impl<'r> Beside<'r> {
    /// Finds both runs of a machine.
    pub fn find(results: &'r Results, arch: &str) -> Option<Self> {
        let runs = || results.runs.iter().filter(|run| !run.is_ours() && run.arch == arch);
        let [default, lean] = [false, true].map(|is| runs().find(|run| Self::is_lean(run) == is));
        Some(Self { default: default?, lean: lean? })
    }

    /// Tells whether a run is the lean one.
    pub fn is_lean(run: &Run) -> bool {
        run.system.ends_with(", lean")
    }

    /// The lean run, if it has a figure for all of `words` that the default one has; else that one.
    /// A line of a plot is of one kernel.
    pub fn fair<'w>(&self, mut words: impl Iterator<Item = &'w str>) -> &'r Run {
        let lacks = |word: &str| {
            self.lean.find(word, None).is_none() && self.default.find(word, None).is_some()
        };
        if words.any(lacks) { self.default } else { self.lean }
    }
}

/// What the system calls of an operation cost by themselves.
pub fn calls_of(word: &str, linux: &Run) -> Option<u64> {
    // The first group takes two: the group into the container, and the container to its kind.
    let calls = if word == "attach_first" { 2 } else { 1 };
    Some(linux.find(NOTHING, None)?.instructions? * calls)
}

/// The call that does nothing.
const NOTHING: &str = "ioctl_nothing";
