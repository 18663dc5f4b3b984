//! Attach to a container with many domains, of which only the last one that is asked fits.

use iommu::container::IdentityMemory;
use iommu::device::DeviceId;
use iommu::driver::EndpointId;
use iommu::registry::DeviceInfo;

use super::idle::IdleUnit;
use super::meter::{Costs, Name};
use super::rig::{Rig, claim};

/// How many domains are on the list, and how the host knows it.
const DOMAINS: [(usize, &str); 3] =
    [(1, "attach_of_1_domain"), (8, "attach_of_8_domains"), (64, "attach_of_64_domains")];
const REPETITIONS: usize = 8;
/// The first device that is none.
const FIRST: u64 = 0x10_0000;

/// Measures it. The idle units stay: run it last.
///
/// # Panics
///
/// When a unit or a group is refused.
pub fn measure(rig: &Rig) {
    let registry = &rig.world.registry;
    let container = rig.attached(IdentityMemory);
    let mut others = 0;
    for (domains, op) in DOMAINS {
        // The list is asked from the newest on; the domain that fits is the oldest.
        while 1 + others < domains {
            let unit = registry.add_instance(IdleUnit::default()).expect("a unit can be added");
            let id = DeviceId(FIRST + others as u64);
            let info = DeviceInfo { id, endpoints: &[EndpointId(1)], with: None };
            let group = registry.add_device(&unit, &info).expect("a device can be added");
            assert!(container.attach_group(claim(&group)).is_ok(), "the idle group is refused");
            others += 1;
        }
        assert_eq!(container.domain_count(), domains, "each idle unit needs a domain");
        let mut costs = Costs::default();
        for repetition in 0..=REPETITIONS {
            let ((), cost) = rig.meter.count(|| rig.attach(&container, 1));
            rig.detach(&container, 1);
            if repetition > 0 {
                costs.push(cost);
            }
        }
        costs.tell(Name::of(op));
    }
}
