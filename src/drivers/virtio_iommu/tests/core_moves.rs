//! Registry, groups and domains over the driver over the fake device: every request of a move is
//! answered wrongly once, in every way, and DMA is where the API says it is.

use super::*;
use crate::device::DeviceId;
use crate::domain::PagingDomain;
use crate::driver::Health;
use crate::error::{AttachError, ProbeError};
use crate::group::{Attachment, Group, OwnerId};
use crate::instance::Instance;
use crate::pool::Shared;
use crate::registry::{DeviceInfo, Registry};
use crate::virtio::transport::fake::Lie;

const ANSWERS: [Lie; 10] = [
    Lie::Status(2),
    Lie::Status(4),
    Lie::Status(6),
    Lie::Status(8),
    Lie::Status(99),
    Lie::StatusNotWritten,
    Lie::UsedLen(0),
    Lie::NoAnswer,
    Lie::NeedsReset,
    Lie::Twice,
];

/// Where the two domains lead: the same IOVA, other memory.
const IOVA: u64 = 0x1000;
const OLD: u64 = 0xa000;
const NEW: u64 = 0xb000;

struct Scene {
    machine: FakeMachine,
    instance: Shared<Instance>,
    old: Shared<PagingDomain>,
    new: Shared<PagingDomain>,
    pair: Shared<Group>,
    attached: Attachment,
    /// Another group on the old domain, if it is shared.
    other: Option<Attachment>,
    _registry: Registry,
}

/// A group of two endpoints on `old`, alone there or not; `new` maps two pages.
fn scene(shared: bool) -> Scene {
    let rig = Rig::new();
    let machine = rig.machine.clone();
    let registry = Registry::new(&POOL);
    let instance = registry.add_instance(rig.unit).unwrap();
    let add = |id, endpoints: &[EndpointId]| {
        let info = DeviceInfo { id: DeviceId(id), endpoints, with: None };
        registry.add_device(&instance, &info).unwrap()
    };
    let (pair, single) = (add(1, &[ONE, TWO]), add(2, &[THREE]));
    let domain = |pages: &[(u64, u64)]| {
        let domain = PagingDomain::new(&instance, &POOL).unwrap();
        for (iova, phys) in pages {
            domain.map(range(*iova, 0x1000), PhysAddr(*phys), Prot::RW).unwrap();
        }
        domain
    };
    let old = domain(&[(IOVA, OLD), (0x5000, 0xc000)]);
    let new = domain(&[(IOVA, NEW), (0x7000, 0xd000)]);
    let attach = |group, owner| Group::claim(group, OwnerId(owner)).unwrap().attach(&old).unwrap();
    let attached = attach(&pair, 1);
    let other = shared.then(|| attach(&single, 2));
    Scene { machine, instance, old, new, pair, attached, other, _registry: registry }
}

#[test]
fn a_move_happens_whole_or_not_at_all_or_ends_blocked() {
    let (mut undone, mut poisoned) = (0, 0);
    for shared in [false, true] {
        for lie in ANSWERS {
            for nth in 0.. {
                let mut scene = scene(shared);
                scene.machine.lie(nth, lie);
                let moved = scene.attached.replace(&scene.new);
                let met = scene.machine.take_log().len() as u64 > nth;
                let place = (shared, lie, nth, moved);
                let wanted = match moved {
                    Ok(()) => Ok(NEW),
                    Err(_) if scene.instance.health() == Health::Poisoned => Err(0),
                    Err(_) if scene.pair.is_poisoned() => Err(2),
                    Err(_) => Ok(OLD),
                };
                undone += u32::from(wanted == Ok(OLD));
                poisoned += u32::from(wanted == Err(0));
                for endpoint in [ONE, TWO] {
                    let reached = scene.machine.translate(endpoint, IOVA, false);
                    assert_eq!(reached, wanted, "{place:?}");
                }
                if shared && wanted != Err(0) {
                    let reached = scene.machine.translate(THREE, IOVA, false);
                    assert_eq!(reached, Ok(OLD), "{place:?}: nobody else is touched");
                }
                if wanted == Ok(OLD) {
                    // The record and the device still agree: what is there can be unmapped.
                    scene.old.unmap(range(0, 0x10_0000)).unwrap();
                    assert_eq!(scene.machine.translate(TWO, 0x5000, false), Err(2), "{place:?}");
                }
                drop((scene.attached, scene.other));
                for endpoint in [ONE, TWO, THREE] {
                    let reached = scene.machine.translate(endpoint, IOVA, true);
                    assert!(reached.is_err(), "{place:?}: detached is blocked");
                }
                if nth >= 4 && moved.is_ok() {
                    break; // two ATTACHes, two MAPs, and then the lie met nothing
                }
                assert!(met, "{place:?}: the sweep met no request");
            }
        }
    }
    assert!(undone > 40 && poisoned > 20, "{undone} undone, {poisoned} poisoned");
}

#[test]
fn a_device_that_is_neither_taken_nor_kept_out_loses_what_is_unmapped() {
    // C-075, C-137: it was moved to the group's domain, the answer made no sense, and the way back
    // was refused
    let rig = Rig::new();
    let machine = rig.machine.clone();
    let registry = Registry::new(&POOL);
    let instance = registry.add_instance(rig.unit).unwrap();
    let add = |id, endpoint, with| {
        let info = DeviceInfo { id: DeviceId(id), endpoints: &[endpoint], with };
        registry.add_device(&instance, &info)
    };
    let (group, other) = (add(1, ONE, None).unwrap(), add(2, TWO, None).unwrap());
    let domain = PagingDomain::new(&instance, &POOL).unwrap();
    domain.map(range(IOVA, 0x1000), PhysAddr(OLD), Prot::RW).unwrap();
    let attached = Group::claim(&group, OwnerId(1)).unwrap().attach(&domain).unwrap();

    machine.lie(1, Lie::StatusAfter(99)); // after the PROBE
    machine.lie(2, Lie::Status(4));
    assert_eq!(add(3, THREE, Some(DeviceId(1))).unwrap_err(), ProbeError::Io);
    assert_eq!(machine.translate(THREE, IOVA, false), Ok(OLD), "the unit did not obey");
    assert_eq!(instance.health(), Health::Good);

    drop(attached);
    domain.unmap(range(IOVA, 0x1000)).unwrap();
    assert!(machine.translate(THREE, IOVA, false).is_err(), "the memory may be used again");
    let refused = Group::claim(&other, OwnerId(2)).unwrap().attach(&domain).unwrap_err();
    assert_eq!(refused.error, AttachError::Incompatible, "nobody knows whether to replay");
    let id = domain.id();
    drop(domain);
    assert_ne!(PagingDomain::new(&instance, &POOL).unwrap().id(), id, "its id stays taken");
}
