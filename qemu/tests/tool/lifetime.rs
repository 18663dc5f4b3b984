//! QEMU never outlives the tool, however the tool ends.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use crate::testelf::TestImage;
use crate::{FAKE, eventually, run, runs, tool};

/// Sends `signal` to the tool in the middle of a boot and returns how it ended and what it said.
fn interrupted(signal: &str) -> (ExitStatus, String) {
    let image = TestImage::new(&["alpha"]);
    let pid = image.path.with_extension("pid");
    // `exec`: the process with this id is the child itself, as QEMU is.
    let script = format!("echo $$ > '{}'; exec sleep 1000", pid.display());
    let mut command = run(&image, &[image.running(1)], &script);
    let tool = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    assert!(eventually(|| runs(&pid) == Some(true)), "QEMU did not start");
    kill(signal, tool.id());
    let output = tool.wait_with_output().expect("the tool ends");
    assert!(eventually(|| runs(&pid) == Some(false)), "QEMU outlived the tool after {signal}");
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Sends a signal, with the shell's own `kill`: a small system has no program of that name.
fn kill(signal: &str, pid: u32) {
    let status = Command::new("sh").args(["-c", &format!("kill {signal} {pid}")]).status();
    assert!(status.expect("the shell runs").success());
}

#[test]
fn ctrl_c_during_a_boot_ends_both_with_130() {
    let (status, stderr) = interrupted("-INT");
    assert_eq!(status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("interrupted (SIGINT)"), "{stderr}");
}

#[test]
fn sigterm_during_a_boot_ends_both_with_143() {
    let (status, stderr) = interrupted("-TERM");
    assert_eq!(status.code(), Some(143), "{stderr}");
}

#[test]
fn sigkill_to_the_tool_takes_qemu_along() {
    assert_eq!(interrupted("-KILL").0.signal(), Some(9));
}

#[test]
fn ctrl_c_during_a_build_ends_the_compiler() {
    let image = TestImage::new(&[]);
    let pid = image.path.with_extension("pid");
    let mut command = tool();
    command.args(["--qemu", FAKE]);
    command.env("FAKE_BUILD_DEMO", format!("echo $$ > '{}'; sleep 1000", pid.display()));
    let mut tool = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    assert!(eventually(|| runs(&pid) == Some(true)), "cargo did not start");
    kill("-INT", tool.id());
    assert_eq!(tool.wait().expect("the tool ends").code(), Some(130));
    assert!(eventually(|| runs(&pid) == Some(false)), "cargo outlived the tool");
}
