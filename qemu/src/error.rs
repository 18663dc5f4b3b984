//! Why the tool gives up, and with which exit status.

use std::io;

/// Ends a run. What an image did wrong is a verdict, not an `Error`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that can't be.
    #[error("{0}")]
    Usage(String),
    /// A prerequisite is missing and was not installed.
    #[error("{what}\n  to install it: {command}")]
    Missing {
        /// What is missing, and why it was not installed.
        what: String,
        /// The command a person should run.
        command: String,
    },
    /// A step failed.
    #[error("{0}")]
    Failed(String),
    /// A child could not be started or watched.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// What the system said.
        source: io::Error,
    },
    /// The user or the system ended the run.
    #[error("interrupted ({}); everything that was started is stopped", crate::process::signal_name(*.0))]
    Interrupted(i32),
}

impl Error {
    /// Returns 1 for a failure, 2 for wrong usage, 3 for a missing prerequisite, and what a shell
    /// reports after a signal (130 for Ctrl-C).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Io { .. } => 1,
            Self::Usage(_) => 2,
            Self::Missing { .. } => 3,
            Self::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(130),
        }
    }

    /// Wraps what the system said about `action`.
    pub fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action: action.into(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_the_exit_status_of_the_contract() {
        assert_eq!(Error::Failed(String::new()).exit_code(), 1);
        assert_eq!(Error::Usage(String::new()).exit_code(), 2);
        assert_eq!(Error::Missing { what: String::new(), command: String::new() }.exit_code(), 3);
        assert_eq!(Error::Interrupted(2).exit_code(), 130);
        assert_eq!(Error::Interrupted(15).exit_code(), 143);
    }
}
