//! Turns what a run showed into exactly one verdict.
//!
//! [`Story`] collects while the image runs; [`Story::judge`] is a pure function of what was collected
//! and how QEMU ended.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::decode::{Dma, Line, announced_case, reported_dma};
use crate::process::{End, signal_name};

/// What a run of an image came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every step held.
    Passed,
    /// A check failed, or the image said that something went wrong.
    Failed {
        /// The defmt-test case that ran.
        test: Option<String>,
        /// What the image said.
        message: String,
    },
    /// The image panicked.
    Panicked {
        /// The defmt-test case that ran.
        test: Option<String>,
        /// What the panic said.
        message: String,
    },
    /// The image did not end within the limit.
    Hung {
        /// The defmt-test case that ran.
        test: Option<String>,
        /// The limit.
        limit: Duration,
        /// The last thing it said.
        last: Option<String>,
    },
    /// QEMU ended without the image's doing.
    QemuDied {
        /// Signal or status.
        how: String,
        /// What it wrote to its standard error.
        stderr: String,
    },
    /// The image ended with success before all its tests had run.
    TooFewRan {
        /// How many started.
        ran: u64,
        /// How many it holds.
        holds: u64,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let within = |test: &Option<String>| match test {
            Some(test) => format!(" in test `{test}`"),
            None => String::new(),
        };
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed { test, message } => write!(f, "failed{}: {message}", within(test)),
            Self::Panicked { test, message } => write!(f, "panicked{}: {message}", within(test)),
            Self::Hung { test, limit, last } => {
                write!(f, "hung{}: no end after {} s", within(test), limit.as_secs_f32())?;
                match last {
                    Some(last) => write!(f, "; the last message was: {last}"),
                    None => f.write_str("; it said nothing at all"),
                }?;
                f.write_str(" (--timeout changes the limit)")
            }
            Self::QemuDied { how, stderr } if stderr.is_empty() => write!(f, "QEMU died: {how}"),
            Self::QemuDied { how, stderr } => write!(f, "QEMU died: {how}: {stderr}"),
            Self::TooFewRan { ran, holds } => {
                write!(f, "too few tests ran: {ran} of {holds}, then it exited with success")
            }
        }
    }
}

/// How one defmt-test case went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran to its end.
    Passed,
    /// It did not, for this reason.
    Failed(String),
    /// The image ended before its turn.
    NotRun,
    /// It ran, but its result does not count (`#[ignore]`).
    Ignored,
    /// The machine lacks what it needs, for this reason.
    Skipped(String),
}

/// A defmt-test case and how it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// How it went.
    pub outcome: Outcome,
}

/// What is known at the end of a run.
pub struct Judged {
    /// The verdict on the image.
    pub verdict: Verdict,
    /// Its defmt-test cases; empty if it is not a test image.
    pub cases: Vec<Case>,
    /// The DMA that it reports.
    pub dma: Dma,
    /// The sabotage that it says it runs with.
    pub sabotage: Option<String>,
}

/// What an image showed so far.
#[derive(Default)]
pub struct Story {
    /// How many cases must run; `None` if it is not a test image.
    expected: Option<u64>,
    started: Vec<Started>,
    /// Whether cases may be skipped on this machine.
    may_skip: bool,
    /// The status with which QEMU ended without the image's doing.
    of_qemu: Option<i32>,
    all_passed: bool,
    dma: Option<Dma>,
    sabotage: Option<String>,
    panic: Option<String>,
    error: Option<String>,
    last: Option<String>,
    lines: u64,
    stderr: VecDeque<u8>,
}

/// A case that was announced.
struct Started {
    name: String,
    ignored: bool,
    /// Why it was skipped.
    skipped: Option<String>,
}

impl Story {
    /// Starts the story of an image that holds `expected` cases.
    pub fn new(expected: Option<u64>) -> Self {
        Self { expected, ..Self::default() }
    }

    /// Lets cases say that they need what the machine does not have. Where it has all that a case can
    /// need, a skipped case is a failure.
    pub fn allow_skips(&mut self) {
        self.may_skip = true;
    }

    /// Notes that QEMU ended with a status that no image causes.
    pub fn ended_without_the_image(&mut self, status: i32) {
        self.of_qemu = Some(status);
    }

    /// Takes a message of the image.
    pub fn line(&mut self, line: &Line) {
        self.lines += 1;
        self.last = Some(line.text.clone());
        let shown = || match &line.location {
            Some(location) => format!("{} ({location})", line.text),
            None => line.text.clone(),
        };
        match (line.level, announced_case(&line.text)) {
            (None, Some((number, total, name, ignored))) if number == self.ran() + 1 => {
                self.started.push(Started { name: name.to_owned(), ignored, skipped: None });
                self.expected = Some(self.expected.unwrap_or(0).max(total));
            }
            (None, _) if line.text == "all tests passed!" => self.all_passed = true,
            (None, None) if reported_dma(&line.text).is_some() => {
                self.dma = reported_dma(&line.text);
            }
            (None, None) if line.text.starts_with(SABOTAGE) => {
                self.sabotage = line.text.strip_prefix(SABOTAGE).map(str::to_owned);
            }
            (None, None) if line.text.starts_with(SKIPPED) => {
                if let Some(started) = self.started.last_mut() {
                    started.skipped = line.text.strip_prefix(SKIPPED).map(str::to_owned);
                }
            }
            // The first one tells the cause: a failing defmt assertion also ends in Rust's handler.
            (Some("error"), _) if line.text.starts_with("panicked") => {
                self.panic.get_or_insert_with(shown);
            }
            (Some("error"), _) => self.error = Some(shown()),
            _ => {}
        }
    }

    /// Takes what QEMU wrote to its standard error; the last few KiB are kept.
    pub fn stderr(&mut self, bytes: &[u8]) {
        self.stderr.extend(bytes);
        let excess = self.stderr.len().saturating_sub(MAX_STDERR);
        self.stderr.drain(..excess);
    }

    /// Tells whether the image has panicked: nothing but its exit can follow.
    pub fn has_panicked(&self) -> bool {
        self.panic.is_some()
    }

    /// Returns the number of cases that started.
    pub fn ran(&self) -> u64 {
        u64::try_from(self.started.len()).unwrap_or(u64::MAX)
    }

    /// Gives the verdict. `known` are the names of the image's cases, in any order.
    pub fn judge(&self, end: End, limit: Duration, known: &[String], output: &Output) -> Judged {
        let verdict = self.verdict(end, limit, output);
        let cases = self.cases(&verdict, known);
        let (dma, sabotage) = (self.dma.unwrap_or_default(), self.sabotage.clone());
        Judged { verdict, cases, dma, sabotage }
    }

    fn verdict(&self, end: End, limit: Duration, output: &Output) -> Verdict {
        let test = self.current();
        let stderr = self.stderr_text();
        if let Some(message) = &self.panic {
            let message = message.clone();
            // defmt-test reports a failed check by a panic; there is no other way out of a case.
            return if test.is_some() && is_check(&message) {
                Verdict::Failed { test, message }
            } else {
                Verdict::Panicked { test, message }
            };
        }
        if let Some(status) = self.of_qemu {
            let how = format!("exit status {status}, which is not the image's");
            return Verdict::QemuDied { how, stderr };
        }
        match end {
            End::TimedOut => Verdict::Hung { test, limit, last: self.last.clone() },
            End::Signal(signal) => Verdict::QemuDied { how: signal_name(signal), stderr },
            End::Code(PANIC_CODE) => {
                let message = self.error.clone().unwrap_or_else(|| {
                    format!("exit status {PANIC_CODE} without a message{}", output.rest())
                });
                Verdict::Panicked { test, message }
            }
            End::Code(0) => self.verdict_of_success(output),
            End::Code(code) if self.lines == 0 && output.bytes == 0 && !stderr.is_empty() => {
                Verdict::QemuDied { how: format!("exit status {code}"), stderr }
            }
            End::Code(code) => {
                let mut message = match (&self.error, &self.last) {
                    (Some(error), _) => format!("{error} (exit status {code})"),
                    (None, Some(last)) => format!("exit status {code} after: {last}"),
                    (None, None) => format!("exit status {code} without a message"),
                };
                message += &output.rest();
                if !stderr.is_empty() {
                    message += &format!("; QEMU said: {stderr}");
                }
                Verdict::Failed { test, message }
            }
        }
    }

    fn verdict_of_success(&self, output: &Output) -> Verdict {
        let failed = |message: String| Verdict::Failed { test: self.current(), message };
        let ran = self.ran();
        match self.expected {
            Some(holds) if ran < holds => Verdict::TooFewRan { ran, holds },
            Some(_) if self.wrongly_skipped().is_some() => {
                let test = self.wrongly_skipped().map(|started| started.name.clone());
                Verdict::Failed { test, message: WRONGLY_SKIPPED.into() }
            }
            Some(_) if !self.all_passed => {
                failed("the image exited with success inside its last test".into())
            }
            Some(_) if self.has_no_proof() => failed(NO_PROOF.into()),
            _ if output.bad_frames > 0 => failed(format!(
                "{} messages can't be decoded with the image's own table",
                output.bad_frames
            )),
            None if self.lines == 0 => {
                failed(format!("the image exited with success but said nothing{}", output.rest()))
            }
            _ => Verdict::Passed,
        }
    }

    /// Returns the case that has started and not ended.
    fn current(&self) -> Option<String> {
        let last = self.started.last().filter(|_| !self.all_passed);
        last.map(|started| started.name.clone())
    }

    /// Returns a case that was skipped although the machine has all that a case can need.
    fn wrongly_skipped(&self) -> Option<&Started> {
        self.started.iter().find(|started| started.skipped.is_some() && !self.may_skip)
    }

    /// Tells whether no DMA stands behind cases that passed: a test image shows DMA that arrives, and
    /// DMA that is refused.
    fn has_no_proof(&self) -> bool {
        let Dma { arrived, refused } = self.dma.unwrap_or_default();
        let some_ran = self.started.iter().any(|one| one.skipped.is_none() && !one.ignored);
        some_ran && (arrived == 0 || refused == 0)
    }

    fn cases(&self, verdict: &Verdict, known: &[String]) -> Vec<Case> {
        let current = self.current();
        let mut cases: Vec<_> = self
            .started
            .iter()
            .map(|Started { name, ignored, skipped }| {
                let outcome = match skipped {
                    _ if Some(name) == current.as_ref() => Outcome::Failed(verdict.to_string()),
                    Some(_) if !self.may_skip => Outcome::Failed(WRONGLY_SKIPPED.into()),
                    Some(why) => Outcome::Skipped(why.clone()),
                    None if *ignored => Outcome::Ignored,
                    None => Outcome::Passed,
                };
                Case { name: name.clone(), outcome }
            })
            .collect();
        let has_run = |name: &&String| self.started.iter().any(|started| started.name == **name);
        let not_run = |name: String| Case { name, outcome: Outcome::NotRun };
        cases.extend(known.iter().filter(|name| !has_run(name)).cloned().map(not_run));
        for number in cases.len() as u64..self.expected.unwrap_or(0) {
            cases.push(not_run(format!("case {}", number + 1)));
        }
        cases
    }

    fn stderr_text(&self) -> String {
        let bytes: Vec<u8> = self.stderr.iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().replace('\n', "; ")
    }
}

/// What is known about the bytes of a run apart from its messages.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// How many bytes came.
    pub bytes: u64,
    /// Frames that could not be decoded.
    pub bad_frames: u64,
    /// What came after the last whole frame.
    pub unfinished: Option<String>,
}

impl Output {
    fn rest(&self) -> String {
        match &self.unfinished {
            Some(text) => format!("; its output ends with bytes that are no message: {text}"),
            None => String::new(),
        }
    }
}

/// Tells whether a panic message is that of a check in a test case, not of code that broke.
fn is_check(message: &str) -> bool {
    message.contains("assertion") || message.contains("test failed with outcome")
}

/// How a case says that the machine lacks what it needs.
const SKIPPED: &str = "skipped: ";
/// How an image says that it was broken on purpose.
const SABOTAGE: &str = "sabotage: ";
const WRONGLY_SKIPPED: &str = "skipped, although the machine has all that it needs";
const NO_PROOF: &str = "the image reports no DMA that arrived, or none that was refused; \
    does its `#[teardown]` call `tally::report`?";
/// With this status the images' panic handler exits.
const PANIC_CODE: i32 = 101;
/// How much of QEMU's standard error is kept.
const MAX_STDERR: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);
    const DMA: &str = "dma: 2 arrived, 1 refused";

    fn plain(text: &str) -> Line {
        Line { text: text.into(), ..Line::default() }
    }

    fn error(text: &str) -> Line {
        Line { level: Some("error"), ..plain(text) }
    }

    /// A run of an image with the cases a, b and c.
    fn judge(lines: &[Line], end: End) -> Judged {
        let known = ["a", "b", "c"].map(String::from);
        let mut story = Story::new(Some(3));
        lines.iter().for_each(|line| story.line(line));
        story.judge(end, LIMIT, &known, &Output { bytes: 1, ..Output::default() })
    }

    fn running(names: &[&str]) -> Vec<Line> {
        let numbered = names.iter().enumerate();
        numbered.map(|(n, name)| plain(&format!("({}/3) running `{name}`...", n + 1))).collect()
    }

    fn outcomes(judged: &Judged) -> Vec<&Outcome> {
        judged.cases.iter().map(|case| &case.outcome).collect()
    }

    #[test]
    fn all_cases_and_exit_0_is_passed() {
        let lines =
            [running(&["a", "b", "c"]), vec![plain(DMA), plain("all tests passed!")]].concat();
        let judged = judge(&lines, End::Code(0));
        assert_eq!(judged.verdict, Verdict::Passed);
        assert_eq!(outcomes(&judged), [&Outcome::Passed; 3]);
    }

    #[test]
    fn cases_without_dma_behind_them_have_not_passed() {
        let end = plain("all tests passed!");
        for report in ["", "dma: 0 arrived, 1 refused", "dma: 2 arrived, 0 refused"] {
            let lines = [running(&["a", "b", "c"]), vec![plain(report), end.clone()]].concat();
            let Verdict::Failed { test: None, message } = judge(&lines, End::Code(0)).verdict
            else {
                panic!("wrong verdict")
            };
            assert!(message.contains("no DMA"), "{message}");
        }
        let lines = [running(&["a", "b", "c"]), vec![plain(DMA), end]].concat();
        assert_eq!(judge(&lines, End::Code(0)).dma, Dma { arrived: 2, refused: 1 });
    }

    #[test]
    fn where_every_case_is_skipped_there_is_no_dma() {
        let mut story = Story::new(Some(1));
        story.allow_skips();
        let lines = [
            plain("(1/1) running `a`..."),
            plain("skipped: no device"),
            plain("dma: 0 arrived, 0 refused"),
            plain("all tests passed!"),
        ];
        lines.iter().for_each(|line| story.line(line));
        let judged = story.judge(End::Code(0), LIMIT, &["a".into()], &Output::default());
        assert_eq!(judged.verdict, Verdict::Passed);
    }

    #[test]
    fn a_failed_check_names_the_test_and_the_message() {
        let first = error("panicked at 'assertion failed: 1 == 2'");
        let lines = [running(&["a", "b"]), vec![first, error("panicked at lib.rs: x")]].concat();
        let judged = judge(&lines, End::Code(101));
        let message = "panicked at 'assertion failed: 1 == 2'".to_owned();
        assert_eq!(judged.verdict, Verdict::Failed { test: Some("b".into()), message });
        assert_eq!(judged.cases[0].outcome, Outcome::Passed);
        assert!(
            matches!(&judged.cases[1].outcome, Outcome::Failed(text) if text.contains("1 == 2"))
        );
        assert_eq!(judged.cases[2], Case { name: "c".into(), outcome: Outcome::NotRun });
    }

    #[test]
    fn a_panic_is_not_a_failed_check() {
        let panic = error("panicked at src/x.rs:3:1: index out of bounds");
        let in_case = judge(&[running(&["a"]), vec![panic.clone()]].concat(), End::Code(101));
        assert!(matches!(in_case.verdict, Verdict::Panicked { test: Some(_), .. }));
        let before = judge(&[panic], End::Code(101));
        assert!(matches!(before.verdict, Verdict::Panicked { test: None, .. }));
        assert_eq!(outcomes(&before), [&Outcome::NotRun; 3]);
    }

    #[test]
    fn the_panic_status_is_enough_and_a_panic_message_is_enough() {
        let silent = judge(&running(&["a"]), End::Code(101));
        assert!(matches!(silent.verdict, Verdict::Panicked { test: Some(_), .. }));
        let hangs = judge(&[error("panicked: x")], End::TimedOut);
        assert!(matches!(hangs.verdict, Verdict::Panicked { .. }));
        let lies = judge(&[error("panicked: x")], End::Code(0));
        assert!(matches!(lies.verdict, Verdict::Panicked { .. }));
    }

    #[test]
    fn no_end_within_the_limit_is_hung() {
        let judged = judge(&running(&["a", "b"]), End::TimedOut);
        assert!(matches!(&judged.verdict, Verdict::Hung { test: Some(test), .. } if test == "b"));
        assert!(matches!(judged.cases[1].outcome, Outcome::Failed(_)));
        assert_eq!(judged.cases[2].outcome, Outcome::NotRun);
    }

    #[test]
    fn a_signal_is_the_death_of_qemu() {
        let judged = judge(&running(&["a"]), End::Signal(9));
        assert!(matches!(&judged.verdict, Verdict::QemuDied { how, .. } if how == "SIGKILL"));
        assert!(matches!(judged.cases[0].outcome, Outcome::Failed(_)));
    }

    #[test]
    fn an_error_of_qemu_before_the_first_byte_is_its_death() {
        let mut story = Story::new(None);
        story.stderr(b"qemu: -device nosuch: not a valid device\n");
        let judged = story.judge(End::Code(1), LIMIT, &[], &Output::default());
        let Verdict::QemuDied { how, stderr } = judged.verdict else { panic!("wrong verdict") };
        assert_eq!(how, "exit status 1");
        assert_eq!(stderr, "qemu: -device nosuch: not a valid device");
    }

    #[test]
    fn exit_0_before_the_last_case_is_too_few() {
        for ran in 0..3 {
            let judged = judge(&running(&["a", "b", "c"][..ran]), End::Code(0));
            let ran = ran as u64;
            assert_eq!(judged.verdict, Verdict::TooFewRan { ran, holds: 3 });
            assert!(
                !outcomes(&judged)[(ran as usize).saturating_sub(1)..].contains(&&Outcome::Passed)
            );
        }
    }

    #[test]
    fn exit_0_inside_the_last_case_is_not_passed() {
        let judged = judge(&running(&["a", "b", "c"]), End::Code(0));
        assert!(matches!(&judged.verdict, Verdict::Failed { test: Some(test), .. } if test == "c"));
    }

    #[test]
    fn a_bad_status_tells_the_last_error() {
        let mut story = Story::new(None);
        story.line(&error("no IOMMU found"));
        story.line(&plain("bye"));
        let judged = story.judge(End::Code(1), LIMIT, &[], &Output::default());
        let message = "no IOMMU found (exit status 1)".to_owned();
        assert_eq!(judged.verdict, Verdict::Failed { test: None, message });
    }

    #[test]
    fn success_without_a_word_or_with_garbage_is_not_passed() {
        let silent = Story::new(None).judge(End::Code(0), LIMIT, &[], &Output::default());
        assert!(matches!(silent.verdict, Verdict::Failed { .. }));
        let mut story = Story::new(None);
        story.line(&plain("hello"));
        let output = Output { bytes: 9, bad_frames: 1, unfinished: None };
        let garbled = story.judge(End::Code(0), LIMIT, &[], &output);
        assert!(matches!(garbled.verdict, Verdict::Failed { .. }));
        let fine = story.judge(End::Code(0), LIMIT, &[], &Output::default());
        assert_eq!(fine.verdict, Verdict::Passed);
    }

    #[test]
    fn a_case_announced_out_of_turn_does_not_count() {
        let lines = [plain("(3/3) running `c`..."), plain("all tests passed!")];
        let judged = judge(&lines, End::Code(0));
        assert_eq!(judged.verdict, Verdict::TooFewRan { ran: 0, holds: 3 });
    }

    #[test]
    fn an_ignored_case_counts_neither_way() {
        let mut lines = running(&["a", "b"]);
        lines.push(plain("(3/3) ignoring `c`..."));
        lines.extend([plain(DMA), plain("all tests passed!")]);
        let judged = judge(&lines, End::Code(0));
        assert_eq!(judged.verdict, Verdict::Passed);
        assert_eq!(judged.cases[2].outcome, Outcome::Ignored);
    }

    #[test]
    fn a_skipped_case_is_neither_passed_nor_hidden() {
        let mut lines = running(&["a"]);
        lines.push(plain("skipped: one IOMMU"));
        lines.extend(running(&["a", "b", "c"]).split_off(1));
        lines.extend([plain(DMA), plain("all tests passed!")]);
        let wrong = judge(&lines, End::Code(0));
        assert!(matches!(&wrong.verdict, Verdict::Failed { test: Some(test), .. } if test == "a"));
        assert!(matches!(wrong.cases[0].outcome, Outcome::Failed(_)));
        let mut story = Story::new(Some(3));
        story.allow_skips();
        lines.iter().for_each(|line| story.line(line));
        let known = ["a", "b", "c"].map(String::from);
        let judged = story.judge(End::Code(0), LIMIT, &known, &Output::default());
        assert_eq!(judged.verdict, Verdict::Passed);
        assert_eq!(judged.cases[0].outcome, Outcome::Skipped("one IOMMU".into()));
        assert_eq!(judged.cases[1].outcome, Outcome::Passed);
    }

    #[test]
    fn a_status_that_no_image_causes_is_the_death_of_qemu() {
        let mut story = Story::new(None);
        story.line(&plain("hello"));
        story.ended_without_the_image(0);
        let judged = story.judge(End::Code(0), LIMIT, &[], &Output::default());
        assert!(matches!(judged.verdict, Verdict::QemuDied { .. }));
    }

    #[test]
    fn a_panic_after_the_last_case_leaves_the_cases_passed() {
        let mut lines = running(&["a", "b", "c"]);
        lines.extend([
            plain(DMA),
            plain("all tests passed!"),
            error("panicked: in teardown: assertion"),
        ]);
        let judged = judge(&lines, End::Code(101));
        assert!(matches!(judged.verdict, Verdict::Panicked { test: None, .. }));
        assert_eq!(outcomes(&judged), [&Outcome::Passed; 3]);
    }
}
