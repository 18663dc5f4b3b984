//! The units that judge on the host: the software IOMMU, and the virtio-iommu driver in front of a
//! device model that walks its rings.

use std::boxed::Box;

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::driver::EndpointId;
use iommu::drivers::virtio_iommu::{Options, VirtioIommu};
use iommu::fault::{Access, DriverFault, FaultReason};
use iommu::instance::Instance;
use iommu::pool::{Pool, Shared};
use iommu::registry::Registry;
use iommu::reserved::{ReservedKind, ReservedRegion};
use iommu::sim::{Sim, SimConfig};
use iommu::virtio::transport::fake::{FakeConfig, FakeMachine, Lie};

/// A unit that can be asked where an access leads.
pub trait Unit {
    /// Takes the unit under management.
    fn add(&self, registry: &Registry) -> Shared<Instance>;

    /// Where an access leads, or the fault that it raised in the unit.
    fn reach(&self, who: EndpointId, iova: Iova, access: Access) -> Result<PhysAddr, DriverFault>;

    /// Makes it stop answering, so that its driver gives it up. A software unit can't: it is its own
    /// driver.
    fn silence(&self) {
        unreachable!("this unit always answers");
    }
}

/// A software unit with a doorbell where the board of the boot images has it.
pub fn software() -> SimConfig {
    let mut config = SimConfig::default();
    let range = IovaRange::from_len(Iova(0x802_0000), 0x1000).unwrap();
    config.reserved.add(ReservedRegion { range, kind: ReservedKind::Msi }).unwrap();
    config
}

impl Unit for Sim {
    fn add(&self, registry: &Registry) -> Shared<Instance> {
        registry.add_instance(self.driver()).unwrap()
    }

    fn reach(&self, who: EndpointId, iova: Iova, access: Access) -> Result<PhysAddr, DriverFault> {
        self.reach(who, iova, access)
    }
}

/// A model of a virtio-iommu with the endpoints that the cases use. Its doorbell is the default's.
pub fn device(delay: u32) -> FakeMachine {
    let endpoints = vec![0x10, 0x18, 0x100, 0x40, 0x48, 0x50];
    FakeMachine::new(FakeConfig { endpoints, delay, ..FakeConfig::default() })
}

impl Unit for FakeMachine {
    fn add(&self, registry: &Registry) -> Shared<Instance> {
        let pool: &'static Pool = Box::leak(Box::new(Pool::heap()));
        let unit = VirtioIommu::new(self.clone(), self.transport(), pool, Options::default());
        registry.add_instance(unit.unwrap()).unwrap()
    }

    fn reach(&self, who: EndpointId, iova: Iova, access: Access) -> Result<PhysAddr, DriverFault> {
        let write = access.contains(Access::WRITE);
        self.translate(who, iova.0, write).map(PhysAddr).map_err(|reason| {
            // The record as the device lays it out (virtio 1.2 §5.13.6.9), with a valid address.
            let mut record = [0; 24];
            record[0] = if reason == 0 { 1 } else { 2 };
            record[4..8].copy_from_slice(&(access.bits() | 0x100).to_le_bytes());
            record[8..12].copy_from_slice(&who.0.to_le_bytes());
            record[16..].copy_from_slice(&iova.0.to_le_bytes());
            self.event(&record, 24);
            let reason = if reason == 0 { FaultReason::Domain } else { FaultReason::Mapping };
            DriverFault { endpoint: who, address: Some(iova), access, reason }
        })
    }

    fn silence(&self) {
        self.lie(0, Lie::NoAnswer);
    }
}
