//! The window for interrupt doorbells (rules C-036 to C-043, D-30).

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::domain::{DomainOptions, PagingDomain};
use iommu::driver::{Capabilities, EndpointId};
use iommu::error::{AttachError, DomainError, DoorbellError, MapError, ProbeError};
use iommu::fault::Access;
use iommu::pool::Shared;
use iommu::prot::Prot;
use iommu::reserved::ReservedKind;
use iommu::sim::{Call, Refusal, SimConfig};

use crate::fixture::{World, claim, pages, region};

/// A doorbell inside a page.
const BELL: PhysAddr = PhysAddr(0xfee0_1040);

fn software(world: &World, endpoint: u32, window: IovaRange) {
    world.sim.reserve(EndpointId(endpoint), region(ReservedKind::SoftwareMsi, window));
}

fn with_window(world: &World, window: IovaRange) -> Result<Shared<PagingDomain>, DomainError> {
    let options = DomainOptions { msi_window: Some(window), ..DomainOptions::default() };
    PagingDomain::with_options(&world.instance, world.pool, &options)
}

#[test]
fn the_first_group_that_needs_a_window_brings_it_and_the_next_shares_it() {
    // C-037, C-039, C-042: the gap of a domain that was made for a group without one
    let world = World::new();
    software(&world, 9, pages(0x800_0000, 2));
    software(&world, 10, pages(0x800_0000, 2));
    let domain = world.domain();
    let plain = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    assert_eq!(plain.map_doorbell(BELL), Err(DoorbellError::Unsupported), "C-040");
    let one = claim(&world.device(2, &[9])).attach(&domain).unwrap();
    assert_eq!(domain.msi_window(), Some(pages(0x800_0000, 2)));
    assert_eq!(one.map_doorbell(BELL), Ok(Iova(0x800_0040)));
    assert_eq!(world.reaches(9, 0x800_0040, Access::WRITE), Some(BELL));
    assert_eq!(world.reaches(9, 0x800_0040, Access::READ), None, "a doorbell is only written");
    let two = claim(&world.device(3, &[10])).attach(&domain).unwrap();
    let maps = world.instance.counters().map;
    assert_eq!(two.map_doorbell(PhysAddr(0xfee0_1ffc)), Ok(Iova(0x800_0ffc)), "the same page");
    assert_eq!(world.instance.counters().map, maps, "is mapped once");
    assert_eq!(two.map_doorbell(PhysAddr(0xfee0_2000)), Ok(Iova(0x800_1000)));
    assert_eq!(two.map_doorbell(PhysAddr(0xfee0_3000)), Err(DoorbellError::NoSpace), "C-037");
    assert_eq!(domain.mapping_count(), 2);
}

#[test]
fn another_window_is_incompatible() {
    // C-042, C-244
    let world = World::new();
    software(&world, 8, pages(0x800_0000, 1));
    software(&world, 9, pages(0x900_0000, 1));
    let domain = world.domain();
    let _one = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    let _ = world.sim.take_log();
    let refused = claim(&world.device(2, &[9])).attach(&domain).unwrap_err();
    assert_eq!(refused.error, AttachError::Incompatible);
    let log = world.sim.take_log();
    let sent =
        log.iter().filter(|call| matches!(call, Call::Attach { to, .. } if *to == domain.id()));
    assert_eq!(sent.count(), 0, "decided before any request");
}

#[test]
fn the_window_stays_with_the_domain_and_its_doorbells_too() {
    // C-039: entries are never removed before the domain dies
    let world = World::new();
    software(&world, 8, pages(0x800_0000, 4));
    let domain = world.domain();
    let attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    domain.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    domain.map(pages(0x900_0000, 1), PhysAddr(0xb000), Prot::RW).unwrap();
    attached.map_doorbell(BELL).unwrap();
    assert_eq!(domain.next_mapping(Iova(0x2000)).map(|run| run.phys), Some(PhysAddr(0xb000)));
    assert_eq!(domain.unmap(IovaRange::ALL), Ok(0x2000), "unmapping all is not unmapping them");
    assert_eq!(world.reaches(8, 0x800_0040, Access::WRITE), Some(BELL));
    let ownership = attached.detach();
    assert_eq!(world.reaches(8, 0x800_0040, Access::WRITE), None);
    let attached = ownership.attach(&domain).unwrap();
    assert_eq!(world.reaches(8, 0x800_0040, Access::WRITE), Some(BELL), "replayed");
    assert_eq!(attached.map_doorbell(BELL), Ok(Iova(0x800_0040)));
    assert_eq!(domain.next_mapping(Iova(0)), None);
}

#[test]
fn nobody_maps_into_the_window_and_a_mapping_there_keeps_it_out() {
    let world = World::new();
    software(&world, 8, pages(0x800_0000, 1));
    let group = world.device(1, &[8]);
    let domain = world.domain();
    domain.map(pages(0x800_0000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    let refused = claim(&group).attach(&domain).unwrap_err();
    assert_eq!((refused.error, domain.msi_window()), (AttachError::AddrInUse, None));
    domain.unmap(IovaRange::ALL).unwrap();
    let attached = refused.ownership.attach(&domain).unwrap();
    let refused = domain.map(pages(0x7ff_f000, 2), PhysAddr(0xa000), Prot::RW);
    assert_eq!(refused, Err(MapError::AddrInUse));
    drop(attached);
    let refused = domain.map(pages(0x800_0000, 1), PhysAddr(0xa000), Prot::RW);
    assert_eq!(refused, Err(MapError::AddrInUse), "the window outlives the group");
}

#[test]
fn a_failed_attach_leaves_no_window() {
    let world = World::new();
    software(&world, 8, pages(0x800_0000, 1));
    let domain = world.domain();
    world.device(1, &[8]);
    world.sim.refuse(0, Refusal::ONCE);
    let group = world.registry.group_of(iommu::device::DeviceId(1)).unwrap();
    let refused = claim(&group).attach(&domain).unwrap_err();
    assert_eq!((refused.error, world.sim.refuse_none()), (AttachError::Io, 1));
    assert_eq!(domain.msi_window(), None);
    let _attached = refused.ownership.attach(&domain).unwrap();
    assert_eq!(domain.msi_window(), Some(pages(0x800_0000, 1)));
}

#[test]
fn a_window_can_be_given_at_construction() {
    // D-30, C-038
    let world = World::with(SimConfig { aperture: pages(0, 0x1_0000), ..SimConfig::default() });
    let odd = IovaRange::new(Iova(0x1000), Iova(0x17ff)).unwrap();
    assert_eq!(with_window(&world, odd).err(), Some(DomainError::InvalidArg));
    let outside = pages(0x1_0000_0000, 1);
    assert_eq!(with_window(&world, outside).err(), Some(DomainError::InvalidArg));
    let domain = with_window(&world, pages(0x5000, 1)).unwrap();
    assert_eq!(domain.map(pages(0x5000, 1), BELL, Prot::RW).err(), Some(MapError::InvalidArg));
    assert_eq!(domain.map(pages(0x5000, 1), PhysAddr(0), Prot::RW), Err(MapError::AddrInUse));
    assert_eq!(domain.map_doorbell(BELL), Ok(Iova(0x5040)), "before any attach");
    let _attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    assert_eq!(world.reaches(8, 0x5040, Access::WRITE), Some(BELL), "replayed (C-010)");
}

#[test]
fn where_hardware_passes_interrupts_by_the_doorbell_is_its_own_address() {
    // C-043
    let world = World::new();
    world.sim.reserve(EndpointId(8), region(ReservedKind::Msi, pages(0xfee0_0000, 0x100)));
    let domain = world.domain();
    let attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    assert_eq!(attached.map_doorbell(BELL), Ok(Iova(BELL.0)));
    assert_eq!(domain.mapping_count(), 0);
    let elsewhere = attached.map_doorbell(PhysAddr(0xfed0_0000));
    assert_eq!(elsewhere, Err(DoorbellError::Unsupported), "no window for other doorbells");
}

#[test]
fn the_memory_flag_is_only_sent_where_it_can_be_expressed() {
    // C-039, C-158, C-262
    for capabilities in [Capabilities::MMIO, Capabilities::empty()] {
        let world = World::with(SimConfig { capabilities, ..SimConfig::default() });
        let domain = with_window(&world, pages(0x5000, 1)).unwrap();
        let _attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
        let _ = world.sim.take_log();
        domain.map_doorbell(BELL).unwrap();
        let log = world.sim.take_log();
        let [Call::Map { run, .. }] = log[..] else { panic!("{log:?}") };
        assert_eq!(run.prot.contains(Prot::MMIO), !capabilities.is_empty());
        assert!(run.prot.contains(Prot::WRITE | Prot::NOEXEC) && !run.prot.contains(Prot::READ));
    }
}

#[test]
fn a_doorbell_that_fails_leaves_nothing() {
    let world = World::new();
    let domain = with_window(&world, pages(0x5000, 2)).unwrap();
    let _attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    let before = (world.sim.digest(), world.pool.usage());
    world.sim.refuse(0, Refusal::ONCE);
    assert_eq!(domain.map_doorbell(BELL), Err(DoorbellError::Io));
    assert_eq!((world.sim.refuse_none(), domain.mapping_count()), (1, 0));
    world.pool.refuse_nth(0, true);
    assert_eq!(domain.map_doorbell(BELL), Err(DoorbellError::OutOfMemory));
    assert_eq!(world.pool.refuse_none(), 1);
    assert_eq!((world.sim.digest(), world.pool.usage()), before);
    assert_eq!(domain.map_doorbell(BELL), Ok(Iova(0x5040)), "the place was not lost");
}

#[test]
fn a_doorbell_that_was_not_confirmed_is_not_there_the_next_time() {
    let world = World::new();
    let domain = with_window(&world, pages(0x5000, 2)).unwrap();
    let _attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    world.sim.refuse(0, Refusal::SILENCE);
    for _ in 0..2 {
        assert_eq!(domain.map_doorbell(BELL), Err(DoorbellError::Io));
        assert_eq!(domain.mapping_count(), 0);
    }
}

#[test]
fn a_window_without_a_whole_page_and_two_windows_in_a_group_are_refused() {
    let world = World::new();
    let slice = IovaRange::new(Iova(0x800_0800), Iova(0x800_17ff)).unwrap();
    software(&world, 8, slice);
    let domain = world.domain();
    let refused = claim(&world.device(1, &[8])).attach(&domain).unwrap_err();
    assert_eq!(refused.error, AttachError::NoSpace, "never Incompatible: C-109");
    software(&world, 9, pages(0x900_0000, 1));
    let info = iommu::registry::DeviceInfo {
        id: iommu::device::DeviceId(2),
        endpoints: &[EndpointId(9)],
        with: Some(iommu::device::DeviceId(1)),
    };
    let second = world.registry.add_device(&world.instance, &info).err();
    assert_eq!(second, Some(ProbeError::InvalidArg));
}
