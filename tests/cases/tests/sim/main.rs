//! The table against the software IOMMU, on units of several kinds, and checks of the table itself.
//!
//! `cases!` makes a test of each row, so the harness lists and filters them one by one.

mod bench;
mod table;
mod wire;

use bench::{SimBench, config};
use iommu::addr::{Iova, IovaRange};

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
        mod narrow {
            $($(#[test] fn $first() { super::narrow(stringify!($first)); })+)+
            $($(#[test] fn $second() { super::narrow(stringify!($second)); })+)+
        }
    };
}

include!("../../src/list.rs");

fn plain(units: usize, name: &str) {
    iommu_cases::run(&SimBench::new(&vec![config(); units]), name);
}

/// A unit whose addresses end at 32 bits, and one that has 39.
fn narrow(name: &str) {
    let with_bits = |bits: u32| {
        let mut config = config();
        config.aperture = IovaRange::new(Iova(0), Iova((1 << bits) - 1)).unwrap();
        config
    };
    iommu_cases::run(&SimBench::new(&[with_bits(32), with_bits(39)]), name);
}
