//! What was measured, as the tool keeps it, writes it to JSON and reads it back.
//!
//! One file holds runs: one per architecture and system, ours (`iommu`) or another one's (`Linux`).
//! An operation is known by its word, what is there already after `@`, and how memory is known
//! ([`Provider`]). All numbers are per call. A peer fills in the words of [`super::ops`] that it can
//! do, and leaves `provider` out.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The number of this layout. A file with another one is refused.
pub const SCHEMA: u32 = 1;

/// A file of results.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: u32,
    /// One per architecture and system.
    pub runs: Vec<Run>,
}

/// What one system was measured to cost on one machine.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Run {
    /// What was measured: `iommu 0.1.0`, `Linux 6.12.30`.
    pub system: String,
    /// How it was built or started, for a person to repeat it.
    pub built: String,
    /// The architecture, as on the command line.
    pub arch: String,
    /// The version of QEMU.
    pub qemu: String,
    /// What was counted.
    pub ops: Vec<Op>,
}

/// The cost of one operation.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Op {
    /// Its word, with `@` and what is there already.
    pub op: String,
    /// How memory is known; `None` where that has no part in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// Instructions of one call, the median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<u64>,
    /// The fewest and the most of all repetitions, if they differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<(u64, u64)>,
    /// Requests to the unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Notifies of the unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notifies: Option<u64>,
    /// Bytes of memory, or of code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How often locks were taken, or how many there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locks: Option<u64>,
    /// How often a lock was found taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<u64>,
    /// Nanoseconds of the host, the median. Shown and forgotten: another run has others.
    #[serde(skip)]
    pub wall_ns: Option<u64>,
}

/// How memory is known to the container.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// As runs, however long.
    Runs,
    /// Page by page.
    Pages,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Runs => "runs",
            Self::Pages => "pages",
        })
    }
}

impl Results {
    /// Puts runs together.
    pub fn new(runs: Vec<Run>) -> Self {
        Self { schema: SCHEMA, runs }
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`]: it can't be read, or is something else.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let wrong = |why: String| Error::Usage(format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let results: Self = serde_json::from_str(&text)
            .map_err(|error| wrong(format!("is no file of results: {error}")))?;
        if results.schema != SCHEMA {
            let have = results.schema;
            return Err(wrong(format!("has layout {have}, and this tool knows {SCHEMA}")));
        }
        Ok(results)
    }

    /// Writes a file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::Failed(format!("the results are no JSON: {error}")))?;
        text.push('\n');
        std::fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
    }

    /// Returns our own run on an architecture.
    pub fn ours(&self, arch: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.is_ours() && run.arch == arch)
    }
}

impl Run {
    /// Tells whether it is ours, and not a peer's.
    pub fn is_ours(&self) -> bool {
        self.system.starts_with("iommu ")
    }

    /// Returns an operation.
    pub fn find(&self, op: &str, provider: Option<Provider>) -> Option<&Op> {
        self.ops.iter().find(|one| one.op == op && one.provider == provider)
    }
}

impl Op {
    /// Returns word and provider as one name.
    pub fn name(&self) -> String {
        match self.provider {
            Some(provider) => format!("{} ({provider})", self.op),
            None => self.op.clone(),
        }
    }
}

/// Reads a line of the benchmark image; `None` if it is something else.
///
/// `bench OP PROVIDER KEY=NUMBER...`, with `-` for no provider.
pub fn parse_line(text: &str) -> Option<Result<Op, String>> {
    let mut words = text.strip_prefix("bench ")?.split_ascii_whitespace();
    Some(parse_words(&mut words).ok_or_else(|| format!("the image said `{text}`")))
}

fn parse_words<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Op> {
    let mut op = Op { op: words.next()?.to_owned(), ..Op::default() };
    op.provider = match words.next()? {
        "-" => None,
        "runs" => Some(Provider::Runs),
        "pages" => Some(Provider::Pages),
        _ => return None,
    };
    let (mut least, mut most) = (None, None);
    for word in words {
        let (key, value) = word.split_once('=')?;
        let value = Some(value.parse::<u64>().ok()?);
        match key {
            "instructions" => op.instructions = value,
            "least" => least = value,
            "most" => most = value,
            "requests" => op.requests = value,
            "notifies" => op.notifies = value,
            "bytes" => op.bytes = value,
            "locks" => op.locks = value,
            "waits" => op.waits = value,
            // A single count that is a mean of many has no time.
            "ns" => op.wall_ns = value.filter(|ns| *ns > 0),
            _ => return None,
        }
    }
    op.spread = least.zip(most).filter(|(least, most)| least != most);
    [op.instructions, op.bytes, op.locks].iter().any(Option::is_some).then_some(op)
}

/// What tests of tables and pages are made of.
#[cfg(test)]
pub mod example {
    use super::{Op, Provider, Run};

    /// An operation that takes one request and one notify.
    pub fn op(word: &str, provider: Option<Provider>, instructions: u64) -> Op {
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

    /// A run on one machine.
    pub fn run(system: &str, ops: Vec<Op>) -> Run {
        let (built, arch, qemu) = ("so".into(), "x86_64".into(), "7.2".into());
        Run { system: system.into(), built, arch, qemu, ops }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        "bench map_4k@1k runs instructions=850 least=850 most=851 requests=1 notifies=1";

    #[test]
    fn a_line_of_the_image_is_read() {
        let op = parse_line(LINE).expect("is one").expect("is right");
        assert_eq!((op.op.as_str(), op.provider), ("map_4k@1k", Some(Provider::Runs)));
        assert_eq!((op.instructions, op.spread), (Some(850), Some((850, 851))));
        assert_eq!((op.requests, op.notifies, op.bytes), (Some(1), Some(1), None));
        let op = parse_line("bench heap - bytes=90").expect("is one").expect("is right");
        assert_eq!((op.name().as_str(), op.bytes, op.provider), ("heap", Some(90), None));
        let op = parse_line("bench two - locks=9 waits=2 ns=7").expect("is one").expect("is right");
        assert_eq!((op.locks, op.waits, op.wall_ns), (Some(9), Some(2), Some(7)));
    }

    #[test]
    fn what_is_no_result_is_left_or_refused() {
        assert!(parse_line("the benchmark begins").is_none());
        for text in [
            "bench ",
            "bench map_4k",
            "bench map_4k runs",
            "bench map_4k other instructions=1",
            "bench map_4k runs instructions=x",
            "bench map_4k runs instructions",
            "bench map_4k runs cycles=1",
        ] {
            assert!(parse_line(text).is_some_and(|line| line.is_err()), "{text}");
        }
    }

    #[test]
    fn a_file_comes_back_as_it_was_written() {
        let op = parse_line(LINE).expect("is one").expect("is right");
        let run = Run {
            system: "iommu 0.1.0".into(),
            built: "profile kernel".into(),
            arch: "x86_64".into(),
            qemu: "7.2.22".into(),
            ops: vec![op],
        };
        let results = Results::new(vec![run]);
        let dir = crate::testelf::Scratch::new();
        let path = dir.path().join("results.json");
        results.save(&path).expect("writes");
        assert_eq!(Results::load(&path).expect("reads"), results);
        assert!(results.ours("x86_64").is_some() && results.ours("aarch64").is_none());
    }

    #[test]
    fn a_file_that_is_something_else_is_wrong_usage() {
        let dir = crate::testelf::Scratch::new();
        let path = dir.path().join("results.json");
        for text in ["", "{}", "[1]", r#"{"schema": 2, "runs": []}"#] {
            std::fs::write(&path, text).expect("writes");
            let error = Results::load(&path).expect_err(text);
            assert_eq!(error.exit_code(), 2, "{error}");
            assert!(error.to_string().contains("results.json"), "{error}");
        }
        assert_eq!(Results::load(&dir.path().join("absent")).unwrap_err().exit_code(), 2);
    }
}
