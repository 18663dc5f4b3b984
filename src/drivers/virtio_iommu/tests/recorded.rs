//! Bytes recorded from QEMU 7.2 (machine virt), so that driver and model don't agree on a mistake.
//!
//! Each request is what the device took and answered with status 0 in 4 bytes.

use super::*;
use crate::fault::{Access, FaultReason};
use crate::reserved::{ReservedKind, ReservedRegion};

/// ATTACH of endpoint 0x10 to domain 1.
const ATTACH: [u8; 20] = [1, 0, 0, 0, 1, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// MAP in domain 1 of 0x1000_0000..=0x1000_0fff to 0x4401_2000, to read and write.
const MAP: [u8; 36] = [
    3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0xff, 0x0f, 0, 0x10, 0, 0, 0, 0, 0, 0x20, 1,
    0x44, 0, 0, 0, 0, 3, 0, 0, 0,
];

/// UNMAP of the same.
const UNMAP: [u8; 28] = [
    4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0xff, 0x0f, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// PROBE of endpoint 0x10: type, endpoint; the 64 bytes that follow were 0.
const PROBE: [u8; 8] = [5, 0, 0, 0, 0x10, 0, 0, 0];

/// The properties of the answer; the rest of the 512 bytes, and the 4 of the status, were 0.
const PROPERTIES: [u8; 24] =
    [1, 0, 0x14, 0, 1, 0, 0, 0, 0, 0, 2, 8, 0, 0, 0, 0, 0xff, 0x0f, 2, 8, 0, 0, 0, 0];

/// A record of endpoint 0x10, refused at 0x4401_2000.
const EVENT: [u8; 24] =
    [2, 0, 0, 0, 0, 1, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 1, 0x44, 0, 0, 0, 0];

#[test]
fn requests_are_byte_by_byte_what_qemu_took() {
    let rig = Rig::new();
    let _ = rig.machine.take_log();
    let mut space = rig.space();
    let run =
        Run { range: range(0x1000_0000, 0x1000), phys: PhysAddr(0x4401_2000), prot: Prot::RW };
    rig.unit.probe(TWO).unwrap();
    rig.attach(&[TWO], &mut space).unwrap();
    rig.map(&mut space, &[run]).unwrap();
    assert_eq!(rig.machine.translate(TWO, 0x1000_0004, true), Ok(0x4401_2004), "the model agrees");
    rig.unmap(&space, &[run.range]).unwrap();
    let mut probe = PROBE.to_vec();
    probe.resize(72, 0);
    let log = rig.machine.take_log();
    assert_eq!(log, [probe, ATTACH.to_vec(), MAP.to_vec(), UNMAP.to_vec()]);
}

#[test]
fn properties_mean_what_the_board_has() {
    let mut answer = [0; 512];
    answer[..PROPERTIES.len()].copy_from_slice(&PROPERTIES);
    let read = |at: usize, out: &mut [u8]| out.copy_from_slice(&answer[at..at + out.len()]);
    let regions = super::super::probe::parse(answer.len(), read).unwrap();
    // The frame of the interrupt controller that takes messages.
    let frame = ReservedRegion { range: range(0x802_0000, 0x1000), kind: ReservedKind::Msi };
    assert_eq!(regions.as_slice(), [frame]);
    assert_eq!(FakeConfig::default().properties, PROPERTIES, "the model answers the same");
}

#[test]
fn a_fault_record_is_decoded() {
    let rig = Rig::new();
    rig.machine.event(&EVENT, 24);
    let mut taken = Vec::new();
    rig.unit.take_faults(&mut |fault| taken.push(fault));
    let [fault] = taken[..] else { panic!("{taken:?}") };
    assert_eq!((fault.endpoint, fault.reason), (TWO, FaultReason::Mapping));
    assert_eq!(fault.address, Some(Iova(0x4401_2000)));
    assert_eq!(fault.access, Access::empty(), "it does not say what the access was");
}
