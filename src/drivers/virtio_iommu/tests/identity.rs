//! The identity domain: an ATTACH with the bypass flag, where the device has it (rule C-268).

use super::super::Features;
use super::*;
use crate::driver::{Capabilities, Counters};
use crate::error::DomainError;
use crate::virtio::transport::fake::Lie;

/// The flags field of the last ATTACH.
fn flags(rig: &Rig) -> Vec<u8> {
    rig.machine.take_log().iter().filter(|bytes| bytes[0] == 1).map(|bytes| bytes[12]).collect()
}

#[test]
fn an_endpoint_is_attached_with_the_flag_and_reaches_all_of_memory() {
    let rig = Rig::new();
    let mut identity = Space::new(rig.unit.identity().unwrap());
    assert_eq!(rig.unit.identity(), Ok(identity.id), "one domain, for good");
    let mut blocking = rig.blocking();
    rig.attach(&[ONE, TWO], &mut blocking).unwrap();
    assert_eq!(rig.reads(ONE, 0x1234), Err(2), "the control");
    let before = rig.unit.counters();
    let _ = rig.machine.take_log();
    rig.attach(&[ONE], &mut identity).unwrap();
    let cost = rig.unit.counters().since(&before);
    assert_eq!(cost, Counters { attach: 1, notifies: 1, ..Counters::default() });
    assert_eq!(flags(&rig), [1]);
    assert_eq!(rig.reads(ONE, 0x1234), Ok(0x1234));
    assert_eq!(rig.reads(TWO, 0x1234), Err(2), "nobody else does");
    rig.attach(&[ONE], &mut blocking).unwrap();
    assert_eq!(flags(&rig), [0], "the blocking domain is attached without it");
    assert_eq!(rig.reads(ONE, 0x1234), Err(2));
    let mut space = rig.space();
    assert_ne!(space.id, identity.id);
    rig.attach(&[ONE], &mut space).unwrap();
    assert_eq!(flags(&rig), [0]);
}

#[test]
fn a_device_without_the_feature_says_that_it_can_not() {
    let offered = FakeConfig::default().features & !Features::BYPASS_CONFIG.bits();
    let rig = start(FakeConfig { features: offered, ..FakeConfig::default() }, QUICK).unwrap();
    assert_eq!(rig.unit.identity(), Err(DomainError::Unsupported));
    assert_eq!(rig.unit.alloc_domain(DomainFeatures::empty()), Ok(DomainId(1)), "no id was taken");
}

#[test]
fn a_new_identity_domain_is_never_emptied_first() {
    // an UNMAP in it would be refused, and look like a lie
    let options = Options { empty_new_domains: true, ..QUICK };
    let rig = start(FakeConfig::default(), options).unwrap();
    let mut identity = Space::new(rig.unit.identity().unwrap());
    let _ = rig.kinds();
    rig.attach(&[ONE], &mut identity).unwrap();
    assert_eq!(rig.kinds(), [1]);
}

#[test]
fn no_id_is_left_and_a_poisoned_unit_are_ordinary_errors() {
    let config = FakeConfig { domain_range: (5, 6), ..FakeConfig::default() };
    let rig = start(config, QUICK).unwrap();
    let taken = rig.unit.alloc_domain(DomainFeatures::empty()).unwrap();
    assert_eq!(rig.unit.identity(), Err(DomainError::NoSpace));
    rig.unit.free_domain(taken);
    assert_eq!(rig.unit.identity(), Ok(DomainId(6)));
    let rig = Rig::new();
    rig.machine.lie(0, Lie::NoAnswer);
    let mut blocking = rig.blocking();
    rig.attach(&[ONE], &mut blocking).unwrap_err();
    assert_eq!(rig.unit.identity(), Err(DomainError::Io));
}

#[test]
fn what_the_device_can_express_is_a_capability() {
    // C-158, C-262
    assert!(Rig::new().unit.capabilities().contains(Capabilities::MMIO));
    let offered = FakeConfig::default().features & !Features::MMIO.bits();
    let rig = start(FakeConfig { features: offered, ..FakeConfig::default() }, QUICK).unwrap();
    assert!(!rig.unit.capabilities().contains(Capabilities::MMIO));
}
