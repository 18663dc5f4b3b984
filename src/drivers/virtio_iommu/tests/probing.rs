//! PROBE: what a list of properties may look like, and what it must not do to us.

use std::vec;

use super::super::probe::parse;
use super::*;
use crate::driver::{Progress, Start, Work};
use crate::error::ProbeError;
use crate::reserved::{MAX_RESERVED, ReservedKind, ReservedRegion, ReservedRegions};

const SOFTWARE: (u64, u64, ReservedKind) = (0x0800_0000, 0x080f_ffff, ReservedKind::SoftwareMsi);

fn resv_mem(kind: u16, subtype: u8, start: u64, end: u64) -> Vec<u8> {
    let mut bytes = vec![];
    bytes.extend(kind.to_le_bytes());
    bytes.extend(20_u16.to_le_bytes());
    bytes.extend([subtype, 0xee, 0xee, 0xee]); // reserved bytes: ignored
    bytes.extend(start.to_le_bytes());
    bytes.extend(end.to_le_bytes());
    bytes
}

fn parse_bytes(bytes: &[u8]) -> Result<ReservedRegions, ProbeError> {
    parse(bytes.len(), |at, out| out.copy_from_slice(&bytes[at..at + out.len()]))
}

fn list(regions: &ReservedRegions) -> Vec<(u64, u64, ReservedKind)> {
    let one = |r: &ReservedRegion| (r.range.first().0, r.range.last().0, r.kind);
    regions.as_slice().iter().map(one).collect()
}

#[test]
fn regions_are_read_and_a_hardware_window_suffices() {
    let mut bytes = resv_mem(1, 1, 0xfee0_0000, 0xfeef_ffff);
    bytes.extend(resv_mem(1, 0, 0x1000, 0x1fff));
    bytes.extend([0; 64]);
    let wanted =
        [(0x1000, 0x1fff, ReservedKind::Reserved), (0xfee0_0000, 0xfeef_ffff, ReservedKind::Msi)];
    assert_eq!(list(&parse_bytes(&bytes).unwrap()), wanted);
}

#[test]
fn without_a_hardware_window_there_is_one_for_software() {
    // C-035
    assert_eq!(list(&parse_bytes(&[]).unwrap()), [SOFTWARE]);
    assert_eq!(list(&parse_bytes(&[0; 3]).unwrap()), [SOFTWARE], "less than a head");
    assert_eq!(list(&parse_bytes(&[0; 512]).unwrap()), [SOFTWARE]);
}

#[test]
fn what_must_be_ignored_is_ignored() {
    let mut bytes = resv_mem(0x1001, 0, 0x5000, 0x5fff); // a reserved bit of the head
    bytes.extend(resv_mem(2, 0, 0x6000, 0x6fff)); // an unknown type, skipped by its length
    bytes.extend(resv_mem(1, 0, 0x8000, 0x7fff)); // ends before it starts
    bytes.extend([9, 0, 0, 0]); // an unknown type without a value
    bytes.extend(resv_mem(1, 200, 0x9000, 0x9fff)); // an unknown subtype: reserved
    bytes.extend([0, 0, 0xff, 0xff]); // the end, whatever its length says
    bytes.extend(resv_mem(1, 0, 0xa000, 0xafff));
    let wanted = [(0x9000, 0x9fff, ReservedKind::Reserved), SOFTWARE];
    assert_eq!(list(&parse_bytes(&bytes).unwrap()), wanted);
}

#[test]
fn a_longer_region_property_is_read_as_far_as_it_is_known() {
    let mut bytes = resv_mem(1, 1, 0x1000, 0x1fff);
    bytes[2] = 24;
    bytes.extend([7; 4]);
    assert_eq!(list(&parse_bytes(&bytes).unwrap()), [(0x1000, 0x1fff, ReservedKind::Msi)]);
}

#[test]
fn lengths_that_lie_are_an_error() {
    // C-277, rule 11.6
    let good = resv_mem(1, 0, 0x1000, 0x1fff);
    for len in 4..good.len() {
        assert_eq!(parse_bytes(&good[..len]).err(), Some(ProbeError::InvalidArg), "cut at {len}");
    }
    let mut short = good.clone();
    short[2] = 19;
    assert_eq!(parse_bytes(&short).err(), Some(ProbeError::InvalidArg));
    assert_eq!(parse_bytes(&[2, 0, 0xff, 0xff]).err(), Some(ProbeError::InvalidArg));
}

#[test]
fn too_many_properties_and_too_many_regions_are_errors() {
    let endless = [2, 0, 0, 0].repeat(2000);
    assert_eq!(parse_bytes(&endless).err(), Some(ProbeError::InvalidArg));
    let many: Vec<u8> = (0..=MAX_RESERVED as u64)
        .flat_map(|n| resv_mem(1, 0, n * 0x2000, n * 0x2000 + 0xfff))
        .collect();
    assert_eq!(parse_bytes(&many).err(), Some(ProbeError::NoSpace));
}

#[test]
fn every_single_wrong_byte_ends_in_an_answer() {
    let good: Vec<u8> =
        (0..3).flat_map(|n| resv_mem(1, n as u8, n << 12, n << 12 | 0xfff)).collect();
    for at in 0..good.len() {
        for value in 0..=255 {
            let mut bytes = good.clone();
            bytes[at] = value;
            let _ = parse_bytes(&bytes);
        }
    }
}

#[test]
fn a_probe_asks_the_device() {
    let rig = Rig::new();
    let regions = rig.unit.probe(ONE).unwrap();
    assert_eq!(list(&regions), [(0x0802_0000, 0x0802_0fff, ReservedKind::Msi)]);
    assert_eq!(rig.unit.probe(STRANGER).err(), Some(ProbeError::NoDevice));
    let counters = rig.unit.counters();
    assert_eq!((counters.probe, counters.refused), (2, 1));
}

#[test]
fn an_answer_does_not_show_what_an_earlier_one_left() {
    let rig = Rig::new();
    rig.unit.probe(ONE).unwrap();
    rig.machine.configure(|config| config.properties = vec![]);
    assert_eq!(list(&rig.unit.probe(ONE).unwrap()), [SOFTWARE]);
}

#[test]
fn without_the_feature_nothing_is_sent() {
    let config = FakeConfig { features: 0x101_3000_0067, ..FakeConfig::default() };
    let rig = start(config, QUICK).unwrap();
    assert_eq!(list(&rig.unit.probe(STRANGER).unwrap()), [SOFTWARE]);
    assert_eq!(rig.unit.counters().probe, 0);
}

#[test]
fn an_answer_of_any_believable_size_is_taken() {
    for probe_size in [0, 3, 24, 4096, 0x1_0000] {
        let properties = if probe_size < 24 { vec![] } else { resv_mem(1, 1, 0, 0xfff) };
        let config = FakeConfig { probe_size, properties, ..FakeConfig::default() };
        let rig = start(config, QUICK).unwrap();
        let wanted = if probe_size < 24 { SOFTWARE } else { (0, 0xfff, ReservedKind::Msi) };
        assert_eq!(list(&rig.unit.probe(ONE).unwrap()), [wanted], "probe_size {probe_size}");
    }
}

/// Keeps the warnings of each thread; only where the crate logs through `log`.
#[cfg(all(feature = "log", not(feature = "defmt")))]
mod warnings {
    use std::cell::RefCell;
    use std::string::{String, ToString};
    use std::vec::Vec;

    std::thread_local!(static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) });

    struct Keep;

    impl log::Log for Keep {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            SEEN.with(|seen| seen.borrow_mut().push(record.args().to_string()));
        }

        fn flush(&self) {}
    }

    pub(super) fn of(what: impl FnOnce()) -> Vec<String> {
        let _ = log::set_logger(&Keep); // another test may have
        log::set_max_level(log::LevelFilter::Warn);
        SEEN.with(|seen| seen.borrow_mut().clear());
        what();
        SEEN.with(RefCell::take)
    }
}

#[test]
#[cfg(all(feature = "log", not(feature = "defmt")))]
fn an_unknown_kind_of_region_is_warned_of() {
    // C-277
    let parsed = |subtype| move || drop(parse_bytes(&resv_mem(1, subtype, 0x9000, 0x9fff)));
    assert_eq!(warnings::of(parsed(0)).len() + warnings::of(parsed(1)).len(), 0);
    assert_eq!(warnings::of(parsed(200)), ["iommu: region 36864..=40959 is reserved as kind 200"]);
}

#[test]
fn a_list_that_does_not_fit_is_an_error() {
    // virtio-iommu section 5: QEMU answers INVAL to more regions than probe_size holds
    let properties = vec![0; 65];
    let config = FakeConfig { probe_size: 64, properties, ..FakeConfig::default() };
    let rig = start(config, QUICK).unwrap();
    assert_eq!(rig.unit.probe(ONE).err(), Some(ProbeError::Io));
    assert_eq!(rig.unit.health(), crate::driver::Health::Good);
}

#[test]
fn a_probe_is_the_last_request_of_its_notify() {
    // virtio-iommu section 4: QEMU before 7.2.5 garbles what follows a PROBE in a batch
    let rig = start(FakeConfig { delay: 9, ..FakeConfig::default() }, QUICK).unwrap();
    let mut space = rig.space();
    rig.attach(&[ONE], &mut space).unwrap();
    let Start::Started { ticket, .. } = rig.unit.start(&space.view(), Work::Map(&scattered(2)))
    else {
        panic!("there is room")
    };
    let before = rig.machine.notifies();
    rig.unit.probe(ONE).unwrap();
    assert_eq!(rig.machine.notifies() - before, 1);
    rig.map(&mut space, &[page(0x9000_0000, 0)]).unwrap();
    assert_eq!(rig.unit.progress(ticket), Progress::Done);
    assert_eq!(rig.kinds(), [1, 3, 3, 5, 3]);
    assert_eq!(rig.machine.notifies() - before, 2, "the last MAP has a notify of its own");
}
