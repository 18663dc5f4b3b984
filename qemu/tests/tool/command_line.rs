//! Wrong usage is 2, a missing prerequisite is 3, and both say what to do.

use crate::testelf::{Scratch, TestImage};
use crate::{FAKE, Shown, tool};

#[test]
fn wrong_usage_is_exit_2_with_a_reason() {
    let cases: [(&[&str], &str); 5] = [
        (&["--no-such-option"], "--no-such-option"),
        (&["no-such-command"], "no-such-command"),
        (&["--arch", "vax"], "aarch64"),
        (&["--timeout", "never"], "--timeout"),
        (&["run", "image", "--exact", "name"], "takes no arguments"),
    ];
    for (args, reason) in cases {
        Shown::of(tool().args(args)).expect(2, &[reason]);
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn kvm_for_a_foreign_architecture_is_exit_2() {
    Shown::of(tool().args(["--accel", "kvm"]))
        .expect(2, &["can't run aarch64 code", "--accel tcg"]);
}

#[test]
fn a_qemu_that_is_not_there_is_exit_3_with_the_command() {
    let image = TestImage::new(&[]);
    let mut command = tool();
    command.args(["run", "--qemu", "/no/such/qemu"]).arg(&image.path);
    Shown::of(&mut command).expect(3, &["/no/such/qemu", "qemu-system-arm"]);
}

#[test]
fn a_qemu_that_is_too_old_is_exit_3_with_both_versions() {
    let image = TestImage::new(&[]);
    let mut command = tool();
    command.args(["run", "--qemu", FAKE]).arg(&image.path);
    command.env("FAKE_VERSION", "QEMU emulator version 6.2.0 (Debian)");
    Shown::of(&mut command).expect(3, &["6.2", "too old", "7.2 or newer"]);
}

#[test]
fn nothing_on_the_path_and_no_set_up_is_exit_3() {
    let empty = Scratch::new();
    let mut command = tool();
    command.args(["--no-setup"]).env("PATH", empty.path());
    Shown::of(&mut command).expect(3, &["qemu-system-aarch64 is missing", "to install it"]);
}

#[test]
fn a_peer_that_can_not_be_measured_is_exit_2_and_a_missing_kernel_exit_3() {
    let bench = |args: &[&str]| Shown::of(tool().args(["bench", "--qemu", FAKE]).args(args));
    let linux = ["--peer", "linux"];
    bench(&["--peer", "windows"]).expect(2, &["linux"]);
    bench(&["--kernel", "file.deb"]).expect(2, &["--peer"]);
    bench(&[&linux[..], &["--arch", "riscv64"]].concat()).expect(2, &["aarch64 and x86_64 only"]);
    let both = ["--kernel", "file.deb", "--suite", "stable"];
    bench(&[&linux[..], &both].concat()).expect(2, &["--suite"]);
    let mut of_which = tool();
    of_which.args(["bench", "--peer", "linux", "--kernel", "file.deb"]);
    Shown::of(&mut of_which).expect(2, &["say which with --arch"]);
    let missing = ["--arch", "x86_64", "--kernel", "/no/such.deb"];
    let parts =
        ["there is no /no/such.deb", "to install it", "linux-image-VERSION-amd64", "--kernel FILE"];
    bench(&[&linux[..], &missing].concat()).expect(3, &parts);
}

#[test]
fn check_lists_what_is_there_and_what_is_missing() {
    let empty = Scratch::new();
    let mut command = tool();
    command.args(["setup", "--check"]).env("PATH", empty.path());
    let shown = Shown::of(&mut command);
    shown.expect(3, &["qemu-system-aarch64: MISSING", "to install it", "aarch64-unknown-none: "]);
    shown.expect(3, &["qemu-system-x86_64: MISSING", "qemu-system-x86", "x86_64-unknown-none: "]);
    Shown::of(tool().args(["setup", "--check", "--qemu", FAKE])).expect(0, &["QEMU 7.2", FAKE]);
}

#[test]
fn a_file_that_is_no_image_is_named() {
    Shown::of(tool().args(["run", "--qemu", FAKE, FAKE])).expect(1, &["is not a 64-bit ELF image"]);
    Shown::of(tool().args(["run", "--qemu", FAKE, "/no/image"])).expect(1, &["/no/image"]);
}

#[test]
fn help_tells_the_exit_statuses_and_what_a_filter_does() {
    Shown::of(tool().arg("--help")).expect(0, &["Exit status", "--no-setup", "test", "setup"]);
    Shown::of(tool().args(["test", "--help"])).expect(0, &["only the matching cases"]);
}
