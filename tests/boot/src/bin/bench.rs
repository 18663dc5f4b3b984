//! The benchmark: counts what the library costs on this machine, one line per result.
//!
//! `cargo qemu bench` builds it as a kernel is built, runs it under `-icount shift=0`, and compares.
#![no_std]
#![no_main]

use iommu_boot::arch::{self, entry};
use iommu_boot::machine::Machine;
use iommu_boot::measure;

entry!(main);

fn main(_: u64, _: u64, _: u64, _: u64) -> ! {
    let machine = match Machine::bring_up() {
        Ok(machine) => machine,
        Err(missing) => {
            defmt::error!("the machine can't be brought up: {} is missing", missing);
            arch::exit(1)
        }
    };
    if let Err(why) = measure::run(&machine) {
        defmt::error!("nothing can be measured: {}", why);
        arch::exit(1)
    }
    arch::exit(0)
}
