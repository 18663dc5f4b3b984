//! Runs the tool as a person does, with made-up images, compilers and QEMUs.

mod bench;
mod command_line;
mod docs;
mod lifetime;
mod mutants;
#[path = "../../src/testelf.rs"]
mod testelf;
mod verdicts;
mod whole_run;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use testelf::TestImage;

/// The program that plays all others.
const FAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake.sh");

/// Returns the tool with everything around it made up.
fn tool() -> Command {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_iommu-qemu"));
    tool.env("CARGO", FAKE).env("RUSTC", FAKE).env("FAKE_LIBDIR", "/").env_remove("RUSTFLAGS");
    tool
}

/// Returns `tool run` for an image whose QEMU writes `frames` and then runs `script`.
fn run(image: &TestImage, frames: &[Vec<u8>], script: &str) -> Command {
    let mut tool = tool();
    tool.args(["run", "--qemu", FAKE]).arg(&image.path);
    tool.env("FAKE_QEMU", play(image, frames, script));
    tool
}

/// Returns the script of a QEMU that writes `frames` and then runs `script`.
fn play(image: &TestImage, frames: &[Vec<u8>], script: &str) -> String {
    let file = image.path.with_extension("frames");
    std::fs::write(&file, frames.concat()).expect("writes");
    format!("cat '{}'; {script}", file.display())
}

/// What a run showed.
struct Shown {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Shown {
    fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().expect("the tool starts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    fn last_line(&self) -> &str {
        self.stdout.lines().last().unwrap_or_default()
    }

    #[track_caller]
    fn expect(&self, code: i32, parts: &[&str]) {
        let all = format!("{}\n--- stderr\n{}", self.stdout, self.stderr);
        assert_eq!(self.code, Some(code), "{all}");
        parts.iter().for_each(|part| assert!(all.contains(part), "no `{part}` in:\n{all}"));
    }
}

/// Waits until `done` holds; gives up after a few seconds.
fn eventually(done: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    done()
}

/// Tells whether the process whose id is in `file` runs; `None` if there is no id yet.
fn runs(file: &Path) -> Option<bool> {
    let text = std::fs::read_to_string(file).ok()?;
    let pid: u32 = text.trim().parse().ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    Some(stat.is_ok_and(|stat| !stat.contains(") Z ")))
}
