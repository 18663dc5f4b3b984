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
        let is_lean = |run: &&Run| run.system.ends_with(", lean");
        Some(Self { default: runs().find(|run| !is_lean(run))?, lean: runs().find(is_lean)? })
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
