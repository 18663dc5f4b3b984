//! What a cache of I/O virtual addresses would save: instructions of giving a run back and taking
//! another, from the allocator of `iommu::dma` itself and through a magazine in front of it.
//!
//! ```text
//! cargo build --profile kernel -p iommu-benches --example addresses
//! for rounds in 0 100000; do
//!     valgrind --tool=callgrind --callgrind-out-file=/dev/null target/kernel/examples/addresses plain 1000 $rounds
//! done
//! ```
//!
//! The difference of the two counts, by the rounds. `plain` or `magazine`; then how many runs are taken.

use std::env;
use std::hint::black_box;

use iommu::addr::{Iova, IovaRange};
use iommu::dma::IovaAllocator;
use iommu::pool::Pool;

/// As in Linux: so many runs of each size in a magazine.
const MAGAZINE: usize = 127;
const PAGE: u64 = 0x1000;

/// The allocator, with a stack per size in front of it, if asked for. What is in a stack stays taken.
struct Addresses {
    iovas: IovaAllocator<()>,
    stacks: Option<[Vec<Iova>; 3]>,
}

impl Addresses {
    fn take(&mut self, order: usize) -> Iova {
        let kept = self.stacks.as_mut().and_then(|stacks| stacks[order].pop());
        kept.unwrap_or_else(|| {
            let taken = self.iovas.alloc(PAGE << order, Iova(u64::MAX), ());
            taken.expect("there are addresses").first()
        })
    }

    fn give(&mut self, first: Iova, order: usize) {
        match self.stacks.as_mut().map(|stacks| &mut stacks[order]) {
            Some(stack) if stack.len() < MAGAZINE => stack.push(first),
            _ => drop(self.iovas.remove(first).expect("it was taken")),
        }
    }
}

fn main() {
    static POOL: Pool = Pool::heap();
    let words: Vec<String> = env::args().collect();
    let [_, way, live, rounds] = words.as_slice() else {
        panic!("addresses plain|magazine TAKEN ROUNDS");
    };
    let (live, rounds): (usize, u64) =
        (live.parse().expect("a number"), rounds.parse().expect("a number"));
    let aperture = IovaRange::new(Iova(0), Iova((1 << 48) - 1)).expect("48 bits");
    let iovas = IovaAllocator::new(&POOL, aperture, PAGE).expect("an aperture");
    let stacks = (way == "magazine").then(|| [0; 3].map(|_| Vec::with_capacity(MAGAZINE)));
    let mut addresses = Addresses { iovas, stacks };
    let mut runs: Vec<_> = (0..live).map(|n| (addresses.take(n % 3), n % 3)).collect();
    let mut seed = 1_u64;
    for n in 0..rounds {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let pick = (seed >> 33) as usize % runs.len();
        let (first, order) = runs[pick];
        addresses.give(first, order);
        let order = n as usize % 3;
        runs[pick] = (black_box(addresses.take(order)), order);
    }
}
