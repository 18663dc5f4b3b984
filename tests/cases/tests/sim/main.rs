//! The table and the matrix of refused DMA against the software IOMMU, on units of several kinds, and
//! against the virtio-iommu driver and a model of its device; and checks of the table itself.
//!
//! `cases!` makes a test of each row, so the harness lists and filters them one by one.

mod bench;
mod matrix;
mod stand;
mod table;
mod unit;
mod wire;

use bench::HostBench;
use iommu::addr::{Iova, IovaRange};
use iommu::sim::Sim;

/// Makes a module of tests: all rows, or those that one unit is enough for.
macro_rules! cases {
    (
        #[harness]
        one_unit { $($one:ident { $($first:ident,)+ })+ }
        two_units { $($two:ident { $($second:ident,)+ })+ }
    ) => {
        mod two_units {
            $($(#[test] fn $first() { super::plain(2, stringify!($first)); })+)+
            $($(#[test] fn $second() { super::plain(2, stringify!($second)); })+)+
        }
        mod one_unit {
            $($(#[test] fn $first() { super::plain(1, stringify!($first)); })+)+
        }
        mod virtio {
            $($(#[test] fn $first() { super::virtio(0, stringify!($first)); })+)+
            $($(#[test] fn $second() { super::virtio(0, stringify!($second)); })+)+
        }
        mod virtio_that_takes_its_time {
            $($(#[test] fn $first() { super::virtio(3, stringify!($first)); })+)+
            $($(#[test] fn $second() { super::virtio(3, stringify!($second)); })+)+
        }
        mod narrow {
            $($(#[test] fn $first() { super::narrow(stringify!($first)); })+)+
            $($(#[test] fn $second() { super::narrow(stringify!($second)); })+)+
        }
    };
}

include!("../../src/list.rs");

fn plain(units: usize, name: &str) {
    let sims = (0..units).map(|_| Sim::with(unit::software())).collect();
    iommu_cases::run(&HostBench::new(sims), name);
}

/// The real driver; the device answers after some looks at the clock.
fn virtio(delay: u32, name: &str) {
    iommu_cases::run(&HostBench::new(vec![unit::device(delay), unit::device(delay)]), name);
}

/// A unit whose addresses end at 32 bits, and one that has 39.
fn narrow(name: &str) {
    let with_bits = |bits: u32| {
        let mut config = unit::software();
        config.aperture = IovaRange::new(Iova(0), Iova((1 << bits) - 1)).unwrap();
        Sim::with(config)
    };
    iommu_cases::run(&HostBench::new(vec![with_bits(32), with_bits(39)]), name);
}
