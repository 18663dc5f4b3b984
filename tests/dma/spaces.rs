//! Whose addresses they are: masks, regions, groups, members that come later (rules C-211, C-214 to
//! C-219, C-228).

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::device::DeviceId;
use iommu::dma::{Direction, DmaDevice, DmaOptions};
use iommu::driver::EndpointId;
use iommu::error::{ClaimError, DmaError, ProbeError, UseError};
use iommu::fault::Access;
use iommu::group::{Group, OwnerId};
use iommu::prot::Prot;
use iommu::registry::DeviceInfo;
use iommu::reserved::{ReservedKind, ReservedRegion, ReservedRegions};
use iommu::sim::SimConfig;

use crate::fixture::{Dma, ME, PAGE, World, aligned, range};

fn mask(bits: u32) -> DmaOptions {
    let mask = (1_u64 << bits) - 1;
    DmaOptions { mask, coherent_mask: mask, ..DmaOptions::default() }
}

fn region(kind: ReservedKind, range: IovaRange) -> ReservedRegions {
    let mut reserved = ReservedRegions::new();
    reserved.add(ReservedRegion { range, kind }).unwrap();
    reserved
}

/// Takes pages until there are none, and gives their addresses.
fn all(dma: &Dma) -> Vec<u64> {
    let mut held = Vec::new();
    loop {
        match dma.map_pages_raw(PhysAddr(0), PAGE as u64, Direction::ToDevice) {
            Ok(iova) => held.push(iova.0),
            Err(error) => {
                assert_eq!(error, DmaError::NoSpace);
                return held;
            }
        }
    }
}

#[test]
fn addresses_stay_below_four_gibibytes_while_there_are_some() {
    // C-215
    let world = World::new();
    let dma = world.dma(&mask(40));
    let first = dma.map(aligned(PAGE), Direction::ToDevice).unwrap();
    assert_eq!(first.iova(), Iova(0xffff_f000));
    dma.reserve(range(0, 0xffff_ffff)).unwrap();
    let high = dma.map(aligned(PAGE), Direction::ToDevice).unwrap();
    assert_eq!(high.iova(), Iova(0xff_ffff_f000));
    drop(first);
    dma.trim();
    let next = dma.map(aligned(PAGE), Direction::ToDevice).unwrap();
    assert_eq!(next.iova(), Iova(0xff_ffff_e000), "the preference is over for good");
    drop((high, next, dma));
    let options = DmaOptions { prefer_32_bit: false, ..mask(40) };
    let world = World::new();
    let first = world.dma(&options).map(aligned(PAGE), Direction::ToDevice).unwrap();
    assert_eq!(first.iova(), Iova(0xff_ffff_f000));
}

#[test]
fn address_0_is_never_handed_out_and_a_full_space_is_an_ordinary_error() {
    // C-211, C-216
    let world = World::new();
    let dma = world.dma(&mask(16));
    let before = world.usage();
    let held = all(&dma);
    let expected: Vec<u64> = (1..16).rev().map(|page| page * 0x1000).collect();
    assert_eq!(held, expected);
    let refused = dma.map(aligned(PAGE), Direction::ToDevice).unwrap_err();
    assert_eq!((refused.error, refused.error.errno()), (DmaError::NoSpace, 28));
    assert_eq!(dma.alloc_coherent(1).unwrap_err(), DmaError::NoSpace);
    let bounced: &'static mut [u8] = &mut aligned(PAGE)[1..];
    assert_eq!(dma.map(bounced, Direction::ToDevice).unwrap_err().error, DmaError::NoSpace);
    for iova in held {
        // SAFETY: pages without a buffer.
        #[expect(unsafe_code, reason = "by address")]
        unsafe { dma.unmap_raw(Iova(iova)) }.unwrap();
    }
    let after = world.usage_of(&dma);
    assert_eq!((after.0, after.2), (before.0, before.2));
}

#[test]
fn a_device_that_can_t_emit_anything_usable_is_refused() {
    // C-211
    let aperture = range(0x10_0000, 0xff_ffff);
    let world = World::with(SimConfig { aperture, ..SimConfig::default() });
    let group = world.join(ME, None);
    let before = world.usage();
    for (mask, coherent_mask) in [(0xf_ffff, u64::MAX), (u64::MAX, 0x10_0ffe), (0, u64::MAX)] {
        let options = DmaOptions { mask, coherent_mask, ..DmaOptions::default() };
        let refused = DmaDevice::new(&group, world.machine, &options).err();
        assert_eq!(refused, Some(UseError::Range));
        assert_eq!((group.kernel_users(), world.usage()), (0, before));
    }
    let options = DmaOptions { mask: 0x10_0fff, coherent_mask: 0x10_0fff, ..DmaOptions::default() };
    let dma = DmaDevice::new(&group, world.machine, &options).unwrap();
    assert_eq!(all(&dma), [0x10_0000]);
    let tiny = World::with(SimConfig { aperture: range(0, 0xfff), ..SimConfig::default() });
    let refused = DmaDevice::new(&tiny.join(ME, None), tiny.machine, &DmaOptions::default()).err();
    assert_eq!(refused, Some(UseError::Range), "only the page that is never handed out");
}

#[test]
fn what_the_devices_of_the_group_reserve_is_left_out_also_if_they_come_later() {
    // C-218, C-219: the union of the group, extended on hot-add
    let world = World::new();
    let own = region(ReservedKind::Msi, range(0xe800, 0xefff));
    world.sim.reserve(EndpointId(ME), own);
    let dma = world.dma(&mask(16));
    let one = dma.map_pages_raw(PhysAddr(0), 0x1000, Direction::ToDevice).unwrap();
    let two = dma.map_pages_raw(PhysAddr(0), 0x1000, Direction::ToDevice).unwrap();
    assert_eq!((one, two), (Iova(0xf000), Iova(0xd000)), "around the region, in whole granules");
    world.sim.reserve(EndpointId(9), region(ReservedKind::Reserved, range(0x8000, 0xcfff)));
    world.join(9, Some(ME));
    let three = dma.map_pages_raw(PhysAddr(0), 0x1000, Direction::ToDevice).unwrap();
    assert_eq!(three, Iova(0x7000));
    // One that would take away what is mapped can't come (C-151).
    world.sim.reserve(EndpointId(10), region(ReservedKind::Reserved, range(0x7000, 0x7fff)));
    let info =
        DeviceInfo { id: DeviceId(10), endpoints: &[EndpointId(10)], with: Some(DeviceId(8)) };
    let refused = world.registry.add_device(&world.instance, &info).err();
    assert_eq!(refused, Some(ProbeError::AddrInUse));
}

#[test]
fn direct_regions_stay_mapped_and_are_not_handed_out() {
    // C-085 to C-088 beside the allocator
    let world = World::new();
    for (endpoint, kind) in [(ME, ReservedKind::Direct), (9, ReservedKind::DirectRelaxable)] {
        let pages = u64::from(endpoint) * 0x1000;
        world.sim.reserve(EndpointId(endpoint), region(kind, range(pages + 0x800, pages + 0x17ff)));
    }
    let group = world.join(ME, None);
    let one = DmaDevice::new(&group, world.machine, &mask(16)).unwrap();
    world.join(9, Some(ME)); // its region overlaps that of the first, and goes on
    let held = all(&one);
    let expected: Vec<u64> =
        (1..16).rev().filter(|page| !(8..=10).contains(page)).map(|page| page * 0x1000).collect();
    assert_eq!(held, expected);
    for page in 8..=10 {
        assert_eq!(world.leads_to(page * 0x1000), Some(PhysAddr(page * 0x1000)), "1:1");
    }
    drop(one);
    assert_eq!(world.leads_to(0x8800), Some(PhysAddr(0x8800)), "as long as the device is there");
    assert!(!world.reaches(0xf000, Access::READ), "the handle's own are gone");
    // A second driver finds a fresh space on the domain that stayed.
    let two = DmaDevice::new(&group, world.machine, &mask(16)).unwrap();
    assert_eq!(all(&two), expected);
}

#[test]
fn drivers_of_one_group_share_the_space_with_masks_of_their_own() {
    // C-228: the group's default domain
    let world = World::new();
    let narrow = world.dma(&mask(16));
    let group = world.join(9, Some(ME));
    let options = DmaOptions { prefer_32_bit: false, ..mask(40) };
    let wide = DmaDevice::new(&group, world.machine, &options).unwrap();
    assert!(narrow.used().domain().ptr_eq(wide.used().domain()));
    assert_eq!(group.kernel_users(), 2);
    let one = wide.map(aligned(PAGE), Direction::ToDevice).unwrap();
    let low = all(&narrow);
    assert_eq!(low.len(), 15);
    assert_eq!(one.iova(), Iova(0xff_ffff_f000));
    let two = wide.map(aligned(PAGE), Direction::ToDevice).unwrap();
    assert_eq!(
        two.iova(),
        Iova(0xff_ffff_e000),
        "the narrow device's shortage is not the wide one's"
    );
    for endpoint in [ME, 9] {
        assert!(world.read(endpoint, one.iova().0, 1).is_some(), "a group is on one domain");
    }
    assert_eq!(Group::claim(&group, OwnerId(1)).err(), Some(ClaimError::NotPermitted));
    drop((one, two, wide));
    assert!(world.leads_to(low[0]).is_some(), "one driver is left");
    drop(narrow);
    assert_eq!(world.leads_to(low[0]), None);
    drop(Group::claim(&group, OwnerId(1)).expect("free again"));
}

#[test]
fn what_a_driver_maps_by_itself_is_stepped_around() {
    let world = World::new();
    let dma = world.dma(&mask(16));
    let domain = dma.used().domain();
    domain.map(range(0xe000, 0xffff), PhysAddr(0x7000), Prot::RW).unwrap();
    let before = world.sim.digest();
    let iova = dma.map_pages_raw(PhysAddr(0), 0x1000, Direction::ToDevice).unwrap();
    assert_eq!(iova, Iova(0xd000));
    assert_eq!(world.leads_to(0xe123), Some(PhysAddr(0x7123)), "untouched");
    assert_ne!(world.sim.digest(), before);
    domain.unmap(range(0xe000, 0xffff)).unwrap();
}

#[test]
fn an_owned_group_gives_no_handle() {
    let world = World::new();
    let group = world.join(ME, None);
    let ownership = Group::claim(&group, OwnerId(1)).unwrap();
    let refused = DmaDevice::new(&group, world.machine, &DmaOptions::default()).err();
    assert_eq!(refused, Some(UseError::Busy));
    drop(ownership);
    DmaDevice::new(&group, world.machine, &DmaOptions::default()).unwrap();
}
