//! Devices that come, go, fault and are claimed, while their group is at work.

use iommu::addr::Iova;
use iommu::device::DeviceId;
use iommu::driver::EndpointId;
use iommu::error::{AttachError, ClaimError, ProbeError};
use iommu::fault::Access;
use iommu::group::OwnerId;
use iommu::registry::DeviceInfo;

use crate::world::*;

/// Adds device 2 to the group of device 1.
fn hot_add(world: &World) -> loom::thread::JoinHandle<()> {
    let world = world.clone();
    spawn(move || drop(world.device_with(2, Some(1))))
}

fn remove(world: &World, id: u32) -> loom::thread::JoinHandle<()> {
    let world = world.clone();
    spawn(move || {
        world.registry.remove_device(DeviceId(id.into())).unwrap();
        assert_eq!(world.unit.read(id, PAGE), None, "a device that is gone");
    })
}

#[test]
fn hot_add_against_map_and_unmap() {
    // C-148
    explore("hot-add, map and unmap", |world| {
        let (group, domain) = (world.device(1), world.domain());
        map(&domain, OTHER);
        let attached = attach(&group, &domain);
        let adder = hot_add(world);
        map(&domain, PAGE);
        unmap(&domain, OTHER);
        assert_eq!((world.unit.read(1, OTHER), world.unit.read(2, OTHER)), (None, None));
        adder.join().unwrap();
        for endpoint in [1, 2] {
            assert_eq!(world.unit.read(endpoint, PAGE), Some(frame(&domain, PAGE)));
        }
        world.check(&[&group], &[], &[&domain]);
        drop(attached);
    });
}

#[test]
fn hot_add_against_attach_replace_and_detach() {
    explore("hot-add, attach, replace, detach", |world| {
        let (group, first, second) = (world.device(1), world.domain(), world.domain());
        map(&first, PAGE);
        map(&second, PAGE);
        let adder = hot_add(world);
        let mut attached = attach(&group, &first);
        attached.replace(&second).unwrap();
        assert_eq!(world.unit.read(1, PAGE), Some(frame(&second, PAGE)));
        assert_ne!(world.unit.read(2, PAGE), Some(frame(&first, PAGE)));
        drop(attached);
        assert_eq!((world.unit.read(1, PAGE), world.unit.read(2, PAGE)), (None, None));
        adder.join().unwrap();
        assert_eq!(world.unit.read(2, PAGE), None);
        world.check(&[&group], &[], &[&first, &second]);
    });
}

#[test]
fn hot_add_against_attach_and_map() {
    explore("hot-add, attach, map", |world| {
        let (group, domain) = (world.device(1), world.domain());
        let adder = hot_add(world);
        let mapper = spawn({
            let domain = domain.clone();
            move || map(&domain, PAGE)
        });
        let attached = attach(&group, &domain);
        join(adder, mapper);
        for endpoint in [1, 2] {
            assert_eq!(world.unit.read(endpoint, PAGE), Some(frame(&domain, PAGE)));
        }
        world.check(&[&group], &[], &[&domain]);
        drop(attached);
    });
}

#[test]
fn removal_against_replace_and_map() {
    explore("removal, replace, map", |world| {
        let (group, old, new) = (world.device(1), world.domain(), world.domain());
        drop(world.device_with(2, Some(1)));
        map(&old, PAGE);
        map(&new, PAGE);
        let mut attached = attach(&group, &old);
        let remover = remove(world, 2);
        let mapper = spawn({
            let new = new.clone();
            move || map(&new, OTHER)
        });
        attached.replace(&new).unwrap();
        assert_eq!(world.unit.read(1, PAGE), Some(frame(&new, PAGE)));
        join(remover, mapper);
        assert_eq!(world.unit.read(1, OTHER), Some(frame(&new, OTHER)));
        assert_eq!(world.unit.read(2, OTHER), None);
        world.check(&[&group], &[2], &[&old, &new]);
        drop(attached);
    });
}

#[test]
fn the_last_removal_against_attach() {
    explore("last removal, claim and attach", |world| {
        let (group, domain) = (world.device(1), world.domain());
        map(&domain, PAGE);
        let remover = remove(world, 1);
        let attached = match Group::claim(&group, OwnerId(7)) {
            Ok(ownership) => match ownership.attach(&domain) {
                Ok(attached) => Some(attached),
                Err(refused) => {
                    assert_eq!(refused.error, AttachError::NoDevice);
                    None
                }
            },
            Err(error) => {
                assert_eq!(error, ClaimError::NoDevice);
                None
            }
        };
        remover.join().unwrap();
        assert_eq!(world.unit.read(1, PAGE), None);
        assert_eq!((world.registry.group_count(), domain.endpoint_count()), (0, 0));
        world.check(&[&group], &[1], &[&domain]);
        drop(attached);
    });
}

#[test]
fn two_devices_with_one_endpoint_come_at_once() {
    // C-046, C-071
    explore("add, add", |world| {
        let add = |id| {
            let world = world.clone();
            spawn(move || {
                let info = DeviceInfo { id: DeviceId(id), endpoints: &[EndpointId(8)], with: None };
                world.registry.add_device(&world.instance, &info)
            })
        };
        let (one, other) = join(add(1), add(2));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert!(one.ptr_eq(&other));
        assert_eq!((one.device_count(), one.endpoint_count()), (2, 1));
        let both = join(add(3), add(3));
        assert!(matches!(
            both,
            (Ok(_), Err(ProbeError::Exists)) | (Err(ProbeError::Exists), Ok(_))
        ));
        drop((other, both));
        assert_eq!(world.unit.sim().digest().len(), 1);
    });
}

#[test]
fn a_group_has_one_owner() {
    // C-142
    explore("claim and attach, claim and attach", |world| {
        let group = world.device(1);
        let user = |domain| {
            let (group, world) = (group.clone(), world.clone());
            spawn(move || match Group::claim(&group, OwnerId(7)) {
                Ok(ownership) => {
                    let attached = ownership.attach(&domain).unwrap();
                    assert_eq!(world.unit.read(1, PAGE), Some(frame(&domain, PAGE)));
                    drop(attached);
                    assert_ne!(world.unit.read(1, PAGE), Some(frame(&domain, PAGE)));
                    true
                }
                Err(error) => {
                    assert_eq!(error, ClaimError::NotPermitted);
                    false
                }
            })
        };
        let domains = [world.domain(), world.domain()];
        for domain in &domains {
            map(domain, PAGE);
        }
        let (one, other) = join(user(domains[0].clone()), user(domains[1].clone()));
        assert!(one || other);
        assert_eq!(group.owner(), None);
        world.check(&[&group], &[], &[&domains[0], &domains[1]]);
    });
}

#[test]
fn faults_against_attach_and_detach() {
    explore("faults, attach and detach", |world| {
        let (group, domain) = (world.device(1), world.domain());
        map(&domain, PAGE);
        let raised = world.unit.sim().reach(EndpointId(1), Iova(OTHER), Access::WRITE).unwrap_err();
        let handler = spawn({
            let world = world.clone();
            move || {
                let first = world.registry.next_fault(&world.instance).expect("it was raised");
                assert_eq!((first.record, first.device), (raised, Some(DeviceId(1))));
                let blocked = world.unit.read(1, PAGE).is_none();
                let second = world.registry.next_fault(&world.instance);
                assert_eq!(second.is_some(), blocked, "a fault for each refused access");
                assert!(second.is_none_or(|fault| fault.device == Some(DeviceId(1))));
            }
        });
        let attached = attach(&group, &domain);
        drop(attached);
        handler.join().unwrap();
        world.check(&[&group], &[], &[&domain]);
        assert_eq!(world.instance.lost_faults(), 0);
    });
}

#[test]
fn faults_against_hot_add_and_removal() {
    explore("faults, faults, hot-add and removal", |world| {
        let group = world.device(1);
        for endpoint in [1, 2] {
            world.unit.sim().reach(EndpointId(endpoint), Iova(PAGE), Access::READ).unwrap_err();
        }
        let handler = || {
            let world = world.clone();
            spawn(move || world.registry.next_fault(&world.instance).expect("two were raised"))
        };
        let (one, other) = (handler(), handler());
        drop(world.device_with(2, Some(1)));
        world.registry.remove_device(DeviceId(2)).unwrap();
        let (one, other) = join(one, other);
        let mut seen = [one, other];
        seen.sort_by_key(|fault| fault.record.endpoint);
        assert_eq!(seen.map(|fault| fault.record.endpoint), [EndpointId(1), EndpointId(2)]);
        assert_eq!(seen[0].device, Some(DeviceId(1)));
        assert!(seen[1].device.is_none_or(|device| device == DeviceId(2)));
        assert_eq!(world.registry.next_fault(&world.instance), None);
        world.check(&[&group], &[2], &[]);
    });
}
