//! A device that lies: every wait ends, the documented error comes, memory stays safe, no panic.

use super::*;
use crate::driver::Health;
use crate::error::{AttachError, DomainError, ProbeError};
use crate::virtio::transport::fake::Lie;

/// Lies that end the instance.
const DEADLY: [Lie; 12] = [
    Lie::NoAnswer,
    Lie::NeedsReset,
    Lie::UsedId(1),        // inside a chain
    Lie::UsedId(254),      // a head that is not in flight, or completes once more later
    Lie::UsedId(256),      // past the ring
    Lie::UsedId(0x1_0000), // 0 in 16 bits
    Lie::UsedId(u32::MAX),
    Lie::Twice,
    Lie::UsedJump(0x8000),
    Lie::UsedJump(0xfffe), // one back
    Lie::UsedJump(0xfe00), // far back
    // The index set to the end of its range, and an entry before it.
    Lie::RingWrite { at: 0, bytes: [0, 0, 0xff, 0xff, 0, 0, 0, 0] },
];

/// Lies about one answer: the request failed, the instance lives.
const ODD: [Lie; 8] = [
    Lie::UsedLen(0),
    Lie::UsedLen(3),
    Lie::UsedLen(8),
    Lie::UsedLen(u32::MAX),
    Lie::Status(9),
    Lie::StatusAfter(9),
    Lie::StatusAfter(255),
    Lie::StatusNotWritten,
];

fn assert_gone(rig: &Rig, lie: Lie) {
    assert_eq!(rig.unit.health(), Health::Poisoned, "{lie:?}");
    assert!(rig.machine.status().is_empty(), "{lie:?}: the device was reset");
    for endpoint in [ONE, TWO] {
        assert_eq!(rig.reads(endpoint, 0x10_0000), Err(0), "{lie:?}: DMA is blocked");
    }
    // Later calls answer at once.
    let accesses = rig.machine.register_accesses();
    let (mut space, mut used) = (Space::new(DomainId(77)), Space::new(DomainId(78)));
    used.endpoints = 1;
    assert_eq!(rig.unit.probe(ONE).err(), Some(ProbeError::Io));
    assert_eq!(rig.unit.alloc_domain(DomainFeatures::empty()), Err(DomainError::Io));
    let failure = rig.attach(&[ONE], &mut space).unwrap_err();
    assert_eq!(failure, AttachFailure::untouched(AttachError::Io));
    assert_eq!(rig.map(&mut used, &[page(0, 0)]), Err(MapError::Io));
    assert_eq!(rig.unmap(&used, &[range(0, 0x1000)]), Err(UnmapError::Io));
    rig.unmap(&space, &[range(0, 0x1000)]).expect("nothing is attached, so nothing is due");
    assert_eq!(rig.unit.take_faults(&mut |_| ()), 0);
    assert_eq!(rig.machine.register_accesses(), accesses, "{lie:?}");
}

#[test]
fn a_deadly_lie_ends_the_instance_whatever_was_asked() {
    for lie in DEADLY {
        let rig = Rig::new();
        rig.machine.lie(0, lie);
        let failure = rig.attach(&[ONE], &mut rig.space()).unwrap_err();
        assert_eq!((failure.error, failure.touched), (AttachError::Io, 1), "{lie:?}");
        assert_gone(&rig, lie);

        let rig = Rig::new();
        let mut space = rig.space();
        rig.attach(&[ONE], &mut space).unwrap();
        rig.machine.lie(100, lie);
        assert_eq!(rig.map(&mut space, &scattered(300)), Err(MapError::Unconfirmed), "{lie:?}");
        assert_gone(&rig, lie);

        let rig = Rig::new();
        let mut space = rig.space();
        rig.attach(&[ONE], &mut space).unwrap();
        rig.map(&mut space, &scattered(3)).unwrap();
        let ranges: Vec<_> = scattered(3).iter().map(|run| run.range).collect();
        rig.machine.lie(1, lie);
        assert_eq!(rig.unmap(&space, &ranges), Err(UnmapError::Io), "{lie:?}");
        assert_gone(&rig, lie);

        let rig = Rig::new();
        let mut space = rig.space();
        rig.map(&mut space, &scattered(300)).unwrap();
        rig.machine.lie(200, lie);
        let failure = rig.attach(&[ONE, TWO], &mut space).unwrap_err();
        assert_eq!((failure.error, failure.touched), (AttachError::Io, 2), "{lie:?}");
        assert_gone(&rig, lie);
    }
}

#[test]
fn a_deadly_lie_about_a_probe_ends_the_instance() {
    for lie in DEADLY {
        let rig = Rig::new();
        rig.machine.lie(0, lie);
        assert_eq!(rig.unit.probe(ONE).err(), Some(ProbeError::Io), "{lie:?}");
        assert_gone(&rig, lie);
    }
}

#[test]
fn an_odd_answer_is_a_failed_request() {
    // Rules 11.4 and 11.5; virtio 1.2 §5.13.6: 0 bytes are a failure
    for lie in ODD {
        let rig = Rig::new();
        let mut space = rig.space();
        rig.machine.lie(0, lie);
        let failure = rig.attach(&[ONE], &mut space).unwrap_err();
        assert_eq!(failure.error, AttachError::Io, "{lie:?}");
        rig.attach(&[ONE], &mut rig.blocking()).expect("the core puts it back");

        // A MAP of unclear fate is undone like one that worked.
        rig.attach(&[TWO], &mut space).unwrap();
        rig.machine.lie(1, lie);
        assert_eq!(rig.map(&mut space, &scattered(3)), Err(MapError::Io), "{lie:?}");
        assert_eq!(rig.machine.mappings(space.id), [], "{lie:?}");

        rig.machine.lie(0, lie);
        assert_eq!(rig.unit.probe(ONE).err(), Some(ProbeError::Io), "{lie:?}");
        assert_eq!(rig.unit.health(), Health::Good, "{lie:?}");
        assert_eq!(rig.unit.counters().refused, 3, "{lie:?}");

        // But an UNMAP of unclear fate is no promise at all.
        rig.map(&mut space, &scattered(1)).unwrap();
        rig.machine.lie(0, lie);
        assert_eq!(rig.unmap(&space, &[scattered(1)[0].range]), Err(UnmapError::Io), "{lie:?}");
        assert_gone(&rig, lie);
    }
}

#[test]
fn a_refused_unmap_poisons() {
    for status in [4, 5, 6] {
        let rig = Rig::new();
        let mut space = rig.space();
        rig.attach(&[ONE], &mut space).unwrap();
        rig.map(&mut space, &scattered(1)).unwrap();
        rig.machine.lie(0, Lie::Status(status));
        assert_eq!(rig.unmap(&space, &[scattered(1)[0].range]), Err(UnmapError::Io));
        assert_gone(&rig, Lie::Status(status));
    }
}

#[test]
fn a_wait_ends_at_its_limit_and_looks_at_the_status_rarely() {
    let rig = Rig::new();
    let before = rig.machine.register_accesses();
    rig.machine.lie(0, Lie::NoAnswer);
    rig.attach(&[ONE], &mut rig.space()).unwrap_err();
    // 4 ms in looks of 1 us: status at 1, 2, 4 and at the end; notify; reset and its confirmation.
    let accesses = rig.machine.register_accesses() - before;
    assert!((3..=8).contains(&accesses), "{accesses} register accesses");
}

#[test]
fn a_device_that_trickles_answers_gets_no_more_time() {
    // The limit is for the batch; each answer alone would be in time.
    let config = FakeConfig { delay: 3_990, ..FakeConfig::default() };
    let rig = start(config, QUICK).unwrap();
    let mut space = rig.space();
    rig.attach(&[ONE], &mut space).expect("late, but in time");
    rig.machine.configure(|config| config.delay = 4_010);
    rig.attach(&[TWO], &mut space).unwrap_err();
    assert_gone(&rig, Lie::NoAnswer);
}

#[test]
fn a_device_that_gave_up_on_its_own_is_found_by_a_check() {
    let rig = Rig::new();
    rig.unit.check();
    assert_eq!(rig.unit.health(), Health::Good);
    rig.machine.give_up();
    assert!(!rig.unit.take_interrupt().is_empty());
    rig.unit.check();
    assert_gone(&rig, Lie::NeedsReset);
}

#[test]
fn memory_goes_back_after_a_reset_and_only_then() {
    let rig = Rig::new();
    let machine = rig.machine.clone();
    assert!(machine.pages() >= 4, "two rings, request slots, event buffers");
    drop(rig);
    assert_eq!(machine.pages(), 0);

    for lie in DEADLY {
        let rig = Rig::new();
        let machine = rig.machine.clone();
        machine.lie(0, lie);
        let _ = rig.attach(&[ONE], &mut rig.space());
        drop(rig);
        assert_eq!(machine.pages(), 0, "{lie:?}");
    }

    let rig = Rig::new();
    let machine = rig.machine.clone();
    machine.configure(|config| config.ignore_reset = true);
    let pages = machine.pages();
    drop(rig);
    assert_eq!(machine.pages(), pages, "no confirmation: leaked, not freed");
}

#[test]
fn a_poisoned_device_that_confirms_no_reset_keeps_its_memory() {
    let rig = Rig::new();
    let machine = rig.machine.clone();
    machine.configure(|config| config.ignore_reset = true);
    machine.lie(0, Lie::NoAnswer);
    rig.attach(&[ONE], &mut rig.space()).unwrap_err();
    assert_eq!(rig.unit.health(), Health::Poisoned);
    let pages = machine.pages();
    drop(rig);
    assert_eq!(machine.pages(), pages);
}

#[test]
fn an_answer_after_the_driver_gave_up_lands_in_memory_that_was_kept() {
    // The reset is not confirmed, and then the device goes on: the fake panics if it is sent to
    // memory that went back.
    let rig = Rig::new();
    let machine = rig.machine.clone();
    machine.configure(|config| (config.delay, config.ignore_reset) = (6_000, true));
    let _ = machine.take_log();
    rig.attach(&[ONE], &mut rig.space()).unwrap_err();
    assert_eq!(rig.unit.health(), Health::Poisoned);
    let pages = machine.pages();
    drop(rig);
    (0..10_000).for_each(|_| machine.tick());
    assert_eq!(machine.take_log().len(), 1, "it did the request");
    assert_eq!(machine.pages(), pages);

    // Confirmed: there is nothing left that it could reach.
    let rig = Rig::new();
    let machine = rig.machine.clone();
    machine.configure(|config| config.delay = 6_000);
    let _ = machine.take_log();
    rig.attach(&[ONE], &mut rig.space()).unwrap_err();
    drop(rig);
    (0..10_000).for_each(|_| machine.tick());
    assert_eq!((machine.take_log().len(), machine.pages()), (0, 0));
}

#[test]
fn a_configuration_that_changes_later_is_not_believed() {
    let rig = Rig::new();
    let (mut space, mut blocking) = (rig.space(), rig.blocking());
    rig.attach(&[ONE], &mut blocking).unwrap();
    let (geometry, config) = (rig.unit.geometry(), *rig.unit.config());
    rig.machine.change_config(|config| {
        config.page_size_mask = 0;
        config.input_range = (9, 3);
        config.domain_range = (9, 3);
        config.probe_size = 40; // its answers are shorter now
        config.properties.truncate(24);
    });
    rig.machine.set_bypass(1);
    assert_eq!((rig.unit.geometry(), *rig.unit.config()), (geometry, config));
    assert_eq!(rig.reads(ONE, 0x1000), Err(2), "blocked by a domain, not by the byte");
    assert_eq!(rig.unit.probe(ONE).err(), Some(ProbeError::Io), "a wrong length");
    rig.attach(&[TWO], &mut space).unwrap();
    rig.map(&mut space, &scattered(3)).unwrap();
    assert_eq!(rig.unit.health(), Health::Good);
    // Answers that are longer than their buffer: a device gives up, or it would write behind it.
    rig.machine.change_config(|config| config.probe_size = 0x1_0000);
    assert_eq!(rig.unit.probe(ONE).err(), Some(ProbeError::Io));
    rig.machine.set_bypass(0); // what it does in bypass after its reset is its own
    assert_gone(&rig, Lie::NeedsReset);
}
