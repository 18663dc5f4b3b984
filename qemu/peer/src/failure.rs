//! What went wrong, for a person at the console.

use core::fmt;

use syscalls::Errno;

/// A step that failed. There is nothing to undo: the machine ends.
pub struct Failure {
    step: &'static str,
    cause: Cause,
}

enum Cause {
    Errno(Errno),
    Odd(&'static str),
}

impl Failure {
    /// Says which step the kernel refused.
    pub fn of(step: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self { step, cause: Cause::Errno(errno) }
    }

    /// A step with a result that can't be used.
    pub fn odd(step: &'static str, why: &'static str) -> Self {
        Self { step, cause: Cause::Odd(why) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = self.step;
        match self.cause {
            Cause::Errno(errno) => write!(f, "can't {step}: {errno}"),
            Cause::Odd(why) => write!(f, "can't {step}: {why}"),
        }
    }
}
