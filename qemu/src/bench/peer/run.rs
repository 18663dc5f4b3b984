//! One boot of Linux, and what came of it.

use std::path::Path;
use std::time::Duration;

use super::super::results::{Op, Run};
use super::row::{self, Row, Setup};
use super::told::{Series, Told};
use super::trace::{Counts, Trace};
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::process::{self, Chunk, End, Next};
use crate::progress::Progress;
use crate::setup::qemu::Qemu;

/// What a boot needs.
pub struct Boot<'a> {
    /// QEMU.
    pub qemu: &'a Qemu,
    /// The machine.
    pub row: &'a Row,
    /// How the kernel is set up.
    pub setup: Setup,
    /// The kernel.
    pub image: &'a Path,
    /// Its first file system.
    pub archive: &'a Path,
    /// How long it may take.
    pub limit: Duration,
}

impl Boot<'_> {
    /// Boots, and waits for the end.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] with the last words of the kernel, of the program and of QEMU when not all was
    /// measured.
    pub fn run(&self, interrupt: &Interrupt, progress: &Progress) -> Result<Run, Error> {
        let cmd =
            row::command_line(&self.qemu.path, self.row, self.setup, self.image, self.archive);
        progress.command(&cmd);
        let what = format!("Linux on {}{}", self.row.name, self.setup.suffix());
        progress.begin(&what, 0);
        let (mut told, mut trace) = (Told::default(), Trace::new(self.row.bridge));
        let end = process::supervise(&cmd, Some(self.limit), false, interrupt, &mut |chunk| {
            match chunk {
                Chunk::Out(bytes) => told.feed(&bytes),
                Chunk::Err(bytes) => trace.feed(&bytes),
            }
            Next::Continue
        });
        progress.end();
        let end = end?;
        let ops = judge(&told, &trace, end, self.limit).map_err(|why| {
            let tail = |name: &str, lines: &[String]| {
                lines.iter().map(|line| format!("\n  {name}: {line}")).collect::<String>()
            };
            let kernel = tail("kernel", &told.kernel_said);
            let qemu = tail("QEMU", trace.other());
            Error::Failed(format!("{what}: {why}{kernel}{qemu}"))
        })?;
        Ok(Run {
            system: format!("Linux {}{}", told.kernel, self.setup.suffix()),
            built: row::arguments(self.row, self.setup),
            arch: self.row.name.into(),
            qemu: self.qemu.version.to_string(),
            ops,
        })
    }
}

/// Puts the two halves together: instructions from the program, requests from QEMU.
fn judge(told: &Told, trace: &Trace, end: End, limit: Duration) -> Result<Vec<Op>, String> {
    if let Some(failure) = &told.failure {
        return Err(failure.clone());
    }
    match end {
        End::TimedOut => return Err(format!("not done within {} s", limit.as_secs())),
        End::Code(0) if told.is_done => {}
        end => return Err(format!("the program did not come to its end; QEMU ended with {end:?}")),
    }
    if let Some(line) = trace.broken() {
        return Err(line.to_owned());
    }
    let ops = told.series.iter().map(|series| op(series, trace.samples(series.number)));
    let mut ops = ops.collect::<Result<Vec<_>, _>>()?;
    let known: usize = told.series.iter().map(|series| series.instructions.len()).sum();
    if trace.len() != known {
        return Err(format!("QEMU saw {} samples, the program told of {known}", trace.len()));
    }
    let bytes = told.values.iter();
    ops.extend(bytes.map(|(op, bytes)| Op {
        op: op.clone(),
        bytes: Some(*bytes),
        ..Op::default()
    }));
    Ok(ops)
}

/// Medians.
fn op(series: &Series, counts: &[Counts]) -> Result<Op, String> {
    let Series { name, instructions, .. } = series;
    if counts.len() != instructions.len() || counts.is_empty() {
        return Err(format!(
            "{name}: {} samples on the console, {} in QEMU's trace",
            instructions.len(),
            counts.len()
        ));
    }
    let (mut instructions, mut counts) = (instructions.clone(), counts.to_vec());
    instructions.sort_unstable();
    counts.sort_unstable();
    let spread = (instructions[0], instructions[instructions.len() - 1]);
    let median = counts[counts.len() / 2];
    Ok(Op {
        op: name.clone(),
        instructions: Some(instructions[instructions.len() / 2]),
        spread: (spread.0 != spread.1).then_some(spread),
        requests: Some(median.requests),
        notifies: Some(median.notifies),
        ..Op::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(9);

    fn told(lines: &[&str]) -> Told {
        let mut told = Told::default();
        for line in [&["kernel 9.1", "tick_ns 16"], lines].concat() {
            told.feed(format!("peer: {line}\r\n").as_bytes());
        }
        told
    }

    fn trace(values: &[u8], requests: &[usize]) -> Trace {
        let mut trace = Trace::new("mch");
        let mark = |value: u8| format!("pci_cfg_write mch 00:0 @0x3c <- {value:#x}\n");
        for value in [0xfe, 0xfd, 0xfe, 0xfc] {
            trace.feed(mark(value).as_bytes());
        }
        for (value, requests) in values.iter().zip(requests) {
            trace.feed(mark(*value).as_bytes());
            trace.feed("virtio_iommu_map x\n".repeat(*requests).as_bytes());
            trace.feed("virtio_queue_notify vdev 0x1 n 0 vq 0x2\n".as_bytes());
            trace.feed(mark(0xff).as_bytes());
        }
        trace
    }

    #[test]
    fn medians_of_both_halves_make_a_figure() {
        let told = told(&["series 7 map_4k 10 12 90", "value heap_random@100k 15900000", "done"]);
        let trace = trace(&[7, 7, 7], &[1, 4, 2]);
        let ops = judge(&told, &trace, End::Code(0), LIMIT).expect("a result");
        let map = Op {
            op: "map_4k".into(),
            instructions: Some(192),
            spread: Some((160, 1440)),
            requests: Some(2),
            notifies: Some(1),
            ..Op::default()
        };
        let bytes = Some(15_900_000);
        assert_eq!(ops, [map, Op { op: "heap_random@100k".into(), bytes, ..Op::default() }]);
    }

    #[test]
    fn halves_that_do_not_fit_are_refused() {
        let one = ["series 7 map_4k 10 12", "done"];
        let why = |lines: &[&str], trace: Trace, end| {
            judge(&told(lines), &trace, end, LIMIT).unwrap_err()
        };
        assert!(
            why(&one, trace(&[7], &[1]), End::Code(0)).contains("2 samples on the console, 1 in")
        );
        assert!(why(&one, trace(&[7, 7, 8], &[1; 3]), End::Code(0)).contains("QEMU saw 3"));
        assert!(
            why(&["series 7 map_4k", "done"], trace(&[], &[]), End::Code(0)).contains("0 samples")
        );
        assert!(
            why(&one[..1], trace(&[7, 7], &[1; 2]), End::Code(0))
                .contains("did not come to its end")
        );
        assert!(why(&one, trace(&[7, 7], &[1; 2]), End::Code(1)).contains("Code(1)"));
        assert!(why(&one, trace(&[7, 7], &[1; 2]), End::TimedOut).contains("within 9 s"));
        assert!(why(&["failed: can't x"], trace(&[], &[]), End::Code(0)).contains("can't x"));
        let mut broken = trace(&[7, 7], &[1; 2]);
        broken.feed(b"pci_cfg_write mch 00:0 @0x3c <- 0xff\n");
        assert!(why(&one, broken, End::Code(0)).contains("never began"));
    }
}
