//! Batches: how many requests and notifies, ring wrap, undo of a map, the whole address space.

use super::*;
use crate::device::DeviceId;
use crate::domain::PagingDomain;
use crate::driver::{Counters, Health};
use crate::group::{Group, OwnerId};
use crate::registry::{DeviceInfo, Registry};
use crate::virtio::transport::fake::Lie;

fn attached() -> (Rig, Space) {
    let rig = Rig::new();
    let mut space = rig.space();
    rig.attach(&[ONE], &mut space).unwrap();
    let _ = rig.machine.take_log();
    (rig, space)
}

#[test]
fn a_batch_of_256_runs_is_256_requests_and_two_notifies() {
    let (rig, mut space) = attached();
    let runs = scattered(256);
    let (before, accesses) = (rig.unit.counters(), rig.machine.register_accesses());
    rig.map(&mut space, &runs).unwrap();
    let cost = rig.unit.counters().since(&before);
    assert_eq!(cost, Counters { map: 256, notifies: 2, ..Counters::default() });
    assert_eq!(rig.machine.register_accesses() - accesses, 2, "a notify is one access");
    assert_eq!(rig.machine.mappings(space.id), in_device(&runs));

    let before = rig.unit.counters();
    let ranges: Vec<_> = runs.iter().map(|run| run.range).collect();
    rig.unmap(&space, &ranges).unwrap();
    let cost = rig.unit.counters().since(&before);
    assert_eq!(cost, Counters { unmap: 256, notifies: 2, ..Counters::default() });
    assert_eq!(rig.machine.mappings(space.id), []);
}

#[test]
fn indexes_wrap_after_65536_requests() {
    // virtio-iommu section 14: where another queue hangs
    let (rig, mut space) = attached();
    let before = rig.machine.indexes();
    let runs = scattered(7);
    for _ in 0..5000 {
        rig.map(&mut space, &runs).unwrap();
        let ranges: Vec<_> = runs.iter().map(|run| run.range).collect();
        rig.unmap(&space, &ranges).unwrap();
        for run in &runs {
            space.mappings.remove(run.range.first());
        }
    }
    let counters = rig.unit.counters();
    assert_eq!(counters.map + counters.unmap, 70_000);
    assert_eq!(rig.machine.take_log().len(), 70_000);
    let wrapped = before.map(|index| index.wrapping_add(70_000_u32 as u16));
    assert_eq!(rig.machine.indexes(), wrapped, "available and used, as the device has them");
}

#[test]
fn answers_may_come_late_and_in_any_order() {
    let config = FakeConfig { delay: 50, reverse: true, ..FakeConfig::default() };
    let rig = start(config, QUICK).unwrap();
    let mut space = rig.space();
    rig.attach(&[ONE, TWO, THREE], &mut space).unwrap();
    let runs = scattered(300);
    rig.map(&mut space, &runs).unwrap();
    assert_eq!(rig.machine.mappings(space.id), in_device(&runs));
    // The third of the batch is refused, whatever its place among the answers.
    let more: Vec<_> = (0..5).map(|n| page(0x4000_0000 + n * 0x1000, 0x1000)).collect();
    rig.machine.lie(2, Lie::Status(8));
    let _ = rig.machine.take_log();
    assert_eq!(rig.map(&mut space, &more), Err(MapError::OutOfMemory));
    let log = rig.machine.take_log();
    let undone: Vec<_> = log.iter().filter(|r| r[0] == 4).map(|r| r[8..16].to_vec()).collect();
    let wanted: Vec<_> =
        [0, 1, 3, 4].map(|n: usize| more[n].range.first().0.to_le_bytes().to_vec()).to_vec();
    assert_eq!(undone, wanted);
    assert_eq!(rig.machine.mappings(space.id), in_device(&runs));
}

#[test]
fn a_refused_map_takes_back_what_was_mapped_at_every_place() {
    // C-167, C-263: the whole list or nothing, also beyond one ring
    for refused in [0, 1, 127, 128, 199] {
        let (rig, mut space) = attached();
        let kept = page(0x1000, 0x2000);
        rig.map(&mut space, &[kept]).unwrap();
        rig.machine.lie(refused, Lie::Status(5));
        assert_eq!(rig.map(&mut space, &scattered(200)), Err(MapError::Io), "at {refused}");
        assert_eq!(rig.machine.mappings(space.id), in_device(&[kept]), "at {refused}");
        assert_eq!(rig.unit.health(), Health::Good);
        assert_eq!(rig.unit.counters().refused, 1);
        rig.map(&mut space, &scattered(200)).expect("the same call works afterwards");
    }
}

#[test]
fn a_map_over_a_left_over_of_the_device_is_refused_and_touches_nothing() {
    // C-264: the mapping that refused us is not ours to remove
    let (rig, mut space) = attached();
    let old = FakeMapping { first: 0x10_2000, last: 0x10_2fff, phys: 0, flags: 1 };
    rig.machine.plant(space.id, old);
    assert_eq!(rig.map(&mut space, &scattered(3)), Err(MapError::Io));
    assert_eq!(rig.machine.mappings(space.id), [old]);
}

#[test]
fn a_refused_undo_poisons_and_blocks() {
    let (rig, mut space) = attached();
    rig.machine.lie(1, Lie::Status(5)); // the second MAP
    rig.machine.lie(3, Lie::Status(5)); // the UNMAP of the first
    rig.machine.lie(4, Lie::Status(5));
    assert_eq!(rig.map(&mut space, &scattered(3)), Err(MapError::Unconfirmed));
    assert_eq!(rig.unit.health(), Health::Poisoned);
    assert_eq!(rig.reads(ONE, 0x10_0000), Err(0), "reset, and out of bypass");
}

#[test]
fn a_domain_without_endpoints_sends_nothing() {
    // C-170, C-259
    let rig = Rig::new();
    let mut space = rig.space();
    let before = (rig.unit.counters(), rig.machine.register_accesses());
    rig.map(&mut space, &scattered(5)).unwrap();
    rig.unmap(&space, &[range(0x10_0000, 0x1000)]).unwrap();
    assert_eq!((rig.unit.counters(), rig.machine.register_accesses()), before);
}

#[test]
fn device_memory_needs_the_feature_also_before_the_first_attach() {
    // C-262
    let config = FakeConfig { features: 0x101_3000_0057, ..FakeConfig::default() };
    let rig = start(config, QUICK).unwrap();
    let mut space = rig.space();
    let run = Run { prot: Prot::WRITE | Prot::MMIO, ..page(0x1000, 0x1000) };
    assert_eq!(rig.map(&mut space, &[page(0x2000, 0), run]), Err(MapError::InvalidArg));
    rig.attach(&[ONE], &mut space).unwrap();
    assert_eq!(rig.map(&mut space, &[page(0x2000, 0), run]), Err(MapError::InvalidArg));
    assert_eq!(rig.kinds(), [1]);
}

#[test]
fn no_request_names_the_whole_64_bit_space() {
    // Rule 7.4
    let config = FakeConfig { input_range: (0, u64::MAX), ..FakeConfig::default() };
    let rig = start(config, QUICK).unwrap();
    let mut space = rig.space();
    rig.attach(&[ONE], &mut space).unwrap();
    let all = Run { range: IovaRange::ALL, phys: PhysAddr(0), prot: Prot::RW };
    rig.map(&mut space, &[all]).unwrap();
    assert_eq!(rig.reads(ONE, 1 << 63), Ok(1 << 63));
    rig.unmap(&space, &[IovaRange::ALL]).unwrap();
    space.mappings.remove(Iova(0));
    assert_eq!(rig.kinds(), [1, 3, 3, 4, 4]);

    // Two mappings that fill the space, neither of which ends in its middle.
    let low = Run { range: IovaRange::new(Iova(0), Iova(1 << 63 | 0xfff)).unwrap(), ..all };
    let high = IovaRange::new(Iova(1 << 63 | 0x1000), Iova(u64::MAX)).unwrap();
    rig.map(&mut space, &[low, Run { range: high, ..all }]).unwrap();
    rig.unmap(&space, &[IovaRange::ALL]).unwrap();
    assert_eq!(rig.machine.mappings(space.id), []);
    assert_eq!(rig.kinds(), [3, 3, 4, 4]);
}

#[test]
fn what_is_contiguous_is_one_request() {
    // Through the core, which cuts and joins.
    let rig = Rig::new();
    let machine = rig.machine.clone();
    let registry = Registry::new(&POOL);
    let instance = registry.add_instance(rig.unit).unwrap();
    let info = DeviceInfo { id: DeviceId(1), endpoints: &[ONE], with: None };
    let group = registry.add_device(&instance, &info).unwrap();
    let domain = PagingDomain::new(&instance, &POOL).unwrap();
    let attached = Group::claim(&group, OwnerId(1)).unwrap().attach(&domain).unwrap();
    let two_mib = range(0x20_0000, 0x20_0000);
    let before = instance.counters();
    domain.map(two_mib, PhysAddr(0x8000_0000), Prot::RW).unwrap();
    let one = Counters { map: 1, notifies: 1, ..Counters::default() };
    assert_eq!(instance.counters().since(&before), one);
    assert_eq!(machine.translate(ONE, 0x3f_fff8, true), Ok(0x801f_fff8));

    // Adjacent mappings, made one by one, go in one UNMAP.
    for n in 0..512 {
        let page = range(0x40_0000 + n * 0x1000, 0x1000);
        domain.map(page, PhysAddr(0x9000_0000 + n * 0x3000), Prot::RW).unwrap();
    }
    let before = instance.counters();
    assert_eq!(domain.unmap(range(0x20_0000, 0x40_0000)), Ok(0x40_0000));
    let one = Counters { unmap: 1, notifies: 1, ..Counters::default() };
    assert_eq!(instance.counters().since(&before), one);
    assert_eq!(machine.mappings(domain.id()), []);
    drop(attached);
}
