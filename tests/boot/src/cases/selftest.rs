//! The library's self-test on the machine that it is for: by transfers and by interrupt messages, and
//! told a wrong requester id.

use iommu::driver::EndpointId;
use iommu::group::OwnerId;
use iommu::selftest::edu::EduProbe;
use iommu::selftest::msi::Doorbell;
use iommu::selftest::{self, Outcome, Probe, Reason, Report, Step};

use crate::machine::{Machine, PLATFORM, POOL};
use crate::world::{World, place};

fn run(world: &World, index: usize, endpoint: EndpointId, probe: &mut dyn Probe) -> Report {
    let report = selftest::run(&world.group(index), endpoint, &PLATFORM, &POOL, probe);
    for (step, outcome) in report.steps() {
        let (step, outcome) = (defmt::Display2Format(&step), defmt::Display2Format(&outcome));
        defmt::println!("self-test of device {=usize}: {} ... {}", index, step, outcome);
    }
    let group = world.group(index);
    let is_free = iommu::group::Group::claim(&group, OwnerId(1)).is_ok();
    assert!(is_free, "the group is as it was found");
    report
}

/// Every step, on the root bus, behind the conventional bridge, and behind the other unit.
pub fn by_transfer(world: &World) {
    for index in [place::ROOT, place::BRIDGE, place::OTHER] {
        let device = world.device(index);
        let mut probe = EduProbe::new(device.edu, &PLATFORM, 64);
        let report = run(world, index, device.endpoint, &mut probe);
        assert!(report.steps().all(|(_, outcome)| outcome.is_held()), "device {index}");
    }
}

/// The same with a device that can only write.
pub fn by_interrupt_message(world: &World, machine: &Machine) {
    for index in [place::ROOT, place::BRIDGE, place::OTHER] {
        let device = world.device(index);
        let config = machine.pci.config(&device.function);
        let mut probe = Doorbell::new(config, || device.edu.ring()).expect("it has MSI");
        let report = run(world, index, device.endpoint, &mut probe);
        assert!(report.has_held(), "device {index}");
        assert_eq!(report.outcome(Step::Read), Outcome::Skipped);
    }
}

/// A host that takes one device's requester id for another's is told so.
pub fn told_a_wrong_requester_id(world: &World) {
    let device = world.device(place::ROOT);
    let (seen, expected) = (device.endpoint, world.device(place::ROOT_2).endpoint);
    let mut probe = EduProbe::new(device.edu, &PLATFORM, 64);
    let report = run(world, place::ROOT, expected, &mut probe);
    let wrong = Outcome::Failed(Reason::OtherEndpoint { expected, seen });
    assert_eq!(report.outcome(Step::Faults), wrong);
}
