//! attach_group and detach_group: costs of the table in section 16.1, order of checks, undo.

use iommu::addr::{Iova, IovaRange, PageSizes};
use iommu::container::{AttachGroupError, Extension, MapDma, Options, PinError, UnmapDma};
use iommu::driver::{Capabilities, DomainFeatures, EndpointId, Left};
use iommu::error::AttachError;
use iommu::prot::Prot;
use iommu::reserved::{ReservedKind, ReservedRegion, ReservedRegions};
use iommu::sim::{Call, Refusal, SimConfig};

use crate::fixture::{PAGE, World, shape};

fn page(iova: u64) -> MapDma {
    MapDma { iova, vaddr: iova, size: PAGE, prot: Prot::RW }
}

fn attach_cost(world: &World, unit: usize) -> [u64; 5] {
    let (ownership, _) = world.group(unit);
    shape(world.cost(|| world.container.attach_group(ownership).unwrap()))
}

#[test]
fn the_headline_costs() {
    // Column NEW of T1-600 to T1-611, as [alloc, ok, fail, detach, free].
    let world = World::new(3);
    assert_eq!(attach_cost(&world, 0), [1, 1, 0, 0, 0], "T1-600: first group");
    assert_eq!(attach_cost(&world, 0), [0, 1, 0, 0, 0], "T1-601: second, compatible");
    assert_eq!(attach_cost(&world, 1), [1, 1, 1, 0, 0], "T1-602: incompatible");
    assert_eq!(attach_cost(&world, 1), [0, 1, 0, 0, 0], "T1-603: fits the head of the list");
    assert_eq!(attach_cost(&world, 0), [0, 1, 1, 0, 0], "T1-604: fits the second in the list");
    assert_eq!(attach_cost(&world, 2), [1, 1, 2, 0, 0], "T1-605: fits neither");
    assert_eq!(attach_cost(&world, 0), [0, 1, 2, 0, 0], "T1-606: match at position 3");
    assert_eq!(world.container.domain_count(), 3);
}

#[test]
fn sequences_of_groups_cost_what_the_table_says() {
    // T1-610: C compatible groups: 1 / C / 0 / 0 / 0; T1-611: A, B, A: 2 / 3 / 2 / 0 / 0.
    let world = World::new(1);
    let cost = world.cost(|| {
        for _ in 0..5 {
            world.attached(0);
        }
    });
    assert_eq!(shape(cost), [1, 5, 0, 0, 0]);
    let world = World::new(2);
    let cost = world.cost(|| {
        for unit in [0, 1, 0] {
            world.attached(unit);
        }
    });
    assert_eq!(shape(cost), [2, 3, 2, 0, 0]);
}

#[test]
fn reuse_maps_nothing_and_allocates_one_group_entry() {
    // T1-140, T1-171, T1-632, T1-675
    let world = World::new(1);
    world.attached(0);
    for n in 0..1000 {
        world.container.map_dma(&page(n * 2 * PAGE)).unwrap();
    }
    let (ownership, endpoint) = world.group(0);
    let _ = world.units[0].0.take_log();
    let usage = world.pool.usage();
    let cost = world.cost(|| world.container.attach_group(ownership).unwrap());
    assert_eq!((shape(cost), cost.dom_map, cost.dom_unmap), ([0, 1, 0, 0, 0], 0, 0));
    let log = world.units[0].0.take_log();
    assert!(matches!(log[..], [Call::Attach { .. }]), "one request: {log:?}");
    assert_eq!(world.pool.usage().nodes, usage.nodes + 1);
    assert!(world.reaches(0, endpoint, 1998 * PAGE).is_some());
}

#[test]
fn a_new_domain_gets_every_mapping_and_every_group_the_same_memory() {
    // T1-037, T1-211, T1-213
    let world = World::new(2);
    world.memory.scatter();
    let (_, first) = world.attached(0);
    world.container.map_dma(&MapDma { size: 40 * PAGE, ..page(0x10_0000) }).unwrap();
    let (_, second) = world.attached(1);
    assert_eq!(world.memory.pins(), 40, "T1-211: nothing is pinned again");
    for n in 0..40 {
        let iova = 0x10_0000 + n * PAGE;
        let target = world.reaches(0, first, iova);
        assert_eq!(target, Some(iova * 16));
        assert_eq!(world.reaches(1, second, iova), target);
    }
    assert_eq!(world.reaches(1, second, 0x10_0000 + 40 * PAGE), None);
    assert_eq!(world.container.unmap_dma(&UnmapDma::All).unwrap().bytes, 40 * PAGE);
    assert_eq!((world.reaches(0, first, 0x10_0000), world.memory.pins()), (None, 0));
    assert_eq!(world.reaches(1, second, 0x10_0000), None);
}

#[test]
fn mappings_made_without_groups_are_pinned_by_the_first_attach() {
    // T1-212, T1-273
    let world = World::new(1);
    world.container.map_dma(&MapDma { size: 4 * PAGE, ..page(0x10_0000) }).unwrap();
    assert_eq!(world.memory.pins(), 0);
    let (id, endpoint) = world.attached(0);
    assert_eq!(world.memory.pins(), 4);
    assert_eq!(world.reaches(0, endpoint, 0x10_1000), Some(0x4010_1000));
    let ownership = world.container.detach_group(id).unwrap();
    assert_eq!((world.memory.pins(), world.container.mapping_count()), (0, 0), "T1-232");
    assert_eq!(world.reaches(0, endpoint, 0x10_1000), None);
    drop(ownership);
}

#[test]
fn a_hard_error_ends_the_search_and_changes_nothing() {
    // T1-147, T1-159, T1-169
    let world = World::new(1);
    world.attached(0);
    world.container.map_dma(&page(0x10_0000)).unwrap();
    let (ownership, endpoint) = world.group(0);
    let before = world.digest();
    let refusal = Refusal { error: AttachError::NoSpace, ..Refusal::ONCE };
    world.units[0].0.refuse(0, refusal);
    let cost = world.cost(|| {
        let refused = world.container.attach_group(ownership).unwrap_err();
        assert_eq!((refused.error, refused.error.errno()), (AttachGroupError::NoSpace, 28));
        assert_eq!(world.digest(), before);
        assert_eq!(world.reaches(0, endpoint, 0x10_0000), None);
        world.container.attach_group(refused.ownership).unwrap();
    });
    assert_eq!(shape(cost), [0, 1, 1, 0, 0], "no domain was allocated for it");
}

#[test]
fn early_checks_make_no_iommu_operation() {
    // T1-154 to T1-158, T1-170, W-01
    let mut reserved = ReservedRegions::new();
    let window = IovaRange::from_len(Iova(0x20_0000), 4 * PAGE).unwrap();
    reserved.add(ReservedRegion { range: window, kind: ReservedKind::Msi }).unwrap();
    let configs = vec![SimConfig::default(), SimConfig { reserved, ..SimConfig::default() }];
    let world = World::with(configs);
    world.attached(0);
    world.container.map_dma(&page(0x20_1000)).unwrap();
    let (ownership, _) = world.group(1);
    let before = world.digest();
    let mut back = None;
    let cost = world.cost(|| back = world.container.attach_group(ownership).err());
    let refused = back.unwrap();
    assert_eq!((refused.error.errno(), shape(cost)), (22, [0; 5]));
    assert_eq!(world.digest(), before);
    world.container.unmap_dma(&UnmapDma::All).unwrap();
    world.container.attach_group(refused.ownership).unwrap();
    assert_eq!(world.container.map_dma(&page(0x20_1000)).unwrap_err().errno(), 22, "T1-270");

    let world = World::open(vec![SimConfig::default()], Options::default());
    let (ownership, _) = world.group(0);
    let refused = world.container.attach_group(ownership).unwrap_err();
    assert_eq!(refused.error.errno(), 1, "T1-156");
    assert_eq!(shape(world.container.operations()), [0; 5]);

    let world = World::new(1);
    let (ownership, endpoint) = world.group(0);
    world.registry.remove_device(iommu::device::DeviceId(endpoint.into())).unwrap();
    let refused = world.container.attach_group(ownership).unwrap_err();
    assert_eq!(refused.error.errno(), 19, "T1-154");
}

#[test]
fn aperture_and_page_size_are_checked_before_the_attach() {
    // T1-161, T1-162, T1-630, W-02, W-03, W-06, W-18
    let narrow = IovaRange::new(Iova(0), Iova(0xf_ffff)).unwrap();
    let coarse = PageSizes::from_bits(1 << 16).unwrap();
    let configs = [
        SimConfig { aperture: narrow, ..SimConfig::default() },
        SimConfig { page_sizes: coarse, ..SimConfig::default() },
    ];
    for config in configs {
        let world = World::with(vec![SimConfig::default(), config]);
        world.attached(0);
        world.container.map_dma(&page(0x10_1000)).unwrap();
        let (ownership, _) = world.group(1);
        let before = world.digest();
        let _ = world.units[1].0.take_log();
        let mut back = None;
        let cost = world.cost(|| back = world.container.attach_group(ownership).err());
        assert_eq!(shape(cost), [1, 0, 1, 0, 1]);
        assert_eq!((world.digest(), world.units[1].0.take_log()), (before, vec![]));
        let refused = back.unwrap();
        assert_eq!(refused.error, AttachGroupError::InvalidArg);
        world.container.unmap_dma(&UnmapDma::All).unwrap();
        world.container.attach_group(refused.ownership).expect("nothing is in the way now");
    }
}

#[test]
fn windows_shrink_with_a_group_and_grow_back_when_it_leaves() {
    // T1-042, T1-190, T1-198, T1-199, T1-244
    let mut reserved = ReservedRegions::new();
    let low = IovaRange::new(Iova(0), Iova(0xffff)).unwrap();
    reserved.add(ReservedRegion { range: low, kind: ReservedKind::Reserved }).unwrap();
    let aperture = IovaRange::new(Iova(0), Iova(0xffff_ffff)).unwrap();
    let config = SimConfig { reserved, aperture, ..SimConfig::default() };
    let world = World::with(vec![SimConfig::default(), config]);
    world.attached(0);
    let (guest, _) = world.attached(1);
    assert!(world.container.map_dma(&page(0x8000)).is_err());
    assert!(world.container.map_dma(&page(0x1_0000_0000)).is_err());
    drop(world.container.detach_group(guest).unwrap());
    world.container.map_dma(&page(0x8000)).unwrap();
    world.container.map_dma(&page(0x1_0000_0000)).unwrap();
}

#[test]
fn detach_costs_one_operation_and_a_free_for_the_last_group_of_a_domain() {
    // T1-230, T1-234, T1-242, T1-631
    let world = World::new(2);
    let (one, _) = world.attached(0);
    let (two, endpoint) = world.attached(0);
    let (three, other) = world.attached(1);
    world.container.map_dma(&page(0x10_0000)).unwrap();
    let detach = |id| shape(world.cost(|| drop(world.container.detach_group(id).unwrap())));
    assert_eq!(detach(one), [0, 0, 0, 1, 0]);
    assert!(world.reaches(0, endpoint, 0x10_0000).is_some(), "others stay attached");
    assert_eq!(detach(two), [0, 0, 0, 1, 1]);
    assert_eq!(world.reaches(0, endpoint, 0x10_0000), None);
    assert_eq!(world.memory.pins(), 1, "T1-234: another domain still maps it");
    assert!(world.reaches(1, other, 0x10_0000).is_some(), "T1-243");
    assert!(world.container.detach_group(two).is_none(), "T1-226");
    assert_eq!(detach(three), [0, 0, 0, 1, 1]);
    assert_eq!((world.memory.pins(), world.container.free_mappings()), (0, 65_535));
}

#[test]
fn a_failed_attach_leaves_the_container_equal() {
    // T1-169, T1-177, T1-214, T1-721: each allocation, each request, each pin in turn; with no
    // domain yet, and with one of another unit.
    for prior in [false, true] {
        for kind in 0..3 {
            let mut failures = 0;
            for nth in 0.. {
                let world = World::new(2);
                world.memory.scatter();
                if prior {
                    world.attached(0);
                }
                world.container.map_dma(&MapDma { size: 6 * PAGE, ..page(0x10_0000) }).unwrap();
                world.container.map_dma(&page(0x20_0000)).unwrap();
                let (ownership, endpoint) = world.group(1);
                let before = world.digest();
                match kind {
                    0 => world.pool.refuse_nth(nth, true),
                    1 => world.units[1].0.refuse(nth, Refusal::ONCE),
                    _ => world.memory.refuse(nth, PinError::OutOfMemory),
                }
                let result = world.container.attach_group(ownership);
                let met = world.pool.refuse_none()
                    + world.units[1].0.refuse_none()
                    + world.memory.refuse_none();
                let Err(refused) = result else {
                    assert_eq!(met, 0);
                    break;
                };
                assert!(met > 0);
                failures += 1;
                assert_eq!(world.digest(), before, "kind {kind}, failure point {nth}");
                assert_eq!(world.reaches(1, endpoint, 0x10_0000), None);
                world.container.attach_group(refused.ownership).expect("the retry succeeds");
                assert!(world.reaches(1, endpoint, 0x20_0000).is_some());
            }
            assert!(failures > 0 || (prior && kind == 2), "prior {prior}, kind {kind}");
        }
    }
}

#[test]
fn closing_with_everything_attached_leaves_nothing() {
    // T1-068
    let world = World::new(2);
    let (_, endpoint) = world.attached(0);
    world.attached(1);
    world.container.map_dma(&MapDma { size: 100 * PAGE, ..page(0x10_0000) }).unwrap();
    let World { pool, registry, units, container, memory, .. } = world;
    drop(container);
    assert_eq!(memory.pins(), 0);
    let endpoint = EndpointId(endpoint);
    let read = iommu::fault::Access::READ;
    assert!(units[0].0.reach(endpoint, Iova(0x10_0000), read).is_err());
    drop((registry, units));
    assert_eq!(pool.usage().nodes, 0);
}

#[test]
fn what_the_unit_keeps_on_a_domain_is_never_unpinned_under_it() {
    // C-137, T1-383: the unit refuses to let go, at a detach and in the undo of an attach.
    let world = World::new(2);
    world.attached(0);
    let (stuck, endpoint) = world.attached(1);
    world.container.map_dma(&page(0x10_0000)).unwrap();
    world.units[1].0.refuse(0, Refusal { left: Left::Unchanged, ..Refusal::FOREVER });
    let ownership = world.container.detach_group(stuck).unwrap();
    assert!(ownership.group().is_poisoned());
    assert!(world.reaches(1, endpoint, 0x10_0000).is_some(), "the unit did not obey");
    assert!(world.container.unmap_dma(&UnmapDma::All).is_err(), "so it can't be unmapped");
    assert_eq!(world.memory.pins(), 1);
    drop(ownership);
    drop(world.container);
    assert_eq!(world.memory.pins(), 1, "a leak is preferred");

    let world = World::new(1);
    world.container.map_dma(&page(0x10_0000)).unwrap();
    world.container.map_dma(&page(0x20_0000)).unwrap();
    let (ownership, endpoint) = world.group(0);
    // ATTACH and one MAP are obeyed; the second MAP is refused, and then everything is.
    world.units[0].0.refuse(2, Refusal { left: Left::Unchanged, ..Refusal::FOREVER });
    let refused = world.container.attach_group(ownership).unwrap_err();
    assert!(refused.ownership.group().is_poisoned());
    assert!(world.reaches(0, endpoint, 0x10_0000).is_some(), "the unit did not obey");
    assert!(world.container.unmap_dma(&UnmapDma::All).is_err());
    assert_eq!(world.memory.pins(), 2);
}

#[test]
fn coherency_is_enforced_where_every_device_of_the_first_group_can() {
    // T1-083, T1-146, T1-164, T1-608, T1-609: the cost of a group that can't is one domain more
    let capabilities = Capabilities::MMIO | Capabilities::ENFORCE_COHERENCY;
    let world = World::with(vec![SimConfig { capabilities, ..SimConfig::default() }]);
    let coherent = || world.container.check_extension(Extension::DmaCoherent);
    assert!(coherent(), "no domain");
    world.attached(0);
    assert!(coherent());
    let (ownership, endpoint) = world.group(0);
    world.units[0].0.lacks(EndpointId(endpoint), DomainFeatures::ENFORCE_COHERENCY);
    let unable = ownership.group().id();
    let cost = world.cost(|| world.container.attach_group(ownership).unwrap());
    assert_eq!((shape(cost), coherent()), ([2, 1, 1, 0, 1], false));
    let (ownership, _) = world.group(0);
    let able = ownership.group().id();
    let cost = world.cost(|| world.container.attach_group(ownership).unwrap());
    assert_eq!(shape(cost), [0, 1, 0, 0, 0], "it joins the newest domain that takes it");
    for group in [unable, able] {
        drop(world.container.detach_group(group));
    }
    assert!(coherent());
    world.container.check_invariants().unwrap();

    let world = World::new(1);
    world.attached(0);
    let coherent = world.container.check_extension(Extension::DmaCoherent);
    assert!(!coherent, "a unit that can't");
}
