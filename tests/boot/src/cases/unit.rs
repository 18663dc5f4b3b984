//! The units themselves: start, restart, rings that wrap, endpoints that don't exist.

use iommu::addr::Iova;
use iommu::container::{Container, IdentityMemory, MapDma, Options, UnmapDma};
use iommu::device::DeviceId;
use iommu::driver::{Driver, EndpointId, Health};
use iommu::error::ProbeError;
use iommu::group::{Group, OwnerId};
use iommu::prot::Prot;
use iommu::registry::{DeviceInfo, Registry};

use crate::bench::MEMORY;
use crate::machine::{Machine, PLATFORM, POOL, TestDevice};
use crate::world::{World, add_reserving, place, with_first_driver};
use crate::{probe, tally};
use iommu_cases::steps::*;
use iommu_cases::{Bench, Who, wire};

/// More requests than a 16-bit ring index counts, in both directions.
pub fn the_ring_index_wraps(world: &World) {
    let memory = Memory::new(world, 1);
    let who = Who::One;
    let domain = domain_for(world, who);
    let attached = attach(world, who, &domain);
    let sent = cost_of(world, who, || {
        for _ in 0..33_000 {
            domain.map(range(AT, 1), memory.phys(), Prot::RW).expect("is free");
            domain.unmap(range(AT, 1)).expect("unmaps");
        }
    });
    assert_eq!((sent.map, sent.unmap), (33_000, 33_000));
    map(&domain, AT, &memory, Prot::RW);
    arrives(world, who, AT, &memory, 0);
    assert_eq!(world.unit(who).health(), Health::Good);
    drop(attached);
}

/// A place on the root bus where no machine of ours has a device.
const NOBODY: EndpointId = EndpointId(0xf0);

/// C-150: an endpoint that the unit does not have; the answer is the caller's to handle.
pub fn an_endpoint_that_does_not_exist(world: &World) {
    let groups = world.registry.group_count();
    let before = POOL.usage();
    for unit in &world.units {
        let info = DeviceInfo { id: DeviceId(0xf00d), endpoints: &[NOBODY], with: None };
        assert_eq!(world.registry.add_device(unit, &info).err(), Some(ProbeError::NoDevice));
        assert_eq!(unit.health(), Health::Good);
    }
    assert_eq!((world.registry.group_count(), POOL.usage()), (groups, before));
}

/// C-150: a device of the one unit is unknown to the other.
pub fn an_endpoint_of_the_other_unit(world: &World) {
    let groups = world.registry.group_count();
    let before = POOL.usage();
    let foreign = world.seat(Who::Other).endpoint;
    let info = DeviceInfo { id: DeviceId(0xf00d), endpoints: &[foreign], with: None };
    let refused = world.registry.add_device(world.unit(Who::One), &info).err();
    assert_eq!(refused, Some(ProbeError::NoDevice));
    assert_eq!((world.registry.group_count(), POOL.usage()), (groups, before));
}

/// Section 7.3 and 7.5 of the device's rules: the drivers go and come again. In between every
/// device is blocked, because bypass was cleared and outlives the reset; nothing is left over.
pub fn restart(world: &mut World, machine: &Machine) {
    let memory = Memory::new(world, 1);
    let target = memory.phys().0;
    let World { registry, units, devices, .. } = core::mem::take(world);
    drop((devices, units));
    drop(registry);
    assert_eq!(POOL.usage().nodes, 0);
    assert_eq!(PLATFORM.pages_in_use(), 1, "the buffer of this case is all that is left");
    for device in &machine.devices {
        device.edu.poke(target, 0x5aa5).expect("the device has an MSI");
        let untouched = MEMORY.is_untouched();
        assert!(untouched, "a device without a driver's IOMMU reached memory");
        tally::refused();
    }
    *world = World::start(machine).expect("the units start again");
    world.reach_peak();
    for who in groups(world) {
        refused(world, who, target);
        let domain = domain_for(world, who);
        map(&domain, target, &memory, Prot::RW);
        let attached = attach(world, who, &domain);
        arrives(world, who, target, &memory, 0);
        drop(attached);
    }
}

/// The table of requests, to the first unit without the API before it. The unit is started anew
/// for each row, because a refused UNMAP ends with its reset.
pub fn the_request_table(world: &mut World, machine: &Machine) {
    let memory = Memory::new(world, wire::PAGES);
    let [first, second] = [Who::One, Who::Two].map(|who| world.seat(who).endpoint);
    let endpoints = [first, second, NOBODY];
    drop(core::mem::take(world));
    let edu = machine.devices.first().expect("there are devices").edu;
    let reaches = |iova: Iova, phys| {
        edu.poke(iova.0, 0x5aa5).expect("the device has an MSI");
        let arrived = MEMORY.take(phys, 4, |at| 0x5aa5_u32.to_le_bytes()[at]) == 4;
        assert!(MEMORY.is_untouched(), "something else was written");
        if arrived {
            tally::arrived();
        }
        arrived
    };
    defmt::info!("wrong requests on purpose: the warnings below are the driver's about them");
    for row in wire::ROWS {
        let play = |driver: &dyn Driver| {
            let subject = wire::Subject {
                kind: wire::Kind::Device,
                driver,
                pool: &POOL,
                endpoints,
                memory: memory.phys(),
                reaches: &reaches,
            };
            wire::play(row, &subject);
        };
        with_first_driver(machine, play).expect("the unit starts");
    }
    *world = World::start(machine).expect("the units start again");
    world.reach_peak();
}

/// C-150, T1-042: a device that joins an attached group brings a reserved region. It reaches what the
/// group reaches, and from then on the container maps nothing there.
pub fn a_hot_added_device_brings_its_regions(world: &mut World, machine: &Machine) {
    let memory = Memory::new(world, 1);
    let [one, two] = [place::ROOT, place::ROOT_2].map(|index| *world.device(index));
    drop(core::mem::take(world));
    let region = range(AT + 16 * PAGE, 4);
    {
        let registry = Registry::new(&POOL);
        let unit = add_reserving(&registry, machine, two.endpoint, region).expect("starts");
        let add = |device: &TestDevice, with| {
            let info = DeviceInfo { id: device.id(), endpoints: &[device.endpoint], with };
            registry.add_device(&unit, &info).expect("it is the unit's")
        };
        let group = add(&one, None);
        let options = Options { allow_unsafe_interrupts: true, ..Options::default() };
        let container: Container<IdentityMemory> = Container::new(&POOL, IdentityMemory, options);
        let ownership = Group::claim(&group, OwnerId(1)).expect("the group is free");
        container.attach_group(ownership).expect("attaches");
        let request = |iova| MapDma { iova, vaddr: memory.phys().0, size: PAGE, prot: Prot::RW };
        let inside = region.first().0 + PAGE;
        container.map_dma(&request(inside)).expect("control: nobody reserves it yet");
        let pokes = |device: &TestDevice, iova| {
            device.edu.poke(iova, 0x5aa5).expect("the device has an MSI");
            let arrived = MEMORY.take(memory.phys(), 4, |at| 0x5aa5_u32.to_le_bytes()[at]) == 4;
            assert!(MEMORY.is_untouched(), "something else was written");
            match arrived {
                true => tally::arrived(),
                false => {
                    let refusal = tally::judged(probe::refusal(&unit, device.endpoint));
                    assert!(refusal.is_refused_at(iova), "{refusal:?}");
                }
            }
            arrived
        };
        assert!(pokes(&one, inside));
        container.unmap_dma(&UnmapDma::All).expect("unmaps");
        add(&two, Some(one.id()));
        container.for_each_window(|window| assert!(!window.overlaps(region)));
        assert!(container.map_dma(&request(inside)).is_err(), "the new device reserves it");
        container.map_dma(&request(AT)).expect("the rest is free");
        for device in [&one, &two] {
            assert!(pokes(device, AT) && !pokes(device, inside));
        }
    }
    *world = World::start(machine).expect("the units start again");
    world.reach_peak();
}

/// The input range of the first unit ends where one of the machines of the test has it.
pub fn the_aperture_has_the_bits_of_the_machine(world: &World, bits: &[u32]) {
    let aperture = world.unit(Who::One).geometry().aperture;
    let ends = |bits: &u32| aperture.last().0 == u64::MAX >> (64 - bits);
    assert!(bits.iter().any(ends), "the aperture is {aperture:?}");
}

/// The device tree and the ACPI table VIOT, which a firmware would give to a system that wants it, say
/// the same of every function; where the one says nothing, so does the other.
#[cfg(target_arch = "aarch64")]
pub fn the_viot_says_what_the_device_tree_says(machine: &Machine) {
    use iommu_runtime::firmware::Topology;
    let viot = crate::arch::viot();
    let Topology::IommuMap(map) = machine.topology else {
        assert!(viot.is_none(), "no IOMMU on PCI, so there is nothing to tell");
        return;
    };
    let viot = Topology::Viot(viot.expect("QEMU made the table"));
    let mut behind = 0;
    for function in machine.pci.functions() {
        let requester = function.requester;
        let told = map.translate(requester).map(|(_, endpoint)| endpoint);
        assert_eq!(viot.endpoint(requester), told, "of function {:#x}", function.id);
        behind += usize::from(told.is_some());
    }
    assert!(behind >= 5, "{behind} functions are behind the IOMMU");
}
