//! How costs grow with what is mapped already.

use iommu::container::{Container, IdentityMemory, Memory, UnmapDma};

use super::meter::{Cost, Costs, MOST, Name, tell, tell_bytes};
use super::rig::{BASE, PAGE, Rig, map, unmap};
use super::slab::POOL;

/// In which order the mappings came.
#[derive(Clone, Copy)]
enum Order {
    Ascending,
    Random,
}

/// Each with how the host knows it.
const COUNTS: [(u64, &str); 4] =
    [(1_000, "@1k"), (10_000, "@10k"), (100_000, "@100k"), (1_000_000, "@1m")];
const REPLAYS: [(u64, &str); 3] = [(1_000, "@1k"), (10_000, "@10k"), (100_000, "@100k")];
/// How many more maps are measured at each count, and then how many unmaps of the same.
const SAMPLES: u64 = MOST as u64;

/// Measures it, with at most `most` mappings.
pub fn measure(rig: &Rig, most: u64) {
    let fits = |(count, _): &(u64, &str)| *count <= most;
    for (count, at) in REPLAYS.into_iter().filter(fits) {
        replay(rig, count, at);
    }
    for (count, at) in COUNTS.into_iter().filter(fits) {
        grow(rig, count, at, Order::Ascending);
        grow(rig, count, at, Order::Random);
    }
}

/// Fills a container and measures further maps and unmaps: at the end, or between any two.
fn grow(rig: &Rig, count: u64, at: &'static str, order: Order) {
    let (map_op, unmap_op, mean_op, heap_op) = match order {
        Order::Ascending => ("map_4k", "unmap_4k", "map_4k_mean", "heap"),
        Order::Random => ("map_4k_random", "unmap_4k_random", "map_4k_random_mean", "heap_random"),
    };
    let before = POOL.usage().bytes;
    let container = rig.attached(IdentityMemory);
    let empty = POOL.usage().bytes;
    let (instructions, sent) = fill(rig, &container, count, order);
    assert_eq!(sent, count, "one request per mapping");
    let mean = (instructions / count) as u32;
    tell(name(mean_op, at), Cost { instructions: mean, requests: 1, notifies: 1, ns: 0 });
    tell_bytes(name(heap_op, at), POOL.usage().bytes - empty);

    let (mut maps, mut unmaps) = (Costs::default(), Costs::default());
    let gap = |sample: u64| {
        let slot = match order {
            Order::Ascending => count + sample,
            Order::Random => shuffled(sample, count),
        };
        BASE + (slot * 2 + 1) * PAGE
    };
    (0..SAMPLES).for_each(|sample| rig.meter.add(&mut maps, || map(&container, gap(sample), PAGE)));
    (0..SAMPLES)
        .for_each(|sample| rig.meter.add(&mut unmaps, || unmap(&container, gap(sample), PAGE)));
    maps.tell(name(map_op, at));
    unmaps.tell(name(unmap_op, at));
    let gone = container.unmap_dma(&UnmapDma::All);
    assert!(gone.is_ok_and(|gone| gone.bytes == count * PAGE), "all mappings go");
    drop(container);
    assert_eq!(POOL.usage().bytes, before, "memory was left behind");
}

fn name(op: &'static str, at: &'static str) -> Name {
    Name::of(op).at(at).with("runs")
}

/// Maps `count` pages with a gap after each; instructions and requests of all together.
fn fill<M: Memory>(rig: &Rig, container: &Container<M>, count: u64, order: Order) -> (u64, u64) {
    let (mut instructions, mut requests) = (0, 0);
    for index in 0..count {
        let slot = match order {
            Order::Ascending => index,
            Order::Random => shuffled(index, count),
        };
        let ((), cost) = rig.meter.count(|| map(container, BASE + slot * 2 * PAGE, PAGE));
        instructions += u64::from(cost.instructions);
        requests += u64::from(cost.requests);
    }
    (instructions, requests)
}

/// The attach of the first group to a container that knows its mappings already.
fn replay(rig: &Rig, count: u64, at: &'static str) {
    const REPETITIONS: usize = 2;
    let mut costs = Costs::default();
    for _ in 0..REPETITIONS {
        let container = rig.container(IdentityMemory);
        (0..count).for_each(|index| map(&container, BASE + index * PAGE, PAGE));
        rig.meter.add(&mut costs, || rig.attach(&container, 0));
    }
    costs.tell(name("replay", at));
}

/// A permutation of the numbers below `count`: a Feistel network over the next power of four, walked
/// until it comes back below.
fn shuffled(index: u64, count: u64) -> u64 {
    let half = (u64::BITS - (count - 1).leading_zeros()).div_ceil(2);
    let mask = (1_u64 << half) - 1;
    let mut at = index;
    loop {
        let (mut left, mut right) = (at >> half, at & mask);
        for round in 0..4 {
            let mixed = left ^ (Random(right << 8 | round).next() & mask);
            (left, right) = (right, mixed);
        }
        at = left << half | right;
        if at < count {
            return at;
        }
    }
}

/// A generator of numbers that are the same in every run (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}
