//! Fault records: whose they are, and what happens when nobody takes them.

use iommu::addr::Iova;
use iommu::fault::FaultReason;
use iommu::instance::FAULT_QUEUE;
use iommu::prot::Prot;

use crate::bench::{Bench, Seat, Who};
use crate::steps::*;

/// D-17, D-33: a record names the device, and its address exactly.
pub(crate) fn a_record_names_the_device(bench: &dyn Bench) {
    for who in groups(bench) {
        let Seat { device, endpoint, .. } = bench.seat(who);
        bench.touch(who, AT + 0x124);
        let fault = bench.registry().next_fault(bench.unit(who)).expect("a record is there");
        assert_eq!(fault.device, Some(device), "{who:?}");
        assert_eq!(fault.record.endpoint, endpoint);
        assert_eq!(fault.record.address, Some(Iova(AT + 0x124)));
        assert_eq!(fault.record.reason, FaultReason::Mapping);
        drop_faults(bench);
    }
}

/// More records than the queues hold: what can be known as lost is counted, and all goes on.
pub(crate) fn a_flood_is_counted_and_survived(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in each_unit(bench) {
        let unit = bench.unit(who);
        let lost = unit.lost_faults();
        for n in 0..1000 {
            bench.touch(who, AT + n * 4);
            if n % 100 == 0 {
                // Drained in part: the queue of the unit overflows in between.
                let _ = unit.next_fault();
            }
        }
        let mut taken = 0;
        while unit.next_fault().is_some() {
            taken += 1;
        }
        assert!(taken >= FAULT_QUEUE.min(16), "{taken} records were kept");
        assert!(unit.lost_faults() >= lost);
        let domain = domain_for(bench, who);
        map(&domain, AT, &memory, Prot::RW);
        let attached = attach(bench, who, &domain);
        arrives(bench, who, AT, &memory, 0);
        drop(attached);
    }
}

/// Two devices at once: a record for each, in the order of their accesses.
pub(crate) fn two_devices_have_their_own_records(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let pair = [(Who::One, AT), (Who::Two, AT + PAGE)];
    for (who, iova) in pair {
        bench.touch(who, iova);
    }
    let mut next = || bench.unit(Who::One).next_fault();
    for (who, iova) in pair {
        let record =
            core::iter::from_fn(&mut next).find(|record| record.address == Some(Iova(iova)));
        assert_eq!(record.map(|record| record.endpoint), Some(bench.seat(who).endpoint));
    }
    drop_faults(bench);
    for (who, iova) in pair {
        let domain = domain_for(bench, who);
        map(&domain, iova, &memory, Prot::RW);
        let attached = attach(bench, who, &domain);
        arrives(bench, who, iova, &memory, 0);
        drop(attached);
    }
}

/// A record says exactly where, at any offset.
pub(crate) fn a_record_has_the_exact_address(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        let attached = attach(bench, who, &domain);
        for offset in [0, 4, 0x7fc, 0xff8, PAGE - 4] {
            refused(bench, who, AT + offset);
        }
        map(&domain, AT, &memory, Prot::RW);
        for offset in [0, 4, 0x7fc, 0xff8, PAGE - 4] {
            arrives(bench, who, AT + offset, &memory, offset);
        }
        drop(attached);
    }
}
