//! `--report DIR`: one HTML page that needs nothing else, and the plots as files. `--update-docs`: the
//! figures that the documentation shows.
//!
//! What stands between the markers of `docs/performance.md` is written here and nowhere else, so it
//! can't be older than what it tells of, nor rounder.

use std::fs;
use std::path::Path;

use super::beside::{self, Beside};
use super::ops;
use super::plots::{self, Plot};
use super::results::{Op, Provider, Results, Run};
use super::table::{self, grouped, ratio};
use crate::error::Error;

/// The page of the documentation, from the root of the workspace, and where its plots are.
const PAGE: &str = "docs/performance.md";
const PLOTS: &str = "docs/performance";
const BEGIN: &str = "<!-- figures: written by `cargo qemu bench --update-docs`, not by hand -->";
const END: &str = "<!-- end of figures -->";

/// Writes the page and its plots to `dir`.
///
/// # Errors
///
/// [`Error::Io`], [`Error::Failed`], and [`Error::Usage`] if there are no figures of a peer.
pub fn write(results: &Results, root: &Path, dir: &Path) -> Result<(), Error> {
    let peers = beside::load(results, root)?;
    create(dir)?;
    let mut body = String::new();
    for run in results.runs.iter().filter(|run| run.is_ours()) {
        let beside = Beside::find(&peers, &run.arch);
        body += &format!("<h2>{}</h2>\n<p>{}</p>\n", escaped(&run.arch), escaped(&about(run)));
        for plot in plots::draw(run, beside)? {
            save(&dir.join(format!("{}.svg", plot.name)), &plot.svg)?;
            let title = escaped(&plot.title);
            body += &format!("<figure aria-label=\"{title}\">{}</figure>\n", plot.svg);
        }
        if let Some(beside) = beside {
            body += &html_table(&markdown_rows(run, beside));
        }
        body += &format!("<pre>{}</pre>\n", escaped(&table::lines(run).join("\n")));
    }
    save(&dir.join("index.html"), &(HEAD.to_owned() + &body + "</body>\n</html>\n"))
}

/// Writes the figures of the documentation, and its plots.
///
/// # Errors
///
/// As [`write()`]; [`Error::Failed`] also if the page has no place for them.
pub fn document(results: &Results, root: &Path) -> Result<(), Error> {
    let peers = beside::load(results, root)?;
    let page = root.join(PAGE);
    let text = fs::read_to_string(&page).map_err(Error::io(format!("read {}", page.display())))?;
    let mut block = String::new();
    let mut drawn: Vec<Plot> = Vec::new();
    for run in results.runs.iter().filter(|run| run.is_ours()) {
        let Some(beside) = Beside::find(&peers, &run.arch) else { continue };
        block += &format!("\n### {}\n\n{}.\n\n", run.arch, about(run));
        block += &markdown_table(&markdown_rows(run, beside));
        for plot in plots::draw(run, Some(beside))? {
            block += &format!("\n![{}](performance/{}.svg)\n", plot.title, plot.name);
            drawn.push(plot);
        }
    }
    let text = replaced(&text, &block).ok_or_else(|| {
        Error::Failed(format!("{PAGE} has no place for figures: put `{BEGIN}` and `{END}` there"))
    })?;
    let folder = root.join(PLOTS);
    create(&folder)?;
    for plot in drawn {
        save(&folder.join(format!("{}.svg", plot.name)), &plot.svg)?;
    }
    save(&page, &text)
}

/// Puts `block` between the markers.
fn replaced(text: &str, block: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{block}\n{END}{after}"))
}

fn about(run: &Run) -> String {
    format!("{}, {}, QEMU {}", run.system, run.built, run.qemu)
}

const COLUMNS: [&str; 7] = [
    "work",
    "ours, runs",
    "ours, pages",
    "Linux",
    "Linux, lean",
    "lean : ours, runs",
    "lean : ours, pages",
];

/// A row per operation that both have, or that has a target.
fn markdown_rows(run: &Run, beside: Beside<'_>) -> Vec<[String; 7]> {
    let mut words: Vec<&str> = run.ops.iter().map(|op| op.op.as_str()).collect();
    words.sort_by_key(|word| ops::place(word));
    words.dedup();
    let rows = words.into_iter().filter_map(|word| row(run, beside, word));
    rows.collect()
}

fn row(run: &Run, beside: Beside<'_>, word: &str) -> Option<[String; 7]> {
    // What no provider has a part in stands in the first column.
    let runs = run.find(word, Some(Provider::Runs)).or_else(|| run.find(word, None));
    let pages = run.find(word, Some(Provider::Pages));
    let (default, lean) = (beside.default.find(word, None), beside.lean.find(word, None));
    let judged = runs.or(pages).and_then(|op| ops::judge(run, op));
    if default.is_none() && lean.is_none() && judged.is_none() && !word.starts_with("floor") {
        return None;
    }
    let times = |ours: Option<&Op>| match (number(ours), number(lean), number(default)) {
        (Some(ours), Some(lean), _) => ratio(lean, ours),
        (Some(ours), None, Some(default)) => format!("{} (default)", ratio(default, ours)),
        _ => String::new(),
    };
    Some([
        ops::title(word).to_owned(),
        judged_cell(run, runs),
        judged_cell(run, pages),
        cell(default),
        cell(lean),
        times(runs),
        times(pages),
    ])
}

fn number(op: Option<&Op>) -> Option<u64> {
    op?.instructions.or(op?.bytes)
}

/// Our figure, with a word if it has a target that it misses.
fn judged_cell(run: &Run, op: Option<&Op>) -> String {
    let missed = op.and_then(|op| ops::judge(run, op)).is_some_and(|(_, reached)| !reached);
    if missed { format!("{} (target missed)", cell(op)) } else { cell(op) }
}

fn cell(op: Option<&Op>) -> String {
    let Some(op) = op else { return String::new() };
    match (op.instructions, op.requests, op.notifies, op.bytes) {
        (Some(count), Some(requests), Some(notifies), _) => {
            format!("{} ({}/{})", grouped(count), grouped(requests), grouped(notifies))
        }
        (Some(count), ..) => grouped(count),
        (None, _, _, Some(bytes)) => match ops::parts(&op.op) {
            Some((count, what)) => format!("{:.1} bytes per {what}", bytes as f64 / count as f64),
            None => format!("{} bytes", grouped(bytes)),
        },
        _ => String::new(),
    }
}

fn markdown_table(rows: &[[String; 7]]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&COLUMNS.map(str::to_owned));
    text += "|---|---:|---:|---:|---:|---:|---:|\n";
    rows.iter().for_each(|row| text += &line(row));
    text
}

fn html_table(rows: &[[String; 7]]) -> String {
    let line = |tag: &str, cells: &[String]| {
        let cells = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell)));
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let mut text = String::from("<table>\n");
    text += &line("th", &COLUMNS.map(str::to_owned));
    rows.iter().for_each(|row| text += &line("td", row));
    text + "</table>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>iommu: what it costs</title>
<style>
body { font-family: sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; }
figure { margin: 1em 0; }
table { border-collapse: collapse; }
th, td { border: 1px solid #ccc; padding: 0.2em 0.6em; text-align: right; }
th:first-child, td:first-child { text-align: left; }
pre { overflow-x: auto; }
</style>
</head>
<body>
<h1>What it costs</h1>
<p>Instructions (requests/notifies) of one call, counted in the guest under <code>-icount shift=0</code>.
A figure of Linux is a whole system call from user space, and looks up every page.</p>
"#;

fn create(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(Error::io(format!("make {}", dir.display())))
}

fn save(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testelf::Scratch;

    fn op(word: &str, provider: Option<Provider>, instructions: u64) -> Op {
        let one = Some(1);
        Op {
            op: word.into(),
            provider,
            instructions: Some(instructions),
            requests: one,
            notifies: one,
            ..Op::default()
        }
    }

    fn run(system: &str, ops: Vec<Op>) -> Run {
        Run {
            system: system.into(),
            built: "so".into(),
            arch: "x86_64".into(),
            qemu: "7.2".into(),
            ops,
        }
    }

    fn results() -> Results {
        let runs = Some(Provider::Runs);
        Results::new(vec![
            run(
                "iommu 0.1.0",
                vec![
                    op("map_4k", runs, 1_000),
                    op("map_64k", runs, 1_000),
                    op("floor_map", None, 50),
                    op("pin_1", runs, 7),
                ],
            ),
            run("Linux 7.2", vec![op("map_4k", None, 10_000), op("map_64k", None, 11_000)]),
            run("Linux 7.2, lean", vec![op("map_4k", None, 6_000)]),
        ])
    }

    #[test]
    fn the_page_needs_nothing_else_and_holds_figures_and_plots() {
        let dir = Scratch::new();
        let out = dir.path().join("new/report");
        write(&results(), dir.path(), &out).expect("writes");
        let page = fs::read_to_string(out.join("index.html")).expect("is there");
        assert_eq!(page.matches("<svg").count(), 3);
        // Lean has no figure for 64 KiB, so the line of the sizes is the default kernel's.
        assert!(page.contains("map, Linux 7.2\n") && page.contains("<td>6.00</td>"), "{page}");
        assert!(!page.contains("src=") && !page.contains("href="), "it loads something");
        let plot = fs::read_to_string(out.join("size-x86_64.svg")).expect("is there");
        assert!(plot.starts_with("<svg") && plot.contains("Map and unmap of contiguous memory"));
    }

    #[test]
    fn the_documentation_gets_figures_between_its_markers_only() {
        let dir = Scratch::new();
        let page = dir.path().join(PAGE);
        create(&dir.path().join("docs")).expect("makes");
        save(&page, &format!("before\n{BEGIN}\nold\n{END}\nafter\n")).expect("writes");
        document(&results(), dir.path()).expect("writes");
        let text = fs::read_to_string(&page).expect("is there");
        assert!(text.starts_with("before\n") && text.ends_with("\nafter\n"), "{text}");
        assert!(!text.contains("old"), "{text}");
        let row =
            "| map 4 KiB | 1 000 (1/1) (target missed) |  | 10 000 (1/1) | 6 000 (1/1) | 6.00 |  |";
        assert!(text.contains(row), "{text}");
        let row = "| map 64 KiB | 1 000 (1/1) |  | 11 000 (1/1) |  | 11.00 (default) |  |";
        assert!(text.contains(row), "a ratio to the default kernel says so: {text}");
        assert!(!text.contains("pin a page"), "nobody to compare with, and no target: {text}");
        assert!(dir.path().join(PLOTS).join("growth-x86_64.svg").exists());
        document(&results(), dir.path()).expect("writes");
        assert_eq!(fs::read_to_string(&page).expect("is there"), text, "once more is the same");
    }

    #[test]
    fn without_markers_or_figures_of_a_peer_nothing_is_written() {
        let dir = Scratch::new();
        create(&dir.path().join("docs")).expect("makes");
        save(&dir.path().join(PAGE), "no place\n").expect("writes");
        let error = document(&results(), dir.path()).unwrap_err();
        assert!(error.to_string().contains("has no place for figures"), "{error}");
        assert!(!dir.path().join(PLOTS).exists());
        let mut alone = results();
        alone.runs.truncate(1);
        let error = write(&alone, dir.path(), &dir.path().join("out")).unwrap_err();
        assert!(error.to_string().contains("benches/linux.json"), "{error}");
        assert!(!dir.path().join("out").exists());
    }
}
