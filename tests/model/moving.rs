//! Groups that change domains, while others do or while the domains change.

use iommu::error::{AttachError, MapError};
use iommu::prot::Prot;
use iommu::sim::Refusal;

use crate::world::*;

#[test]
fn replace_against_maps_on_both_domains() {
    explore("replace, map on old and new", |world| {
        let (group, old, new) = (world.device(1), world.domain(), world.domain());
        map(&old, PAGE);
        let mut attached = attach(&group, &old);
        let mapper = spawn({
            let (old, new) = (old.clone(), new.clone());
            move || {
                map(&old, OTHER);
                map(&new, OTHER);
            }
        });
        attached.replace(&new).unwrap();
        assert_eq!(world.unit.read(1, PAGE), None, "mapped on the old domain only");
        mapper.join().unwrap();
        assert_eq!(world.unit.read(1, OTHER), Some(frame(&new, OTHER)));
        world.check(&[&group], &[], &[&old, &new]);
        drop(attached);
    });
}

#[test]
fn replace_against_unmaps_on_both_domains() {
    explore("replace, unmap on new and old", |world| {
        let (group, old, new) = (world.device(1), world.domain(), world.domain());
        for domain in [&old, &new] {
            map(domain, PAGE);
            map(domain, OTHER);
        }
        let mut attached = attach(&group, &old);
        let unmapper = spawn({
            let (world, old, new) = (world.clone(), old.clone(), new.clone());
            move || {
                unmap(&new, PAGE);
                assert_ne!(world.unit.read(1, PAGE), Some(frame(&new, PAGE)));
                unmap(&old, PAGE);
                assert_eq!(world.unit.read(1, PAGE), None);
            }
        });
        attached.replace(&new).unwrap();
        assert_eq!(world.unit.read(1, OTHER), Some(frame(&new, OTHER)));
        unmapper.join().unwrap();
        assert_eq!(world.unit.read(1, PAGE), None);
        world.check(&[&group], &[], &[&old, &new]);
        drop(attached);
    });
}

#[test]
fn a_device_is_never_blocked_by_a_replace() {
    // C-130, C-097: the device sees the old domain, then the new one, and nothing in between.
    explore("replace, the device at work, map on new", |world| {
        let (group, old, new) = (world.device(1), world.domain(), world.domain());
        map(&old, PAGE);
        map(&new, PAGE);
        let frames = [frame(&old, PAGE), frame(&new, PAGE)];
        let mut attached = attach(&group, &old);
        let device = spawn({
            let world = world.clone();
            move || {
                let seen = [0; 3].map(|_| world.unit.read(1, PAGE).expect("not blocked"));
                assert!(seen.iter().all(|frame| frames.contains(frame)));
                assert!(seen.is_sorted(), "and never back");
            }
        });
        let mapper = spawn({
            let new = new.clone();
            move || map(&new, OTHER)
        });
        attached.replace(&new).unwrap();
        join(device, mapper);
        world.check(&[&group], &[], &[&old, &new]);
        drop(attached);
    });
}

/// Two groups that change places; the domains' locks are taken in the order of their ids.
fn crosswise(name: &str, with_maps: bool) {
    explore(name, move |world| {
        let groups = [world.device(1), world.device(2)];
        let domains = [world.domain(), world.domain()];
        for domain in &domains {
            map(domain, PAGE);
        }
        let [mut one, mut other] = [0, 1].map(|n| attach(&groups[n], &domains[n]));
        let mover = spawn({
            let to = domains[0].clone();
            move || {
                other.replace(&to).unwrap();
                other
            }
        });
        let mapper = spawn({
            let domains = domains.clone();
            move || {
                if with_maps {
                    map(&domains[0], OTHER);
                    unmap(&domains[1], PAGE);
                }
            }
        });
        one.replace(&domains[1]).unwrap();
        assert_ne!(world.unit.read(1, PAGE), Some(frame(&domains[0], PAGE)));
        let (other, ()) = join(mover, mapper);
        let left = (!with_maps).then(|| frame(&domains[1], PAGE));
        assert_eq!(world.unit.read(1, PAGE), left);
        assert_eq!(world.unit.read(2, PAGE), Some(frame(&domains[0], PAGE)));
        world.check(&[&groups[0], &groups[1]], &[], &[&domains[0], &domains[1]]);
        drop((one, other));
    });
}

#[test]
fn two_groups_change_places() {
    crosswise("replace crosswise", false);
}

#[test]
fn two_groups_change_places_while_their_domains_change() {
    crosswise("replace crosswise, map and unmap", true);
}

#[test]
fn one_group_leaves_the_domain_that_another_joins() {
    explore("detach, replace, map", |world| {
        let (one, other) = (world.device(1), world.device(2));
        let (left, joined) = (world.domain(), world.domain());
        map(&joined, PAGE);
        let leaving = attach(&one, &joined);
        let mut moving = attach(&other, &left);
        let leaver = spawn({
            let world = world.clone();
            move || {
                drop(leaving);
                assert_eq!(world.unit.read(1, PAGE), None);
            }
        });
        let mapper = spawn({
            let joined = joined.clone();
            move || map(&joined, OTHER)
        });
        moving.replace(&joined).unwrap();
        assert_eq!(world.unit.read(2, PAGE), Some(frame(&joined, PAGE)));
        join(leaver, mapper);
        assert_eq!(world.unit.read(2, OTHER), Some(frame(&joined, OTHER)));
        world.check(&[&one, &other], &[], &[&left, &joined]);
        drop(moving);
    });
}

#[test]
fn a_request_that_is_refused_meanwhile_is_undone() {
    // C-132: the undo runs while maps wait for the same locks.
    for n in 0..3 {
        explore(&format!("replace, map on both, request {n} refused"), move |world| {
            let (group, old, new) = (world.device(1), world.domain(), world.domain());
            map(&old, PAGE);
            map(&new, PAGE);
            let mut attached = attach(&group, &old);
            world.unit.sim().refuse(n, Refusal::ONCE);
            let mapper = spawn({
                let (old, new) = (old.clone(), new.clone());
                move || [&old, &new].map(|d| d.map(page(OTHER), frame(d, OTHER), Prot::RW))
            });
            let moved = attached.replace(&new);
            let mapped = mapper.join().unwrap();
            assert!(matches!(moved, Ok(()) | Err(AttachError::Io)));
            assert!(mapped.iter().all(|done| matches!(done, Ok(()) | Err(MapError::Io))));
            let failed = mapped.iter().filter(|done| done.is_err()).count();
            assert!(failed + usize::from(moved.is_err()) <= 1, "one request was refused");
            let (on, done) = if moved.is_ok() { (&new, mapped[1]) } else { (&old, mapped[0]) };
            assert!(attached.domain().ptr_eq(on));
            assert_eq!(world.unit.read(1, PAGE), Some(frame(on, PAGE)));
            assert_eq!(world.unit.read(1, OTHER), done.ok().map(|()| frame(on, OTHER)));
            world.unit.sim().refuse_none();
            world.check(&[&group], &[], &[&old, &new]);
            drop(attached);
        });
    }
}

#[test]
fn a_number_is_used_again_only_when_its_domain_is_left() {
    // D-14: the last owner gives the number back, whichever thread that is.
    explore("drop of an attachment, drop of its domain, a new domain", |world| {
        let (one, other, old) = (world.device(1), world.device(2), world.domain());
        map(&old, PAGE);
        let attached = attach(&one, &old);
        let leaver = spawn(move || drop(attached));
        drop(old);
        let new = world.domain();
        map(&new, OTHER);
        let on_new = attach(&other, &new);
        assert_eq!(world.unit.read(2, PAGE), None, "a mapping of the old domain");
        assert_eq!(world.unit.read(1, OTHER), None);
        leaver.join().unwrap();
        assert_eq!(world.unit.read(2, OTHER), Some(frame(&new, OTHER)));
        world.check(&[&one, &other], &[], &[&new]);
        drop(on_new);
    });
}
