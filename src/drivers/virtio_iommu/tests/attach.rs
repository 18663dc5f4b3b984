//! Attach: cost, replay, what a refusal means, and where DMA goes meanwhile.

use super::*;
use crate::driver::{Counters, Health, Left};
use crate::error::AttachError;
use crate::virtio::transport::fake::Lie;

#[test]
fn joining_a_domain_costs_one_request_per_endpoint_whatever_it_maps() {
    let rig = Rig::new();
    let mut space = rig.space();
    rig.map(&mut space, &scattered(300)).unwrap();
    rig.attach(&[ONE], &mut space).unwrap();
    let before = rig.unit.counters();
    rig.attach(&[TWO, THREE], &mut space).unwrap();
    let cost = rig.unit.counters().since(&before);
    assert_eq!(cost, Counters { attach: 2, notifies: 1, ..Counters::default() });
    assert_eq!(rig.reads(THREE, 0x10_0000), Ok(0x8000_0000));
}

#[test]
fn the_first_endpoint_brings_every_mapping_in_order() {
    // C-260
    let rig = Rig::new();
    let mut space = rig.space();
    let runs = scattered(300);
    rig.map(&mut space, &runs).unwrap();
    let before = rig.unit.counters();
    rig.attach(&[ONE, TWO], &mut space).unwrap();
    let cost = rig.unit.counters().since(&before);
    assert_eq!(cost, Counters { attach: 2, map: 300, notifies: 4, ..Counters::default() });
    assert_eq!(rig.machine.mappings(space.id), in_device(&runs));
}

#[test]
fn ten_thousand_mappings_are_replayed_in_as_few_batches_as_the_ring_allows() {
    let rig = Rig::new();
    let mut space = rig.space();
    let runs = scattered(10_000);
    rig.map(&mut space, &runs).unwrap();
    let before = rig.unit.counters();
    rig.attach(&[ONE], &mut space).unwrap();
    let cost = rig.unit.counters().since(&before);
    let batches = 1 + 10_000_u64.div_ceil(128); // the ATTACH; then two descriptors per MAP
    assert_eq!(cost, Counters { attach: 1, map: 10_000, notifies: batches, ..Counters::default() });
    assert_eq!(rig.machine.mappings(space.id), in_device(&runs));
}

#[test]
fn neighbours_are_replayed_one_by_one_so_that_each_can_be_unmapped() {
    // C-267: an UNMAP must not cut what one MAP made
    let rig = Rig::new();
    let mut space = rig.space();
    let runs = [page(0x1000, 0x8000), page(0x2000, 0x9000)]; // contiguous on both sides
    rig.map(&mut space, &runs).unwrap();
    rig.attach(&[ONE], &mut space).unwrap();
    rig.unmap(&space, &[runs[0].range]).unwrap();
    assert_eq!(rig.machine.mappings(space.id), in_device(&runs[1..]));
}

#[test]
fn a_domain_that_was_left_is_filled_again() {
    // C-259
    let rig = Rig::new();
    let (mut space, mut blocking) = (rig.space(), rig.blocking());
    rig.map(&mut space, &[page(0x1000, 0x8000)]).unwrap();
    rig.attach(&[ONE], &mut space).unwrap();
    rig.attach(&[ONE], &mut blocking).unwrap();
    space.endpoints = 0;
    assert_eq!(rig.reads(ONE, 0x1000), Err(2), "blocked: on a domain that maps nothing");
    assert_eq!(rig.machine.mappings(space.id), [], "the device forgot it");
    let _ = rig.kinds();
    rig.attach(&[ONE], &mut space).unwrap();
    assert_eq!(rig.kinds(), [1, 3], "no DETACH, no UNMAP");
    assert_eq!(rig.reads(ONE, 0x1000), Ok(0x8000));
}

#[test]
fn release_sends_nothing_and_leaves_the_endpoint_blocked() {
    // C-270
    let rig = Rig::new();
    let mut blocking = rig.blocking();
    rig.attach(&[ONE], &mut blocking).unwrap();
    let before = rig.unit.counters();
    rig.unit.release(&[ONE]);
    assert_eq!(rig.unit.counters(), before);
    assert_eq!(rig.machine.domain_of(ONE), Some(blocking.id));
}

#[test]
fn only_unsupp_of_a_shared_domain_is_soft() {
    // C-256 against virtio-iommu section 5: the table of the design
    let cases = [
        (2, true, AttachError::Incompatible),
        (2, false, AttachError::Io),
        (4, true, AttachError::Io),
        (5, true, AttachError::Io),
        (6, true, AttachError::NoDevice),
        (7, true, AttachError::Io),
        (8, true, AttachError::OutOfMemory),
        (3, true, AttachError::Io),
        (200, true, AttachError::Io),
    ];
    for (status, shared, error) in cases {
        let rig = Rig::new();
        let mut space = rig.space();
        if shared {
            rig.attach(&[THREE], &mut space).unwrap();
        }
        rig.machine.lie(1, Lie::Status(status));
        let failure = rig.attach(&[ONE, TWO], &mut space).unwrap_err();
        let wanted = AttachFailure { error, refused: 1, left: Left::Unknown, touched: 2 };
        assert_eq!(failure, wanted, "status {status}");
        assert_eq!(rig.unit.health(), Health::Good, "a refusal breaks nothing");
    }
}

#[test]
fn the_worst_answer_of_a_batch_wins() {
    let rig = Rig::new();
    let mut space = rig.space();
    rig.attach(&[THREE], &mut space).unwrap();
    rig.machine.lie(0, Lie::Status(2));
    let failure = rig.attach(&[ONE, STRANGER], &mut space).unwrap_err();
    assert_eq!((failure.error, failure.refused), (AttachError::NoDevice, 0));
    rig.machine.lie(0, Lie::Status(4));
    let failure = rig.attach(&[ONE, STRANGER], &mut space).unwrap_err();
    assert_eq!((failure.error, failure.refused), (AttachError::Io, 0));
}

#[test]
fn a_refused_replay_says_that_every_endpoint_moved() {
    for (status, error) in [(8, AttachError::OutOfMemory), (4, AttachError::Io)] {
        let rig = Rig::new();
        let mut space = rig.space();
        rig.map(&mut space, &scattered(200)).unwrap();
        rig.machine.lie(2 + 150, Lie::Status(status));
        let failure = rig.attach(&[ONE, TWO], &mut space).unwrap_err();
        assert_eq!(failure, AttachFailure { error, refused: 0, left: Left::Unknown, touched: 2 });
        // What the core does then: back to where they were.
        rig.attach(&[TWO, ONE], &mut rig.blocking()).unwrap();
        assert_eq!(rig.reads(ONE, 0x10_0000), Err(2));
    }
}

#[test]
fn after_a_failed_attach_domains_are_emptied_before_they_are_filled() {
    // 7.5: it isn't known any more what the device kept
    let rig = Rig::new();
    let mut space = rig.space();
    rig.attach(&[STRANGER], &mut space).unwrap_err();
    rig.map(&mut space, &[page(0x1000, 0x8000)]).unwrap();
    let stale = FakeMapping { first: 0x1000, last: 0x1fff, phys: 0xbad0_0000, flags: 3 };
    rig.machine.plant(space.id, stale);
    let _ = rig.kinds();
    rig.attach(&[ONE], &mut space).unwrap();
    assert_eq!(rig.kinds(), [1, 4, 3]);
    assert_eq!(rig.reads(ONE, 0x1000), Ok(0x8000));
}

#[test]
fn a_device_that_forgets_no_domain_at_reset_can_be_driven_with_the_option() {
    // 7.5, cloud-hypervisor
    let options = Options { empty_new_domains: true, ..QUICK };
    let rig = start(FakeConfig::default(), options).unwrap();
    let mut blocking = rig.blocking();
    let stale = FakeMapping { first: 0, last: 0xffff, phys: 0, flags: 3 };
    rig.machine.plant(blocking.id, stale);
    rig.attach(&[ONE], &mut blocking).unwrap();
    assert_eq!(rig.reads(ONE, 0x100), Err(2));
    assert_eq!(rig.kinds(), [1, 4]);
    // A mapping that reaches out of the span can't be removed: then the domain is not used.
    let mut space = rig.space();
    rig.machine.plant(space.id, FakeMapping { last: u64::MAX, ..stale });
    let failure = rig.attach(&[TWO], &mut space).unwrap_err();
    assert_eq!((failure.error, failure.touched), (AttachError::Io, 1));
    assert_eq!(rig.unit.health(), Health::Good);
}

#[test]
fn more_endpoints_than_the_ring_holds_go_in_several_batches() {
    let endpoints: Vec<_> = (0..300).collect();
    let config = FakeConfig { endpoints: endpoints.clone(), ..FakeConfig::default() };
    let rig = start(config, QUICK).unwrap();
    let all: Vec<_> = endpoints.into_iter().map(EndpointId).collect();
    let mut space = rig.space();
    rig.machine.lie(200, Lie::Status(4));
    let failure = rig.attach(&all, &mut space).unwrap_err();
    assert_eq!((failure.refused, failure.touched), (200, 256), "the third batch was not sent");
    rig.attach(&all, &mut space).unwrap();
    assert_eq!(rig.machine.domain_of(EndpointId(299)), Some(space.id));
}
