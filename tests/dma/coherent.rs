//! Coherent memory, resources, doorbells (rules C-225, C-221, C-039, C-043).

use iommu::addr::{Iova, PhysAddr};
use iommu::dma::{Direction, DmaDevice, DmaOptions};
use iommu::driver::{Capabilities, EndpointId};
use iommu::error::{DmaError, DoorbellError};
use iommu::fault::Access;
use iommu::prot::Prot;
use iommu::reserved::{ReservedKind, ReservedRegion, ReservedRegions};
use iommu::sim::{Call, SimConfig};

use crate::fixture::{ME, PAGE, World, range};

#[test]
fn both_sides_use_coherent_memory_at_once() {
    let world = World::new();
    let dma = world.plain();
    let before = world.usage();
    let mut ring = dma.alloc_coherent(PAGE + 8).unwrap();
    assert_eq!((ring.len(), world.machine.pages()), (PAGE + 8, 2));
    let iova = ring.iova().0;
    assert_eq!(world.read(ME, iova, 2 * PAGE), Some(vec![0; 2 * PAGE]), "zeroed");
    ring.write(0x123, b"descriptor").unwrap();
    assert_eq!(world.read(ME, iova + 0x123, 10).unwrap(), b"descriptor");
    assert!(world.write(ME, iova + PAGE as u64, b"answer"));
    let mut seen = [0; 6];
    ring.read(PAGE, &mut seen).unwrap();
    assert_eq!(&seen, b"answer");
    for (at, len) in [(PAGE + 8, 1), (PAGE + 5, 4), (usize::MAX, 2)] {
        assert_eq!(ring.read(at, &mut vec![0; len]), Err(DmaError::InvalidArg));
        assert_eq!(ring.write(at, &vec![0; len]), Err(DmaError::InvalidArg));
    }
    assert_eq!(dma.alloc_coherent(0).unwrap_err(), DmaError::InvalidArg);
    assert_eq!(dma.alloc_coherent(usize::MAX).unwrap_err(), DmaError::OutOfMemory);
    drop(ring);
    assert!(!world.reaches(iova, Access::READ));
    assert_eq!(world.usage_of(&dma), before);
}

#[test]
fn the_two_masks_are_kept_apart() {
    // C-216, C-225
    let world = World::new();
    let options = DmaOptions {
        mask: (1 << 40) - 1,
        coherent_mask: 0xff_ffff,
        prefer_32_bit: false,
        ..DmaOptions::default()
    };
    let dma = world.dma(&options);
    let ring = dma.alloc_coherent(1).unwrap();
    assert_eq!(ring.iova(), Iova(0xff_f000));
    let buffer = dma.map(crate::fixture::aligned(PAGE), Direction::ToDevice).unwrap();
    assert_eq!(buffer.iova(), Iova((1 << 40) - 0x1000));
}

#[test]
fn resources_are_device_memory_in_whole_granules() {
    let world = World::new();
    let dma = world.plain();
    let registers = PhysAddr(0xfe00_0000);
    let _ = world.sim.take_log();
    let mapped = dma.map_resource(registers, 0x2000, Direction::Bidirectional).unwrap();
    let log = world.sim.take_log();
    let [Call::Map { run, .. }] = log[..] else { panic!("{log:?}") };
    assert_eq!((run.phys, run.prot), (registers, Prot::RW | Prot::MMIO), "and no CACHE");
    assert_eq!(world.leads_to(mapped.iova().0 + 0x1234), Some(PhysAddr(0xfe00_1234)));
    for (phys, len) in [(0xfe00_0010, 0x1000), (0xfe00_0000, 0x1010), (0xfe00_0000, 0)] {
        let refused = dma.map_resource(PhysAddr(phys), len, Direction::ToDevice).unwrap_err();
        assert_eq!(refused, DmaError::InvalidArg, "beside it are other registers");
    }
    let end = dma.map_resource(PhysAddr(u64::MAX - 0xfff), 0x2000, Direction::ToDevice);
    assert_eq!(end.unwrap_err(), DmaError::Overflow);
    let iova = mapped.iova().0;
    drop(mapped);
    assert_eq!((world.leads_to(iova), dma.mapping_count()), (None, 0));
    // A unit that can't express it is not sent the flag (C-262).
    let capabilities = Capabilities::empty();
    let world = World::with(SimConfig { capabilities, ..SimConfig::default() });
    let _mapped = world.plain().map_resource(registers, 0x1000, Direction::ToDevice).unwrap();
    let log = world.sim.take_log();
    assert!(matches!(log.last(), Some(Call::Map { run, .. }) if run.prot == Prot::READ));
}

#[test]
fn doorbells_are_mapped_in_the_window_or_pass_by() {
    let window = range(0x800_0000, 0x800_ffff);
    let with = |kind| {
        let world = World::new();
        let mut reserved = ReservedRegions::new();
        reserved.add(ReservedRegion { range: window, kind }).unwrap();
        world.sim.reserve(EndpointId(ME), reserved);
        world
    };
    let world = with(ReservedKind::SoftwareMsi);
    let dma = world.plain();
    let address = dma.map_doorbell(PhysAddr(0x2020_0040)).unwrap();
    assert_eq!(address, Iova(0x800_0040));
    assert!(world.reaches(address.0, Access::WRITE) && !world.reaches(address.0, Access::READ));
    assert_eq!(dma.map_doorbell(PhysAddr(0x2020_0048)), Ok(Iova(0x800_0048)), "mapped once");
    let world = with(ReservedKind::Msi);
    let dma = world.plain();
    assert_eq!(dma.map_doorbell(PhysAddr(0x800_0040)), Ok(Iova(0x800_0040)), "C-043");
    assert!(!world.reaches(0x800_0040, Access::WRITE), "nothing is mapped");
    assert_eq!(dma.map_doorbell(PhysAddr(0x2020_0040)), Err(DoorbellError::Unsupported), "C-040");
    assert_eq!(World::new().plain().map_doorbell(PhysAddr(0)), Err(DoorbellError::Unsupported));
}

#[test]
fn addresses_are_kept_out_of_the_doorbells_window() {
    let world = World::new();
    let window = range(0x1000, 0xffff);
    let mut reserved = ReservedRegions::new();
    reserved.add(ReservedRegion { range: window, kind: ReservedKind::SoftwareMsi }).unwrap();
    world.sim.reserve(EndpointId(ME), reserved);
    let options = DmaOptions { mask: 0x1_1fff, coherent_mask: 0x1_1fff, ..DmaOptions::default() };
    let dma = DmaDevice::new(&world.join(ME, None), world.machine, &options).unwrap();
    let taken: Vec<_> = (0..2).map(|_| dma.alloc_coherent(1).unwrap()).collect();
    assert_eq!(taken[1].iova(), Iova(0x1_0000));
    assert_eq!(dma.alloc_coherent(1).unwrap_err(), DmaError::NoSpace);
}
