//! What the boot tests of one architecture came to: cases, what was skipped and why, and the DMA of
//! real devices that stands behind them.

use std::collections::BTreeMap;
use std::fmt;

use crate::decode::Dma;
use crate::report::{self, Totals};
use crate::verdict::{Judged, Outcome};

/// Counts of one architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Its cases.
    pub totals: Totals,
    dma: Dma,
    /// How many cases were skipped for each reason.
    skipped: BTreeMap<String, u64>,
}

impl Summary {
    /// Adds a test image that was booted; of its cases, those whose name contains `filter`.
    pub fn add_image(&mut self, judged: &Judged, filter: Option<&str>) {
        self.totals.add(report::count(judged, filter));
        self.dma.arrived += judged.dma.arrived;
        self.dma.refused += judged.dma.refused;
        for case in judged.cases.iter().filter(|case| report::matches(case, filter)) {
            if let Outcome::Skipped(why) = &case.outcome {
                *self.skipped.entry(why.clone()).or_default() += 1;
            }
        }
    }

    /// Adds cases of which nothing was run.
    pub fn add_skipped(&mut self, why: &str, count: u64) {
        self.totals.skipped += count;
        *self.skipped.entry(why.into()).or_default() += count;
    }

    /// Adds a case that the tool judged itself.
    pub fn add_case(&mut self, has_passed: bool) {
        let count = if has_passed { &mut self.totals.passed } else { &mut self.totals.failed };
        *count += 1;
    }
}

/// One line, and one more per reason to skip. The DMA is that of whole images, whatever the filter.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { totals: Totals { passed, failed, skipped }, dma, skipped: reasons } = self;
        let cases = passed + failed + skipped;
        write!(f, "{cases} cases: {passed} passed, {failed} failed, {skipped} skipped; ")?;
        write!(f, "{} real DMA transfers, {} refused DMAs checked", dma.arrived, dma.refused)?;
        let mut reasons = reasons.iter().filter(|(_, count)| **count > 0);
        reasons.try_for_each(|(why, count)| write!(f, "\n  {count} skipped: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Case, Verdict};

    fn image(outcomes: &[Outcome]) -> Judged {
        let case = |outcome: &Outcome| Case { name: "map".into(), outcome: outcome.clone() };
        let cases = outcomes.iter().map(case).collect();
        Judged {
            verdict: Verdict::Passed,
            cases,
            dma: Dma { arrived: 5, refused: 3 },
            sabotage: None,
        }
    }

    #[test]
    fn all_is_added_and_each_reason_counted() {
        let mut summary = Summary::default();
        let two = Outcome::Skipped("one IOMMU".into());
        summary.add_image(&image(&[Outcome::Passed, two.clone(), two.clone()]), None);
        summary.add_image(&image(&[Outcome::Passed, Outcome::NotRun, two]), None);
        summary.add_skipped("needs QEMU 9.0", 4);
        summary.add_case(true);
        summary.add_case(false);
        let lines = "12 cases: 3 passed, 2 failed, 7 skipped; 10 real DMA transfers, \
            6 refused DMAs checked\n  4 skipped: needs QEMU 9.0\n  3 skipped: one IOMMU";
        assert_eq!(summary.to_string(), lines);
    }

    #[test]
    fn a_filter_leaves_out_the_reasons_of_other_cases() {
        let mut summary = Summary::default();
        summary.add_image(&image(&[Outcome::Skipped("one IOMMU".into())]), Some("attach"));
        summary.add_skipped("needs QEMU 9.0", 0);
        let line =
            "0 cases: 0 passed, 0 failed, 0 skipped; 5 real DMA transfers, 3 refused DMAs checked";
        assert_eq!(summary.to_string(), line);
    }
}
