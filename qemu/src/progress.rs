//! What a person sees while the tool works: a bar on a terminal, plain lines otherwise.
//!
//! The bar is on standard error, everything that tells results is on standard output.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows lines, and under them how far a boot is.
pub struct Progress {
    bar: Option<ProgressBar>,
    verbose: bool,
}

impl Progress {
    /// Looks whether there is a terminal.
    pub fn new(verbose: bool) -> Self {
        let bar = io::stderr()
            .is_terminal()
            .then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
        Self { bar, verbose }
    }

    /// Writes a line of the report.
    pub fn line(&self, text: impl Display) {
        let write = || {
            let mut out = io::stdout().lock();
            // A closed pipe (`| head`) is no reason to panic with QEMU running.
            let _ = writeln!(out, "{text}").and_then(|()| out.flush());
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Writes a line about what the tool does, apart from the report.
    pub fn note(&self, text: impl Display) {
        let write = || {
            let _ = writeln!(io::stderr(), "{text}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Shows a command line, if the user asked for them.
    pub fn command(&self, cmd: impl Display) {
        if self.verbose {
            self.note(format_args!("+ {cmd}"));
        }
    }

    /// Tells whether the user asked for details.
    pub fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Begins a step of `total` parts; 0 means that the number is not known.
    pub fn begin(&self, what: &str, total: u64) {
        let Some(bar) = &self.bar else { return };
        bar.reset();
        bar.set_message(what.to_owned());
        let template = if total > 0 {
            bar.set_length(total);
            "{spinner} {msg} [{bar:30}] {pos}/{len} {elapsed}"
        } else {
            "{spinner} {msg} {elapsed}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(100));
    }

    /// One part of the step is done.
    pub fn advance(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Ends the step and takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.disable_steady_tick();
            bar.finish_and_clear();
        }
    }
}
