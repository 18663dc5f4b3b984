//! Reserved regions that the machine's user chose: nothing may be mapped there, and a device that
//! is translated proves that the rest works.

use iommu::addr::{Iova, IovaRange};
use iommu::container::{Container, IdentityMemory, MapDma, Options, UnmapDma};
use iommu::device::DeviceId;
use iommu::domain::PagingDomain;
use iommu::driver::EndpointId;
use iommu::error::AttachError;
use iommu::fault::{Access, FaultReason};
use iommu::group::{Group, OwnerId, Ownership};
use iommu::platform::Platform;
use iommu::pool::Shared;
use iommu::prot::Prot;
use iommu::registry::DeviceInfo;
use iommu::reserved::{ReservedKind, ReservedRegion};
use iommu_cases::steps::{AT, PAGE, range};
use iommu_runtime::dma::Buffer;

use crate::lsi::{self, Lsi};
use crate::machine::{Machine, PLATFORM, POOL};
use crate::world::World;
use crate::{probe, tally};

/// What the command line of the machine says.
const REGIONS: [(u64, u64, ReservedKind); 2] = [
    (0x0800_0000, 0x080f_ffff, ReservedKind::Reserved),
    (0x0c00_0000, 0x0c0f_ffff, ReservedKind::Msi),
];
/// Where the script, the source and the target of a copy are mapped.
const SCRIPT: u64 = AT;
const SOURCE: u64 = AT + PAGE;
const TARGET: u64 = AT + 2 * PAGE;

/// The machine with its DMA engines, all of them blocked.
pub struct Scripts {
    world: World,
    engines: [(Lsi, EndpointId, Shared<Group>); 2],
}

impl Scripts {
    /// Starts the IOMMU and adds the engines.
    ///
    /// # Panics
    ///
    /// When the machine lacks one.
    #[must_use]
    pub fn start(machine: &Machine) -> Self {
        let world = World::start(machine).expect("the IOMMU starts");
        let mut found = machine.pci.find(lsi::IDS.0, lsi::IDS.1);
        let engines = core::array::from_fn(|_| {
            let function = found.next().expect("the machine has two engines");
            let registers = machine.bar(function, lsi::BAR).expect("the registers are placed");
            let endpoint = EndpointId(function.requester.into());
            let info =
                DeviceInfo { id: DeviceId(function.id.into()), endpoints: &[endpoint], with: None };
            let unit = world.units.first().expect("the machine has an IOMMU");
            let group = world.registry.add_device(unit, &info).expect("it is the unit's");
            (Lsi::new(registers), endpoint, group)
        });
        Self { world, engines }
    }

    fn claim(&self, index: usize) -> Ownership {
        Group::claim(&self.engines[index].2, OwnerId(1)).expect("the group is free")
    }

    fn domain(&self) -> Shared<PagingDomain> {
        let unit = self.world.units.first().expect("the machine has an IOMMU");
        PagingDomain::new(unit, &POOL).expect("the unit has a domain left")
    }

    /// Lets an engine copy 16 bytes. False if nothing came to `target`.
    fn copy(&self, index: usize, memory: &CopyMemory, from: u64, to: u64) -> bool {
        let CopyMemory { script, source, target } = memory;
        source.fill_pattern(5);
        target.fill(0xee);
        let deadline = PLATFORM.now_ns() + 1_000_000_000;
        let script = (script, SCRIPT as u32);
        let lsi = &self.engines[index].0;
        let ended = lsi.copy(script, from as u32, to as u32, 16, || PLATFORM.now_ns(), deadline);
        assert!(ended, "the engine ran its script");
        match (target.has_pattern(0, 16, 5, 0), target.is_filled(0xee)) {
            (true, _) => {
                tally::arrived();
                true
            }
            (false, true) => false,
            (false, false) => panic!("something else was written"),
        }
    }
}

struct CopyMemory {
    script: Buffer,
    source: Buffer,
    target: Buffer,
}

impl CopyMemory {
    fn new() -> Self {
        let buffer = || Buffer::new(&PLATFORM, 1).expect("there is memory for DMA");
        Self { script: buffer(), source: buffer(), target: buffer() }
    }

    fn map(&self, domain: &PagingDomain) {
        let rows = [
            (SCRIPT, &self.script, Prot::READ),
            (SOURCE, &self.source, Prot::READ),
            (TARGET, &self.target, Prot::WRITE),
        ];
        for (iova, buffer, prot) in rows {
            domain.map(range(iova, 1), buffer.phys(), prot).expect("the range is free");
        }
    }
}

fn region(index: usize) -> IovaRange {
    let (first, last, _) = REGIONS[index];
    IovaRange::new(Iova(first), Iova(last)).expect("the ends are in order")
}

/// C-033: the group has the regions of the command line, and no others.
pub fn the_regions_are_those_of_the_machine(scripts: &Scripts) {
    for (_, _, group) in &scripts.engines {
        let reserved = group.reserved();
        let expected =
            [0, 1].map(|index| ReservedRegion { range: region(index), kind: REGIONS[index].2 });
        assert_eq!(reserved.as_slice(), expected);
    }
}

/// D-28: a domain that maps in a region can't be attached; the device stays blocked, and comes as
/// soon as nothing is in the way.
pub fn a_domain_that_maps_there_is_in_use(scripts: &Scripts) {
    let memory = CopyMemory::new();
    for index in 0..REGIONS.len() {
        let (first, last) = (region(index).first().0, region(index).last().0 & !(PAGE - 1));
        for at in [first, first + 16 * PAGE, last] {
            let domain = scripts.domain();
            memory.map(&domain);
            domain.map(range(at, 1), memory.target.phys(), Prot::RW).expect("is free");
            let unit = &scripts.world.units[0];
            let before = unit.counters();
            let refusal = scripts.claim(0).attach(&domain).expect_err("the region is mapped");
            assert_eq!((refusal.error, refusal.error.errno()), (AttachError::AddrInUse, 98));
            assert_eq!(unit.counters().since(&before).notifies, 0);
            domain.unmap(range(at, 1)).expect("unmaps");
            let attached = refusal.ownership.attach(&domain).expect("nothing is in the way now");
            assert!(scripts.copy(0, &memory, SOURCE, TARGET), "at {at:#x}");
            drop(attached);
        }
    }
}

/// The pages right beside a region are pages like any other.
pub fn pages_beside_a_region_are_usable(scripts: &Scripts) {
    let memory = CopyMemory::new();
    let domain = scripts.domain();
    memory.map(&domain);
    let attached = scripts.claim(0).attach(&domain).expect("attaches");
    for index in 0..REGIONS.len() {
        let region = region(index);
        for at in [region.first().0 - PAGE, region.last().0 + 1] {
            assert!(!scripts.copy(0, &memory, SOURCE, at));
            refused_at(scripts, at);
            domain.map(range(at, 1), memory.target.phys(), Prot::RW).expect("is free");
            assert!(scripts.copy(0, &memory, SOURCE, at), "{at:#x}");
            domain.unmap(range(at, 1)).expect("unmaps");
        }
    }
    drop(attached);
}

/// DMA into a region that is never usable is refused; the same copy beside it arrives.
pub fn dma_into_a_region_is_refused(scripts: &Scripts) {
    let memory = CopyMemory::new();
    let domain = scripts.domain();
    memory.map(&domain);
    let attached = scripts.claim(0).attach(&domain).expect("attaches");
    let at = region(0).first().0 + 3 * PAGE;
    assert!(!scripts.copy(0, &memory, SOURCE, at));
    refused_at(scripts, at);
    assert!(scripts.copy(0, &memory, SOURCE, TARGET), "control");
    drop(attached);
}

/// The rights of mappings, and the other engine, which is blocked.
pub fn the_engine_is_translated(scripts: &Scripts) {
    let memory = CopyMemory::new();
    let domain = scripts.domain();
    memory.map(&domain);
    let attached = scripts.claim(1).attach(&domain).expect("attaches");
    assert!(scripts.copy(1, &memory, SOURCE, TARGET));
    domain.unmap(range(TARGET, 1)).expect("unmaps");
    assert!(!scripts.copy(1, &memory, SOURCE, TARGET));
    refused_by(scripts, 1, TARGET, Access::empty());
    domain.map(range(TARGET, 1), memory.target.phys(), Prot::READ).expect("is free");
    assert!(!scripts.copy(1, &memory, SOURCE, TARGET));
    refused_by(scripts, 1, TARGET, Access::WRITE);
    domain.unmap(range(TARGET, 1)).expect("unmaps");
    domain.map(range(TARGET, 1), memory.target.phys(), Prot::WRITE).expect("is free");
    assert!(scripts.copy(1, &memory, SOURCE, TARGET));
    drop(attached);
}

/// T1-193, T1-270: the windows of a container leave the regions out, memory can't be mapped there,
/// and a mapping that is there already keeps the group out.
pub fn a_container_leaves_the_regions_out(scripts: &Scripts) {
    let memory = CopyMemory::new();
    let options = Options { allow_unsafe_interrupts: true, ..Options::default() };
    let container: Container<IdentityMemory> = Container::new(&POOL, IdentityMemory, options);
    let request =
        |iova, buffer: &Buffer| MapDma { iova, vaddr: buffer.phys().0, size: PAGE, prot: Prot::RW };
    let inside = region(0).first().0 + PAGE;
    container.map_dma(&request(inside, &memory.target)).expect("there is no group yet");
    let refusal = container.attach_group(scripts.claim(0)).expect_err("the region is mapped");
    assert_eq!(refusal.error.errno(), 22);
    container.unmap_dma(&UnmapDma::All).expect("unmaps");
    container.attach_group(refusal.ownership).expect("nothing is in the way now");
    for index in 0..REGIONS.len() {
        let region = region(index);
        container.for_each_window(|window| assert!(!window.overlaps(region)));
        for at in [region.first().0, region.last().0 & !(PAGE - 1)] {
            let refused = container.map_dma(&request(at, &memory.target));
            assert_eq!(refused.map_err(|error| error.errno()), Err(22));
        }
    }
    let rows = [(SCRIPT, &memory.script), (SOURCE, &memory.source), (TARGET, &memory.target)];
    for (iova, buffer) in rows {
        container.map_dma(&request(iova, buffer)).expect("is free");
    }
    assert!(scripts.copy(0, &memory, SOURCE, TARGET));
}

fn refused_at(scripts: &Scripts, iova: u64) {
    refused_by(scripts, 0, iova, Access::empty());
}

/// The records say that engine `index` was refused at `iova`.
fn refused_by(scripts: &Scripts, index: usize, iova: u64, access: Access) {
    let refusal = probe::refusal(&scripts.world.units[0], scripts.engines[index].1);
    let outcome = tally::judged(refusal);
    let expected = probe::Outcome::Refused {
        address: iova,
        reason: FaultReason::Mapping,
        access: access.bits(),
    };
    assert_eq!(outcome, expected);
}
