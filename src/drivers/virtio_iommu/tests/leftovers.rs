//! A device whose reset keeps domains: QEMU 10.0, cloud-hypervisor.

use std::vec;

use super::*;
use crate::driver::{Counters, Health};
use crate::virtio::transport::fake::Lie;

fn keeping() -> FakeConfig {
    FakeConfig { keep_domains: true, ..FakeConfig::default() }
}

/// A machine whose earlier driver left endpoint ONE on a filled domain, the `nth` that it made.
fn left_behind(nth: u32) -> FakeMachine {
    let rig = start(keeping(), QUICK).unwrap();
    let ids: Vec<_> =
        (0..nth).map(|_| rig.unit.alloc_domain(DomainFeatures::empty()).unwrap()).collect();
    let mut space = Space::new(*ids.last().unwrap());
    rig.map(&mut space, &[page(0x1000, 0x8000)]).unwrap();
    rig.attach(&[ONE], &mut space).unwrap();
    let machine = rig.machine.clone();
    drop(rig);
    assert_eq!(machine.translate(ONE, 0x1000, true), Ok(0x8000), "the control: it is still there");
    machine
}

fn again(machine: &FakeMachine) -> Rig {
    let unit = VirtioIommu::new(machine.clone(), machine.transport(), &POOL, QUICK).unwrap();
    Rig { machine: machine.clone(), unit }
}

#[test]
fn start_up_empties_what_it_finds_and_never_uses_its_id() {
    for nth in [1, 7, 40] {
        // 40 is beyond the first look: domains 32 and 33 lead there.
        let machine = left_behind(nth);
        if nth > 31 {
            for id in [30, 31] {
                machine
                    .plant(DomainId(id), FakeMapping { first: 0, last: 0xfff, phys: 0, flags: 3 });
            }
        }
        let rig = again(&machine);
        assert_eq!(rig.reads(ONE, 0x1000), Err(2), "nobody reaches anything any more");
        let fresh = rig.unit.alloc_domain(DomainFeatures::empty()).unwrap();
        assert_eq!(fresh, DomainId(nth + 1));
        // So what is mapped now is not shared with the endpoint that nobody added yet.
        let mut space = Space::new(fresh);
        rig.attach(&[TWO], &mut space).unwrap();
        rig.map(&mut space, &[page(0x1000, 0x9000)]).unwrap();
        assert_eq!(rig.reads(TWO, 0x1000), Ok(0x9000));
        assert_eq!(rig.reads(ONE, 0x1000), Err(2));
    }
}

#[test]
fn where_nothing_was_left_the_question_costs_one_notify() {
    let machine = FakeMachine::new(FakeConfig::default());
    let rig = again(&machine);
    assert_eq!((machine.notifies(), rig.kinds()), (1, vec![4; 32]));
    let counted = rig.unit.counters();
    assert_eq!(Counters { notifies: 0, ..counted }, Counters::default(), "nobody's cost");
    assert_eq!(rig.unit.alloc_domain(DomainFeatures::empty()), Ok(DomainId(1)), "no id is lost");
}

#[test]
fn a_unit_that_is_given_up_while_its_ring_works_is_emptied_first() {
    let rig = start(keeping(), QUICK).unwrap();
    let mut spaces = [rig.space(), rig.space()];
    for (space, endpoint) in spaces.iter_mut().zip([ONE, TWO]) {
        rig.attach(&[endpoint], space).unwrap();
        rig.map(space, &[page(0x1000, 0x8000)]).unwrap();
    }
    rig.machine.lie(0, Lie::Status(2));
    rig.unmap(&spaces[0], &[range(0x1000, 0x1000)]).unwrap_err();
    assert_eq!(rig.unit.health(), Health::Poisoned);
    assert_eq!((rig.reads(ONE, 0x1000), rig.reads(TWO, 0x1000)), (Err(2), Err(2)));
}

#[test]
fn a_device_that_does_not_answer_the_question_is_refused() {
    let machine = FakeMachine::new(FakeConfig::default());
    machine.lie(3, Lie::NoAnswer);
    let refused = VirtioIommu::new(machine.clone(), machine.transport(), &POOL, QUICK);
    assert_eq!(refused.err(), Some(InitError::NoAnswer));
    assert_eq!(machine.pages(), 0, "its memory is back");
}

#[test]
fn an_identity_domain_that_was_left_is_not_used_again() {
    let rig = start(keeping(), QUICK).unwrap();
    let mut identity = Space::new(rig.unit.identity().unwrap());
    rig.attach(&[ONE], &mut identity).unwrap();
    let machine = rig.machine.clone();
    drop(rig);
    let rig = again(&machine);
    assert_eq!(rig.unit.alloc_domain(DomainFeatures::empty()), Ok(DomainId(identity.id.0 + 1)));
    let mut blocking = rig.blocking();
    rig.attach(&[ONE], &mut blocking).unwrap();
    assert_eq!(rig.reads(ONE, 0x1000), Err(2), "adding the device blocks it, as always");
}
