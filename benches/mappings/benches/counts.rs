//! How many instructions the structure that holds mappings needs, and the obvious others, and how much
//! memory: counted by valgrind, so the same in every run, whatever else the machine does. Beside each count
//! stands how many accesses of the data miss a cache of 1 MiB, as valgrind models it: instructions alone
//! would hide what a structure costs whose nodes lie far from each other.
//!
//! ```console
//! $ cargo bench --package iommu-benches --bench counts
//! ```
//!
//! The program runs itself under `valgrind --tool=callgrind`, once per structure, order and size, and
//! prints a table in Markdown. Without an argument it is the one that does so; with three it is the one
//! that is counted.
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs};

use intrusive_collections::RBTree;
use iommu::addr::IovaRange;
use iommu::driver::Target;
use iommu::rangemap::RangeMap;
use iommu_benches::{Mappings, NodeAdapter, Radix, SIZES, STEPS, filled, places};

/// What is counted, in the order in which it is done.
const WORK: [&str; 4] = ["find", "insert", "remove", "walk"];

/// A structure: its name, and the work with it at some order and size.
type Structure = (&'static str, fn(bool, u64) -> u64);

const STRUCTURES: [Structure; 5] = [
    structure::<RangeMap<Target>>(),
    structure::<BTreeMap<u64, (u64, Target)>>(),
    structure::<RBTree<NodeAdapter>>(),
    structure::<Vec<(IovaRange, Target)>>(),
    structure::<Radix>(),
];

const fn structure<M: Mappings>() -> Structure {
    (M::NAME, counted::<M>)
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    let done = match &words[..] {
        [] => compare(),
        [name, order, count] => work(name, order, count),
        _ => Err("no arguments, please".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Does the work of one row under valgrind's eyes, and tells the bytes per entry.
fn work(name: &str, order: &str, count: &str) -> Result<(), String> {
    let (_, counted) =
        STRUCTURES.iter().find(|(have, _)| *have == name).ok_or("no such structure")?;
    let count: u64 = count.parse().map_err(|_| "no such size")?;
    println!("{}", counted(order == "random", count));
    Ok(())
}

/// The functions `counted_*` are known to valgrind by their names. Returns the bytes that all entries
/// take.
fn counted<M: Mappings>(random: bool, count: u64) -> u64 {
    let before = BYTES.load(Ordering::Relaxed);
    let mut map: M = filled(count, random);
    let bytes = BYTES.load(Ordering::Relaxed) - before;
    // Places of their own, so that none finds in the cache what the one before has brought there.
    counted_find(&map, &places(count, 0));
    counted_insert(&mut map, &places(count, 1));
    counted_remove(&mut map, &places(count, 2));
    counted_walk(&map);
    bytes
}

#[inline(never)]
fn counted_insert<M: Mappings>(map: &mut M, places: &[u64]) {
    places.iter().for_each(|place| assert!(map.insert(*place)));
}

#[inline(never)]
fn counted_find<M: Mappings>(map: &M, places: &[u64]) {
    places.iter().for_each(|place| assert!(black_box(map.get(*place - 1)).is_some()));
}

#[inline(never)]
fn counted_remove<M: Mappings>(map: &mut M, places: &[u64]) {
    places.iter().for_each(|place| assert!(map.remove(*place - 1)));
}

#[inline(never)]
fn counted_walk<M: Mappings>(map: &M) {
    black_box(map.walk());
}

/// Counts every row and prints the table.
fn compare() -> Result<(), String> {
    let folder = env::temp_dir().join(format!("iommu-counts-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let table = table(&folder);
    let _ = fs::remove_dir_all(&folder);
    println!("{}", table?);
    Ok(())
}

fn table(folder: &Path) -> Result<String, String> {
    let mut table = String::from("| order | structure |");
    WORK.iter().for_each(|work| table += &format!(" {work} |"));
    table += " bytes each |\n|---|---|";
    table += &"---:|".repeat(WORK.len() + 1);
    for order in ["ascending", "random"] {
        for (name, _) in STRUCTURES {
            let mut columns = vec![Vec::new(); WORK.len() + 1];
            for count in SIZES {
                // Moving a million entries per insert takes hours under valgrind.
                if order == "random" && name == "sorted Vec" && count > 10_000 {
                    continue;
                }
                eprintln!("{name}, {order}, {count}");
                let figures = count_row(folder, name, order, count)?;
                columns.iter_mut().zip(figures).for_each(|(column, figure)| column.push(figure));
            }
            table += &format!("\n| {order} | {name} |");
            columns.iter().for_each(|column| table += &format!(" {} |", column.join(" / ")));
        }
    }
    Ok(table)
}

/// Instructions of each kind of work per entry, and bytes per entry.
fn count_row(folder: &Path, name: &str, order: &str, count: u64) -> Result<Vec<String>, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let out = folder.join("out");
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no", "--cache-sim=yes"])
        .args(["--I1=32768,8,64", "--D1=32768,8,64", "--LL=1048576,16,64"])
        .arg("--toggle-collect=*counted_*")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args([name, order, &count.to_string()]);
    let told = run(&mut valgrind)?;
    let bytes: u64 = told.trim().parse().map_err(|_| format!("{name} told no bytes"))?;
    let mut annotate = Command::new("callgrind_annotate");
    annotate.args(["--inclusive=yes", "--threshold=100", "--show=Ir,DLmr,DLmw"]);
    let told = run(annotate.arg(&out))?;
    let mut figures = Vec::new();
    for work in WORK {
        let totals = told.lines().find_map(|line| inclusive(line, work));
        let totals = totals.ok_or_else(|| format!("valgrind saw no {work} of {name}"))?;
        let of = if work == "walk" { count } else { STEPS };
        let [instructions, misses] = totals.map(|total| total as f64 / of as f64);
        figures.push(format!("{instructions:.0} ({misses:.1})"));
    }
    figures.push(format!("{:.1}", bytes as f64 / count as f64));
    Ok(figures)
}

/// Instructions and misses of `counted_WORK` and all that it calls, if the line is about it:
/// ` 62,404 (39.39%) 12 (1.00%) 3 (1.00%)  FILE:counts::counted_insert [PROGRAM]`.
fn inclusive(line: &str, work: &str) -> Option<[u64; 2]> {
    let is_it = |word: &str| word.ends_with(&format!("counts::counted_{work}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    let (numbers, _) = words.split_at(words.iter().position(|word| is_it(word))?);
    let numbers = numbers.iter().filter(|word| !word.contains(['%', '(']));
    let numbers = numbers.map(|word| match *word {
        "." => Some(0),
        word => word.replace(',', "").parse::<u64>().ok(),
    });
    let [instructions, reads, writes] = *numbers.collect::<Option<Vec<_>>>()? else { return None };
    Some([instructions, reads + writes])
}

/// Runs a program and returns what it wrote.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| {
        let name = command.get_program().to_string_lossy();
        format!("{name} can't be started ({error}); on Debian: apt-get install valgrind")
    })?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Bytes that are in use.
static BYTES: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}
