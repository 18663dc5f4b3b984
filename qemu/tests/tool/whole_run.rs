//! The demo and the test command from set-up to the last line, with a made-up cargo.
//!
//! The real `cargo qemu test` runs these tests, so they must never run it. The made-up test image is
//! booted on two machines of aarch64, so each of its cases counts twice. It plays the examples, too.

use std::process::Command;

use crate::testelf::TestImage;
use crate::{FAKE, Shown, play, tool};

const HOST_OK: &str =
    "echo 'test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out'";

/// Returns a shell command that prints cargo's message about a built image.
pub fn built(image: &TestImage, kind: &str) -> String {
    let message = serde_json::json!({
        "reason": "compiler-artifact", "target": { "kind": [kind] }, "executable": image.path,
    });
    format!("echo '{message}'")
}

/// Returns `tool test` with one test image that writes `frames` and then runs `script`.
fn test(image: &TestImage, frames: &[Vec<u8>], script: &str) -> Command {
    let mut command = tool();
    command.args(["test", "--qemu", FAKE]);
    command.env("FAKE_HOST_TESTS", HOST_OK);
    command.env("FAKE_BUILD_TESTS", built(image, "test"));
    command.env("FAKE_BUILD_EXAMPLES", built(image, "bin"));
    command.env("FAKE_BUILD_HOBBY_KERNEL", built(image, "bin"));
    command.env("FAKE_BUILD_DEMO", built(image, "bin"));
    command.env("FAKE_QEMU", by_machine(image, &play(image, frames, script), REFUSAL));
    command
}

/// What the demo has to say on a machine without an IOMMU.
const REFUSAL: &str = "this machine has no virtio-iommu: start QEMU with one";

/// Returns the script of a QEMU that does `usual`, but on a machine without an IOMMU logs the error
/// `refusal` and fails.
fn by_machine(image: &TestImage, usual: &str, refusal: &str) -> String {
    let file = image.path.with_extension("refusal");
    std::fs::write(&file, image.log("error", refusal)).expect("writes");
    let refuse = format!("cat '{}'; exit 1", file.display());
    format!("case \"$*\" in *virtio-iommu*) {usual} ;; *) {refuse} ;; esac")
}

fn good(image: &TestImage) -> [Vec<u8>; 3] {
    [image.running(1), image.running(2), image.all_passed()]
}

#[test]
fn host_and_boot_tests_are_added_up_in_the_last_line() {
    let image = TestImage::new(&["map_one", "attach_one"]);
    let shown = Shown::of(&mut test(&image, &good(&image), "exit 0"));
    shown.expect(0, &["boot tests on aarch64"]);
    let cases = "aarch64: 8 cases: 7 passed, 0 failed, 1 skipped; ";
    let dma = "14 real DMA transfers, 10 refused DMAs checked\n";
    shown.expect(0, &[&format!("{cases}{dma}  1 skipped: needs QEMU 9.0 or newer\n")]);
    assert_eq!(shown.last_line(), "12 passed, 0 failed, 1 skipped");
}

#[test]
fn each_architecture_is_tested_and_its_own_qemu_is_asked() {
    let image = TestImage::new(&["map_one", "attach_one"]);
    let mut shown = test(&image, &[image.running(1), image.running(2)], "exit 0");
    // The same made-up image, judged as an x86_64 one: its status 1 is not the image's.
    let shown = Shown::of(shown.args(["--arch", "x86_64"]).env("FAKE_QEMU", "exit 1"));
    shown.expect(1, &["boot tests on x86_64", "QEMU died: exit status 1"]);
}

#[test]
fn a_skipped_case_is_shown_and_counted_where_it_may_be() {
    let image = TestImage::new(&["map_one", "attach_one"]);
    let skip = image.print("skipped: it needs two");
    let frames = [image.running(1), skip, image.running(2), image.all_passed()];
    let refused = Shown::of(&mut test(&image, &frames, "exit 0"));
    refused.expect(1, &["map_one ... FAILED: skipped, although"]);
    let mut one = test(&image, &frames, "exit 33");
    let shown = Shown::of(one.args(["--arch", "x86_64"]));
    shown.expect(1, &["map_one ... skipped (it needs two)", "attach_one ... ok"]);
    shown.expect(1, &["1 skipped: it needs two\n"]);
}

#[test]
fn an_image_that_no_machine_can_play_is_skipped_case_by_case() {
    let mut image = TestImage::new(&["map_one", "attach_one"]);
    let named = image.path.with_file_name("reserved.elf");
    std::fs::rename(&image.path, &named).expect("renames");
    image.path = named;
    let mut command = test(&image, &good(&image), "exit 0");
    let shown = Shown::of(command.args(["--arch", "x86_64", "one"]));
    shown.expect(0, &["image reserved[reserved-regions] ... skipped (x86_64 has no such machine)"]);
    assert_eq!(shown.last_line(), "0 passed, 0 failed, 2 skipped");
}

#[test]
fn with_an_architecture_or_a_filter_only_boot_tests_run() {
    let image = TestImage::new(&["map_one", "attach_one"]);
    let shown = Shown::of(test(&image, &good(&image), "exit 0").args(["--arch", "aarch64"]));
    assert_eq!((shown.code, shown.last_line()), (Some(0), "7 passed, 0 failed, 1 skipped"));

    let shown = Shown::of(test(&image, &good(&image), "exit 0").args(["--arch", "aarch64", "map"]));
    assert_eq!((shown.code, shown.last_line()), (Some(0), "2 passed, 0 failed"));
    assert!(!shown.stdout.contains("attach_one"), "{}", shown.stdout);
}

#[test]
fn a_filter_that_matches_nothing_is_wrong_usage() {
    let image = TestImage::new(&["map_one", "attach_one"]);
    let shown = Shown::of(test(&image, &[], "exit 0").arg("dirty"));
    shown.expect(2, &["no boot test has `dirty` in its name"]);
}

#[test]
fn a_matching_case_that_never_ran_is_a_failure() {
    let image = TestImage::new(&["map_one", "attach_one"]);
    let frames = [image.running(1)];
    let shown = Shown::of(test(&image, &frames, "exit 0").arg("attach"));
    assert_eq!((shown.code, shown.last_line()), (Some(1), "0 passed, 2 failed"));
}

#[test]
fn images_that_do_not_build_count_as_a_failure_and_the_last_line_stands() {
    let image = TestImage::new(&["map_one", "attach_one"]);
    let mut command = test(&image, &[], "exit 0");
    let shown = Shown::of(command.env("FAKE_BUILD_TESTS", "echo 'error[E0425]' >&2; exit 101"));
    shown.expect(1, &["error[E0425]", "images do not build"]);
    assert_eq!(shown.last_line(), "5 passed, 1 failed");
    Shown::of(command.env("FAKE_BUILD_TESTS", "exit 0")).expect(1, &["made no image"]);
}

#[test]
fn host_tests_that_do_not_build_count_as_a_failure() {
    let image = TestImage::new(&["map_one", "attach_one"]);
    let mut command = test(&image, &good(&image), "exit 0");
    let shown = Shown::of(command.env("FAKE_HOST_TESTS", "exit 101"));
    assert_eq!((shown.code, shown.last_line()), (Some(1), "7 passed, 1 failed, 1 skipped"));
}

#[test]
fn a_test_image_without_tests_is_a_failure() {
    let image = TestImage::new(&[]);
    let hello = [image.log("info", "hello")];
    let shown = Shown::of(&mut test(&image, &hello, "exit 0"));
    shown.expect(1, &["holds no test"]);
    assert_eq!(shown.last_line(), "8 passed, 2 failed, 1 skipped");
}

#[test]
fn an_image_whose_qemu_dies_does_not_stop_the_sum() {
    let image = TestImage::new(&["map_one", "attach_one"]);
    let shown = Shown::of(&mut test(&image, &[image.running(1)], "kill -9 $$"));
    assert_eq!((shown.code, shown.last_line()), (Some(1), "6 passed, 6 failed, 1 skipped"));
}

#[test]
fn a_machine_that_is_not_refused_is_a_failure() {
    let image = TestImage::new(&["map_one", "attach_one"]);
    let mut command = test(&image, &good(&image), "exit 0");
    let other = by_machine(&image, &play(&image, &good(&image), "exit 0"), "something else");
    let shown = Shown::of(command.env("FAKE_QEMU", other));
    shown.expect(1, &["a_machine_without_an_iommu_is_refused ... FAILED", "skipped (needs QEMU"]);
    assert_eq!(shown.last_line(), "11 passed, 1 failed, 1 skipped");
    let held = Shown::of(command.env("FAKE_QEMU", play(&image, &good(&image), "exit 0")));
    held.expect(1, &["a_machine_without_an_iommu_is_refused ... FAILED: passed"]);
}

#[test]
fn the_demo_tells_its_story_and_exit_0_means_that_it_held() {
    let image = TestImage::new(&[]);
    let demo = |level: &str, text: &str, script: &str| {
        let mut command = tool();
        command.args(["--qemu", FAKE]).env("FAKE_BUILD_DEMO", built(&image, "bin"));
        command.env("FAKE_QEMU", play(&image, &[image.log(level, text)], script));
        Shown::of(&mut command)
    };
    demo("info", "2 IOMMUs", "exit 0").expect(0, &["2 IOMMUs", "demo on aarch64: passed"]);
    demo("error", "no IOMMU", "exit 1").expect(1, &["demo on aarch64: failed: no IOMMU"]);
    demo("warn", "odd", "sleep 1000 & exit 0").expect(0, &["warn: odd"]);
}

#[test]
fn verbose_shows_lines_that_a_person_can_repeat() {
    let image = TestImage::new(&["map_one", "attach_one"]);
    let shown = Shown::of(test(&image, &good(&image), "exit 0").args(["--verbose", "--icount"]));
    shown.expect(0, &["test --target=aarch64-unknown-none --no-run", "-icount shift=0", "-kernel"]);
}

#[test]
fn clippy_findings_fail_lint() {
    Shown::of(tool().arg("lint").env("FAKE_CLIPPY", "exit 0")).expect(0, &[]);
    let shown =
        Shown::of(tool().arg("lint").env("FAKE_CLIPPY", "[ \"$2\" = --version ] || exit 101"));
    shown.expect(1, &[]);
}
