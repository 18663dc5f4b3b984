//! The steps of the demo. Each is told, and each is checked.

use iommu::addr::Iova;
use iommu::container::{Container, IdentityMemory, MapDma, Operations, Options, UnmapDma};
use iommu::driver::Counters;
use iommu::fault::{Access, FaultReason};
use iommu::pool::Usage;
use iommu::prot::Prot;
use iommu_runtime::dma::Buffer;
use iommu_runtime::edu::{Direction, MAX_TRANSFER};

use crate::arch;
use crate::machine::{IommuPlace, Machine, PLATFORM, POOL, TestDevice};
use crate::probe::{self, Outcome};
use crate::world::{World, place};

/// The state of the story.
pub struct Story<'m> {
    machine: &'m Machine,
    failures: u32,
    checks: u32,
    faults: u64,
}

/// Where the story maps: a page to read and write, one to read, and what lies beyond.
const RW: u64 = 0x1000_0000;
const READ_ONLY: u64 = 0x1800_0000;
const PAGE: u64 = 0x1000;
const DEVICES: usize = 5;

/// A test device as it is told: by the place of its function.
#[derive(Clone, Copy)]
struct Name(u16);

impl defmt::Format for Name {
    fn format(&self, f: defmt::Formatter<'_>) {
        let (bus, device, function) = (self.0 >> 8, self.0 >> 3 & 0x1f, self.0 & 7);
        defmt::write!(f, "edu {=u16:02x}:{=u16:02x}.{=u16}", bus, device, function);
    }
}

impl<'m> Story<'m> {
    /// A story about `machine`.
    #[must_use]
    pub fn new(machine: &'m Machine) -> Self {
        Self { machine, failures: 0, checks: 0, faults: 0 }
    }

    fn names(&self) -> [Name; DEVICES] {
        let id =
            |index: usize| self.machine.devices.get(index).map_or(0, |device| device.function.id);
        core::array::from_fn(|index| Name(id(index)))
    }

    /// Notes a check; a failed one is told at once.
    fn check(&mut self, held: bool, what: &str) {
        self.checks += 1;
        if !held {
            self.failures += 1;
            defmt::error!("FAILED: {=str}", what);
        }
    }

    /// Step 1, first half: what the firmware says.
    pub fn machine(&mut self) {
        let Machine { memory, pci, iommus, .. } = self.machine;
        defmt::println!("1. The machine");
        defmt::println!("   memory: {=u64} MiB at {=u64:#x}", memory.len >> 20, memory.base);
        defmt::println!("   PCI: {=usize} functions", pci.functions().len());
        for function in pci.functions() {
            let what = match (function.vendor, function.device) {
                (0x1234, 0x11e8) => "edu, does DMA",
                (0x1af4, 0x1057) => "virtio-iommu",
                (0x1b36, 0x000e) => "bridge to conventional PCI",
                (0x1b36, 0x000c) => "root port",
                (0x1b36, 0x0008 | 0x000b) | (0x8086, 0x29c0) => "host bridge",
                _ => "other",
            };
            defmt::println!(
                "     {=u16:02x}:{=u16:02x}.{=u16} {=u16:04x}:{=u16:04x} {=str}, requester id {=u16:#06x}",
                function.id >> 8,
                function.id >> 3 & 0x1f,
                function.id & 7,
                function.vendor,
                function.device,
                what,
                function.requester
            );
        }
        for place in iommus {
            if let IommuPlace::Mmio { registers, root } = place {
                defmt::println!(
                    "   virtio-mmio IOMMU at {=u64:#x} for root bus {=u8} (from the arguments)",
                    *registers,
                    *root
                );
            }
        }
    }

    /// Step 1: what the story needs. Without the devices there is none.
    pub fn devices(&mut self) {
        let devices = &self.machine.devices;
        self.check(devices.len() == DEVICES, "the machine has five edu devices");
        if devices.len() != DEVICES {
            defmt::error!("found {=usize} edu devices: can't go on", devices.len());
            arch::exit(1);
        }
        let on_pci = matches!(self.machine.iommus.first(), Some(IommuPlace::Pci(_)));
        let told = self.machine.topology.is_told();
        self.check(told || !on_pci, "the firmware tells which endpoint an IOMMU on PCI knows");
    }

    /// The control: while nobody drives the IOMMU, it lets every device reach all of memory.
    pub fn without_an_iommu(&mut self) {
        let [first] = buffers();
        first.fill(0xee);
        let devices = &self.machine.devices;
        transfer(devices, |_| first.phys().0, Direction::ToMemory, 64);
        let wrote = (0..64).all(|at| first.read(at) == 0);
        defmt::println!("   control: before the IOMMU is driven, a device writes where it likes");
        self.check(wrote, "without the IOMMU a device writes to memory");
    }

    /// Steps 1 (second half) to 5.
    pub fn tell(&mut self, world: World) {
        self.units(&world);
        if world.devices.len() != DEVICES {
            defmt::error!("{=usize} devices have an IOMMU: can't go on", world.devices.len());
            arch::exit(1);
        }
        self.blocked(&world);
        let container: Container<IdentityMemory> = Container::new(
            &POOL,
            IdentityMemory,
            Options { allow_unsafe_interrupts: true, ..Options::default() },
        );
        let buffers = buffers();
        self.attach(&world, &container, &buffers);
        self.map(&world, &container, &buffers);
        self.unmap_and_detach(&world, &container, &buffers);
        self.table(&world, &container);
        drop(container);
        // The units go last: each resets its device before it frees its rings.
        drop(world);
    }

    fn units(&mut self, world: &World) {
        for (index, unit) in world.units.iter().enumerate() {
            let geometry = unit.geometry();
            defmt::println!(
                "   IOMMU {=usize} ({=str}): features {=u64:#x}, granule {=u64:#x}, IOVAs {=u64:#x}..={=u64:#x}",
                index,
                match self.machine.iommus.get(index) {
                    Some(IommuPlace::Pci(_)) => "PCI",
                    _ => "MMIO",
                },
                world.features.get(index).copied().unwrap_or_default(),
                geometry.page_sizes.granule(),
                geometry.aperture.first().0,
                geometry.aperture.last().0
            );
        }
        for (index, device) in world.devices.iter().enumerate() {
            defmt::println!(
                "   {}: IOMMU {=usize}, endpoint {=u32:#06x}, group {=u32}",
                Name(device.function.id),
                device.unit,
                device.endpoint.0,
                world.group(index).id().0
            );
        }
        let units = self.machine.iommus.len();
        self.check(world.units.len() == units, "every IOMMU instance works");
        self.check(world.registry.group_count() == 4, "five devices form four groups");
        let bridge = world.group(place::BRIDGE).device_count();
        self.check(bridge == 2, "the group behind the bridge has two devices");
    }

    /// Step 2: nothing is attached.
    fn blocked(&mut self, world: &World) {
        defmt::println!("2. Nothing is attached: every device is blocked");
        let [target] = buffers();
        target.fill(0xee);
        let address = target.phys().0;
        // Short: there is a record for each 4 bytes, and a unit keeps no more than 64.
        let len = 32;
        transfer(&self.machine.devices, |_| address, Direction::ToMemory, len as usize);
        self.check(target.is_filled(0xee), "a blocked device leaves memory untouched");
        // The devices of one unit worked at the same time: a record for each endpoint must be there.
        let mut seen = [false; DEVICES];
        for unit in &world.units {
            while let Some(fault) = unit.next_fault() {
                self.faults += 1;
                let right = fault.reason == FaultReason::Mapping
                    && fault.address.is_some_and(|at| (address..address + len).contains(&at.0));
                for (index, device) in world.devices.iter().enumerate() {
                    let mine =
                        device.endpoint == fault.endpoint && world.unit_of(index).id() == unit.id();
                    if let Some(seen) = seen.get_mut(index)
                        && mine
                        && right
                    {
                        *seen = true;
                    }
                }
            }
            self.faults += unit.lost_faults();
        }
        self.check(
            seen == [true; DEVICES],
            "each refused DMA is reported with endpoint and address",
        );
        for (index, name) in self.names().into_iter().enumerate() {
            let outcome = probe::poke_nowhere(world.unit_of(index), world.device(index), address);
            self.refused(outcome, address, name);
        }
    }

    /// Step 3: which domain each attach chose, and at what cost.
    fn attach(
        &mut self,
        world: &World,
        container: &Container<IdentityMemory>,
        memory: &[Buffer; 4],
    ) {
        defmt::println!("3. Groups are attached to a container");
        defmt::println!("   cost as [domains allocated, attached, refused, detached, freed]");
        self.attach_one(world, container, place::ROOT, [1, 1, 0, 0, 0], 0, "first group");
        let before = container.operations();
        self.map_all(container, memory);
        let runs = container.operations().since(&before).dom_map;
        self.attach_one(world, container, place::ROOT_2, [0, 1, 0, 0, 0], 0, "same IOMMU");
        self.attach_one(world, container, place::BRIDGE, [0, 1, 0, 0, 0], 0, "two devices, one id");
        if world.has_two_units() {
            let cost = [1, 1, 1, 0, 0];
            self.attach_one(world, container, place::OTHER, cost, runs, "the other IOMMU");
        } else {
            self.attach_one(
                world,
                container,
                place::OTHER,
                [0, 1, 0, 0, 0],
                0,
                "behind a root port",
            );
        }
        let domains = container.domain_count();
        self.check(domains == world.units.len(), "groups need a domain per IOMMU");
        self.check(container.group_count() == 4, "four groups are attached");
    }

    fn attach_one(
        &mut self,
        world: &World,
        container: &Container<IdentityMemory>,
        index: usize,
        cost: [u64; 5],
        replayed: u64,
        what: &str,
    ) {
        let ownership = world.claim(index);
        let group = ownership.group().clone();
        let endpoints = group.endpoint_count() as u64;
        let before = container.operations();
        let mut attached = false;
        let sent = world.sent(index, || attached = container.attach_group(ownership).is_ok());
        let made = container.operations().since(&before);
        let domain = container.domain_of(group.id()).map_or(0, |domain| domain.id().0);
        defmt::println!(
            "   group {=u32} ({=str}): domain {=u32} of IOMMU {=u32}, cost {}, {=u64} ATTACH, {=u64} MAP, {=u64} notifies",
            group.id().0,
            what,
            domain,
            group.instance().id().0,
            shape(&made),
            sent.attach,
            sent.map,
            sent.notifies
        );
        self.check(attached, "the group is attached");
        self.check(shape(&made) == cost, "the attach costs what the table of section 16.1 says");
        self.check(sent.attach == endpoints, "one ATTACH per endpoint");
        self.check(sent.detach == 0, "no DETACH");
        self.check(sent.map == replayed, "only a new domain is given the mappings");
    }

    fn map_all(&mut self, container: &Container<IdentityMemory>, memory: &[Buffer; 4]) {
        let [source, target, read_only, _] = memory;
        let rows = [
            (RW, source, Prot::RW),
            (RW + 16 * PAGE, target, Prot::RW),
            (READ_ONLY, read_only, Prot::READ),
        ];
        for (iova, buffer, prot) in rows {
            let size = buffer.len() as u64;
            let mapped = container.map_dma(&MapDma { iova, vaddr: buffer.phys().0, size, prot });
            self.check(mapped.is_ok(), "memory is mapped");
        }
    }

    /// Step 4: data arrives where it may, and nowhere else.
    fn map(&mut self, world: &World, container: &Container<IdentityMemory>, memory: &[Buffer; 4]) {
        defmt::println!("4. Mapped memory is reached, by every device of every group");
        let [source, target, read_only, _] = memory;
        source.fill_pattern(7);
        target.fill(0);
        let devices = &self.machine.devices;
        // Each device copies its own part: reads it through one mapping, writes it through another.
        let len = 512;
        transfer(devices, |index| RW + index * 512, Direction::FromMemory, len);
        transfer(devices, |index| RW + 16 * PAGE + index * 512, Direction::ToMemory, len);
        for (index, name) in self.names().into_iter().enumerate() {
            let copied = target.has_pattern(index * len, len, 7, index * len);
            defmt::println!(
                "   {}: {=usize} bytes read and written back, byte for byte: {=bool}",
                name,
                len,
                copied
            );
            self.check(copied, "what the device read is what it wrote");
        }
        let quiet = world.units.iter().all(|unit| unit.next_fault().is_none());
        self.check(quiet, "allowed DMA raises no fault");
        let beyond = READ_ONLY + PAGE;
        let known = container.iova_to_phys(Iova(READ_ONLY)) == Some(read_only.phys());
        self.check(known, "the container knows where the page leads");
        for (index, name) in self.names().into_iter().enumerate() {
            let (unit, device) = (world.unit_of(index), world.device(index));
            let control = probe::poke(unit, device, RW + 8, source, 8);
            self.check(control == Outcome::Arrived, "control: a write to a writable page arrives");
            let outcome = probe::poke(unit, device, READ_ONLY + 8, read_only, 8);
            let right = outcome.is_refused_for(READ_ONLY + 8, Access::WRITE);
            self.refused(outcome, READ_ONLY + 8, name);
            self.check(
                right,
                "a read-only page refuses a device's write, and the record says write",
            );
            self.refused(probe::poke_nowhere(unit, device, beyond), beyond, name);
        }
    }

    /// Step 5: what was allowed is allowed no more.
    fn unmap_and_detach(
        &mut self,
        world: &World,
        container: &Container<IdentityMemory>,
        memory: &[Buffer; 4],
    ) {
        defmt::println!("5. Unmapped, detached: refused again");
        let [source, target, ..] = memory;
        let request = UnmapDma::Range { iova: RW, size: source.len() as u64 };
        let unmapped = container.unmap_dma(&request).map(|gone| gone.bytes);
        self.check(unmapped == Ok(source.len() as u64), "the page is unmapped, and only it");
        for (index, name) in self.names().into_iter().enumerate() {
            let (unit, device) = (world.unit_of(index), world.device(index));
            self.refused(probe::poke(unit, device, RW, source, 0), RW, name);
            let still = probe::poke(unit, device, RW + 16 * PAGE, target, 0);
            self.check(still == Outcome::Arrived, "control: the other mapping still works");
        }
        for index in [place::BRIDGE, place::ROOT, place::OTHER, place::ROOT_2] {
            let ownership = container.detach_group(world.group(index).id());
            self.check(ownership.is_some(), "the group is detached");
            let at = RW + 16 * PAGE;
            let outcome = probe::poke(world.unit_of(index), world.device(index), at, target, 0);
            self.refused(outcome, at, Name(world.device(index).function.id));
        }
        let made = container.operations();
        self.check(made.dom_alloc == made.dom_free, "every domain was freed");
        self.check(made.attach_ok == made.detach, "every attach was undone");
        self.check(container.mapping_count() == 0, "no mapping is left");
    }

    /// Step 6: the closing table.
    fn table(&mut self, world: &World, container: &Container<IdentityMemory>) {
        let made = container.operations();
        defmt::println!("6. In numbers");
        defmt::println!(
            "   groups {=usize}, domains used {=u64}",
            world.registry.group_count(),
            made.dom_alloc
        );
        for (index, unit) in world.units.iter().enumerate() {
            let Counters { attach, detach, map, unmap, probe, notifies, refused, faults, .. } =
                unit.counters();
            defmt::println!(
                "   IOMMU {=usize}: ATTACH {=u64}, DETACH {=u64}, MAP {=u64}, UNMAP {=u64}, PROBE {=u64}; notifies {=u64}, refused requests {=u64}, faults {=u64}",
                index,
                attach,
                detach,
                map,
                unmap,
                probe,
                notifies,
                refused,
                faults
            );
            self.check(refused == 0, "the IOMMU refused no request");
            self.check(detach == 0, "nothing was ever detached into the device's own hands");
        }
    }

    /// The end of step 5, after everything was dropped.
    pub fn nothing_is_left(&mut self, before: (Usage, usize)) {
        let after = (POOL.usage(), PLATFORM.pages_in_use());
        defmt::println!(
            "   left over: {=usize} nodes, {=usize} DMA pages",
            after.0.nodes - before.0.nodes,
            after.1 - before.1
        );
        self.check(after == before, "no memory is left over, in the pool or for DMA");
    }

    /// Ends the image.
    pub fn verdict(self, took_ns: u64) -> ! {
        let Self { failures, checks, .. } = self;
        if failures == 0 {
            defmt::println!(
                "Every step held: {=u32} checks in {=u64} ms.",
                checks,
                took_ns / 1_000_000
            );
            arch::exit(0)
        }
        defmt::error!("{=u32} of {=u32} checks failed.", failures, checks);
        arch::exit(1)
    }

    fn refused(&mut self, outcome: Outcome, iova: u64, name: Name) {
        self.faults += 1;
        if outcome.is_refused_at(iova) {
            defmt::println!("   {}: refused at {=u64:#x}", name, iova);
        } else {
            defmt::error!("{} at {=u64:#x}: {}", name, iova, outcome);
        }
        self.check(outcome.is_refused_at(iova), "the access is refused, and reported");
    }
}

fn buffers<const N: usize>() -> [Buffer; N] {
    core::array::from_fn(|_| Buffer::new(&PLATFORM, 1).expect("there is memory for DMA"))
}

fn shape(made: &Operations) -> [u64; 5] {
    [made.dom_alloc, made.attach_ok, made.attach_fail, made.detach, made.dom_free]
}

fn transfer(
    devices: &[TestDevice],
    address: impl Fn(u64) -> u64 + Clone,
    direction: Direction,
    len: usize,
) {
    debug_assert!(len <= MAX_TRANSFER);
    let targets = devices.iter().zip(0..).map(|(device, index)| (device, address(index)));
    probe::transfer(targets, direction, len);
}
