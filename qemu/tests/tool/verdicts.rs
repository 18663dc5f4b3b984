//! Each verdict has a QEMU that earns it.

use crate::testelf::TestImage;
use crate::{Shown, eventually, run, runs};

fn image() -> TestImage {
    TestImage::new(&["alpha", "beta"])
}

#[test]
fn passed() {
    let image = image();
    let frames = [image.running(1), image.running(2), image.all_passed()];
    let shown = Shown::of(&mut run(&image, &frames, "exit 0"));
    shown.expect(0, &["alpha ... ok", "beta ... ok"]);
    assert_eq!(shown.last_line(), "2 passed, 0 failed");
}

#[test]
fn cases_without_dma_behind_them() {
    let image = image();
    let cases = [image.running(1), image.running(2)].concat();
    for dma in ["nothing", "dma: 0 arrived, 5 refused", "dma: 7 arrived, 0 refused"] {
        let frames = [cases.clone(), image.all_passed_with(dma)];
        let shown = Shown::of(&mut run(&image, &frames, "exit 0"));
        shown.expect(1, &["the image reports no DMA that arrived, or none that was refused"]);
        assert_eq!(shown.last_line(), "2 passed, 1 failed");
    }
}

#[test]
fn failed_names_the_test_and_its_message() {
    let image = image();
    let why = image.log("error", "panicked at 'assertion failed: 1 == 2'");
    let shown = Shown::of(&mut run(&image, &[image.running(1), why], "exit 101"));
    shown.expect(1, &["failed in test `alpha`: panicked at 'assertion failed: 1 == 2'"]);
    shown.expect(1, &["beta ... FAILED: did not run"]);
    assert_eq!(shown.last_line(), "0 passed, 2 failed");
}

#[test]
fn panicked_outside_any_test() {
    let image = image();
    let why = image.log("error", "panicked at src/heap.rs:7: no memory");
    let shown = Shown::of(&mut run(&image, &[why], "exit 101"));
    shown.expect(1, &["panicked: panicked at src/heap.rs:7: no memory", "0 passed, 2 failed"]);
}

#[test]
fn panicked_and_then_stuck_is_ended_long_before_the_limit() {
    let image = image();
    let why = image.log("error", "panicked: x");
    let start = std::time::Instant::now();
    Shown::of(&mut run(&image, &[why], "sleep 1000")).expect(1, &["panicked"]);
    assert!(start.elapsed().as_secs() < 30);
}

#[test]
fn hung_after_the_limit_and_nothing_left_running() {
    let image = image();
    let pid = image.path.with_extension("pid");
    let script = format!("trap '' INT TERM; echo $$ > '{}'; sleep 1000 & wait", pid.display());
    let mut command = run(&image, &[image.running(1)], &script);
    let shown = Shown::of(command.args(["--timeout", "1"]));
    shown.expect(1, &["hung in test `alpha`: no end after 1 s", "--timeout", "0 passed, 2 failed"]);
    assert!(eventually(|| runs(&pid) == Some(false)), "QEMU outlived the tool");
}

#[test]
fn a_flood_of_messages_hangs_too() {
    let image = image();
    let file = image.path.with_extension("line");
    std::fs::write(&file, image.log("info", "again")).expect("writes");
    let script = format!("while :; do cat '{}'; done", file.display());
    let mut command = run(&image, &[], &script);
    Shown::of(command.args(["--timeout", "1"])).expect(1, &["hung", "again"]);
}

#[test]
fn qemu_killed() {
    let image = image();
    let shown = Shown::of(&mut run(&image, &[image.running(1)], "kill -9 $$"));
    shown.expect(1, &["QEMU died: SIGKILL", "0 passed, 2 failed"]);
}

#[test]
fn qemu_refuses_its_options() {
    let image = image();
    let script = "echo 'qemu: unsupported option -x' >&2; exit 1";
    let shown = Shown::of(&mut run(&image, &[], script));
    shown.expect(1, &["QEMU died: exit status 1: qemu: unsupported option -x"]);
}

#[test]
fn too_few_tests_ran() {
    let image = image();
    let shown = Shown::of(&mut run(&image, &[image.running(1)], "exit 0"));
    shown.expect(1, &["too few tests ran: 1 of 2", "0 passed, 2 failed"]);
    Shown::of(&mut run(&image, &[], "exit 0")).expect(1, &["too few tests ran: 0 of 2"]);
    let image = TestImage::without_count(&["alpha", "beta"]);
    Shown::of(&mut run(&image, &[], "exit 0")).expect(1, &["too few tests ran: 0 of 2"]);
}

#[test]
fn an_image_without_tests_is_judged_by_its_status_and_its_words() {
    let image = TestImage::new(&[]);
    let hello = image.log("info", "hello");
    Shown::of(&mut run(&image, &[hello], "exit 0")).expect(0, &["hello", "passed"]);
    Shown::of(&mut run(&image, &[], "exit 0")).expect(1, &["said nothing"]);
    let why = image.log("error", "no IOMMU found");
    Shown::of(&mut run(&image, &[why], "exit 1"))
        .expect(1, &["failed: no IOMMU found (exit status 1)"]);
    Shown::of(&mut run(&image, &[], "printf 'Data Abort'; exit 1")).expect(1, &["Data Abort"]);
}
