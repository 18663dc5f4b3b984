//! Fault records: whose they are, and what happens when nobody takes them.

use iommu::addr::Iova;
use iommu::device::DeviceId;
use iommu::fault::FaultReason;
use iommu::instance::FAULT_QUEUE;
use iommu::prot::Prot;

use super::{AT, arrives, buffer, domain_for, map};
use crate::world::{World, place};

/// D-17, D-33: a record names the device, and its address exactly.
pub fn a_record_names_the_device(world: &World) {
    for index in [place::ROOT, place::ROOT_2, place::BRIDGE, place::OTHER] {
        let device = world.device(index);
        let unit = world.unit_of(index);
        device.edu.poke(AT + 0x124, 1).expect("the device has an MSI");
        let fault = world.registry.next_fault(unit).expect("a record is there");
        assert_eq!(fault.device, Some(DeviceId(device.function.id.into())), "device {index}");
        assert_eq!(fault.record.endpoint, device.endpoint);
        assert_eq!(fault.record.address, Some(Iova(AT + 0x124)));
        assert_eq!(fault.record.reason, FaultReason::Mapping);
        world.drop_faults();
    }
}

/// More records than the queues hold: what can be known as lost is counted, and all goes on.
pub fn a_flood_is_counted_and_survived(world: &World) {
    let memory = buffer(1);
    for index in [place::ROOT, place::OTHER] {
        let unit = world.unit_of(index);
        let lost = unit.lost_faults();
        for n in 0..1000 {
            world.device(index).edu.poke(AT + n * 4, 1).expect("the device has an MSI");
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
        let domain = domain_for(world, index);
        map(&domain, AT, &memory, Prot::RW);
        let attached = world.claim(index).attach(&domain).expect("attaches");
        arrives(world, index, AT, &memory, 0);
        drop(attached);
    }
}
