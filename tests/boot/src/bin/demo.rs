//! The demo: tells the story of the crate, and checks every step of it with real DMA.
//!
//! Exit code 0 only if every step held. A step that fails says what was expected and what was
//! seen, and the story goes on, so that one run shows all that is wrong.
#![no_std]
#![no_main]

use iommu_boot::arch::{self, entry};
use iommu_boot::machine::{Machine, PLATFORM, POOL};
use iommu_boot::story::Story;
use iommu_boot::world::World;

entry!(main);

fn main(_: u64, _: u64, _: u64, _: u64) -> ! {
    let started = arch::now_ns();
    let machine = match Machine::bring_up() {
        Ok(machine) => machine,
        Err(missing) => {
            defmt::error!("the machine can't be brought up: {} is missing", missing);
            arch::exit(1)
        }
    };
    let before = (POOL.usage(), PLATFORM.pages_in_use());
    let mut story = Story::new(&machine);
    story.machine();
    if !machine.has_iommu() {
        defmt::error!(
            "this machine has no virtio-iommu: start QEMU with `-device virtio-iommu-pci`"
        );
        arch::exit(1)
    }
    story.without_an_iommu();
    let world = match World::start(&machine) {
        Ok(world) => world,
        Err(why) => {
            defmt::error!("the IOMMU can't be used: {}", why);
            arch::exit(1)
        }
    };
    story.devices();
    story.tell(world);
    story.nothing_is_left(before);
    story.verdict(arch::now_ns() - started)
}
