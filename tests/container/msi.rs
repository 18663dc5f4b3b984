//! Groups whose interrupts go through a window of the domain: made with the group that needs it,
//! compared with that of the domain, never counted as memory of the container.

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::container::{MapDma, UnmapDma};
use iommu::driver::EndpointId;
use iommu::group::GroupId;
use iommu::prot::Prot;
use iommu::reserved::{ReservedKind, ReservedRegion, ReservedRegions};
use iommu::sim::SimConfig;

use crate::fixture::{PAGE, World, shape};

const AT: u64 = 0x10_0000;
const DOORBELL: PhysAddr = PhysAddr(0xfee0_0040);

fn window(first: u64) -> IovaRange {
    IovaRange::from_len(Iova(first), 0x10_0000).unwrap()
}

fn reserving(window: IovaRange) -> ReservedRegions {
    let mut reserved = ReservedRegions::new();
    reserved.add(ReservedRegion { range: window, kind: ReservedKind::SoftwareMsi }).unwrap();
    reserved
}

fn window_of(world: &World, group: GroupId) -> Option<IovaRange> {
    world.container.domain_of(group).unwrap().msi_window()
}

fn memory(iova: u64) -> MapDma {
    MapDma { iova, vaddr: iova, size: 4 * PAGE, prot: Prot::RW }
}

#[test]
fn a_window_comes_with_the_group_that_needs_it() {
    // T1-165, T1-173, T1-195, W-05, C-042: a new domain, a reused one, and another window
    let world = World::new(1);
    let sim = &world.units[0].0;
    let (plain, _) = world.attached(0);
    assert_eq!(window_of(&world, plain), None);
    world.container.map_dma(&memory(AT)).unwrap();
    let attach = |endpoint: u32, first: u64| {
        sim.reserve(EndpointId(endpoint), reserving(window(first)));
        let (ownership, given) = world.group(0);
        assert_eq!(given, endpoint);
        let id = ownership.group().id();
        let cost = world.cost(|| world.container.attach_group(ownership).unwrap());
        (id, shape(cost))
    };
    let (one, cost) = attach(3, 0x800_0000);
    assert_eq!(cost, [0, 1, 0, 0, 0], "it joins the domain, which has the window from now on");
    assert_eq!(window_of(&world, one), Some(window(0x800_0000)));
    let (other, cost) = attach(4, 0x900_0000);
    assert_eq!(cost, [1, 1, 1, 0, 0], "another window: another domain");
    assert_eq!(window_of(&world, other), Some(window(0x900_0000)));
    for first in [0x800_0000, 0x900_0000] {
        let refused = world.container.map_dma(&memory(first)).unwrap_err();
        assert_eq!(refused.errno(), 22, "T1-270");
    }
    world.container.check_invariants().unwrap();
}

#[test]
fn doorbells_are_not_memory_of_the_owner() {
    // W-04, T1-037, T1-232: neither unmapped, nor unpinned, nor given to another domain
    let config = SimConfig { reserved: reserving(window(0x800_0000)), ..SimConfig::default() };
    let world = World::with(vec![config, SimConfig::default()]);
    let container = &world.container;
    container.map_dma(&memory(AT)).unwrap();
    let (id, endpoint) = world.attached(0);
    let domain = container.domain_of(id).unwrap();
    let doorbell = domain.map_doorbell(DOORBELL).unwrap();
    let page = Iova(doorbell.0 & !(PAGE - 1));
    let rings = || domain.iova_to_phys(page).is_some();
    assert!(window(0x800_0000).contains(doorbell) && rings());
    container.map_dma(&memory(AT + 64 * PAGE)).unwrap();
    assert_eq!((world.memory.pins(), container.mapping_count()), (8, 2));
    let (other, far) = world.attached(1);
    assert!(world.reaches(1, far, AT).is_some());
    assert_eq!(container.domain_of(other).unwrap().iova_to_phys(page), None);
    assert_eq!(container.unmap_dma(&UnmapDma::All).unwrap().bytes, 8 * PAGE);
    assert!(rings(), "the window stays");
    container.map_dma(&memory(AT)).unwrap();
    assert!(world.reaches(0, endpoint, AT).is_some());
    for group in [other, id] {
        drop(container.detach_group(group));
    }
    assert_eq!((world.memory.pins(), world.memory.charged()), (0, 0));
    container.check_invariants().unwrap();
}
