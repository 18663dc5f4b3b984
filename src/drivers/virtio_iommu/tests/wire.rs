//! Every byte of every request, written by hand from virtio 1.2 §5.13.6.

use super::*;

/// ATTACH of endpoint 0x1234 to domain 1.
#[rustfmt::skip]
const ATTACH: [u8; 20] = [
    1, 0, 0, 0,             // type, reserved
    1, 0, 0, 0,             // domain
    0x34, 0x12, 0, 0,       // endpoint
    0, 0, 0, 0,             // flags
    0, 0, 0, 0,             // reserved
];

#[rustfmt::skip]
const MAP: [u8; 36] = [
    3, 0, 0, 0,
    1, 0, 0, 0,             // domain
    0, 0x30, 0x02, 0x01, 0x56, 0x34, 0, 0,          // virt_start 0x3456_0102_3000
    0xff, 0x4f, 0x02, 0x01, 0x56, 0x34, 0, 0,       // virt_end, the last byte
    0, 0xd0, 0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12,    // phys_start
    5, 0, 0, 0,             // flags: READ, MMIO
];

#[rustfmt::skip]
const UNMAP: [u8; 28] = [
    4, 0, 0, 0,
    1, 0, 0, 0,
    0, 0x30, 0x02, 0x01, 0x56, 0x34, 0, 0,
    0xff, 0x4f, 0x02, 0x01, 0x56, 0x34, 0, 0,
    0, 0, 0, 0,             // reserved
];

#[test]
fn requests_have_the_bytes_of_the_specification() {
    let config = FakeConfig { endpoints: std::vec![0x1234], ..FakeConfig::default() };
    let rig = start(config, QUICK).unwrap();
    let endpoint = EndpointId(0x1234);
    let mut space = rig.space();
    assert_eq!(space.id, DomainId(1), "the hand-written bytes count on it");
    rig.unit.probe(endpoint).unwrap();
    rig.attach(&[endpoint], &mut space).unwrap();
    let run = Run {
        range: range(0x3456_0102_3000, 0x2000),
        phys: PhysAddr(0x1234_5678_9abc_d000),
        prot: Prot::READ | Prot::MMIO | Prot::NOEXEC, // NOEXEC has no bit: C-262
    };
    rig.map(&mut space, &[run]).unwrap();
    rig.unmap(&space, &[run.range]).unwrap();
    let mut probe = std::vec![5, 0, 0, 0, 0x34, 0x12, 0, 0];
    probe.resize(72, 0);
    let log = rig.machine.take_log();
    assert_eq!(log, [probe, ATTACH.to_vec(), MAP.to_vec(), UNMAP.to_vec()]);
}

#[test]
fn a_request_is_one_readable_and_one_writable_descriptor() {
    // virtio-iommu section 4: only this works with all devices
    let rig = Rig::new();
    let mut space = rig.space();
    rig.attach(&[ONE], &mut space).unwrap();
    rig.map(&mut space, &[page(0, 0x1000)]).unwrap();
    rig.unit.probe(ONE).unwrap();
    let flags = rig.machine.descriptor_flags();
    assert!(flags.len() >= 6, "{flags:?}");
    assert!(flags.chunks(2).all(|pair| pair == [1, 2]), "NEXT, WRITE for each: {flags:?}");
}

#[test]
fn write_only_and_cached_mappings_carry_only_what_the_device_knows() {
    let rig = Rig::new();
    let mut space = rig.space();
    rig.attach(&[ONE], &mut space).unwrap();
    let run = Run { prot: Prot::WRITE | Prot::CACHE, ..page(0x1000, 0x7000) };
    rig.map(&mut space, &[run]).unwrap();
    assert_eq!(rig.machine.mappings(space.id)[0].flags, 2);
    assert_eq!(rig.machine.translate(ONE, 0x1008, true), Ok(0x7008));
    assert_eq!(rig.machine.translate(ONE, 0x1008, false), Err(2));
}
