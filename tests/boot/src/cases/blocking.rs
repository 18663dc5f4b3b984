//! Situations in which a device reaches nothing.

use iommu::device::DeviceId;
use iommu::error::AttachError;
use iommu::prot::Prot;
use iommu::registry::DeviceInfo;

use super::{AT, DEVICES, arrives, buffer, domain_for, map, refused, refused_from};
use crate::world::{World, place};

/// C-082, C-270: a device that nobody attached, behind each unit.
pub fn never_attached(world: &World) {
    let memory = buffer(1);
    for index in 0..DEVICES {
        refused_from(world, index, memory.phys().0, &memory);
        let domain = domain_for(world, index);
        map(&domain, memory.phys().0, &memory, Prot::RW);
        let attached = world.claim(index).attach(&domain).expect("attaches");
        arrives(world, index, memory.phys().0, &memory, 0);
        drop(attached);
    }
}

/// C-147: a claimed group is blocked.
pub fn claimed_only(world: &World) {
    let ownership = world.claim(place::ROOT);
    refused(world, place::ROOT, AT);
    drop(ownership);
    refused(world, place::ROOT, AT);
}

/// An attached device reaches what is mapped, and nothing is.
pub fn attached_to_an_empty_domain(world: &World) {
    for index in [place::ROOT, place::BRIDGE, place::OTHER] {
        let domain = domain_for(world, index);
        let attached = world.claim(index).attach(&domain).expect("attaches");
        refused(world, index, AT);
        drop(attached);
    }
}

/// C-126, C-259: after detach, although the domain still maps the memory.
pub fn after_detach(world: &World) {
    let memory = buffer(1);
    for index in [place::ROOT, place::BRIDGE, place::OTHER] {
        let domain = domain_for(world, index);
        map(&domain, AT, &memory, Prot::RW);
        let attached = world.claim(index).attach(&domain).expect("attaches");
        arrives(world, index, AT, &memory, 0);
        let ownership = attached.detach();
        refused_from(world, index, AT, &memory);
        drop(ownership);
        refused_from(world, index, AT, &memory);
    }
}

/// D-10: dropping the attachment blocks.
pub fn after_drop(world: &World) {
    let memory = buffer(1);
    let domain = domain_for(world, place::ROOT);
    map(&domain, AT, &memory, Prot::RW);
    let attached = world.claim(place::ROOT).attach(&domain).expect("attaches");
    arrives(world, place::ROOT, AT, &memory, 0);
    drop(attached);
    drop(domain);
    refused_from(world, place::ROOT, AT, &memory);
}

/// C-111, C-257: a refused attach sends nothing, and the device stays blocked.
pub fn after_an_incompatible_attach(world: &World) {
    let memory = buffer(1);
    let foreign = domain_for(world, place::OTHER);
    map(&foreign, AT, &memory, Prot::RW);
    let ownership = world.claim(place::ROOT);
    let mut back = None;
    let sent = world.sent(place::ROOT, || back = ownership.attach(&foreign).err());
    let refusal = back.expect("it is another unit's domain");
    assert_eq!(refusal.error, AttachError::Incompatible);
    assert_eq!((sent.attach, sent.notifies), (0, 0));
    refused_from(world, place::ROOT, AT, &memory);
    let own = domain_for(world, place::ROOT);
    map(&own, AT, &memory, Prot::RW);
    let attached = refusal.ownership.attach(&own).expect("its own unit's domain fits");
    arrives(world, place::ROOT, AT, &memory, 0);
    drop(attached);
}

/// A group whose attach failed because a reserved region is mapped.
pub fn after_a_failed_attach(world: &World) {
    let memory = buffer(1);
    let member = world.devices.first().expect("there are devices");
    let regions = member.group.reserved().expect("the regions fit");
    let window = regions.as_slice().first().expect("the machine has an MSI window").range;
    let domain = domain_for(world, place::ROOT);
    map(&domain, window.first().0, &memory, Prot::RW);
    map(&domain, AT, &memory, Prot::RW);
    let refusal = world.claim(place::ROOT).attach(&domain).expect_err("the window is mapped");
    assert_eq!(refusal.error, AttachError::AddrInUse);
    refused_from(world, place::ROOT, AT, &memory);
    domain.unmap(super::range(window.first().0, 1)).expect("unmaps");
    let attached = refusal.ownership.attach(&domain).expect("nothing is in the way now");
    arrives(world, place::ROOT, AT, &memory, 0);
    drop(attached);
}

/// A device taken out of the registry is blocked; added again, it is in a new group.
pub fn after_removal(world: &mut World) {
    let memory = buffer(1);
    let index = place::ROOT_2;
    let device = *world.device(index);
    let id = DeviceId(device.function.id.into());
    let domain = domain_for(world, index);
    map(&domain, AT, &memory, Prot::RW);
    let attached = world.claim(index).attach(&domain).expect("attaches");
    arrives(world, index, AT, &memory, 0);
    world.registry.remove_device(id).expect("it is there");
    refused_from(world, index, AT, &memory);
    drop(attached);
    let unit = world.unit_of(index).clone();
    let info = DeviceInfo { id, endpoints: &[device.endpoint], with: None };
    let group = world.registry.add_device(&unit, &info).expect("it can be added again");
    world.devices.get_mut(index).expect("it was there").group = group;
    refused_from(world, index, AT, &memory);
    let attached = world.claim(index).attach(&domain).expect("attaches");
    arrives(world, index, AT, &memory, 0);
    drop(attached);
}
