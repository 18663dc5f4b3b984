//! How long the structure that holds mappings takes, and the obvious others: an intrusive red-black tree,
//! the standard B-tree, a sorted vector and a radix tree, at 10^3 to 10^6 entries, added ascending and at
//! random.
//!
//! ```console
//! $ cargo bench --package iommu-benches --bench mappings
//! ```
#![expect(missing_docs, reason = "the macro makes a public function")]

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use intrusive_collections::RBTree;
use iommu::addr::IovaRange;
use iommu::driver::Target;
use iommu::rangemap::RangeMap;
use iommu_benches::{Mappings, NodeAdapter, Radix, SIZES, STEPS, filled, places};

fn compare<M: Mappings>(c: &mut Criterion) {
    for random in [false, true] {
        let order = if random { "random" } else { "ascending" };
        for count in SIZES {
            // Moving a million entries per random insert takes minutes; the trend is clear before.
            if random && M::NAME == "sorted Vec" && count > 100_000 {
                continue;
            }
            let mut map: M = filled(count, random);
            let id = |what: &str| BenchmarkId::new(format!("{what} {order}/{}", M::NAME), count);
            let mut group = c.benchmark_group("mappings");
            group.throughput(Throughput::Elements(STEPS));
            let places = places(count, 0);
            group.bench_function(id("insert and remove"), |b| {
                b.iter(|| {
                    places.iter().for_each(|place| assert!(map.insert(*place)));
                    places.iter().for_each(|place| assert!(map.remove(*place)));
                });
            });
            group.bench_function(id("look up"), |b| {
                b.iter(|| {
                    places.iter().for_each(|place| {
                        assert!(black_box(map.get(*place - 1)).is_some());
                    });
                });
            });
            group.throughput(Throughput::Elements(count));
            group.bench_function(id("walk"), |b| b.iter(|| map.walk()));
            if count <= 10_000 {
                group.bench_function(id("fill"), |b| {
                    b.iter_batched(|| (), |()| filled::<M>(count, random), BatchSize::LargeInput);
                });
            }
            group.finish();
        }
    }
}

fn all(c: &mut Criterion) {
    compare::<RangeMap<Target>>(c);
    compare::<BTreeMap<u64, (u64, Target)>>(c);
    compare::<RBTree<NodeAdapter>>(c);
    compare::<Vec<(IovaRange, Target)>>(c);
    compare::<Radix>(c);
}

criterion_group! {
    name = mappings;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(100))
        .measurement_time(std::time::Duration::from_millis(300));
    targets = all
}
criterion_main!(mappings);
