//! Before a driver comes and after it went: what the unit lets through then is the machine's choice
//! first (`boot-bypass`), and the driver's afterwards (rule C-270).

use iommu::addr::PhysAddr;
use iommu::prot::Prot;
use iommu_cases::steps::*;
use iommu_cases::{Bench, Store};
use iommu_runtime::edu::Direction;

use crate::bench::MEMORY;
use crate::machine::{Machine, TestDevice};
use crate::world::World;
use crate::{probe, tally};

/// What devices do with memory while no driver is there: a write at once, and a transfer each way.
/// `passes` is whether it comes through untranslated.
fn without_a_driver(machine: &Machine, passes: bool) {
    let memory = StoredMemory::new(machine.devices.len());
    let count = if passes { tally::arrived } else { tally::refused };
    for (index, device) in machine.devices.iter().enumerate() {
        let at = memory.start + index as u64 * PAGE;
        device.edu.poke(at, 0x5aa5).expect("the device has an MSI");
        assert_eq!(!MEMORY.is_untouched(), passes, "a write of device {index}");
        count();
        MEMORY.fill_again();
    }
    let place = |(device, index): (&'_ TestDevice, u64)| (*device, memory.start + index * PAGE);
    let places: heapless::Vec<_, 8> = machine.devices.iter().zip(0..).map(place).collect();
    let both = || places.iter().map(|(device, at)| (device, *at));
    // What it reads, and then what it writes beside it, 64 bytes further on.
    probe::transfer(both(), Direction::FromMemory, 64);
    probe::transfer(both().map(|(device, at)| (device, at + 64)), Direction::ToMemory, 64);
    if passes {
        // The fill was read, and the fill was written: nothing to see. So the next one is other.
        assert!(MEMORY.is_untouched());
        MEMORY.fill_with(0x33);
        probe::transfer(both(), Direction::FromMemory, 64);
        MEMORY.fill_again();
        probe::transfer(both(), Direction::ToMemory, 64);
        assert!(!MEMORY.is_untouched(), "what was read is written");
        for (_, at) in &places {
            assert!(MEMORY.is_filled_from(PhysAddr(*at), 64, 0x33), "{at:#x}");
        }
        MEMORY.fill_again();
    } else {
        assert!(MEMORY.is_untouched(), "a device without a driver's IOMMU reached memory");
    }
    places.iter().for_each(|_| count()); // the transfer
}

/// Memory of a case without a bench.
struct StoredMemory {
    start: u64,
}

impl StoredMemory {
    fn new(pages: usize) -> Self {
        Self { start: MEMORY.alloc(pages).expect("there is memory for DMA").0 }
    }
}

impl Drop for StoredMemory {
    fn drop(&mut self) {
        MEMORY.free(PhysAddr(self.start));
    }
}

/// `boot-bypass=on`, the default: everything passes.
pub fn dma_passes_before_a_driver(machine: &Machine) {
    without_a_driver(machine, true);
}

/// `boot-bypass=off`: nothing passes.
pub fn dma_is_refused_before_a_driver(machine: &Machine) {
    without_a_driver(machine, false);
}

/// The driver comes: each device is refused, with a record, until memory is mapped.
pub fn the_driver_decides(machine: &Machine) -> World {
    let world = World::start(machine).expect("the IOMMUs start");
    let memory = Memory::new(&world, 1);
    let target = memory.phys().0;
    for who in everyone(&world) {
        refused(&world, who, target);
        let domain = domain_for(&world, who);
        map(&domain, AT, &memory, Prot::RW);
        let attached = attach(&world, who, &domain);
        arrives(&world, who, AT, &memory, 0);
        refused(&world, who, target);
        drop(attached);
        refused(&world, who, AT);
    }
    assert!(world.units().iter().all(|unit| unit.next_fault().is_none()));
    drop(memory);
    world
}

/// The driver goes, and its units are reset: the devices stay blocked, whatever it was like at
/// first, because the driver's choice outlives the reset.
pub fn dma_is_refused_after_the_driver(machine: &Machine) {
    without_a_driver(machine, false);
}
