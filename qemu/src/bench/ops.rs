//! What the words of the benchmark mean, and how much they may cost.
//!
//! A peer uses the same words for the same work, so that a table can put them side by side.

use std::borrow::Cow;

use super::results::{Op, Provider, Run};
use super::size;

/// An operation for a person.
struct Row {
    op: &'static str,
    title: &'static str,
    /// How many pages or mappings one call is about, and what they are.
    of: Option<(u64, &'static str)>,
    target: Target,
}

/// How much an operation may cost.
#[derive(Clone, Copy, Default)]
struct Target {
    instructions: Option<Most>,
    requests: Option<u64>,
    notifies: Option<u64>,
    bytes: Option<u64>,
    locks: Option<u64>,
}

/// A limit of instructions.
#[derive(Clone, Copy)]
enum Most {
    /// So many.
    Of(u64),
    /// So many per cent of what another operation costs if memory is known as runs, and so many for
    /// each page if it is known page by page.
    Like(&'static str, u64, u64),
}

const NONE: Target =
    Target { instructions: None, requests: None, notifies: None, bytes: None, locks: None };

const fn most(instructions: u64, requests: u64, notifies: u64) -> Target {
    Target {
        instructions: Some(Most::Of(instructions)),
        requests: Some(requests),
        notifies: Some(notifies),
        ..NONE
    }
}

const fn like(op: &'static str, per_cent: u64, per_page: u64) -> Target {
    let instructions = Some(Most::Like(op, per_cent, per_page));
    Target { instructions, requests: Some(1), notifies: Some(1), ..NONE }
}

const fn heap(bytes: u64) -> Target {
    Target { bytes: Some(bytes), ..NONE }
}

const fn row(op: &'static str, title: &'static str, target: Target) -> Row {
    Row { op, title, of: None, target }
}

const fn many(
    op: &'static str,
    title: &'static str,
    of: (u64, &'static str),
    target: Target,
) -> Row {
    Row { op, title, of: Some(of), target }
}

const ATTACH: Target = most(1_500, 1, 1);
/// The ring's.
const ONE_LOCK: Target = Target { locks: Some(1), ..NONE };
const PAGES_64M: u64 = 16_384;
const PAGES_1G: u64 = 262_144;

#[rustfmt::skip] // one operation per line
const ROWS: &[Row] = &[
    row("system_call", "Linux: the cheapest system call (getppid)", NONE),
    row("ioctl_nothing", "Linux: an ioctl that does nothing", NONE),
    row("unmap_nothing", "Linux: an unmap that finds nothing", NONE),
    row("floor_map", "bare MAP: build, notify, poll", NONE),
    row("floor_unmap", "bare UNMAP: build, notify, poll", NONE),
    row("domain_map_4k", "map 4 KiB, domain without a container", NONE),
    row("domain_unmap_4k", "unmap 4 KiB, domain without a container", NONE),
    row("map_4k", "map 4 KiB", most(900, 1, 1)),
    row("unmap_4k", "unmap 4 KiB", most(700, 1, 1)),
    many("map_64k", "map 64 KiB", (16, "page"), like("map_4k", 110, 12)),
    many("unmap_64k", "unmap 64 KiB", (16, "page"), like("unmap_4k", 110, 12)),
    many("map_2m", "map 2 MiB", (512, "page"), like("map_4k", 110, 12)),
    many("unmap_2m", "unmap 2 MiB", (512, "page"), like("unmap_4k", 110, 12)),
    many("map_1g", "map 1 GiB", (PAGES_1G, "page"), like("map_4k", 110, 12)),
    many("unmap_1g", "unmap 1 GiB", (PAGES_1G, "page"), like("unmap_4k", 110, 12)),
    many("map_1g_of_2m", "map 1 GiB, in pages of 2 MiB", (PAGES_1G, "page"), NONE),
    many("unmap_1g_of_2m", "unmap the same", (PAGES_1G, "page"), NONE),
    many("map_scattered@16", "map 16 pages, none next to another", (16, "page"), NONE),
    many("unmap_scattered@16", "unmap the same", (16, "page"), NONE),
    many("map_scattered@256", "map 256 pages, none next to another", (256, "page"), NONE),
    many("unmap_scattered@256", "unmap the same", (256, "page"), NONE),
    many("map_scattered@4k", "map 4096 pages, none next to another", (4_096, "page"), NONE),
    many("unmap_scattered@4k", "unmap the same", (4_096, "page"), NONE),
    many("map_64m_scattered", "map 64 MiB, no page next to another", (PAGES_64M, "page"),
        most(PAGES_64M * 350, PAGES_64M, 130)),
    many("unmap_64m_scattered", "unmap the same", (PAGES_64M, "page"),
        most(PAGES_64M * 350, PAGES_64M, 130)),
    many("unmap_all@10k", "unmap ALL of 10 000 mappings", (10_000, "mapping"),
        most(10_000 * 300, 10_000, 80)),
    row("attach_first", "attach of the first group", NONE),
    row("attach_2nd", "attach of the 2nd group, compatible", ATTACH),
    row("attach_3rd", "attach of the 3rd group, compatible", ATTACH),
    row("attach_4th", "attach of the 4th group, compatible", ATTACH),
    row("attach_5th", "attach of the 5th group, compatible", ATTACH),
    row("attach_6th", "attach of the 6th group, compatible", ATTACH),
    row("attach_7th", "attach of the 7th group, compatible", ATTACH),
    row("attach_8th", "attach of the 8th group, compatible", ATTACH),
    row("attach_2nd@10k", "attach of the 2nd group, 10 000 mappings present", ATTACH),
    row("attach_of_1_domain", "attach, 1 domain on the list", ATTACH),
    row("attach_of_8_domains", "attach, 8 domains on the list, the last one fits", ATTACH),
    row("attach_of_64_domains", "attach, 64 domains on the list, the last one fits", NONE),
    row("detach_of_8", "detach, 8 groups attached", ATTACH),
    row("detach_of_2", "detach, 2 groups attached", ATTACH),
    row("detach_of_2@10k", "detach, 2 groups attached, 10 000 mappings", ATTACH),
    row("detach_last", "detach of the last group, nothing mapped", NONE),
    many("detach_last@10k", "detach of the last group, 10 000 mappings", (10_000, "mapping"), NONE),
    many("replay@1k", "attach of the first group, 1 000 mappings wait", (1_000, "mapping"), NONE),
    many("replay@10k", "attach of the first group, 10 000 mappings wait", (10_000, "mapping"), NONE),
    many("replay@100k", "attach of the first group, 100 000 mappings wait", (100_000, "mapping"), NONE),
    row("pin_1", "pin a page for an emulated device", NONE),
    row("unpin_1", "unpin it", NONE),
    many("pin_512", "pin 512 pages", (512, "page"), NONE),
    many("unpin_512", "unpin them", (512, "page"), NONE),
    many("dirty_get_64g", "dirty bitmap of 64 GiB, all of it dirty", (64 << 18, "page"), NONE),
    many("dirty_get_64g_pinned", "dirty bitmap of 64 GiB, one page pinned", (64 << 18, "page"), NONE),
    row("fault_1", "delivery of a fault to its handler", NONE),
    many("fault_16", "delivery of 16 faults", (16, "fault"), NONE),
    row("map_4k@1k", "map 4 KiB at the end of 10^3 mappings", NONE),
    row("map_4k@10k", "map 4 KiB at the end of 10^4", like("map_4k@1k", 130, 0)),
    row("map_4k@100k", "map 4 KiB at the end of 10^5", like("map_4k@1k", 130, 0)),
    row("map_4k@1m", "map 4 KiB at the end of 10^6", like("map_4k@1k", 130, 0)),
    row("unmap_4k@1k", "unmap 4 KiB at the end of 10^3 mappings", NONE),
    row("unmap_4k@10k", "unmap 4 KiB at the end of 10^4", like("unmap_4k@1k", 130, 0)),
    row("unmap_4k@100k", "unmap 4 KiB at the end of 10^5", like("unmap_4k@1k", 130, 0)),
    row("unmap_4k@1m", "unmap 4 KiB at the end of 10^6", like("unmap_4k@1k", 130, 0)),
    row("map_4k_random@1k", "map 4 KiB anywhere among 10^3 mappings", NONE),
    row("map_4k_random@10k", "map 4 KiB anywhere among 10^4", like("map_4k_random@1k", 130, 0)),
    row("map_4k_random@100k", "map 4 KiB anywhere among 10^5", like("map_4k_random@1k", 130, 0)),
    row("map_4k_random@1m", "map 4 KiB anywhere among 10^6", like("map_4k_random@1k", 130, 0)),
    row("unmap_4k_random@1k", "unmap 4 KiB anywhere among 10^3 mappings", NONE),
    row("unmap_4k_random@10k", "unmap 4 KiB anywhere among 10^4", like("unmap_4k_random@1k", 130, 0)),
    row("unmap_4k_random@100k", "unmap 4 KiB anywhere among 10^5", like("unmap_4k_random@1k", 130, 0)),
    row("unmap_4k_random@1m", "unmap 4 KiB anywhere among 10^6", like("unmap_4k_random@1k", 130, 0)),
    row("dma_map@10", "map 1 to 4 pages for a driver, 10 mappings present", NONE),
    row("dma_map@1k", "map 1 to 4 pages for a driver, 10^3 mappings present", NONE),
    row("dma_map@100k", "map 1 to 4 pages for a driver, 10^5 mappings present", NONE),
    row("dma_unmap@10", "unmap 1 to 4 pages for a driver, anywhere among 10", NONE),
    row("dma_unmap@1k", "unmap 1 to 4 pages for a driver, anywhere among 10^3", NONE),
    row("dma_unmap@100k", "unmap 1 to 4 pages for a driver, anywhere among 10^5", NONE),
    row("dma_map_long@10", "map 33 to 36 pages for a driver, 10 mappings present", NONE),
    row("dma_map_long@1k", "map 33 to 36 pages for a driver, 10^3 mappings present", NONE),
    row("dma_map_long@100k", "map 33 to 36 pages for a driver, 10^5 mappings present", NONE),
    row("dma_unmap_long@10", "unmap 33 to 36 pages for a driver, anywhere among 10", NONE),
    row("dma_unmap_long@1k", "unmap 33 to 36 pages for a driver, anywhere among 10^3", NONE),
    row("dma_unmap_long@100k", "unmap 33 to 36 pages for a driver, anywhere among 10^5", NONE),
    row("map_4k_locks", "locks that a map takes", NONE),
    row("map_4k_shared_locks", "locks of a map that two containers share, and how long it holds them", ONE_LOCK),
    row("unmap_4k_locks", "locks that an unmap takes", NONE),
    row("unmap_4k_shared_locks", "locks of an unmap that two containers share, and how long it holds them", ONE_LOCK),
    row("dma_pair_addresses_lock", "map and unmap for a driver: the lock of the addresses, and how long it is held", NONE),
    row("dma_pair_longest_lock", "map and unmap for a driver: the lock that is held longest, the domain's", NONE),
    many("one_cpu", "512 maps and unmaps of 4 KiB by one CPU", (512, "pair"), NONE),
    many("two_cpus_on_one", "the same by two CPUs at once on one container", (512, "pair"), NONE),
    many("two_cpus_on_two", "the same by two CPUs at once on two containers", (512, "pair"), NONE),
    row("map_4k_mean@1k", "mean of 10^3 maps, ascending", NONE),
    row("map_4k_mean@10k", "mean of 10^4 maps, ascending", NONE),
    row("map_4k_mean@100k", "mean of 10^5 maps, ascending", NONE),
    row("map_4k_mean@1m", "mean of 10^6 maps, ascending", NONE),
    row("map_4k_random_mean@1k", "mean of 10^3 maps, random order", NONE),
    row("map_4k_random_mean@10k", "mean of 10^4 maps, random order", NONE),
    row("map_4k_random_mean@100k", "mean of 10^5 maps, random order", NONE),
    row("map_4k_random_mean@1m", "mean of 10^6 maps, random order", NONE),
    row("heap_domain", "heap of a domain, nothing mapped", NONE),
    row("heap_container", "heap of a container, no groups", NONE),
    row("heap_container_attached", "heap of a container with its first group and domain", NONE),
    row("heap_group_more", "heap of each further group in it", NONE),
    many("heap@1k", "heap of 10^3 mappings, ascending", (1_000, "mapping"), heap(96)),
    many("heap@10k", "heap of 10^4 mappings, ascending", (10_000, "mapping"), heap(96)),
    many("heap@100k", "heap of 10^5 mappings, ascending", (100_000, "mapping"), heap(96)),
    many("heap@1m", "heap of 10^6 mappings, ascending", (1_000_000, "mapping"), heap(96)),
    many("heap_random@1k", "heap of 10^3 mappings, random order", (1_000, "mapping"), heap(96)),
    many("heap_random@10k", "heap of 10^4 mappings, random order", (10_000, "mapping"), heap(96)),
    many("heap_random@100k", "heap of 10^5 mappings, random order", (100_000, "mapping"), heap(96)),
    many("heap_random@1m", "heap of 10^6 mappings, random order", (1_000_000, "mapping"), heap(96)),
];

/// Returns the operation in words; an unknown one is its own.
pub fn title(op: &str) -> Cow<'_, str> {
    match (find(op), size::title(op)) {
        (Some(row), _) => row.title.into(),
        (None, Some(title)) => title.into(),
        (None, None) => op.into(),
    }
}

/// Tells whether an operation is known.
#[cfg(test)]
pub fn is_known(op: &str) -> bool {
    find(op).is_some()
}

/// Returns how many pages or mappings one call is about, and what they are.
pub fn parts(op: &str) -> Option<(u64, &'static str)> {
    find(op)?.of
}

/// Tells whether a quick run leaves an operation out: it needs more mappings than such a run makes, or
/// more builds.
pub fn is_long(op: &str) -> bool {
    op.ends_with("@100k") || op.ends_with("@1m") || size::is_long(op)
}

/// Returns where an operation stands in a table.
pub fn place(op: &str) -> usize {
    ROWS.iter().position(|row| row.op == op).unwrap_or(ROWS.len())
}

/// Returns the target in words and whether it is reached; `None` if there is none.
pub fn judge(run: &Run, op: &Op) -> Option<(String, bool)> {
    let row = find(&op.op)?;
    let target = row.target;
    let mut words = Vec::new();
    let mut reached = true;
    let mut ask = |limit: Option<u64>, have: Option<u64>, what: &str| {
        if let (Some(limit), Some(have)) = (limit, have) {
            reached &= have <= limit;
            words.push(format!("{}{what}", super::table::grouped(limit)));
        }
    };
    let instructions = target.instructions.and_then(|limit| limit.number(run, op, row));
    ask(instructions, op.instructions, "");
    ask(target.requests, op.requests, " req");
    ask(target.notifies, op.notifies, " not");
    ask(target.locks, op.locks, " lock");
    let (count, what) = row.of.unwrap_or((1, ""));
    let bytes = target.bytes.map(|bytes| bytes * count);
    if let (Some(limit), Some(have)) = (bytes, op.bytes) {
        reached &= have <= limit;
        words.push(format!("{} bytes per {what}", limit / count));
    }
    (!words.is_empty()).then(|| (words.join(", "), reached))
}

impl Most {
    fn number(self, run: &Run, op: &Op, row: &Row) -> Option<u64> {
        match self {
            Self::Of(limit) => Some(limit),
            Self::Like(other, per_cent, per_page) => {
                let base = run.find(other, op.provider)?.instructions? * per_cent / 100;
                let pages = row.of.map_or(0, |(count, _)| count);
                let extra = if op.provider == Some(Provider::Pages) { per_page * pages } else { 0 };
                Some(base + extra)
            }
        }
    }
}

fn find(op: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.op == op)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ops: &[(&str, Option<Provider>, u64)]) -> Run {
        let ops = ops.iter().map(|(op, provider, instructions)| Op {
            op: (*op).into(),
            provider: *provider,
            instructions: Some(*instructions),
            requests: Some(1),
            notifies: Some(1),
            ..Op::default()
        });
        Run {
            system: "iommu 0".into(),
            built: String::new(),
            arch: "x86_64".into(),
            qemu: String::new(),
            ops: ops.collect(),
        }
    }

    fn reached(run: &Run, index: usize) -> Option<bool> {
        judge(run, &run.ops[index]).map(|(_, reached)| reached)
    }

    #[test]
    fn every_word_is_there_once() {
        for row in ROWS {
            assert_eq!(ROWS.iter().filter(|other| other.op == row.op).count(), 1, "{}", row.op);
        }
    }

    #[test]
    fn a_limit_is_reached_or_not() {
        let (runs, pages) = (Some(Provider::Runs), Some(Provider::Pages));
        let run = run(&[
            ("map_4k", runs, 900),
            ("map_4k", pages, 901),
            ("map_2m", runs, 990),
            ("map_64k", runs, 991),
            ("map_2m", pages, 991 + 512 * 12),
            ("map_64k", pages, 992 + 16 * 12),
            ("floor_map", None, 9),
        ]);
        let told: Vec<_> = (0..7).map(|index| reached(&run, index)).collect();
        let expected =
            [Some(true), Some(false), Some(true), Some(false), Some(true), Some(false), None];
        assert_eq!(told, expected);
    }

    #[test]
    fn requests_notifies_and_bytes_count_too() {
        let mut run = run(&[("attach_2nd", None, 100)]);
        assert_eq!(reached(&run, 0), Some(true));
        run.ops[0].notifies = Some(2);
        assert_eq!(reached(&run, 0), Some(false));
        let shared =
            |locks| Op { op: "map_4k_shared_locks".into(), locks: Some(locks), ..Op::default() };
        assert_eq!(judge(&run, &shared(1)), Some(("1 lock".into(), true)));
        assert_eq!(judge(&run, &shared(2)), Some(("1 lock".into(), false)));
        let heap = |bytes| Op { op: "heap@1k".into(), bytes: Some(bytes), ..Op::default() };
        assert!(judge(&run, &heap(96_000)).is_some_and(|(_, reached)| reached));
        assert!(judge(&run, &heap(96_001)).is_some_and(|(_, reached)| !reached));
    }
}
