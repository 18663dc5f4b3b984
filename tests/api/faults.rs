//! Who is told of a fault (rules C-201, C-202, C-236).

use std::sync::{Mutex, OnceLock};

use iommu::addr::{Iova, PhysAddr};
use iommu::device::DeviceId;
use iommu::domain::{DomainOptions, PagingDomain};
use iommu::driver::EndpointId;
use iommu::error::ProbeError;
use iommu::fault::{Access, Fault, FaultHandler, FaultReason, Handled, Hint};
use iommu::group::{Attachment, Group, OwnerId};
use iommu::instance::FAULT_QUEUE;
use iommu::pool::Pool;
use iommu::prot::Prot;
use iommu::registry::{DeviceInfo, Registry};
use iommu::sim::Sim;

use crate::fixture::{World, claim, pages};

/// Keeps what it is told, and handles writes only.
#[derive(Default)]
struct Keeper {
    told: Mutex<Vec<Fault>>,
    attachment: OnceLock<Mutex<Option<Attachment>>>,
}

impl FaultHandler for Keeper {
    fn fault(&self, fault: &Fault) -> Handled {
        self.told.lock().unwrap().push(*fault);
        // It may call all of the API: here it takes the device off its domain.
        if let Some(attachment) = self.attachment.get() {
            drop(attachment.lock().unwrap().take());
        }
        if fault.record.access == Access::WRITE { Handled::Yes } else { Handled::No }
    }
}

fn keeper() -> &'static Keeper {
    Box::leak(Box::default())
}

fn with_handler(world: &World, handler: &'static Keeper) -> iommu::pool::Shared<PagingDomain> {
    let options = DomainOptions { fault_handler: Some(handler), ..DomainOptions::default() };
    PagingDomain::with_options(&world.instance, world.pool, &options).unwrap()
}

#[test]
fn a_fault_goes_to_the_handler_of_the_device_s_domain_and_to_no_other() {
    let world = World::new();
    let (mine, theirs) = (keeper(), keeper());
    let (domain, other) = (with_handler(&world, mine), with_handler(&world, theirs));
    let _attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    let _other = claim(&world.device(2, &[9])).attach(&other).unwrap();
    world.device(3, &[10]);
    world.reaches(8, 0x1000, Access::WRITE);
    world.reaches(8, 0x2000, Access::READ);
    world.reaches(10, 0x3000, Access::WRITE);
    world.reaches(99, 0x4000, Access::WRITE);
    let mut left = vec![];
    let count = world.registry.deliver_faults(&world.instance, |fault| left.push(*fault));
    assert_eq!(count, 4);
    let told = mine.told.lock().unwrap();
    assert_eq!(told.len(), 2);
    assert!(theirs.told.lock().unwrap().is_empty());
    assert_eq!(told[0].record.address, Some(Iova(0x1000)));
    assert_eq!(told[0].record.reason, FaultReason::Mapping);
    assert_eq!((told[0].device, told[0].domain), (Some(DeviceId(1)), Some(domain.id())));
    let unhandled: Vec<_> = left.iter().map(|f| (f.record.endpoint, f.device, f.domain)).collect();
    assert_eq!(
        unhandled,
        [
            (EndpointId(8), Some(DeviceId(1)), Some(domain.id())), // the read, answered No
            (EndpointId(10), Some(DeviceId(3)), None),             // blocked: no domain
            (EndpointId(99), None, None),                          // nobody's
        ]
    );
}

#[test]
fn a_handler_may_detach_the_device_and_nothing_deadlocks() {
    // C-202, C-236: no lock is held
    let world = World::new();
    let handler = keeper();
    let domain = with_handler(&world, handler);
    domain.map(pages(0x1000, 1), PhysAddr(0xa000), Prot::RW).unwrap();
    let attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    let _ = handler.attachment.set(Mutex::new(Some(attached)));
    assert!(world.reaches(8, 0x1000, Access::WRITE).is_some());
    world.reaches(8, 0x5000, Access::WRITE);
    world.reaches(8, 0x6000, Access::WRITE);
    let mut left = vec![];
    assert_eq!(world.registry.deliver_faults(&world.instance, |f| left.push(*f)), 2);
    assert_eq!(handler.told.lock().unwrap().len(), 1);
    assert_eq!(left.len(), 1, "the second one comes from a device that is on no domain now");
    assert_eq!(world.reaches(8, 0x1000, Access::WRITE), None);
}

#[test]
fn a_device_that_faults_without_end_does_not_keep_the_caller() {
    let world = World::new();
    world.device(1, &[8]);
    for _ in 0..3 * FAULT_QUEUE {
        world.reaches(8, 0x1000, Access::WRITE);
    }
    let mut seen = 0;
    let again = |_: &Fault| {
        seen += 1;
        world.reaches(8, 0x1000, Access::WRITE); // and another one
    };
    assert_eq!(world.registry.deliver_faults(&world.instance, again), FAULT_QUEUE);
    assert_eq!(seen, FAULT_QUEUE);
}

#[test]
fn taking_faults_one_by_one_names_the_domain_too() {
    let world = World::new();
    let domain = world.domain();
    let _attached = claim(&world.device(1, &[8])).attach(&domain).unwrap();
    world.reaches(8, 0x1000, Access::READ);
    let fault = world.registry.next_fault(&world.instance).unwrap();
    assert_eq!((fault.device, fault.domain), (Some(DeviceId(1)), Some(domain.id())));
    assert_eq!(world.registry.next_fault(&world.instance), None);
}

/// Each usual mistake of a port is told with its fix.
#[test]
fn a_fault_points_to_the_mistake_behind_it() {
    static POOL: Pool = Pool::heap();
    let registry = Registry::new(&POOL);
    let sim = Sim::new();
    let iommu = registry.add_instance(sim.driver()).unwrap();
    let info = DeviceInfo { id: DeviceId(1), endpoints: &[EndpointId(8)], with: None };
    let group = registry.add_device(&iommu, &info).unwrap();
    let told = |endpoint, access| {
        let _ = sim.reach(EndpointId(endpoint), Iova(0x5000), access);
        let fault = registry.next_fault(&iommu).expect("a refused access is reported");
        (fault.hint(), fault.to_string())
    };

    let (hint, text) = told(0x99, Access::WRITE);
    assert_eq!(hint, Hint::UnknownEndpoint, "wrong requester ids");
    assert!(text.starts_with("endpoint 0x99 was refused a write at 0x5000: no device was added"));
    assert!(text.contains("iommu-map, VIOT"), "{text}");

    let unknown = ProbeError::NoDevice.to_string(); // what the unit says to an id that it does not have
    assert!(unknown.contains("number the PCI buses first"), "{unknown}");
    assert!(unknown.contains("requester ids from the firmware (iommu-map, VIOT)"), "{unknown}");

    let (hint, text) = told(8, Access::READ);
    assert_eq!(hint, Hint::Blocked, "it was at work before the IOMMU, or before its attach");
    assert!(
        text.contains("a read at 0x5000") && text.contains("bus mastering off first"),
        "{text}"
    );

    let domain = PagingDomain::new(&iommu, &POOL).unwrap();
    let attached = Group::claim(&group, OwnerId(1)).unwrap().attach(&domain).unwrap();
    let (hint, text) = told(8, Access::WRITE);
    assert_eq!(hint, Hint::NotMapped);
    assert!(text.contains("the IOVA, not the physical address"), "{text}");
    drop(attached);
}
