//! Ties the life of a child to the life of this process, by the kernel's hand.
//!
//! Guards kill children on every ordinary way out. This module covers the other one: SIGKILL to the
//! tool itself. It needs code between `fork` and `exec`, which only an unsafe call can install.
#![expect(unsafe_code, reason = "Command::pre_exec is the only way to run code in the child")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Makes the kernel kill the child when the thread that starts it ends.
///
/// Start such children on the main thread only.
pub fn kill_with_parent(command: &mut Command) {
    let parent = getpid();
    let in_child = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the call above; then nobody would ever send the signal.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: after `fork` only async-signal-safe work is allowed. The closure makes two system calls
    // and compares numbers; neither path allocates, locks or unwinds.
    unsafe { command.pre_exec(in_child) };
}
