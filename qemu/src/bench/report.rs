//! `--report DIR`: one HTML page that needs nothing else, and the plots as files. `--update-docs`: the
//! figures that the documentation shows.
//!
//! What stands between the marks of [`BLOCKS`] is written here and nowhere else, so it can't be older
//! than what it tells of, nor rounder; a test compares it with the committed results.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::beside::{self, Beside};
use super::figures::{self, escaped};
use super::plots::{self, Plot};
use super::results::{Results, Run};
use super::table;
use crate::error::Error;

/// The page of the documentation, from the root of the workspace, and where its plots are.
const PAGE: &str = "docs/performance.md";
const PLOTS: &str = "docs/performance";

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
            body += &figures::beside(run, beside).html();
        }
        body += &format!("<pre>{}</pre>\n", escaped(&table::lines(run).join("\n")));
    }
    body += "<h2>Code</h2>\n";
    body += &figures::code(&ours(results)).html();
    save(&dir.join("index.html"), &(HEAD.to_owned() + &body + "</body>\n</html>\n"))
}

/// Writes the figures of the documentation, and its plots.
///
/// # Errors
///
/// As [`write()`]; [`Error::Failed`] also if a page has no place for them.
pub fn document(results: &Results, root: &Path) -> Result<(), Error> {
    let peers = beside::load(results, root)?;
    let pages = BLOCKS.map(|block| block.page).into_iter().collect::<BTreeSet<_>>();
    let mut written = Vec::new();
    for page in pages {
        let path = root.join(page);
        let read = fs::read_to_string(&path);
        let mut text = read.map_err(Error::io(format!("read {}", path.display())))?;
        for block in BLOCKS.iter().filter(|block| block.page == page) {
            text = block.put(&text, &(block.content)(results, &peers))?;
        }
        written.push((path, text));
    }
    let folder = root.join(PLOTS);
    create(&folder)?;
    for run in ours(results) {
        let Some(beside) = Beside::find(&peers, &run.arch) else { continue };
        for Plot { name, svg, .. } in plots::draw(run, Some(beside))? {
            save(&folder.join(format!("{name}.svg")), &svg)?;
        }
    }
    written.iter().try_for_each(|(path, text)| save(path, text))
}

/// A part of a page that is written here.
struct Block {
    page: &'static str,
    /// The name in its marks.
    name: &'static str,
    content: fn(&Results, &Results) -> String,
}

/// All of them; contents come from our results and a peer's.
const BLOCKS: [Block; 5] = [
    Block { page: PAGE, name: "figures", content: |ours, peers| machines(ours, peers) },
    Block {
        page: PAGE,
        name: "code size",
        content: |results, _| figures::code(&ours(results)).markdown(),
    },
    Block {
        page: PAGE,
        name: "figures of Linux",
        content: |_, peers| {
            format!("{}.\n\n{}", figures::about_linux(peers), figures::linux(peers).markdown())
        },
    },
    Block {
        page: "docs/dma.md",
        name: "figures",
        content: |results, _| figures::addresses(&ours(results)).markdown(),
    },
    Block {
        page: "README.md",
        name: "code size",
        content: |results, _| figures::code_in_short(&ours(results)).markdown(),
    },
];

impl Block {
    /// Puts the content between the marks.
    fn put(&self, text: &str, content: &str) -> Result<String, Error> {
        let [begin, end] = self.marks();
        let parts = text.split_once(&begin).and_then(|(before, rest)| {
            let (_, after) = rest.split_once(&end)?;
            Some((before, after))
        });
        let (before, after) = parts.ok_or_else(|| {
            let (page, name) = (self.page, self.name);
            Error::Failed(format!(
                "{page} has no place for {name}: put `{begin}` and `{end}` there"
            ))
        })?;
        Ok(format!("{before}{begin}\n\n{}\n\n{end}{after}", content.trim()))
    }

    fn marks(&self) -> [String; 2] {
        let name = self.name;
        let begin =
            format!("<!-- {name}: written by `cargo qemu bench --update-docs`, not by hand -->");
        [begin, format!("<!-- end of {name} -->")]
    }
}

/// A section per machine that has figures of Linux.
fn machines(results: &Results, peers: &Results) -> String {
    let mut text = String::new();
    for run in ours(results) {
        text += &format!("\n### {}\n\n{}.\n", run.arch, about(run));
        let Some(beside) = Beside::find(peers, &run.arch) else {
            text += "\nLinux was not measured here.\n\n";
            text += &figures::alone(run, None).markdown();
            continue;
        };
        text += &format!("\n{}", figures::beside(run, beside).markdown());
        text += &format!("\nOurs alone:\n\n{}", figures::alone(run, Some(beside)).markdown());
        for (name, title) in plots::names(&run.arch) {
            text += &format!("\n![{title}](performance/{name}.svg)\n");
        }
    }
    text
}

fn ours(results: &Results) -> Vec<&Run> {
    results.runs.iter().filter(|run| run.is_ours()).collect()
}

fn about(run: &Run) -> String {
    format!("{}, {}, QEMU {}", run.system, run.built, run.qemu)
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
    use crate::bench::results::Provider;
    use crate::bench::results::example::{op, run};
    use crate::testelf::Scratch;

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
                    op("dma_map@10", None, 700),
                    op("dma_unmap@10", None, 600),
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

    /// Pages with a place for every block, and something around each.
    fn pages(dir: &Scratch) {
        create(&dir.path().join("docs")).expect("makes");
        for page in BLOCKS.map(|block| block.page).into_iter().collect::<BTreeSet<_>>() {
            let mut text = String::from("before\n");
            for block in BLOCKS.iter().filter(|block| block.page == page) {
                let [begin, end] = block.marks();
                text += &format!("{begin}\nold\n{end}\nafter\n");
            }
            save(&dir.path().join(page), &text).expect("writes");
        }
    }

    #[test]
    fn the_documentation_gets_figures_between_its_marks_only() {
        let dir = Scratch::new();
        pages(&dir);
        document(&results(), dir.path()).expect("writes");
        let read = |page| fs::read_to_string(dir.path().join(page)).expect("is there");
        let text = read(PAGE);
        assert!(text.starts_with("before\n") && text.ends_with("\nafter\n"), "{text}");
        assert!(!text.contains("old") && text.matches("after").count() == 3, "{text}");
        assert!(text.contains("| map 4 KiB | 1 000 (1/1) (target missed) |"), "{text}");
        assert!(text.contains("x86_64: Linux 7.2, QEMU 7.2.\n"), "{text}");
        assert!(text.contains("(performance/growth-x86_64.svg)"), "{text}");
        assert!(dir.path().join(PLOTS).join("growth-x86_64.svg").exists());
        assert!(read("README.md").contains("| features | x86_64, `opt-level` 3 |"));
        let costs = "| mappings | x86_64: 1 to 4 pages | x86_64: 33 to 36 |\n|---|---:|---:|\n| 10 | 700 + 600 |  |\n";
        assert!(read("docs/dma.md").contains(costs), "{}", read("docs/dma.md"));
        document(&results(), dir.path()).expect("writes");
        assert_eq!(read(PAGE), text, "once more is the same");
    }

    #[test]
    fn without_marks_or_figures_of_a_peer_nothing_is_written() {
        let dir = Scratch::new();
        pages(&dir);
        save(&dir.path().join("README.md"), "no place\n").expect("writes");
        let before = fs::read_to_string(dir.path().join(PAGE)).expect("is there");
        let error = document(&results(), dir.path()).unwrap_err();
        assert!(error.to_string().contains("README.md has no place for code size"), "{error}");
        assert!(!dir.path().join(PLOTS).exists());
        assert_eq!(fs::read_to_string(dir.path().join(PAGE)).expect("is there"), before);
        let mut alone = results();
        alone.runs.truncate(1);
        let error = write(&alone, dir.path(), &dir.path().join("out")).unwrap_err();
        assert!(error.to_string().contains("benches/linux.json"), "{error}");
        assert!(!dir.path().join("out").exists());
    }

    /// The figures of the pages are those of the committed results, to the digit.
    #[test]
    fn the_pages_show_what_is_committed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let machines = crate::machine::all();
        let results = crate::bench::baseline::load(root, &machines).expect("the baseline");
        let peers = beside::load(&results, root).expect("figures of Linux");
        for block in &BLOCKS {
            let text = fs::read_to_string(root.join(block.page)).expect("is there");
            let anew = block.put(&text, &(block.content)(&results, &peers)).expect("has a place");
            let (page, name) = (block.page, block.name);
            assert!(
                text == anew,
                "{page}, {name}: not what benches/ has; write both anew with \
                 `cargo qemu bench --update-docs --update-baseline`"
            );
        }
    }
}
