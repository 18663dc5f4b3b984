//! The tests that run on the bare machine.
#![no_std]
#![no_main]
use defmt_test as _;
use iommu_boot::arch::{self, entry};
entry!(start);
fn start(_: u64, _: u64, _: u64, _: u64) -> ! {
    loop {}
}
