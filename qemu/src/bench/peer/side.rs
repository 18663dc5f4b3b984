//! Ours and Linux side by side.

use super::super::beside;
use super::super::ops;
use super::super::results::{Op, Run};
use super::super::table::{grouped, ratio};

/// Returns a table of what both can do, line by line; `linux` is the default kernel and the lean one.
pub fn lines(ours: &Run, linux: &[Run; 2]) -> Vec<String> {
    let [default, lean] = linux;
    let mut lines = vec![
        String::new(),
        format!("{} beside {} on {}", ours.system, default.system, ours.arch),
        "instructions (requests/notifies); a ratio is Linux to ours, and `call` is what of lean is its \
         system calls alone"
            .to_owned(),
    ];
    let mut rows = vec![HEAD.map(str::to_owned)];
    let mut ours_by_place: Vec<&Op> = ours.ops.iter().collect();
    ours_by_place
        .sort_by_key(|op| (ops::place(&op.op), op.provider.map(|provider| provider as u8)));
    for op in ours_by_place {
        rows.extend(compared(op, default, lean));
    }
    // What only Linux has: the price of its system calls, sizes of pages.
    let mut alone: Vec<&Op> = default.ops.iter().collect();
    alone.retain(|op| ours.ops.iter().all(|have| have.op != op.op));
    alone.sort_by_key(|op| ops::place(&op.op));
    rows.extend(alone.into_iter().map(|op| row(&op.op, "", None, Some(op), lean)));

    let mut widths = [0; HEAD.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    lines.extend(rows.iter().map(|row| line(row, &widths)));
    lines
}

const HEAD: [&str; 8] = ["operation", "memory", "ours", "Linux", "ratio", "lean", "ratio", "call"];

/// The row of one of our operations, if Linux has it.
fn compared(op: &Op, default: &Run, lean: &Run) -> Option<[String; 8]> {
    let linux = default.find(&op.op, None)?;
    let memory = op.provider.map(|provider| provider.to_string()).unwrap_or_default();
    Some(row(&op.op, &memory, Some(op), Some(linux), lean))
}

fn row(
    name: &str,
    memory: &str,
    ours: Option<&Op>,
    default: Option<&Op>,
    lean: &Run,
) -> [String; 8] {
    let lean_op = lean.find(name, None);
    let times = |linux: Option<&Op>| {
        let both = linux.and_then(number).zip(ours.and_then(number));
        both.map(|(linux, ours)| ratio(linux, ours)).unwrap_or_default()
    };
    let is_work = default.is_some_and(|op| op.requests.is_some_and(|requests| requests > 0));
    let call = if is_work { beside::calls_of(name, lean) } else { None };
    [
        ops::title(name).into_owned(),
        memory.to_owned(),
        ours.map(cell).unwrap_or_default(),
        default.map(cell).unwrap_or_default(),
        times(default),
        lean_op.map(cell).unwrap_or_default(),
        times(lean_op),
        call.map(grouped).unwrap_or_default(),
    ]
}

/// What is compared: instructions, or bytes.
fn number(op: &Op) -> Option<u64> {
    op.instructions.or(op.bytes)
}

fn cell(op: &Op) -> String {
    match (op.instructions, op.requests, op.bytes) {
        (Some(instructions), Some(requests @ 1..), _) => {
            let notifies = op.notifies.unwrap_or_default();
            format!("{} ({requests}/{notifies})", grouped(instructions))
        }
        (Some(instructions), ..) => grouped(instructions),
        (None, _, Some(bytes)) => format!("{} bytes", grouped(bytes)),
        _ => String::new(),
    }
}

fn line(row: &[String; 8], widths: &[usize; 8]) -> String {
    let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
        0 | 1 => format!("{cell:<width$}"),
        _ => format!("{cell:>width$}"),
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::super::results::Provider;
    use super::*;

    fn op(name: &str, instructions: u64, requests: u64) -> Op {
        Op {
            op: name.into(),
            instructions: Some(instructions),
            requests: Some(requests),
            notifies: Some(requests),
            ..Op::default()
        }
    }

    fn run(system: &str, ops: Vec<Op>) -> Run {
        let (built, arch, qemu) = (String::new(), "x86_64".into(), String::new());
        Run { system: system.into(), built, arch, qemu, ops }
    }

    fn linux(times: u64) -> Run {
        let bytes = Op { op: "heap_random@100k".into(), bytes: Some(16_000_000), ..Op::default() };
        let figures = [("ioctl_nothing", 300, 0), ("attach_first", 5_000, 2), ("map_4k", 4_500, 1)];
        let figures = figures.map(|(name, cost, requests)| op(name, cost * times, requests));
        run("Linux 9.1", figures.into_iter().chain([bytes]).collect())
    }

    fn table() -> Vec<String> {
        let with = |provider, cost| Op { provider: Some(provider), ..op("map_4k", cost, 1) };
        let heap = Op {
            provider: Some(Provider::Runs),
            bytes: Some(8_000_000),
            op: "heap_random@100k".into(),
            ..Op::default()
        };
        let ours = vec![
            with(Provider::Pages, 1_000),
            with(Provider::Runs, 900),
            op("attach_first", 1_000, 1),
            op("floor_map", 386, 1),
            heap,
        ];
        lines(&run("iommu 0", ours), &[linux(2), linux(1)])
    }

    fn find(label: &str) -> String {
        let table = table();
        let line = table.iter().find(|line| line.starts_with(label));
        let line = line.unwrap_or_else(|| panic!("no {label} in {table:#?}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_provider_stands_beside_both_kernels_with_ratios_and_the_call() {
        assert!(
            find("map 4 KiB  ")
                .ends_with("KiB runs 900 (1/1) 9 000 (1/1) 10.00 4 500 (1/1) 5.00 300")
        );
        let pages = table().into_iter().filter(|line| line.contains("  pages  ")).count();
        assert_eq!(pages, 1);
        assert!(
            find("attach of the first")
                .ends_with("1 000 (1/1) 10 000 (2/2) 10.00 5 000 (2/2) 5.00 600")
        );
        assert!(find("heap of 10^5 mappings, random").contains("2.00 16 000 000 bytes 2.00"));
    }

    #[test]
    fn what_only_one_has_gets_no_ratio() {
        assert!(find("Linux: an ioctl").ends_with("nothing 600 300"));
        assert!(!table().iter().any(|line| line.contains("bare MAP")));
    }

    #[test]
    fn every_word_of_the_program_is_known() {
        const WORK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peer/src/work.rs");
        let work = std::fs::read_to_string(WORK).expect("the program's source");
        let starts = ["system_call", "ioctl_", "map_", "unmap_", "attach_", "detach_"];
        let is_word = |text: &&str| starts.iter().any(|start| text.starts_with(start));
        let words: Vec<&str> = work.split('"').skip(1).step_by(2).filter(is_word).collect();
        assert!(words.len() > 30, "{words:?}");
        words.iter().for_each(|word| assert!(ops::is_known(word), "{word}"));
    }
}
