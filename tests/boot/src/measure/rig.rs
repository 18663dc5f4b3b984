//! Where measurements begin: one unit started, each device in a group of its own, a fresh container.

use heapless::Vec;
use iommu::addr::{Iova, IovaRange};
use iommu::container::{Container, MapDma, Memory, Options, UnmapDma};
use iommu::group::{Group, OwnerId, Ownership};
use iommu::instance::Instance;
use iommu::pool::Shared;
use iommu::prot::Prot;
use iommu::sync::RawLock;

use super::floor;
use super::meter::Meter;
use super::slab::POOL;
use crate::machine::Machine;
use crate::world::{AnyTransport, NoWorld, World, transport};

/// Where mappings begin: above what any of the machines reserves.
pub const BASE: u64 = 0x10_0000_0000;
/// A page.
pub const PAGE: u64 = 0x1000;

/// The first unit of the machine, and the groups behind it.
pub struct Rig {
    /// The counters.
    pub meter: Meter,
    /// The unit.
    pub unit: Shared<Instance>,
    /// A group per device.
    pub groups: Vec<Shared<Group>, 8>,
    /// The devices, and their registry.
    pub world: World,
}

impl Rig {
    /// Starts the unit, with nodes from the slab, which has its memory.
    ///
    /// # Errors
    ///
    /// [`NoWorld`] says what is missing or failed.
    pub fn start(machine: &Machine) -> Result<Self, NoWorld> {
        let world = World::start_in(machine, &POOL)?;
        let unit = world.units.first().ok_or(NoWorld::NoIommu)?.clone();
        let groups = (0..world.devices.len()).map(|index| world.group(index)).collect();
        Ok(Self { meter: Meter::new(&unit), unit, groups, world })
    }

    /// A container without groups.
    #[must_use]
    pub fn container<M: Memory>(&self, memory: M) -> Container<M> {
        let options = Options {
            allow_unsafe_interrupts: true, // what this unit can't isolate
            mapping_limit: u32::MAX,
            ..Options::default()
        };
        Container::new(&POOL, memory, options)
    }

    /// A container with the first group.
    #[must_use]
    pub fn attached<M: Memory>(&self, memory: M) -> Container<M> {
        let container = self.container(memory);
        self.attach(&container, 0);
        container
    }

    /// Claims group `index` and attaches it.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub fn attach<M: Memory>(&self, container: &Container<M>, index: usize) {
        let ownership = claim(self.group(index));
        assert!(container.attach_group(ownership).is_ok(), "the attach is refused");
    }

    /// Detaches group `index` and releases it.
    ///
    /// # Panics
    ///
    /// When it is not attached.
    pub fn detach<M: Memory>(&self, container: &Container<M>, index: usize) {
        let ownership = container.detach_group(self.group(index).id());
        drop(ownership.expect("the group is attached"));
    }

    /// Group `index`.
    ///
    /// # Panics
    ///
    /// When the machine has fewer.
    #[must_use]
    pub fn group(&self, index: usize) -> &Shared<Group> {
        self.groups.get(index).expect("the machine has that many groups")
    }
}

/// Measures the floor, before the unit is started.
///
/// # Errors
///
/// [`NoWorld`] says what is missing.
pub fn floor(machine: &Machine) -> Result<(), NoWorld> {
    let endpoint = machine.devices.first().ok_or(NoWorld::NoDevice)?.endpoint.0;
    match transport(machine, machine.iommus.first().ok_or(NoWorld::NoIommu)?)? {
        AnyTransport::Pci(transport) => floor::measure(transport, endpoint),
        AnyTransport::Mmio(transport) => floor::measure(transport, endpoint),
    }
    Ok(())
}

/// Claims a group.
///
/// # Panics
///
/// When it is owned.
pub fn claim<R: RawLock>(group: &Shared<Group<R>>) -> Ownership<R> {
    Group::claim(group, OwnerId(1)).expect("the group is free")
}

/// Maps `size` bytes at `iova` to the memory of the same number.
///
/// # Panics
///
/// When it is refused.
pub fn map<M: Memory, R: RawLock>(container: &Container<M, R>, iova: u64, size: u64) {
    let request = MapDma { iova, vaddr: iova, size, prot: Prot::RW };
    assert!(container.map_dma(&request).is_ok(), "the map is refused");
}

/// Unmaps it again.
///
/// # Panics
///
/// When not all of it was there.
pub fn unmap<M: Memory, R: RawLock>(container: &Container<M, R>, iova: u64, size: u64) {
    let gone = container.unmap_dma(&UnmapDma::Range { iova, size });
    assert!(gone.is_ok_and(|gone| gone.bytes == size), "the unmap is refused");
}

/// The page at `iova`.
///
/// # Panics
///
/// At the end of the address space.
#[must_use]
pub fn page(iova: u64) -> IovaRange {
    IovaRange::from_len(Iova(iova), PAGE).expect("the page is inside the address space")
}
