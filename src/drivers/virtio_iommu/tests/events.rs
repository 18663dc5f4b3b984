//! Fault records: decoding, malformed ones, a full ring, lies of the event ring.

use std::vec;

use super::*;
use crate::driver::Health;
use crate::fault::{Access, DriverFault, FaultReason};
use crate::virtio::transport::InterruptStatus;

#[rustfmt::skip]
const WRITE_FAULT: [u8; 24] = [
    2, 0, 0, 0,                 // reason MAPPING, reserved
    2, 1, 0, 0,                 // flags WRITE, ADDRESS
    8, 0, 0, 0,                 // endpoint
    0xaa, 0xbb, 0xcc, 0xdd,     // reserved: ignored
    4, 0x10, 0, 0, 0, 0, 0, 0x80,
];

fn drain(rig: &Rig) -> (Vec<DriverFault>, u64) {
    let mut faults = vec![];
    let lost = rig.unit.take_faults(&mut |fault| faults.push(fault));
    (faults, lost)
}

#[test]
fn a_record_is_decoded() {
    // C-278, virtio-iommu section 9
    let rig = Rig::new();
    rig.machine.event(&WRITE_FAULT, 24);
    let wanted = DriverFault {
        endpoint: ONE,
        address: Some(Iova(0x8000_0000_0000_1004)),
        access: Access::WRITE,
        reason: FaultReason::Mapping,
    };
    assert_eq!(drain(&rig), (vec![wanted], 0));
    assert_eq!(drain(&rig), (vec![], 0));
    assert_eq!(rig.unit.counters().faults, 1);
}

#[test]
fn reasons_and_flags_that_nobody_knows_are_harmless() {
    let rig = Rig::new();
    for (reason, wanted) in
        [(0, FaultReason::Unknown), (1, FaultReason::Domain), (77, FaultReason::Unknown)]
    {
        let mut record = WRITE_FAULT;
        record[0] = reason;
        record[4..8].copy_from_slice(&0xffff_fe05_u32.to_le_bytes());
        rig.machine.event(&record, 24);
        let (faults, _) = drain(&rig);
        assert_eq!((faults[0].reason, faults[0].address), (wanted, None));
        assert_eq!(faults[0].access, Access::READ);
    }
}

#[test]
fn malformed_records_are_dropped_and_counted() {
    let rig = Rig::new();
    let mut reserved = WRITE_FAULT;
    reserved[2] = 1;
    rig.machine.event(&reserved, 24);
    for len in [0, 23, 25, u32::MAX] {
        rig.machine.event(&WRITE_FAULT, len);
    }
    rig.machine.event(&WRITE_FAULT, 24);
    let (faults, lost) = drain(&rig);
    assert_eq!((faults.len(), lost), (1, 5));
    let counters = rig.unit.counters();
    assert_eq!((counters.faults, counters.bad_faults), (1, 5));
    assert_eq!(rig.unit.health(), Health::Good);
}

#[test]
fn buffers_go_back_so_that_records_never_run_dry() {
    let config = FakeConfig { queue_sizes: [256, 16], ..FakeConfig::default() };
    let rig = start(config, QUICK).unwrap();
    for round in 0..5000 {
        for _ in 0..16 {
            rig.machine.event(&WRITE_FAULT, 24);
        }
        assert_eq!(drain(&rig).0.len(), 16, "round {round}");
    }
    assert_eq!(rig.machine.dropped_events(), 0);
    // One more than there are buffers is dropped by the device, and nothing stalls.
    (0..17).for_each(|_| rig.machine.event(&WRITE_FAULT, 24));
    assert_eq!(rig.machine.dropped_events(), 1);
    let before = rig.unit.counters().notifies;
    assert_eq!(drain(&rig).0.len(), 16, "at most a queue full");
    assert_eq!(rig.unit.counters().notifies - before, 1, "one notify for all buffers");
    drain(&rig);
    assert_eq!(rig.unit.counters().notifies - before, 1, "nothing posted, nothing notified");
}

#[test]
fn a_lie_of_the_event_ring_ends_the_instance() {
    for id in [256, 0x1_0000, u32::MAX] {
        let rig = Rig::new();
        rig.machine.event_used(id, 24);
        assert_eq!(drain(&rig), (vec![], 0));
        assert_eq!(rig.unit.health(), Health::Poisoned, "id {id:#x}");
    }
    // More completions than buffers.
    let config = FakeConfig { queue_sizes: [256, 4], ..FakeConfig::default() };
    let rig = start(config, QUICK).unwrap();
    (0..5).for_each(|id| rig.machine.event_used(id % 4, 24));
    assert_eq!(drain(&rig), (vec![], 0));
    assert_eq!(rig.unit.health(), Health::Poisoned);
}

#[test]
fn the_sink_may_use_the_driver() {
    // No lock is held while a record is handed out.
    let rig = Rig::new();
    rig.machine.event(&WRITE_FAULT, 24);
    let mut seen = 0;
    rig.unit.take_faults(&mut |_| seen = rig.unit.counters().faults);
    assert_eq!(seen, 1);
}

#[test]
fn a_flood_that_goes_on_does_not_hold_the_drain() {
    // Rule 11.7: the device reports anew while records are handed out
    let config = FakeConfig { queue_sizes: [256, 16], ..FakeConfig::default() };
    let rig = start(config, QUICK).unwrap();
    (0..8).for_each(|_| rig.machine.event(&WRITE_FAULT, 24));
    let mut seen = 0;
    rig.unit.take_faults(&mut |_| {
        seen += 1;
        rig.machine.event(&WRITE_FAULT, 24);
    });
    assert_eq!(seen, 16, "at most a queue full");
    assert_eq!(rig.unit.health(), Health::Good);
    // It names buffers that are ready to go back, and were not shown to it yet.
    let rig = start(FakeConfig { queue_sizes: [256, 16], ..FakeConfig::default() }, QUICK).unwrap();
    rig.machine.event(&WRITE_FAULT, 24);
    let mut seen = 0;
    rig.unit.take_faults(&mut |_| {
        seen += 1;
        rig.machine.event_used(0, 24);
    });
    assert_eq!(seen, 16, "at most a queue full, whatever it says");
}

#[test]
fn a_config_change_and_a_used_buffer_are_told_apart() {
    let options = Options { interrupts: true, ..QUICK };
    let rig = start(FakeConfig::default(), options).unwrap();
    let _ = rig.unit.take_interrupt();
    assert_eq!(rig.unit.take_interrupt(), InterruptStatus::empty(), "it was taken");
    rig.machine.event(&WRITE_FAULT, 24);
    assert_eq!(rig.unit.take_interrupt(), InterruptStatus::QUEUE);
    rig.machine.change_config(|_| ());
    assert_eq!(rig.unit.take_interrupt(), InterruptStatus::CONFIG);
    rig.machine.event(&WRITE_FAULT, 24);
    rig.machine.give_up();
    assert_eq!(rig.unit.take_interrupt(), InterruptStatus::all());
    assert_eq!(drain(&rig).0.len(), 2, "for QUEUE");
    rig.unit.check(); // for CONFIG
    assert_eq!(rig.unit.health(), Health::Poisoned);
}
