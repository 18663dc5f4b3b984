//! `cargo qemu bench` with a made-up compiler and a QEMU that tells made-up results.

use std::path::Path;
use std::process::Command;

use crate::testelf::{Scratch, TestImage};
use crate::{FAKE, Shown, play, tool};

const MAP: &str = "bench map_4k runs instructions=1000 least=1000 most=1001 requests=1 notifies=1";

/// Returns `tool bench` with an image that prints `lines` and then runs `script`.
fn bench(image: &TestImage, lines: &[&str], script: &str) -> Command {
    let message = serde_json::json!({
        "reason": "compiler-artifact", "target": { "kind": ["bin"] }, "executable": image.path,
    });
    let frames: Vec<_> = lines.iter().map(|line| image.print(line)).collect();
    let mut command = tool();
    command.args(["bench", "--qemu", FAKE]);
    // The program with the library and the one without are one, so that every size is 0.
    for build in ["FAKE_BUILD_BENCH", "FAKE_BUILD_SIZE"] {
        command.env(build, format!("echo '{message}'"));
    }
    command.env("FAKE_QEMU", play(image, &frames, script));
    command
}

fn results(dir: &Scratch) -> std::path::PathBuf {
    dir.path().join("results.json")
}

/// Measures `lines` and keeps the results.
fn keep(image: &TestImage, lines: &[&str], path: &Path) {
    Shown::of(bench(image, lines, "exit 0").arg("--json").arg(path)).expect(0, &[]);
}

#[test]
fn results_are_shown_with_their_targets_and_written() {
    let (image, dir) = (TestImage::new(&[]), Scratch::new());
    let shown = Shown::of(bench(&image, &[MAP], "exit 0").arg("--json").arg(results(&dir)));
    shown.expect(0, &["map 4 KiB", "1 000", "MISSED at most 900, 1 req, 1 not"]);
    shown.expect(0, &["1 results in ", " s of wall time"]);
    let text = std::fs::read_to_string(results(&dir)).expect("it was written");
    let value: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let run = &value["runs"][0];
    assert_eq!((value["schema"].as_u64(), run["arch"].as_str()), (Some(1), Some("aarch64")));
    assert_eq!(run["ops"][0]["spread"], serde_json::json!([1000, 1001]));
}

#[test]
fn five_per_cent_more_than_before_fails() {
    let (image, dir) = (TestImage::new(&[]), Scratch::new());
    let path = results(&dir);
    keep(&image, &[MAP], &path);
    let compare =
        |line: &str| Shown::of(bench(&image, &[line], "exit 0").arg("--compare").arg(&path));
    compare(MAP).expect(0, &["25 as before, 0 differ, 0 regressions"]);
    compare("bench map_4k runs instructions=1050 requests=1 notifies=1").expect(0, &["(+5.0 %)"]);
    let grown = compare("bench map_4k runs instructions=1051 requests=1 notifies=1");
    grown.expect(1, &["map_4k (runs): REGRESSION, instructions 1 000 to 1 051 (+5.1 %)"]);
    compare("bench map_4k runs instructions=1000 requests=2 notifies=1")
        .expect(1, &["REGRESSION, requests 1 to 2"]);
    compare("bench unmap_4k runs instructions=1 requests=1 notifies=1")
        .expect(1, &["map_4k (runs): REGRESSION, it is not measured any more"]);
}

#[test]
fn results_that_are_there_are_compared_without_a_boot() {
    let (image, dir) = (TestImage::new(&[]), Scratch::new());
    let path = results(&dir);
    keep(&image, &[MAP], &path);
    let mut again = tool(); // no image, no QEMU
    again.args(["bench", "--qemu", FAKE, "--from"]).arg(&path).arg("--compare").arg(&path);
    Shown::of(&mut again).expect(0, &["25 as before"]);
}

#[test]
fn an_image_that_fails_or_tells_nothing_fails() {
    let (image, dir) = (TestImage::new(&[]), Scratch::new());
    let mut fails = bench(&image, &[MAP], "exit 1");
    Shown::of(fails.arg("--json").arg(results(&dir))).expect(1, &["benchmark on aarch64: "]);
    assert!(!results(&dir).exists(), "nothing was measured to its end");
    Shown::of(&mut bench(&image, &["hello"], "exit 0")).expect(1, &["told nothing"]);
    Shown::of(&mut bench(&image, &[MAP, "bench map_4k"], "exit 0"))
        .expect(1, &["can't be read: the image said `bench map_4k`"]);
    let mut hung = bench(&image, &[MAP], "sleep 30");
    Shown::of(hung.args(["--timeout", "1"])).expect(1, &["hung"]);
}

#[test]
fn what_can_not_be_is_wrong_usage() {
    let (image, dir) = (TestImage::new(&[]), Scratch::new());
    let mut absent = bench(&image, &[MAP], "exit 0");
    Shown::of(absent.arg("--compare").arg(results(&dir))).expect(2, &["results.json"]);
    let mut kvm = bench(&image, &[MAP], "exit 0");
    Shown::of(kvm.args(["--accel", "kvm"])).expect(2, &["needs --accel tcg"]);
    for args in [&["--quick", "--update-baseline"], &["--quick", "--update-docs"]] {
        Shown::of(bench(&image, &[MAP], "exit 0").args(args)).expect(2, &["cannot be used with"]);
    }
}

#[test]
fn counts_that_do_not_repeat_fail() {
    let image = TestImage::new(&[]);
    Shown::of(bench(&image, &[MAP], "exit 0").arg("--twice")).expect(0, &[]);
    let mark = image.path.with_extension("mark");
    let other = image.path.with_extension("other");
    let line = "bench map_4k runs instructions=1002 requests=1 notifies=1";
    std::fs::write(&other, image.print(line)).expect("writes");
    let (mark, other) = (mark.display(), other.display());
    let mut twice = bench(&image, &[MAP], "exit 0");
    let first = play(&image, &[image.print(MAP)], "exit 0");
    let script =
        format!("if [ -e '{mark}' ]; then cat '{other}'; exit 0; fi; : > '{mark}'; {first}");
    Shown::of(twice.env("FAKE_QEMU", script).arg("--twice"))
        .expect(1, &["two runs on aarch64 differ"]);
}
