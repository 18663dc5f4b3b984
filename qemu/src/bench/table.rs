//! Results as a table for a person.

use super::ops;
use super::results::{Op, Run};

/// Returns the table of a run, line by line.
pub fn lines(run: &Run) -> Vec<String> {
    let mut rows = vec![HEAD.map(str::to_owned)];
    let mut ops: Vec<&Op> = run.ops.iter().collect();
    ops.sort_by_key(|op| (ops::place(&op.op), op.provider.map(|provider| provider as u8)));
    rows.extend(ops.into_iter().map(|op| cells(run, op)));
    let mut widths = [0; HEAD.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    rows.iter().map(|row| line(row, &widths)).collect()
}

const HEAD: [&str; 11] = [
    "operation",
    "memory",
    "instructions",
    "x floor",
    "per part",
    "requests",
    "notifies",
    "locks",
    "waits",
    "wall us",
    "target",
];
/// The columns from the second to the last but one are numbers.
const NUMBERS: core::ops::RangeInclusive<usize> = 2..=9;

fn cells(run: &Run, op: &Op) -> [String; 11] {
    let total = op.instructions.or(op.bytes);
    let part = total
        .zip(ops::parts(&op.op))
        .map(|(total, (count, what))| format!("{:.1}/{what}", total as f64 / count as f64));
    let count = match op.bytes {
        Some(bytes) => format!("{} bytes", grouped(bytes)),
        None => op.instructions.map(grouped).unwrap_or_default(),
    };
    let target = ops::judge(run, op).map(|(words, reached)| {
        format!("{} at most {words}", if reached { "ok" } else { "MISSED" })
    });
    [
        ops::title(&op.op).into_owned(),
        op.provider.map(|provider| provider.to_string()).unwrap_or_default(),
        count,
        times_floor(run, Some(op)).unwrap_or_default(),
        part.unwrap_or_default(),
        op.requests.map(grouped).unwrap_or_default(),
        op.notifies.map(grouped).unwrap_or_default(),
        op.locks.map(grouped).unwrap_or_default(),
        op.waits.map(grouped).unwrap_or_default(),
        op.wall_ns.map(|ns| format!("{:.1}", ns as f64 / 1e3)).unwrap_or_default(),
        target.unwrap_or_default(),
    ]
}

/// Writes how many times what its requests would cost bare an operation is.
pub fn times_floor(run: &Run, op: Option<&Op>) -> Option<String> {
    let floor = run.find("floor_map", None)?.instructions?;
    let requests = op?.requests.unwrap_or_default().max(1);
    Some(ratio(op?.instructions?, floor * requests))
}

fn line(row: &[String; 11], widths: &[usize; 11]) -> String {
    let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
        if NUMBERS.contains(&column) {
            format!("{cell:>width$}")
        } else {
            format!("{cell:<width$}")
        }
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// Writes how many times `base` a number is.
pub fn ratio(have: u64, base: u64) -> String {
    format!("{:.2}", have as f64 / base.max(1) as f64)
}

/// Writes a number in groups of three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::Provider;

    #[test]
    fn numbers_are_grouped() {
        let texts = [0, 12, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "12", "999", "1 000", "1 234 567"]);
        assert_eq!(ratio(900, 300), "3.00");
    }

    #[test]
    fn a_row_shows_cost_floor_parts_and_target() {
        let op = |op: &str, instructions| Op {
            op: op.into(),
            instructions: Some(instructions),
            requests: Some(1),
            notifies: Some(1),
            ..Op::default()
        };
        let map = Op { provider: Some(Provider::Runs), ..op("map_4k", 1_200) };
        let run = Run {
            system: "iommu 0".into(),
            built: String::new(),
            arch: "x86_64".into(),
            qemu: String::new(),
            ops: vec![map, op("floor_map", 300), op("unknown", 5), op("detach_last@10k", 50_000)],
        };
        let lines = lines(&run);
        assert!(lines[1].starts_with("bare MAP"), "in the order of the table: {lines:#?}");
        let row = &lines[2];
        assert!(row.starts_with("map 4 KiB ") && row.contains("1 200"), "{row}");
        assert!(row.contains("4.00") && row.contains("MISSED at most 900, 1 req, 1 not"), "{row}");
        assert!(lines[3].contains("5.0/mapping"), "{}", lines[3]);
        assert!(lines[4].starts_with("unknown"), "{}", lines[4]);
        let many = Op { requests: Some(2), ..op("map_64m_scattered", 1_200) };
        assert_eq!(times_floor(&run, Some(&many)).as_deref(), Some("2.00"), "per request");
    }
}
