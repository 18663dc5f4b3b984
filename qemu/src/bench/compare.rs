//! Two runs side by side: what grew by more than the counts of one compiler can differ.

use super::ops;
use super::results::{Op, Run};
use super::table::grouped;

/// A cost may grow by so many per cent.
pub const ALLOWED: u64 = 5;

/// What the comparison of two runs came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// One line per operation that differs.
    pub lines: Vec<String>,
    /// How many costs grew by more than [`ALLOWED`] per cent, or are not measured any more.
    pub regressions: usize,
    /// How many operations are as they were.
    pub same: usize,
}

/// Returns what two runs of the same image count differently.
pub fn difference(one: &Run, other: &Run) -> Option<String> {
    let mut pairs = one.ops.iter().zip(&other.ops);
    let differs = pairs.find(|(one, other)| one != other);
    match differs {
        Some((one, other)) => Some(format!("{one:?} and {other:?}")),
        None if one.ops.len() != other.ops.len() => Some("one has more results".into()),
        None => None,
    }
}

/// Compares `now` with `before`. A quick run is not asked for what it leaves out.
pub fn compare(now: &Run, before: &Run, quick: bool) -> Comparison {
    let mut told = Comparison::default();
    for old in before.ops.iter().filter(|old| !quick || !ops::is_long(&old.op)) {
        match now.find(&old.op, old.provider) {
            Some(new) => told.add(new, old),
            None => {
                told.regressions += 1;
                told.lines.push(format!("{}: REGRESSION, it is not measured any more", old.name()));
            }
        }
    }
    for new in &now.ops {
        if before.find(&new.op, new.provider).is_none() {
            told.lines.push(format!("{}: new", new.name()));
        }
    }
    if told.regressions > 0 && now.built != before.built {
        told.lines.push(format!("before: {}; now: {}", before.built, now.built));
    }
    told
}

impl Comparison {
    fn add(&mut self, new: &Op, old: &Op) {
        let costs = [
            ("instructions", new.instructions, old.instructions),
            ("requests", new.requests, old.requests),
            ("notifies", new.notifies, old.notifies),
            ("bytes", new.bytes, old.bytes),
            ("locks taken", new.locks, old.locks),
            ("waits for a lock", new.waits, old.waits),
        ];
        let mut words = Vec::new();
        let mut grew = false;
        for (what, new, old) in costs {
            let (new, old) = match (new, old) {
                (Some(new), Some(old)) if new != old => (new, old),
                (None, Some(_)) => {
                    grew = true;
                    words.push(format!("{what} are not counted any more"));
                    continue;
                }
                _ => continue,
            };
            grew |= u128::from(new) * 100 > u128::from(old) * u128::from(100 + ALLOWED);
            let percent = (new as f64 / old.max(1) as f64 - 1.0) * 100.0;
            words.push(format!("{what} {} to {} ({percent:+.1} %)", grouped(old), grouped(new)));
        }
        if words.is_empty() {
            self.same += 1;
            return;
        }
        let mark = if grew { "REGRESSION, " } else { "" };
        self.regressions += usize::from(grew);
        self.lines.push(format!("{}: {mark}{}", new.name(), words.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(name: &str, instructions: u64, notifies: u64) -> Op {
        Op {
            op: name.into(),
            instructions: Some(instructions),
            requests: Some(1),
            notifies: Some(notifies),
            ..Op::default()
        }
    }

    fn run(ops: Vec<Op>) -> Run {
        let text = String::new;
        Run { system: "iommu 0".into(), built: text(), arch: text(), qemu: text(), ops }
    }

    fn told(new: Op, old: Op) -> Comparison {
        compare(&run(vec![new]), &run(vec![old]), false)
    }

    #[test]
    fn equal_costs_are_not_shown() {
        let expected = Comparison { same: 1, ..Comparison::default() };
        assert_eq!(told(op("a", 100, 1), op("a", 100, 1)), expected);
    }

    #[test]
    fn five_per_cent_more_is_allowed_and_not_one_instruction_beyond() {
        assert_eq!(told(op("a", 1_050, 1), op("a", 1_000, 1)).regressions, 0);
        let beyond = told(op("a", 1_051, 1), op("a", 1_000, 1));
        assert_eq!(beyond.regressions, 1);
        assert_eq!(beyond.lines, ["a: REGRESSION, instructions 1 000 to 1 051 (+5.1 %)"]);
        let better = told(op("a", 10, 1), op("a", 1_000, 1));
        assert_eq!((better.regressions, better.lines.len()), (0, 1));
    }

    #[test]
    fn one_notify_more_is_a_regression() {
        assert_eq!(told(op("a", 100, 2), op("a", 100, 1)).regressions, 1);
        assert_eq!(told(op("a", 100, 1), op("a", 100, 0)).regressions, 1, "from none to one");
        let bytes = |bytes| Op { bytes: Some(bytes), ..op("a", 1, 1) };
        assert_eq!(told(bytes(106), bytes(100)).regressions, 1);
        let locks = |locks, waits| Op { locks: Some(locks), waits: Some(waits), ..op("a", 1, 1) };
        assert_eq!(
            told(locks(2, 0), locks(1, 0)).lines,
            ["a: REGRESSION, locks taken 1 to 2 (+100.0 %)"]
        );
        assert_eq!(told(locks(1, 1), locks(1, 0)).regressions, 1, "the first wait");
    }

    #[test]
    fn what_is_measured_no_more_is_a_regression_and_what_is_new_is_none() {
        let gone = told(op("new", 1, 1), op("old", 1, 1));
        assert_eq!(gone.regressions, 1);
        assert_eq!(gone.lines, ["old: REGRESSION, it is not measured any more", "new: new"]);
        let uncounted = Op { notifies: None, ..op("a", 1, 1) };
        assert_eq!(told(uncounted, op("a", 1, 1)).regressions, 1);
    }

    #[test]
    fn a_quick_run_may_leave_out_what_takes_long() {
        let old = || run(vec![op("map_4k@1k", 1, 1), op("map_4k@100k", 1, 1)]);
        let new = run(vec![op("map_4k@1k", 1, 1)]);
        assert_eq!(compare(&new, &old(), true).regressions, 0);
        assert_eq!(compare(&new, &old(), false).regressions, 1);
        assert_eq!(compare(&run(Vec::new()), &old(), true).regressions, 1, "the short one");
    }

    #[test]
    fn two_runs_are_equal_to_the_instruction_or_differ() {
        let one = || run(vec![op("a", 100, 1), op("b", 7, 1)]);
        assert_eq!(difference(&one(), &one()), None);
        let other = run(vec![op("a", 100, 1), op("b", 8, 1)]);
        assert!(difference(&one(), &other).is_some_and(|why| why.contains("\"b\"")));
        assert!(difference(&one(), &run(vec![op("a", 100, 1)])).is_some());
    }

    #[test]
    fn another_compiler_is_named_when_something_grew() {
        let (mut new, old) = (run(vec![op("a", 200, 1)]), run(vec![op("a", 100, 1)]));
        new.built = "rustc 2".into();
        assert!(compare(&new, &old, false).lines[1].contains("now: rustc 2"));
    }
}
