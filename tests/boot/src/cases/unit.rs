//! The units themselves: start, restart, rings that wrap, endpoints that don't exist.

use iommu::device::DeviceId;
use iommu::driver::{EndpointId, Health};
use iommu::error::ProbeError;
use iommu::prot::Prot;
use iommu::registry::DeviceInfo;

use super::{AT, arrives, buffer, domain_for, map, range, refused_from};
use crate::machine::{Machine, PLATFORM, POOL};
use crate::world::{World, place};

/// More requests than a 16-bit ring index counts, in both directions.
pub fn the_ring_index_wraps(world: &World) {
    let memory = buffer(1);
    let index = place::ROOT;
    let domain = domain_for(world, index);
    let attached = world.claim(index).attach(&domain).expect("attaches");
    let sent = world.sent(index, || {
        for _ in 0..33_000 {
            domain.map(range(AT, 1), memory.phys(), Prot::RW).expect("is free");
            domain.unmap(range(AT, 1)).expect("unmaps");
        }
    });
    assert_eq!((sent.map, sent.unmap), (33_000, 33_000));
    map(&domain, AT, &memory, Prot::RW);
    arrives(world, index, AT, &memory, 0);
    assert_eq!(world.unit_of(index).health(), Health::Good);
    drop(attached);
}

/// C-150: an endpoint that the unit does not have; the answer is the caller's to handle.
pub fn an_endpoint_that_does_not_exist(world: &World) {
    let groups = world.registry.group_count();
    let before = POOL.usage();
    for unit in &world.units {
        let info = DeviceInfo { id: DeviceId(0xf00d), endpoints: &[EndpointId(0xf8)], with: None };
        assert_eq!(world.registry.add_device(unit, &info).err(), Some(ProbeError::NoDevice));
        assert_eq!(unit.health(), Health::Good);
    }
    // A device of the one unit is unknown to the other.
    let foreign = world.device(place::OTHER).endpoint;
    let info = DeviceInfo { id: DeviceId(0xf00d), endpoints: &[foreign], with: None };
    let refused = world.registry.add_device(world.unit_of(place::ROOT), &info).err();
    assert_eq!(refused, Some(ProbeError::NoDevice));
    assert_eq!((world.registry.group_count(), POOL.usage()), (groups, before));
}

/// Domain ids are used again, each by one domain at a time.
pub fn domain_ids_are_reused_safely(world: &World) {
    let one = domain_for(world, place::ROOT);
    let two = domain_for(world, place::ROOT);
    assert_ne!(one.id(), two.id());
    let id = one.id();
    drop(one);
    let three = domain_for(world, place::ROOT);
    assert_eq!(three.id(), id);
    assert_ne!(three.id(), two.id());
}

/// Section 7.3 and 7.5 of the device's rules: the drivers go and come again. In between every
/// device is blocked, because bypass was cleared and outlives the reset; nothing is left over.
pub fn restart(world: &mut World, machine: &Machine) {
    let memory = buffer(1);
    let target = memory.phys().0;
    let World { registry, units, devices, .. } = core::mem::take(world);
    drop((devices, units));
    drop(registry);
    assert_eq!(POOL.usage().nodes, 0);
    assert_eq!(PLATFORM.pages_in_use(), 1, "the buffer of this case is all that is left");
    memory.fill(0xee);
    for device in &machine.devices {
        device.edu.poke(target, 0x5aa5).expect("the device has an MSI");
        assert!(memory.is_filled(0xee), "a device without a driver's IOMMU reached memory");
    }
    *world = World::start(machine).expect("the units start again");
    world.reach_peak();
    refused_from(world, place::ROOT, target, &memory);
    let domain = domain_for(world, place::ROOT);
    map(&domain, target, &memory, Prot::RW);
    let attached = world.claim(place::ROOT).attach(&domain).expect("attaches");
    arrives(world, place::ROOT, target, &memory, 0);
    drop(attached);
}
