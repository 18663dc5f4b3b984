//! The matrix of refused DMA on the host: what the boot images show with real devices, with devices of
//! software. A test for each kind of device.

use iommu::sim::Sim;
use iommu_cases::matrix::{self, Kind};

use crate::stand::HostStand;
use crate::unit::{self, Unit};

/// The one situation that needs a unit that can fall silent.
const SILENCE: &str = "after_the_unit_was_given_up";

/// Plays all situations that make sense for `kind`, but for those that are left out, each on a new
/// bench.
fn play<U: Unit>(kind: Kind, unit: impl Fn() -> U, is_left_out: impl Fn(&str) -> bool) {
    let rows = matrix::rows().filter(|row| row.1 == kind && !is_left_out(row.0.name));
    let mut count = 0;
    for (situation, _) in rows {
        println!("{}", situation.name); // shown if it fails
        matrix::run(&mut HostStand::new(unit()), situation.name, kind);
        count += 1;
    }
    assert!(count >= 15, "only {count} situations");
}

macro_rules! kinds {
    ($($name:ident $kind:ident,)+) => {
        mod software {
            $(#[test] fn $name() {
                let sim = || super::Sim::with(super::unit::software());
                super::play(super::Kind::$kind, sim, |name| name == super::SILENCE);
            })+
        }
        mod virtio {
            $(#[test] fn $name() {
                super::play(super::Kind::$kind, || super::unit::device(0), |_| false);
            })+
        }
        #[test]
        fn every_kind_is_played() {
            assert_eq!([$(Kind::$kind),+], Kind::ALL);
        }
    };
}

kinds! {
    edu_reads EduReads,
    edu_writes EduWrites,
    message Message,
    rng_writes RngWrites,
    blk_reads BlkReads,
    blk_writes BlkWrites,
    nvme_reads NvmeReads,
    nvme_writes NvmeWrites,
}
