//! The mutation check with a made-up build: who notices, who doesn't, and what counts as neither.

use std::process::Command;

use crate::testelf::TestImage;
use crate::whole_run::built;
use crate::{FAKE, Shown, play, tool};

fn image() -> TestImage {
    TestImage::new(&["alpha", "beta"])
}

fn good(image: &TestImage) -> [Vec<u8>; 3] {
    [image.running(1), image.running(2), image.all_passed()]
}

/// Returns `tool test --mutants skip_unmap`; QEMU does `control` without a sabotage, and `broken` with.
fn mutants(image: &TestImage, control: &str, broken: &str) -> Command {
    let mut command = tool();
    command.args(["test", "--mutants", "skip_unmap", "--qemu", FAKE]);
    command.env("FAKE_BUILD_TESTS", built(image, "test"));
    let script = format!("case \"$*\" in *sabotage=*) {broken} ;; *) {control} ;; esac");
    command.env("FAKE_QEMU", script);
    command
}

/// Returns a script that writes these frames from a file of their own, and then runs `then`.
fn write(image: &TestImage, name: &str, frames: &[Vec<u8>], then: &str) -> String {
    let file = image.path.with_extension(name);
    std::fs::write(&file, frames.concat()).expect("writes");
    format!("cat '{}'; {then}", file.display())
}

#[test]
fn a_sabotage_that_a_case_notices() {
    let image = image();
    let why = image.log("error", "panicked at x.rs:1: it arrived");
    let frames = [image.print("sabotage: skip_unmap"), image.running(1), image.running(2), why];
    let broken = write(&image, "broken", &frames, "exit 101");
    let control = play(&image, &good(&image), "exit 0");
    let shown = Shown::of(&mut mutants(&image, &control, &broken));
    shown.expect(0, &["mutation check on aarch64", "control: image image passes"]);
    shown.expect(0, &["skip_unmap (no UNMAP is sent): image::beta: panicked at x.rs:1: it"]);
    assert_eq!(shown.last_line(), "1 sabotages noticed, 0 not");
}

#[test]
fn a_sabotage_that_no_case_notices_is_a_failure() {
    let image = image();
    let [one, two, end] = good(&image);
    let frames = [image.print("sabotage: skip_unmap"), one, two, end];
    let broken = write(&image, "broken", &frames, "exit 0");
    let control = play(&image, &good(&image), "exit 0");
    let shown = Shown::of(&mut mutants(&image, &control, &broken));
    shown.expect(1, &["skip_unmap (no UNMAP is sent): FAILED: no case notices"]);
    assert_eq!(shown.last_line(), "0 sabotages noticed, 1 not");
}

#[test]
fn all_cases_that_notice_are_found_one_after_the_other() {
    let mut image = image();
    let boot = image.path.with_file_name("boot.elf");
    std::fs::rename(&image.path, &boot).expect("renames");
    image.path = boot;
    let [one, two, end] = good(&image);
    let (sabotage, why) = (image.print("sabotage: skip_unmap"), image.log("error", "panicked: x"));
    let skip = image.print("skipped: left out");
    let first = write(&image, "first", &[sabotage.clone(), one.clone(), why.clone()], "exit 101");
    let frames = [sabotage.clone(), one.clone(), skip.clone(), two.clone(), why];
    let second = write(&image, "second", &frames, "exit 101");
    let third = write(&image, "third", &[sabotage, one, skip.clone(), two, skip, end], "exit 0");
    let broken = format!(
        "case \"$*\" in *skip=alpha,beta*) {third} ;; *skip=alpha*) {second} ;; *) {first} ;; esac"
    );
    let control = play(&image, &good(&image), "exit 0");
    let shown = Shown::of(mutants(&image, &control, &broken).arg("--all"));
    shown.expect(0, &["(no UNMAP is sent): boot::alpha, boot::beta: "]);
}

#[test]
fn images_that_fail_without_a_sabotage_tell_nothing() {
    let image = image();
    let control = play(&image, &[image.running(1)], "exit 101");
    let shown = Shown::of(&mut mutants(&image, &control, "exit 0"));
    shown.expect(1, &["image image fails without a sabotage"]);
}

#[test]
fn an_image_that_is_not_broken_as_asked_tells_nothing() {
    let image = image();
    let control = play(&image, &good(&image), "exit 0");
    let shown = Shown::of(&mut mutants(&image, &control, &control));
    shown.expect(1, &["was to run with sabotage=skip_unmap and says no sabotage"]);
}

#[test]
fn a_qemu_that_dies_has_noticed_nothing() {
    let image = image();
    let frames = [image.print("sabotage: skip_unmap"), image.running(1)];
    let broken = write(&image, "broken", &frames, "kill -9 $$");
    let control = play(&image, &good(&image), "exit 0");
    let shown = Shown::of(&mut mutants(&image, &control, &broken));
    shown.expect(1, &["error: QEMU died: SIGKILL"]);
}

#[test]
fn a_name_that_no_sabotage_has_is_wrong_usage() {
    let mut command = tool();
    command.args(["test", "--mutants", "nothing_like_it", "--qemu", FAKE]);
    Shown::of(&mut command).expect(2, &["no sabotage has `nothing_like_it` in its name"]);
}

#[test]
fn the_build_goes_through_the_tool_which_adds_the_mark() {
    let image = image();
    let control = play(&image, &good(&image), "exit 0");
    let mut command = mutants(&image, &control, &control);
    let told = "echo \"wrapper $RUSTC_WORKSPACE_WRAPPER $IOMMU_QEMU_WRAPPER_CFG\" >&2; exit 1";
    let shown = Shown::of(command.env("FAKE_BUILD_TESTS", told));
    let wrapper = format!("wrapper {} iommu_sabotage", env!("CARGO_BIN_EXE_iommu-qemu"));
    shown.expect(1, &[&wrapper]);

    let wrapped = |args: &[&str]| {
        let mut command = tool();
        command.env("IOMMU_QEMU_WRAPPER_CFG", "iommu_sabotage").arg("echo").args(args);
        Shown::of(&mut command).stdout
    };
    let for_a_target = wrapped(&["--crate-name", "x", "--target", "t"]);
    assert_eq!(for_a_target, "--crate-name x --target t --cfg iommu_sabotage\n");
    assert_eq!(wrapped(&["--crate-name", "x"]), "--crate-name x\n", "a build script, for the host");
    Shown::of(tool().env("IOMMU_QEMU_WRAPPER_CFG", "x")).expect(2, &["must be a compiler"]);
}
