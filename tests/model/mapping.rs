//! Maps and unmaps while endpoints come and go (rule C-230): nothing is lost, nothing is left.

use iommu::error::MapError;
use iommu::prot::Prot;

use crate::world::*;

#[test]
fn map_against_the_first_attach() {
    explore("map, first attach", |world| {
        let (group, domain) = (world.device(1), world.domain());
        let mapper = spawn({
            let domain = domain.clone();
            move || map(&domain, PAGE)
        });
        let attached = attach(&group, &domain);
        mapper.join().unwrap();
        assert_eq!(world.unit.read(1, PAGE), Some(frame(&domain, PAGE)));
        world.check(&[&group], &[], &[&domain]);
        drop(attached);
        assert_eq!(world.unit.read(1, PAGE), None);
    });
}

#[test]
fn two_maps_against_an_attach_and_its_detach() {
    explore("map, map, attach and detach", |world| {
        let (group, domain) = (world.device(1), world.domain());
        let mapper = |iova| {
            let domain = domain.clone();
            spawn(move || map(&domain, iova))
        };
        let (one, other) = (mapper(PAGE), mapper(OTHER));
        let attached = attach(&group, &domain);
        drop(attached.detach());
        assert_eq!(world.unit.read(1, PAGE), None);
        let attached = attach(&group, &domain);
        join(one, other);
        for iova in [PAGE, OTHER] {
            assert_eq!(world.unit.read(1, iova), Some(frame(&domain, iova)));
        }
        world.check(&[&group], &[], &[&domain]);
        drop(attached);
    });
}

#[test]
fn map_and_unmap_against_the_attach_of_a_second_group() {
    explore("map and unmap, second attach", |world| {
        let (old, new, domain) = (world.device(1), world.device(2), world.domain());
        map(&domain, OTHER);
        let attached = attach(&old, &domain);
        let mapper = spawn({
            let (world, domain) = (world.clone(), domain.clone());
            move || {
                map(&domain, PAGE);
                assert_eq!(world.unit.read(1, PAGE), Some(frame(&domain, PAGE)));
                unmap(&domain, OTHER);
                assert_eq!((world.unit.read(1, OTHER), world.unit.read(2, OTHER)), (None, None));
            }
        });
        let also = attach(&new, &domain);
        mapper.join().unwrap();
        assert_eq!(world.unit.read(2, PAGE), Some(frame(&domain, PAGE)));
        assert_eq!(world.unit.read(2, OTHER), None);
        world.check(&[&old, &new], &[], &[&domain]);
        drop((attached, also));
    });
}

#[test]
fn unmap_against_the_first_attach() {
    explore("unmap, first attach", |world| {
        let (group, domain) = (world.device(1), world.domain());
        map(&domain, PAGE);
        map(&domain, OTHER);
        let unmapper = spawn({
            let (world, domain) = (world.clone(), domain.clone());
            move || {
                unmap(&domain, PAGE);
                assert_eq!(world.unit.read(1, PAGE), None, "its memory may be reused");
            }
        });
        let attached = attach(&group, &domain);
        assert_eq!(world.unit.read(1, OTHER), Some(frame(&domain, OTHER)));
        unmapper.join().unwrap();
        assert_eq!(world.unit.read(1, PAGE), None);
        world.check(&[&group], &[], &[&domain]);
        drop(attached);
    });
}

#[test]
fn unmap_against_detach() {
    explore("unmap, detach", |world| {
        let (group, domain) = (world.device(1), world.domain());
        map(&domain, PAGE);
        let attached = attach(&group, &domain);
        let unmapper = spawn({
            let (world, domain) = (world.clone(), domain.clone());
            move || {
                unmap(&domain, PAGE);
                assert_eq!(world.unit.read(1, PAGE), None, "its memory may be reused");
            }
        });
        let ownership = attached.detach();
        assert_eq!(world.unit.read(1, PAGE), None, "blocked");
        unmapper.join().unwrap();
        world.check(&[&group], &[], &[&domain]);
        drop(ownership);
    });
}

#[test]
fn unmap_against_two_groups_that_leave() {
    explore("unmap, detach, detach", |world| {
        let (one, other, domain) = (world.device(1), world.device(2), world.domain());
        map(&domain, PAGE);
        let (on_one, on_other) = (attach(&one, &domain), attach(&other, &domain));
        let leave = |attached: Attachment, endpoint| {
            let world = world.clone();
            spawn(move || {
                drop(attached);
                assert_eq!(world.unit.read(endpoint, PAGE), None, "blocked");
            })
        };
        let (one_leaves, other_leaves) = (leave(on_one, 1), leave(on_other, 2));
        unmap(&domain, PAGE);
        assert_eq!((world.unit.read(1, PAGE), world.unit.read(2, PAGE)), (None, None));
        join(one_leaves, other_leaves);
        world.check(&[&one, &other], &[], &[&domain]);
    });
}

#[test]
fn map_against_map_of_the_same_page() {
    explore("map, map of one page", |world| {
        let (group, domain) = (world.device(1), world.domain());
        let attached = attach(&group, &domain);
        let mapper = |iova| {
            let domain = domain.clone();
            spawn(move || domain.map(page(PAGE), frame(&domain, iova), Prot::RW))
        };
        let won = match join(mapper(PAGE), mapper(OTHER)) {
            (Ok(()), Err(MapError::Exists)) => PAGE,
            (Err(MapError::Exists), Ok(())) => OTHER,
            both => panic!("one of them maps it: {both:?}"),
        };
        assert_eq!(world.unit.read(1, PAGE), Some(frame(&domain, won)));
        world.check(&[&group], &[], &[&domain]);
        drop(attached);
    });
}

#[test]
fn map_against_unmap_of_the_same_page_against_attach() {
    explore("map, unmap of one page, attach", |world| {
        let (group, domain) = (world.device(1), world.domain());
        let mapper = spawn({
            let domain = domain.clone();
            move || map(&domain, PAGE)
        });
        let unmapper = spawn({
            let domain = domain.clone();
            move || domain.unmap(page(PAGE)).unwrap()
        });
        let attached = attach(&group, &domain);
        let ((), bytes) = join(mapper, unmapper);
        let left = (bytes == 0).then(|| frame(&domain, PAGE));
        assert_eq!(world.unit.read(1, PAGE), left);
        world.check(&[&group], &[], &[&domain]);
        drop(attached);
    });
}
