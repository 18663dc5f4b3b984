//! Fault records: whose they are, and what happens when nobody takes them.

use iommu::addr::Iova;
use iommu::fault::FaultReason;
use iommu::instance::FAULT_QUEUE;
use iommu::prot::Prot;

use crate::bench::{Bench, Seat};
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
