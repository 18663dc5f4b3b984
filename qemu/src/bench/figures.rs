//! The tables of the documentation and of the report: ours beside Linux, ours alone, Linux alone, and
//! sizes of code.

use super::beside::{self, Beside};
use super::ops;
use super::results::{Op, Provider, Results, Run};
use super::size::{self, PROFILES, SETS};
use super::table::{self, grouped, ratio};

/// A table, to be written as Markdown or as HTML.
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(head: &[&str], rows: Vec<Vec<String>>) -> Self {
        Self { head: head.iter().map(|cell| (*cell).to_owned()).collect(), rows }
    }

    /// Writes it as Markdown: text on the left, numbers on the right.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = line(&self.head);
        text += &format!("|---|{}\n", "---:|".repeat(self.head.len().saturating_sub(1)));
        self.rows.iter().for_each(|row| text += &line(row));
        text
    }

    /// Writes it as HTML.
    pub fn html(&self) -> String {
        let line = |tag: &str, cells: &[String]| {
            let cells = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell)));
            format!("<tr>{}</tr>\n", cells.collect::<String>())
        };
        let mut text = String::from("<table>\n");
        text += &line("th", &self.head);
        self.rows.iter().for_each(|row| text += &line("td", row));
        text + "</table>\n"
    }
}

/// Puts marks of HTML out of the way.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Ours beside Linux: a row per operation that both have, or that has a target.
pub fn beside(run: &Run, beside: Beside<'_>) -> Table {
    let rows = words(&run.ops).filter(|word| stands_beside(run, beside, word));
    let rows = rows.map(|word| {
        let (runs, pages) = ours(run, word);
        let times = |ours| times(ours, word, beside);
        vec![
            ops::title(word).into_owned(),
            judged_cell(run, runs),
            judged_cell(run, pages),
            table::times_floor(run, runs.or(pages)).unwrap_or_default(),
            cell(beside.default.find(word, None)),
            cell(beside.lean.find(word, None)),
            times(runs),
            times(pages),
        ]
    });
    let head = [
        "work",
        "ours, runs",
        "ours, pages",
        "ours : floor",
        "Linux",
        "Linux, lean",
        "lean : ours, runs (less the call)",
        "lean : ours, pages (less the call)",
    ];
    Table::new(&head, rows.collect())
}

/// What only we have, and nobody has set a target for; all of it where Linux was not measured.
pub fn alone(run: &Run, beside: Option<Beside<'_>>) -> Table {
    let rows = words(&run.ops).filter(|word| {
        let stands = beside.is_some_and(|beside| stands_beside(run, beside, word));
        !stands && !size::is_size(word)
    });
    let rows = rows.map(|word| {
        let (runs, pages) = ours(run, word);
        let part = runs.or(pages).and_then(|op| Some((number(op)?, ops::parts(word)?)));
        let part = part
            .map(|(total, (count, what))| format!("{:.1} per {what}", total as f64 / count as f64));
        let [runs, pages] = [runs, pages].map(|op| judged_cell(run, op));
        vec![ops::title(word).into_owned(), runs, pages, part.unwrap_or_default()]
    });
    Table::new(&["work", "runs, or neither", "pages", "each"], rows.collect())
}

/// Linux alone: a row per operation, a column per machine and set-up.
pub fn linux(peers: &Results) -> Table {
    let runs: Vec<&Run> = peers.runs.iter().filter(|run| !run.is_ours()).collect();
    let title = |run: &&Run| {
        let lean = if Beside::is_lean(run) { ", lean" } else { "" };
        format!("{}{lean}", run.arch)
    };
    let ops: Vec<Op> = runs.iter().flat_map(|run| run.ops.iter().cloned()).collect();
    let rows = words(&ops).map(|word| {
        let cells = runs.iter().map(|run| match run.find(word, None) {
            Some(op) => cell(Some(op)) + &spread(op),
            None => String::new(),
        });
        [ops::title(word).into_owned()].into_iter().chain(cells).collect()
    });
    let head = ["operation".to_owned()].into_iter().chain(runs.iter().map(title));
    Table { head: head.collect(), rows: rows.collect() }
}

/// Which systems the figures of [`linux`] are of.
pub fn about_linux(peers: &Results) -> String {
    let runs = peers.runs.iter().filter(|run| !run.is_ours() && !Beside::is_lean(run));
    let about = runs.map(|run| format!("{}: {}, QEMU {}", run.arch, run.system, run.qemu));
    about.collect::<Vec<_>>().join("; ")
}

/// What is written of a figure whose repetitions are far from each other.
fn spread(op: &Op) -> String {
    let wide = op.spread.filter(|(least, most)| *most > least + least / 4);
    let words = wide.map(|(least, most)| format!("; {} to {}", grouped(least), grouped(most)));
    words.unwrap_or_default()
}

/// Map and unmap for a driver: with addresses that wait, and searched for; two columns per architecture.
pub fn addresses(runs: &[&Run]) -> Table {
    let mut head = vec!["mappings".to_owned()];
    for run in runs {
        head.extend(["1 to 4 pages", "33 to 36"].map(|pages| format!("{}: {pages}", run.arch)));
    }
    let rows = [("@10", "10"), ("@1k", "1 000"), ("@100k", "100 000")].map(|(at, count)| {
        let pairs = runs.iter().flat_map(|run| {
            [["dma_map", "dma_unmap"], ["dma_map_long", "dma_unmap_long"]].map(|pair| {
                let costs = pair.map(|op| run.find(&format!("{op}{at}"), None)?.instructions);
                let [Some(map), Some(unmap)] = costs else { return String::new() };
                format!("{} + {}", grouped(map), grouped(unmap))
            })
        });
        [count.to_owned()].into_iter().chain(pairs).collect()
    });
    Table { head, rows: rows.into() }
}

/// Sizes of code, to the byte: a row per set and profile, two columns per architecture.
pub fn code(runs: &[&Run]) -> Table {
    let mut head = vec!["features".to_owned(), "built with".to_owned()];
    for run in runs {
        head.extend([".text", ".rodata"].map(|section| format!("{}: {section}", run.arch)));
    }
    let sets = PROFILES.iter().flat_map(|profile| SETS.iter().map(move |set| (profile, set)));
    let rows = sets.map(|(profile, set)| {
        let sizes = runs.iter().flat_map(|run| {
            profile.words.map(|section| bytes(run, section, set.word).map(grouped))
        });
        let sizes = sizes.map(Option::unwrap_or_default);
        [set.title.to_owned(), profile.title.to_owned()].into_iter().chain(sizes).collect()
    });
    Table { head, rows: rows.collect() }
}

/// The same in short: code and constants together, in KiB, a column per architecture and profile.
pub fn code_in_short(runs: &[&Run]) -> Table {
    let columns = || runs.iter().flat_map(|run| PROFILES.iter().map(move |profile| (run, profile)));
    let head = columns().map(|(run, profile)| format!("{}, {}", run.arch, profile.title));
    let rows = SETS.iter().map(|set| {
        let cells = columns().map(|(run, profile)| {
            let sizes = profile.words.map(|section| bytes(run, section, set.word));
            let [Some(text), Some(rodata)] = sizes else { return String::new() };
            format!("{:.0} + {:.0}", text as f64 / 1024.0, rodata as f64 / 1024.0)
        });
        [set.title.to_owned()].into_iter().chain(cells).collect()
    });
    Table { head: ["features".to_owned()].into_iter().chain(head).collect(), rows: rows.collect() }
}

fn bytes(run: &Run, section: &str, set: &str) -> Option<u64> {
    run.find(&format!("{section}@{set}"), None)?.bytes
}

/// The operations of `ops` in the order of the table, each once.
fn words(ops: &[Op]) -> impl Iterator<Item = &str> {
    let mut words: Vec<&str> = ops.iter().map(|op| op.op.as_str()).collect();
    // What the table does not know comes last, as it came.
    words.sort_by_key(|word| ops::place(word));
    words.dedup();
    words.into_iter()
}

/// Ours with memory known as runs, and page by page. What no provider has a part in stands first.
fn ours<'r>(run: &'r Run, word: &str) -> (Option<&'r Op>, Option<&'r Op>) {
    let runs = run.find(word, Some(Provider::Runs)).or_else(|| run.find(word, None));
    (runs, run.find(word, Some(Provider::Pages)))
}

fn stands_beside(run: &Run, beside: Beside<'_>, word: &str) -> bool {
    let (runs, pages) = ours(run, word);
    let is_judged = runs.or(pages).is_some_and(|op| ops::judge(run, op).is_some());
    let theirs = [beside.default, beside.lean].iter().any(|run| run.find(word, None).is_some());
    is_judged || theirs || word.starts_with("floor")
}

/// How many times ours Linux's figure is; and how many times without the system call in it.
fn times(ours: Option<&Op>, word: &str, beside: Beside<'_>) -> String {
    let Some(have) = ours.and_then(number) else { return String::new() };
    let (run, what) = match beside.lean.find(word, None) {
        Some(_) => (beside.lean, ""),
        None => (beside.default, " (default)"),
    };
    let Some(theirs) = run.find(word, None) else { return String::new() };
    let Some(all) = number(theirs) else { return String::new() };
    let call = theirs.instructions.and_then(|_| beside::calls_of(word, run));
    match call {
        Some(call) => {
            format!("{} ({}){what}", ratio(all, have), ratio(all.saturating_sub(call), have))
        }
        None => format!("{}{what}", ratio(all, have)),
    }
}

/// What is compared: instructions, or bytes.
fn number(op: &Op) -> Option<u64> {
    op.instructions.or(op.bytes)
}

/// Our figure, with a word if it has a target that it misses.
fn judged_cell(run: &Run, op: Option<&Op>) -> String {
    let missed = op.and_then(|op| ops::judge(run, op)).is_some_and(|(_, reached)| !reached);
    if missed { format!("{} (target missed)", cell(op)) } else { cell(op) }
}

fn cell(op: Option<&Op>) -> String {
    let Some(op) = op else { return String::new() };
    let mut words = Vec::new();
    words.extend(match (op.instructions, op.requests, op.notifies, op.bytes) {
        (Some(count), Some(0), Some(0), _) => Some(grouped(count)),
        (Some(count), Some(requests), Some(notifies), _) => {
            Some(format!("{} ({}/{})", grouped(count), grouped(requests), grouped(notifies)))
        }
        (Some(count), ..) => Some(grouped(count)),
        (None, _, _, Some(bytes)) => Some(match ops::parts(&op.op) {
            Some((count, what)) => format!("{:.1} bytes per {what}", bytes as f64 / count as f64),
            None => format!("{} bytes", grouped(bytes)),
        }),
        _ => None,
    });
    let plural = |count: u64, what: &str| {
        format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" })
    };
    words.extend(op.locks.map(|count| plural(count, "lock")));
    words.extend(op.waits.map(|count| plural(count, "wait")));
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::example::{op, run};

    fn peers() -> Results {
        let call = |cost| op("ioctl_nothing", None, cost);
        let far = Op { spread: Some((100, 126)), ..op("detach_last", None, 110) };
        let near = Op { spread: Some((100, 125)), ..op("detach_of_2", None, 110) };
        Results::new(vec![
            run(
                "Linux 7.2",
                vec![call(600), op("map_64k", None, 11_000), op("map_4k", None, 10_000)],
            ),
            run("Linux 7.2, lean", vec![call(500), op("map_4k", None, 6_000), far, near]),
        ])
    }

    #[test]
    fn each_ratio_has_one_without_the_system_call_beside_it() {
        let runs = Some(Provider::Runs);
        let ours = run(
            "iommu 0",
            vec![
                op("map_4k", runs, 1_000),
                op("map_64k", runs, 1_000),
                op("floor_map", None, 50),
                op("pin_1", runs, 7),
                Op { bytes: Some(8), ..Op { op: "text@all".into(), ..Op::default() } },
            ],
        );
        let peers = peers();
        let found = Beside::find(&peers, "x86_64").expect("both runs");
        let text = beside(&ours, found).markdown();
        let row = "| map 4 KiB | 1 000 (1/1) (target missed) |  | 20.00 | 10 000 (1/1) | 6 000 (1/1) | 6.00 (5.50) |  |";
        assert!(text.contains(row), "{text}");
        let row = "| map 64 KiB | 1 000 (1/1) |  | 20.00 | 11 000 (1/1) |  | 11.00 (10.40) (default) |  |";
        assert!(text.contains(row), "a ratio to the default kernel says so: {text}");
        assert!(!text.contains("pin a page"), "nobody to compare with, and no target: {text}");
        let text = alone(&ours, Some(found)).markdown();
        assert!(text.contains("| pin a page for an emulated device | 7 (1/1) |  |  |"), "{text}");
        assert_eq!(text.lines().count(), 3, "sizes have a table of their own: {text}");
    }

    #[test]
    fn the_table_of_linux_has_a_column_per_run_and_shows_what_is_far_apart() {
        let text = linux(&peers()).markdown();
        assert!(text.starts_with("| operation | x86_64 | x86_64, lean |\n|---|---:|---:|\n"));
        assert!(text.contains("| map 4 KiB | 10 000 (1/1) | 6 000 (1/1) |"), "{text}");
        assert!(text.contains("|  | 110 (1/1); 100 to 126 |"), "{text}");
        assert!(text.contains("|  | 110 (1/1) |"), "{text}");
        assert_eq!(about_linux(&peers()), "x86_64: Linux 7.2, QEMU 7.2");
    }

    #[test]
    fn sizes_stand_to_the_byte_and_in_short() {
        let size = |op: &str, bytes| Op { op: op.into(), bytes: Some(bytes), ..Op::default() };
        let ops = vec![size("text@virtio", 102_400), size("rodata@virtio", 2_048)];
        let run = run("iommu 0", ops);
        let text = code(&[&run]).markdown();
        assert!(text.contains("| `virtio-iommu`, no heap | `opt-level` 3 | 102 400 | 2 048 |"));
        let text = code_in_short(&[&run]).markdown();
        assert!(text.contains("| `virtio-iommu`, no heap | 100 + 2 |  |"), "{text}");
    }

    #[test]
    fn locks_and_waits_are_named() {
        let op = Op { locks: Some(1), waits: Some(2), ..op("two_cpus_on_one", None, 9) };
        assert_eq!(cell(Some(&op)), "9 (1/1), 1 lock, 2 waits");
        let nothing = Op { requests: Some(0), notifies: Some(0), locks: None, waits: None, ..op };
        assert_eq!(cell(Some(&nothing)), "9");
    }
}
