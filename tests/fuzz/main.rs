//! The fuzz targets on stable Rust: every file of the corpus, and a fixed number of mutations of it.
//!
//! A run is repeatable: it depends on the seed and the count alone, both of which it prints.
//! `IOMMU_FUZZ_SEED` and `IOMMU_FUZZ_RUNS` choose others. An input that fails is printed in hex and
//! written to the target directory. With a nightly toolchain, `fuzz/` runs the same bodies under
//! libFuzzer; see its `Cargo.toml`.

mod firmware;
mod input;
mod reports;
mod ring;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Mutations per target. Together with the corpus some seconds, so that it can run in every build.
const RUNS: u64 = 20_000;
const SEED: u64 = 0x1077_11e5;

/// The longest input that a mutation makes.
const MAX_LEN: usize = 400;

/// A small generator (xorshift64*): the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit.max(1)
    }

    fn byte(&mut self) -> u8 {
        // Edges of the numbers that matter come more often than chance would bring them.
        let edges = [0, 1, 2, 3, 4, 5, 8, 9, 24, 0x7f, 0x80, 0xfe, 0xff];
        if self.below(2) == 0 { edges[self.below(edges.len())] } else { self.next() as u8 }
    }
}

/// One to four changes to `input`; `other` is another file of the corpus.
fn mutate(random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(17)).min(input.len());
        match random.below(6) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.byte(),
            2 => drop(input.drain(at..end)),
            3 => {
                let new: Vec<_> = (0..random.below(17)).map(|_| random.byte()).collect();
                drop(input.splice(at..at, new));
            }
            4 => {
                let copy = input[at..end].to_vec();
                drop(input.splice(at..at, copy));
            }
            _ => {
                let from = random.below(other.len() + 1);
                let part = &other[from..(from + random.below(65)).min(other.len())];
                drop(input.splice(at..end, part.iter().copied()));
            }
        }
    }
    input.truncate(MAX_LEN);
}

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).map_or(otherwise, |text| text.parse().expect("a decimal number"))
}

/// The files of a corpus, in the order of their names.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 4, "the corpus in {folder:?} is not there");
    files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

/// Runs the body on one input; where it fails, the input is kept.
fn check(target: &str, body: fn(&[u8]), input: &[u8], what: &str) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(input))) else { return };
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{target}-failed"));
    let written = fs::write(&kept, input);
    let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{target}: {what} fails: {hex}\nkept in {kept:?} ({written:?})");
    resume_unwind(panic);
}

fn run(target: &str, body: fn(&[u8])) {
    let (seed, runs) = (number("IOMMU_FUZZ_SEED", SEED), number("IOMMU_FUZZ_RUNS", RUNS));
    println!("{target}: IOMMU_FUZZ_SEED={seed} IOMMU_FUZZ_RUNS={runs}");
    let corpus = corpus(target);
    for (file, input) in &corpus {
        check(target, body, input, &format!("{file:?}"));
    }
    let mut random = Random(seed | 1);
    for n in 0..runs {
        let mut input = corpus[random.below(corpus.len())].1.clone();
        let other = random.below(corpus.len());
        mutate(&mut random, &mut input, &corpus[other].1);
        check(target, body, &input, &format!("mutation {n}"));
    }
}

#[test]
fn used_ring_and_request_replies() {
    run("ring", ring::run);
}

#[test]
fn probe_and_event_bytes() {
    run("reports", reports::run);
}

#[test]
fn firmware_bytes() {
    run("firmware", firmware::run);
}

#[test]
fn the_corpus_stays_small() {
    let all: Vec<_> = ["firmware", "ring", "reports"].into_iter().flat_map(corpus).collect();
    let bytes: usize = all.iter().map(|(_, input)| input.len()).sum();
    assert!(all.len() < 200 && bytes < 200_000, "{} files, {bytes} bytes", all.len());
}
