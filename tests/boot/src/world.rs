//! The IOMMUs started, and every test device in its group: where cases begin.

use heapless::Vec;
use iommu::addr::IovaRange;
use iommu::domain::PagingDomain;
use iommu::driver::{Counters, Driver, EndpointId};
use iommu::drivers::virtio_iommu::{InitError, Options, VirtioIommu};
use iommu::error::ProbeError;
use iommu::group::{Group, OwnerId, Ownership};
use iommu::instance::Instance;
use iommu::pool::{Pool, Shared};
use iommu::registry::{DeviceInfo, Registry};
use iommu::virtio::transport::mmio::MmioTransport;
use iommu::virtio::transport::pci::PciTransport;
use iommu::virtio::transport::{Transport, TransportError};

use crate::machine::{IommuPlace, Machine, OtherDevice, PLATFORM, POOL, TestDevice};
use crate::muffled::{Muffled, Muffler};
use crate::reserving::Reserving;

/// Whether a unit can be heard, in the order of [`Machine::iommus`].
pub static MUFFLERS: [Muffler; 2] = [const { Muffler::new(false) }; 2];

/// A registry with up to two units. The default is the empty world.
pub struct World {
    /// The registry.
    pub registry: Registry,
    /// The units, in the order of [`Machine::iommus`].
    pub units: Vec<Shared<Instance>, 2>,
    /// The feature bits that each unit was started with.
    pub features: Vec<u64, 2>,
    /// The test devices that have a unit, in the order of the scan.
    pub devices: Vec<TestDevice, 8>,
    /// The other devices that have a unit, in the order of the scan.
    pub others: Vec<OtherDevice, 8>,
}

impl Default for World {
    fn default() -> Self {
        let registry = Registry::new(&POOL);
        Self {
            registry,
            units: Vec::new(),
            features: Vec::new(),
            devices: Vec::new(),
            others: Vec::new(),
        }
    }
}

/// Why the world can't be made.
#[derive(Clone, Copy, Debug, defmt::Format)]
pub enum NoWorld {
    /// The machine has no virtio-iommu.
    NoIommu,
    /// The machine has no test device.
    NoDevice,
    /// The machine has too little memory.
    Memory,
    /// The machine has a transport without a usable device.
    Transport(TransportError),
    /// A virtio-iommu can't be driven.
    Init(InitError),
    /// A device was not taken by its unit; its errno.
    Probe(i32),
}

impl World {
    /// Starts the IOMMUs of the machine and adds the test devices. From here on they are blocked.
    ///
    /// # Errors
    ///
    /// [`NoWorld`] says what is missing or failed.
    pub fn start(machine: &Machine) -> Result<Self, NoWorld> {
        Self::start_in(machine, &POOL)
    }

    /// As [`start`](Self::start), with nodes from `pool`.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_in(machine: &Machine, pool: &'static Pool) -> Result<Self, NoWorld> {
        let registry = Registry::new(pool);
        if machine.iommus.is_empty() {
            return Err(NoWorld::NoIommu);
        }
        let (mut units, mut features) = (Vec::new(), Vec::new());
        for (place, muffler) in machine.iommus.iter().zip(&MUFFLERS) {
            let (unit, bits) = match transport(machine, place)? {
                AnyTransport::Pci(inner) => start(Muffled::new(inner, muffler), &registry, pool)?,
                AnyTransport::Mmio(inner) => start(Muffled::new(inner, muffler), &registry, pool)?,
            };
            let _ = units.push(unit);
            let _ = features.push(bits);
        }
        if units.is_empty() {
            return Err(NoWorld::NoIommu);
        }
        let (mut devices, mut others) = (Vec::new(), Vec::new());
        let add = |id, unit: usize, endpoint| {
            let Some(unit) = units.get(unit) else { return Ok(false) };
            let info = DeviceInfo { id, endpoints: &[endpoint], with: None };
            let added = registry.add_device(unit, &info);
            added.map_err(|error: ProbeError| NoWorld::Probe(error.errno())).map(|_| true)
        };
        for device in &machine.devices {
            if add(device.id(), device.unit, device.endpoint)? {
                let _ = devices.push(*device);
            }
        }
        for other in &machine.others {
            if add(other.id(), other.unit, other.endpoint)? {
                let _ = others.push(*other);
            }
        }
        Ok(Self { registry, units, features, devices, others })
    }

    /// The first of the other devices with these PCI ids.
    #[must_use]
    pub fn other(&self, ids: (u16, u16)) -> Option<&OtherDevice> {
        self.others.iter().find(|other| other.ids() == ids)
    }

    /// Test device `index`.
    ///
    /// # Panics
    ///
    /// When the machine has fewer.
    #[must_use]
    pub fn device(&self, index: usize) -> &TestDevice {
        self.devices.get(index).expect("the machine has that many test devices")
    }

    /// The group that test device `index` is in now.
    ///
    /// # Panics
    ///
    /// When it is in none.
    #[must_use]
    pub fn group(&self, index: usize) -> Shared<Group> {
        self.registry.group_of(self.device(index).id()).expect("the device is in a group")
    }

    /// Claims the group of test device `index`.
    ///
    /// # Panics
    ///
    /// When it is owned: a case did not clean up.
    pub fn claim(&self, index: usize) -> Ownership {
        Group::claim(&self.group(index), OwnerId(1)).expect("the group is free")
    }

    /// The unit that translates for test device `index`.
    ///
    /// # Panics
    ///
    /// When the machine has fewer devices.
    #[must_use]
    pub fn unit_of(&self, index: usize) -> &Shared<Instance> {
        self.units.get(self.device(index).unit).expect("the device has a unit")
    }

    /// Whether two units translate. On a machine with one, the device at [`place::OTHER`] is behind
    /// the same unit as the others.
    #[must_use]
    pub fn has_two_units(&self) -> bool {
        self.units.len() == 2
    }

    /// What the unit of test device `index` was sent while `call` ran.
    pub fn sent(&self, index: usize, call: impl FnOnce()) -> Counters {
        let unit = self.unit_of(index);
        let before = unit.counters();
        call();
        unit.counters().since(&before)
    }

    /// Has as many domains at a time as any case: a unit's table of free ids grows to the peak and
    /// stays, so the cases can compare memory exactly afterwards.
    ///
    /// # Panics
    ///
    /// When a unit has no such number of domains.
    pub fn reach_peak(&self) {
        for unit in &self.units {
            let domain = || PagingDomain::new(unit, &POOL).expect("the unit has a domain left");
            let _peak: [_; 12] = core::array::from_fn(|_| domain());
        }
    }

    /// Takes all waiting fault records, so that a case begins without.
    pub fn drop_faults(&self) {
        for unit in &self.units {
            while unit.next_fault().is_some() {}
        }
    }
}

/// The indexes of the test devices on the machine line of the tests.
pub mod place {
    /// On the root bus, in a group of its own.
    pub const ROOT: usize = 0;
    /// The second on the root bus, in a group of its own.
    pub const ROOT_2: usize = 1;
    /// Behind the conventional bridge.
    pub const BRIDGE: usize = 2;
    /// The second behind the conventional bridge, in the same group.
    pub const BRIDGE_2: usize = 3;
    /// Behind a root port, on another root bus if the machine has one; behind the other unit, if
    /// there is one.
    pub const OTHER: usize = 4;
}

fn options() -> Options {
    Options { wait_limit_ns: 1_000_000_000, ..Options::default() }
}

fn driver<T: Transport>(
    transport: T,
    pool: &'static Pool,
) -> Result<VirtioIommu<&'static iommu_runtime::dma::Machine, T>, NoWorld> {
    VirtioIommu::new(&PLATFORM, transport, pool, options()).map_err(NoWorld::Init)
}

/// A unit under management, and the feature bits it was started with.
type Started = (Shared<Instance>, u64);

/// Calls `with` with the driver of the first unit alone, without a registry.
///
/// # Errors
///
/// [`NoWorld`] says what failed.
pub fn with_first_driver(machine: &Machine, with: impl FnOnce(&dyn Driver)) -> Result<(), NoWorld> {
    match transport(machine, machine.iommus.first().ok_or(NoWorld::NoIommu)?)? {
        AnyTransport::Pci(transport) => with(&driver(transport, &POOL)?),
        AnyTransport::Mmio(transport) => with(&driver(transport, &POOL)?),
    }
    Ok(())
}

/// Takes the first unit alone under the management of `registry`, where `endpoint` reserves `region`.
///
/// # Errors
///
/// [`NoWorld`] says what failed.
pub fn add_reserving(
    registry: &Registry,
    machine: &Machine,
    endpoint: EndpointId,
    region: IovaRange,
) -> Result<Shared<Instance>, NoWorld> {
    let unit = match transport(machine, machine.iommus.first().ok_or(NoWorld::NoIommu)?)? {
        AnyTransport::Pci(transport) => {
            registry.add_instance(Reserving { driver: driver(transport, &POOL)?, endpoint, region })
        }
        AnyTransport::Mmio(transport) => {
            registry.add_instance(Reserving { driver: driver(transport, &POOL)?, endpoint, region })
        }
    };
    unit.map_err(|error| NoWorld::Probe(error.errno()))
}

/// How the registers of a unit are reached.
pub enum AnyTransport {
    /// By PCI.
    Pci(PciTransport),
    /// By MMIO.
    Mmio(MmioTransport),
}

/// The registers of a unit. One at a time may use them.
///
/// # Errors
///
/// [`NoWorld::Transport`]; [`NoWorld::NoIommu`] if it has none.
pub fn transport(machine: &Machine, place: &IommuPlace) -> Result<AnyTransport, NoWorld> {
    match place {
        IommuPlace::Pci(function) => {
            let bars = core::array::from_fn(|index| machine.bar(function, index));
            let config = machine.pci.config(function);
            PciTransport::new(&config, &bars).map(AnyTransport::Pci).map_err(NoWorld::Transport)
        }
        IommuPlace::Mmio { registers, .. } => {
            let registers = machine.mmio(*registers).ok_or(NoWorld::NoIommu)?;
            MmioTransport::new(registers).map(AnyTransport::Mmio).map_err(NoWorld::Transport)
        }
    }
}

fn start<T: Transport + 'static>(
    transport: T,
    registry: &Registry,
    pool: &'static Pool,
) -> Result<Started, NoWorld> {
    let driver = driver(transport, pool)?;
    let features = driver.features().bits();
    let unit = registry.add_instance(driver).map_err(|error| NoWorld::Probe(error.errno()))?;
    Ok((unit, features))
}
