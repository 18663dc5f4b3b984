//! Counts cases and writes them down.

use std::fmt;

use clap::ValueEnum;

use crate::cli::Variant;
use crate::decode::Line;
use crate::progress::Progress;
use crate::verdict::{Case, Judged, Outcome, Verdict};

/// The sum at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Cases that passed.
    pub passed: u64,
    /// Cases that failed or could not run.
    pub failed: u64,
    /// Cases that need what the machine does not have.
    pub skipped: u64,
}

impl Totals {
    /// Adds the numbers of another part.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// The last line of `cargo qemu test`.
impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        match self.skipped {
            0 => Ok(()),
            skipped => write!(f, ", {skipped} skipped"),
        }
    }
}

/// Counts the cases of one image whose name contains `filter`.
///
/// A case that did not run counts as failed, a skipped one as skipped, an ignored one not at all. An
/// image that did not pass although each case that is counted did counts as one more failure, so that
/// no trouble is lost.
pub fn count(judged: &Judged, filter: Option<&str>) -> Totals {
    let mut totals = Totals::default();
    for case in judged.cases.iter().filter(|case| matches(case, filter)) {
        match case.outcome {
            Outcome::Passed => totals.passed += 1,
            Outcome::Failed(_) | Outcome::NotRun => totals.failed += 1,
            Outcome::Skipped(_) => totals.skipped += 1,
            Outcome::Ignored => {}
        }
    }
    let all_counted_passed = judged
        .cases
        .iter()
        .all(|case| !matches!(case.outcome, Outcome::Failed(_) | Outcome::NotRun));
    if judged.verdict != Verdict::Passed && all_counted_passed {
        totals.failed += 1;
    } else if judged.cases.is_empty() {
        totals.passed += 1; // not a test image: the run as a whole is the case
    }
    totals
}

/// Writes one line per case, then the verdict if it is a bad one.
pub fn show(progress: &Progress, image: &str, judged: &Judged, filter: Option<&str>) {
    for case in judged.cases.iter().filter(|case| matches(case, filter)) {
        let result = match &case.outcome {
            Outcome::Passed => "ok".into(),
            Outcome::Failed(why) => format!("FAILED: {why}"),
            Outcome::NotRun => "FAILED: did not run".into(),
            Outcome::Ignored => "ignored".into(),
            Outcome::Skipped(why) => format!("skipped ({why})"),
        };
        progress.line(format_args!("test {image}::{} ... {result}", case.name));
    }
    if judged.verdict != Verdict::Passed {
        progress.line(format_args!("image {image}: {}", judged.verdict));
    }
}

/// Returns the name of a machine, as on the command line.
pub fn variant(variant: Variant) -> String {
    let value = variant.to_possible_value();
    value.map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Returns the name of an image on a machine.
pub fn image_on(image: &str, machine: Variant) -> String {
    format!("{image}[{}]", variant(machine))
}

/// Returns a message of an image as the story shows it.
pub fn story_line(line: &Line, verbose: bool) -> String {
    let text = match line.level {
        None | Some("info") => line.text.clone(),
        Some(level) => format!("{level}: {}", line.text),
    };
    match &line.location {
        Some(location) if verbose || line.level == Some("error") => format!("{text}  ({location})"),
        _ => text,
    }
}

/// Returns the beginning of a long message, without line breaks.
pub fn first_words(text: &str) -> String {
    const MOST: usize = 160;
    let line = text.replace('\n', " ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// Tells whether a case is one of those that are reported.
pub fn matches(case: &Case, filter: Option<&str>) -> bool {
    filter.is_none_or(|filter| case.name.contains(filter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Dma;

    fn judged(verdict: Verdict, outcomes: &[(&str, Outcome)]) -> Judged {
        let case = |(name, outcome): &(&str, Outcome)| Case {
            name: (*name).into(),
            outcome: outcome.clone(),
        };
        let cases = outcomes.iter().map(case).collect();
        Judged { verdict, cases, dma: Dma::default(), sabotage: None }
    }

    fn totals(passed: u64, failed: u64) -> Totals {
        Totals { passed, failed, ..Totals::default() }
    }

    fn bad() -> Verdict {
        Verdict::Failed { test: None, message: "x".into() }
    }

    #[test]
    fn cases_that_did_not_run_count_as_failed() {
        let cases = [
            ("map_a", Outcome::Passed),
            ("map_b", Outcome::Failed("x".into())),
            ("attach", Outcome::NotRun),
            ("left_out", Outcome::Ignored),
        ];
        let judged = judged(bad(), &cases);
        assert_eq!(count(&judged, None), totals(1, 2));
        assert_eq!(count(&judged, Some("map")), totals(1, 1));
        assert_eq!(count(&judged, Some("attach")), totals(0, 1));
        assert_eq!(count(&judged, Some("map_a")), totals(1, 0));
    }

    #[test]
    fn trouble_outside_the_cases_is_never_lost() {
        let after_all = judged(bad(), &[("a", Outcome::Passed)]);
        assert_eq!(count(&after_all, None), totals(1, 1));
        assert_eq!(count(&after_all, Some("a")), totals(1, 1));
        assert_eq!(count(&judged(bad(), &[]), None), totals(0, 1));
    }

    #[test]
    fn an_image_without_cases_is_one_case() {
        assert_eq!(count(&judged(Verdict::Passed, &[]), None), totals(1, 0));
    }

    #[test]
    fn skipped_cases_are_counted_apart() {
        let cases = [("a", Outcome::Passed), ("b", Outcome::Skipped("one IOMMU".into()))];
        let sum = count(&judged(Verdict::Passed, &cases), None);
        assert_eq!(sum.to_string(), "1 passed, 0 failed, 1 skipped");
        assert_eq!(totals(2, 0).to_string(), "2 passed, 0 failed");
    }

    #[test]
    fn an_image_is_named_with_its_machine() {
        assert_eq!(image_on("boot", Variant::MmioIommu), "boot[mmio-iommu]");
    }

    #[test]
    fn warnings_are_marked_and_places_shown_on_demand() {
        let line = Line { level: Some("warn"), text: "x".into(), location: Some("a.rs:1".into()) };
        assert_eq!(story_line(&line, false), "warn: x");
        assert_eq!(story_line(&line, true), "warn: x  (a.rs:1)");
    }
}
