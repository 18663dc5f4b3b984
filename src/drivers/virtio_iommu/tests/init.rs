//! Start-up: what is refused and with what error, what is accepted, and the way out of bypass.

use std::vec;

use super::super::{ConfigField, Features};
use super::*;
use crate::driver::{Health, Progress, Start, Work};
use crate::virtio::DeviceStatus;
use crate::virtio::transport::TransportError;

fn refused(config: FakeConfig) -> InitError {
    let machine = FakeMachine::new(config);
    let unit = VirtioIommu::new(machine.clone(), machine.transport(), &POOL, QUICK);
    let error = unit.expect_err("this device must be refused");
    assert_eq!(machine.pages(), 0, "{error}: nothing stays behind");
    error
}

fn config() -> FakeConfig {
    FakeConfig::default()
}

#[test]
fn only_what_is_used_is_accepted() {
    let rig = Rig::new();
    assert_eq!(rig.machine.accepted_features(), 0x1_0000_0077);
    assert_eq!(rig.unit.features().bits(), 0x1_0000_0077);
    let ready = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK;
    assert_eq!(rig.machine.status(), ready | DeviceStatus::DRIVER_OK);
    assert_eq!(rig.unit.health(), Health::Good);
    assert_eq!(rig.unit.blocked(), DomainId(0));
    assert_eq!(rig.unit.alloc_domain(DomainFeatures::empty()), Ok(DomainId(1)));
}

#[test]
fn bypass_and_access_platform_are_never_accepted_unasked() {
    // Rule C-270; virtio-iommu section 2
    let features = config().features | 1 << 3 | 1 << 33;
    let rig = start(FakeConfig { features, ..config() }, QUICK).unwrap();
    assert!(!rig.unit.features().intersects(Features::BYPASS | Features::ACCESS_PLATFORM));
    assert_eq!(rig.machine.accepted_features() & (1 << 3 | 1 << 33), 0);
    let options = Options { own_dma_is_identity: true, ..QUICK };
    let rig = start(FakeConfig { features, ..config() }, options).unwrap();
    assert!(rig.unit.features().contains(Features::ACCESS_PLATFORM));
    assert!(!rig.unit.features().contains(Features::BYPASS));
}

#[test]
fn start_up_leaves_bypass_and_checks_it() {
    for bypass in [0, 1] {
        let rig = start(FakeConfig { bypass, ..config() }, QUICK).unwrap();
        assert_eq!(rig.machine.bypass(), 0);
        assert_eq!(rig.reads(ONE, 0x1000), Err(0), "no domain: blocked");
    }
    assert_eq!(refused(FakeConfig { keep_bypass: true, ..config() }), InitError::BypassStuck);
}

#[test]
fn a_device_without_the_bypass_byte_is_not_asked_for_it() {
    // crosvm: writing it would break the device
    let features = config().features & !(1 << 6);
    let rig = start(FakeConfig { features, bypass: 0, ..config() }, QUICK).unwrap();
    assert_eq!(rig.reads(ONE, 0x1000), Err(0));
}

#[test]
fn the_wrong_device_is_refused() {
    let device_id = 4;
    assert_eq!(refused(FakeConfig { device_id, ..config() }), InitError::NotAnIommu { device_id });
    let without = |bits: u64| FakeConfig { features: config().features & !bits, ..config() };
    assert_eq!(refused(without(1 << 32)), InitError::NoVersion1);
    assert_eq!(refused(without(1 << 2)), InitError::NoMapUnmap);
    assert_eq!(
        refused(FakeConfig { refuse_features: true, ..config() }),
        InitError::FeaturesRefused
    );
    for queue_sizes in [[1, 256], [0, 256]] {
        let wanted = InitError::Transport(TransportError::NoQueue(0));
        assert_eq!(refused(FakeConfig { queue_sizes, ..config() }), wanted);
    }
    let wanted = InitError::Transport(TransportError::NoQueue(1));
    assert_eq!(refused(FakeConfig { queue_sizes: [256, 0], ..config() }), wanted);
}

#[test]
fn a_device_that_ignores_reset_is_refused_in_time() {
    let rig = Rig::new();
    let machine = rig.machine.clone();
    machine.configure(|config| config.ignore_reset = true);
    drop(rig); // running when the next driver comes
    let again = VirtioIommu::new(machine.clone(), machine.transport(), &POOL, QUICK);
    let error = again.err().map(|error| (error, error.errno()));
    assert_eq!(error, Some((InitError::NoReset, 5)));
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    // Rules 8.5 and 11.8
    let bad = InitError::BadConfig;
    let cases = [
        (FakeConfig { page_size_mask: 0, ..config() }, bad(ConfigField::PageSizeMask)),
        (
            FakeConfig { page_size_mask: 0xffff_ffff_ffff_0000, ..config() },
            InitError::GranuleTooLarge { granule: 0x1_0000 }, // C-276
        ),
        (
            FakeConfig { page_size_mask: 1 << 63, ..config() },
            InitError::GranuleTooLarge { granule: 1 << 63 },
        ),
        (FakeConfig { input_range: (0x2000, 0x1fff), ..config() }, bad(ConfigField::InputRange)),
        (FakeConfig { input_range: (0, 0xffe), ..config() }, bad(ConfigField::InputRange)),
        (FakeConfig { input_range: (1, 0x1ffe), ..config() }, bad(ConfigField::InputRange)),
        (
            FakeConfig { input_range: (u64::MAX - 5, u64::MAX), ..config() },
            bad(ConfigField::InputRange),
        ),
        (FakeConfig { domain_range: (6, 5), ..config() }, bad(ConfigField::DomainRange)),
        (FakeConfig { probe_size: 0x1_0001, ..config() }, bad(ConfigField::ProbeSize)),
        (FakeConfig { restless: true, ..config() }, bad(ConfigField::Generation)),
    ];
    for (config, error) in cases {
        assert_eq!(refused(config), error);
    }
}

#[test]
fn a_granule_up_to_the_system_page_is_taken() {
    // C-276
    let two = FakeConfig { page_size_mask: 0x20_1000, ..config() }; // cloud-hypervisor
    assert_eq!(start(two, QUICK).unwrap().unit.geometry().page_sizes.granule(), 0x1000);
    let large = FakeConfig { page_size_mask: !0x3fff, system_page: 0x1_0000, ..config() };
    let rig = start(large, QUICK).unwrap();
    assert_eq!(rig.unit.geometry().page_sizes.granule(), 0x4000);
    let larger = FakeConfig { page_size_mask: !0x1_ffff, system_page: 0x1_0000, ..config() };
    assert_eq!(refused(larger), InitError::GranuleTooLarge { granule: 0x2_0000 });
}

#[test]
fn fields_count_only_with_their_feature() {
    let features = config().features & !0b1_0011; // no ranges, no PROBE
    let nonsense = FakeConfig {
        features,
        input_range: (9, 3),
        domain_range: (9, 3),
        probe_size: u32::MAX,
        ..config()
    };
    let rig = start(nonsense, QUICK).unwrap();
    assert_eq!(rig.unit.geometry().aperture, IovaRange::ALL);
    let config = rig.unit.config();
    let found = (config.first_domain, config.last_domain, config.probe_size);
    assert_eq!(found, (0, u32::MAX, 0));
}

#[test]
fn the_aperture_is_cut_to_whole_granules() {
    let cases = [
        ((0, u64::MAX), (0, u64::MAX)),
        ((0x1001, 0x4ffe), (0x2000, 0x3fff)),
        ((0x1000, 0x1fff), (0x1000, 0x1fff)),
        ((u64::MAX - 0xfff, u64::MAX), (u64::MAX - 0xfff, u64::MAX)),
    ];
    for (input_range, (first, last)) in cases {
        let rig = start(FakeConfig { input_range, ..config() }, QUICK).unwrap();
        let aperture = rig.unit.geometry().aperture;
        assert_eq!((aperture.first().0, aperture.last().0), (first, last), "{input_range:x?}");
    }
}

#[test]
fn odd_queue_sizes_work() {
    for queue_sizes in [[2, 1], [3, 5], [255, 255], [1024, 1024], [0xffff, 0xffff]] {
        let rig = start(FakeConfig { queue_sizes, ..config() }, QUICK).unwrap();
        let mut space = rig.space();
        rig.attach(&[ONE, TWO], &mut space).unwrap();
        rig.map(&mut space, &scattered(10)).unwrap();
        assert_eq!(rig.machine.mappings(space.id), in_device(&scattered(10)), "{queue_sizes:?}");
    }
}

#[test]
fn domain_ids_come_from_the_advertised_range() {
    // C-258
    let rig = start(FakeConfig { domain_range: (40, 41), ..config() }, QUICK).unwrap();
    assert_eq!(rig.unit.blocked(), DomainId(40));
    let only = rig.unit.alloc_domain(DomainFeatures::empty()).unwrap();
    assert_eq!(only, DomainId(41));
    assert_eq!(
        rig.unit.alloc_domain(DomainFeatures::empty()).map_err(|error| error.errno()),
        Err(28)
    );
    rig.unit.free_domain(only);
    assert_eq!(rig.unit.alloc_domain(DomainFeatures::empty()), Ok(only));
}

#[test]
fn no_memory_at_any_place_is_an_ordinary_error() {
    for n in 0.. {
        let machine = FakeMachine::new(config());
        machine.refuse_memory_after(Some(n));
        match VirtioIommu::new(machine.clone(), machine.transport(), &POOL, QUICK) {
            Ok(_) => {
                assert_eq!(n, 4 + 5, "the check; two rings, slots, PROBE buffer, event buffers");
                return;
            }
            Err(error) => assert_eq!((error, machine.pages()), (InitError::OutOfMemory, 0)),
        }
    }
}

#[test]
fn interrupts_are_asked_for_only_by_the_option() {
    // Without it both available rings say VIRTQ_AVAIL_F_NO_INTERRUPT.
    let quiet = Rig::new();
    let loud = start(config(), Options { interrupts: true, ..QUICK }).unwrap();
    assert_eq!(quiet.machine.available_flags(), [1, 1]);
    assert_eq!(loud.machine.available_flags(), [1, 0], "for fault records");
    let options = Options { request_interrupts: true, ..QUICK };
    let tasks = start(config(), options).unwrap();
    assert_eq!(tasks.machine.available_flags(), [1, 1], "start-up waits; see `started.rs`");
}

#[test]
fn features_that_contradict_each_other_do_no_harm() {
    let required = 1 << 32 | 1 << 2;
    let cases = [
        !(1 << 33),                   // everything at once: both bypass rules, packed rings
        required | 1 << 3 | 1 << 6,   // BYPASS and BYPASS_CONFIG
        required | 1 << 3,            // only the old rule: not accepted, so blocked
        required | 1 << 5,            // device memory and nothing else
        required | 1 << 34 | 1 << 29, // ring formats that we don't speak
    ];
    for features in cases {
        let bypass = u8::from(features & 1 << 6 != 0);
        let config = FakeConfig { features, bypass, ..config() };
        let rig = start(config, QUICK).unwrap();
        assert_eq!(rig.machine.accepted_features() & !0x1_0000_0077, 0, "{features:#x}");
        assert_eq!(rig.reads(ONE, 0x1000), Err(0), "{features:#x}");
        let mut space = rig.space();
        rig.attach(&[ONE], &mut space).unwrap();
        rig.map(&mut space, &[page(0x1000, 0x8000)]).unwrap();
        assert_eq!(rig.reads(ONE, 0x1000), Ok(0x8000), "{features:#x}");
    }
    // PROBE without room for an answer; a range of ids without one for a domain.
    let nothing =
        FakeConfig { probe_size: 0, properties: vec![], domain_range: (5, 5), ..config() };
    let rig = start(nothing, QUICK).unwrap();
    assert!(rig.unit.probe(ONE).is_ok());
    assert_eq!(
        rig.unit.alloc_domain(DomainFeatures::empty()).map_err(|error| error.errno()),
        Err(28)
    );
}

#[test]
fn a_device_may_give_up_at_any_moment() {
    // DEVICE_NEEDS_RESET at each register access of a whole life
    let (mut refused, mut poisoned, mut unseen) = (0, 0, 0);
    for n in 0.. {
        let machine = FakeMachine::new(FakeConfig { delay: 2, ..config() });
        machine.give_up_at(n);
        let unit = VirtioIommu::new(machine.clone(), machine.transport(), &POOL, QUICK);
        let Ok(unit) = unit else {
            refused += 1;
            assert_eq!(machine.pages(), 0, "at {n}");
            continue;
        };
        let rig = Rig { machine: machine.clone(), unit };
        let mut space = rig.space();
        let _ = rig.unit.probe(ONE);
        let _ = rig.attach(&[ONE, TWO], &mut space);
        let mapped = rig.map(&mut space, &scattered(200));
        let run = page(0x9000_0000, 0);
        space.mappings.insert(run.range, Target { phys: run.phys, prot: run.prot }).unwrap();
        let started = match rig.unit.start(&space.view(), Work::Map(&[run])) {
            Start::Started { ticket, .. } => loop {
                match rig.unit.progress(ticket) {
                    Progress::Pending => {}
                    end => break end,
                }
            },
            _ => Progress::Failed,
        };
        let gone = rig.unmap(&space, &[scattered(1)[0].range]);
        rig.unit.take_faults(&mut |_| ());
        rig.unit.check();
        if rig.unit.health() == Health::Poisoned {
            poisoned += 1;
            assert_eq!(rig.reads(ONE, 0x10_2000), Err(0), "at {n}");
        } else {
            unseen += 1;
            assert_eq!((mapped, started, gone), (Ok(()), Progress::Done, Ok(())), "at {n}");
        }
        let pages = machine.pages();
        drop(rig);
        // If it gives up in the very moment of the reset, that one is not confirmed.
        let confirmed = machine.status().is_empty();
        assert_eq!(machine.pages(), if confirmed { 0 } else { pages }, "at {n}");
        if unseen > 3 {
            break; // past the last access
        }
    }
    assert!(refused > 10 && poisoned > 5, "{refused} refused, {poisoned} poisoned");
}
