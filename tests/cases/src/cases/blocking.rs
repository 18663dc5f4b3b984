//! Situations in which a device reaches nothing.

use iommu::error::AttachError;
use iommu::prot::Prot;
use iommu::registry::DeviceInfo;

use crate::bench::{Bench, Seat, Who};
use crate::steps::*;

/// C-082, C-270: a device that nobody attached, behind each unit.
pub(crate) fn never_attached(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in everyone(bench) {
        refused(bench, who, memory.phys().0);
        let domain = domain_for(bench, who);
        map(&domain, memory.phys().0, &memory, Prot::RW);
        let attached = attach(bench, who, &domain);
        arrives(bench, who, memory.phys().0, &memory, 0);
        drop(attached);
    }
}

/// C-147: a claimed group is blocked.
pub(crate) fn claimed_only(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let domain = domain_for(bench, Who::One);
    map(&domain, AT, &memory, Prot::RW);
    let ownership = claim(bench, Who::One);
    refused(bench, Who::One, AT);
    drop(ownership);
    refused(bench, Who::One, AT);
    let attached = attach(bench, Who::One, &domain);
    arrives(bench, Who::One, AT, &memory, 0);
    drop(attached);
}

/// An attached device reaches what is mapped, and nothing is.
pub(crate) fn attached_to_an_empty_domain(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        let attached = attach(bench, who, &domain);
        refused(bench, who, AT);
        map(&domain, AT, &memory, Prot::RW);
        arrives(bench, who, AT, &memory, 0);
        drop(attached);
    }
}

/// C-126, C-259: after detach, although the domain still maps the memory.
pub(crate) fn after_detach(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        map(&domain, AT, &memory, Prot::RW);
        let attached = attach(bench, who, &domain);
        arrives(bench, who, AT, &memory, 0);
        let ownership = attached.detach();
        refused(bench, who, AT);
        drop(ownership);
        refused(bench, who, AT);
    }
}

/// D-10: dropping the attachment blocks.
pub(crate) fn after_drop(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let domain = domain_for(bench, Who::One);
    map(&domain, AT, &memory, Prot::RW);
    let attached = attach(bench, Who::One, &domain);
    arrives(bench, Who::One, AT, &memory, 0);
    drop(attached);
    drop(domain);
    refused(bench, Who::One, AT);
}

/// C-111, C-257: a refused attach sends nothing, and the device stays blocked.
pub(crate) fn after_an_incompatible_attach(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let foreign = domain_for(bench, Who::Other);
    map(&foreign, AT, &memory, Prot::RW);
    let ownership = claim(bench, Who::One);
    let mut back = None;
    let sent = cost_of(bench, Who::One, || back = ownership.attach(&foreign).err());
    let refusal = back.expect("it is another unit's domain");
    assert_eq!(refusal.error, AttachError::Incompatible);
    assert_eq!((sent.attach, sent.notifies), (0, 0));
    refused(bench, Who::One, AT);
    let own = domain_for(bench, Who::One);
    map(&own, AT, &memory, Prot::RW);
    let attached = refusal.ownership.attach(&own).expect("its own unit's domain fits");
    arrives(bench, Who::One, AT, &memory, 0);
    drop(attached);
}

/// A group whose attach failed because a reserved region is mapped.
pub(crate) fn after_a_failed_attach(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let regions = bench.group(Who::One).reserved();
    let window = regions.as_slice().first().expect("the machine has an MSI window").range;
    let domain = domain_for(bench, Who::One);
    map(&domain, window.first().0, &memory, Prot::RW);
    map(&domain, AT, &memory, Prot::RW);
    let refusal = claim(bench, Who::One).attach(&domain).expect_err("the window is mapped");
    assert_eq!(refusal.error, AttachError::AddrInUse);
    refused(bench, Who::One, AT);
    unmap(&domain, window.first().0, 1);
    let attached = refusal.ownership.attach(&domain).expect("nothing is in the way now");
    arrives(bench, Who::One, AT, &memory, 0);
    drop(attached);
}

/// A device taken out of the registry is blocked; added again, it is in a new group.
pub(crate) fn after_removal(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let who = Who::Two;
    let Seat { device, endpoint, .. } = bench.seat(who);
    let domain = domain_for(bench, who);
    map(&domain, AT, &memory, Prot::RW);
    let attached = attach(bench, who, &domain);
    arrives(bench, who, AT, &memory, 0);
    bench.registry().remove_device(device).expect("it is there");
    refused(bench, who, AT);
    drop(attached);
    let info = DeviceInfo { id: device, endpoints: &[endpoint], with: None };
    bench.registry().add_device(bench.unit(who), &info).expect("it can be added again");
    refused(bench, who, AT);
    let attached = attach(bench, who, &domain);
    arrives(bench, who, AT, &memory, 0);
    drop(attached);
}
