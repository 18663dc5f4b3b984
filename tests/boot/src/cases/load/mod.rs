//! Load: all mappings that a container may have, very many in one domain, one page mapped and unmapped
//! over and over, and two CPUs at work in one container (`two.rs`). A device says what can be reached
//! before, in between and afterwards.
//!
//! The numbers are small, so that every run has them; `load=long` among the arguments makes them large.

#[cfg(target_arch = "aarch64")]
mod two;
#[cfg(target_arch = "aarch64")]
pub use two::load_from_two_cpus;

use iommu::addr::{IovaRange, PhysAddr};
use iommu::container::{Container, IdentityMemory, MapDma, Options, UnmapDma};
use iommu::domain::PagingDomain;
use iommu::driver::Health;
use iommu::instance::Instance;
use iommu::pool::Usage;
use iommu::prot::Prot;
use iommu_cases::Outcome;
use iommu_cases::steps::{PAGE, range};
use iommu_runtime::dma::Buffer;

use crate::machine::{Machine, PLATFORM, POOL};
use crate::measure::slab;
use crate::probe;
use crate::world::{World, place};

/// Where mappings begin: above what any of the machines reserves.
const BASE: u64 = 0x10_0000_0000;
/// The memory behind all mappings: page `n` of them leads to page `n` modulo this. A prime, so that no
/// neighbour at a power of two leads to the same.
const FRAMES: u64 = 13;

/// How much there is to do.
#[derive(Clone, Copy, Debug, defmt::Format)]
pub struct Sizes {
    /// Mappings in one domain.
    pub mappings: u64,
    /// Cycles of map and unmap.
    pub cycles: u64,
    /// Rounds of two CPUs.
    pub rounds: u64,
}

const SHORT: Sizes = Sizes { mappings: 100_000, cycles: 1 << 14, rounds: 64 };
const LONG: Sizes = Sizes { mappings: 1_000_000, cycles: 1 << 20, rounds: 1024 };

/// The machine, its first unit with one device in use, and memory for that.
pub struct Load {
    sizes: Sizes,
    world: World,
    memory: Buffer,
    left: ([Usage; 2], usize),
}

impl Load {
    /// Brings the machine up and starts its IOMMU.
    ///
    /// # Panics
    ///
    /// When that fails, or when the arguments ask for a load that is not known.
    #[must_use]
    pub fn start() -> Self {
        let machine = Machine::bring_up().expect("the machine can be brought up");
        let sizes = match machine.argument("load") {
            None => SHORT,
            Some("long") => LONG,
            Some(other) => panic!("no load has the name {other}"),
        };
        defmt::info!("{}", sizes);
        slab::give(&machine).expect("the machine has memory for a million mappings");
        let world = World::start_in(&machine, &slab::POOL).expect("the IOMMU starts");
        world.reach_peak();
        let memory = Buffer::new(&PLATFORM, FRAMES as usize).expect("there is memory for DMA");
        Self { sizes, world, memory, left: in_use() }
    }

    /// A case begins without fault records.
    pub fn before_each(&self) {
        self.world.drop_faults();
    }

    /// A case leaves no memory behind, and a unit that works.
    ///
    /// # Panics
    ///
    /// When it did not.
    pub fn after_each(&self) {
        assert_eq!(in_use(), self.left, "the case left memory behind");
        assert_eq!(self.unit().health(), Health::Good);
    }

    fn unit(&self) -> &Instance {
        self.world.unit_of(place::ROOT)
    }

    /// A container with the group of the device.
    fn container(&self) -> Container<IdentityMemory> {
        let options = Options { allow_unsafe_interrupts: true, ..Options::default() };
        let container = Container::new(&slab::POOL, IdentityMemory, options);
        let attached = container.attach_group(self.world.claim(place::ROOT));
        assert!(attached.is_ok(), "the attach is refused: {attached:?}");
        container
    }

    /// The memory behind page `index` of the mappings.
    fn phys(&self, index: u64) -> PhysAddr {
        PhysAddr(self.memory.phys().0 + index % FRAMES * PAGE)
    }

    /// The device reaches both ends of the page at `iova`, and they are those of the page at `phys`.
    fn arrives(&self, iova: u64, phys: PhysAddr) {
        for at in [0, PAGE - 4] {
            let offset = (phys.0 - self.memory.phys().0 + at) as usize;
            let seen = self.poke(iova + at, offset);
            assert_eq!(seen, Outcome::Arrived, "at {:#x}", iova + at);
        }
    }

    /// The device reaches neither end of the page at `iova`.
    fn refused(&self, iova: u64) {
        for at in [iova, iova + PAGE - 4] {
            let seen = self.poke(at, 0);
            assert!(seen.is_refused_at(at), "at {at:#x}: {seen:?}");
        }
    }

    fn poke(&self, iova: u64, offset: usize) -> Outcome {
        probe::poke(self.unit(), self.world.device(place::ROOT), iova, &self.memory, offset)
    }
}

/// Nodes of both pools, and pages for DMA.
fn in_use() -> ([Usage; 2], usize) {
    ([POOL.usage(), slab::POOL.usage()], PLATFORM.pages_in_use())
}

/// The address of page `index` of the mappings.
const fn at(index: u64) -> u64 {
    BASE + index * PAGE
}

fn page(index: u64) -> IovaRange {
    range(at(index), 1)
}

const fn map_page(iova: u64, phys: PhysAddr) -> MapDma {
    MapDma { iova, vaddr: phys.0, size: PAGE, prot: Prot::RW }
}

const fn unmap_page(iova: u64) -> UnmapDma {
    UnmapDma::Range { iova, size: PAGE }
}

/// T1-269: as many mappings as a container may have, with a hole after each; one more is refused, and
/// what it asked for is reached by nobody.
pub fn load_fills_a_container(load: &Load) {
    let limit = Options::default().mapping_limit;
    let count = u64::from(limit);
    let (middle, last) = (count / 2, count - 1);
    let slot = |index: u64| at(index * 2); // the page after it is the hole
    let hole = |index: u64| slot(index) + PAGE;
    let request = |index: u64| map_page(slot(index), load.phys(index));
    let container = load.container();
    let none_is_reached = || {
        for index in [0, 1, middle, last] {
            load.refused(slot(index));
            load.refused(hole(index));
        }
    };
    none_is_reached();
    for index in 0..count {
        container.map_dma(&request(index)).expect("there is room");
    }
    assert_eq!((container.mapping_count() as u64, container.free_mappings()), (count, 0));
    for over in [slot(count), hole(middle)] {
        let refused = container.map_dma(&map_page(over, load.phys(0)));
        assert_eq!(refused.map_err(|error| error.errno()), Err(28), "one too many");
    }
    for index in [0, 1, middle, last] {
        load.arrives(slot(index), load.phys(index));
        load.refused(hole(index));
    }
    load.refused(BASE - PAGE);
    load.refused(slot(count));

    let gone = container.unmap_dma(&unmap_page(slot(middle))).expect("it is mapped");
    assert_eq!(gone.bytes, PAGE);
    load.refused(slot(middle));
    container.map_dma(&map_page(hole(middle), load.phys(0))).expect("there is room again");
    load.arrives(hole(middle), load.phys(0));

    let gone = container.unmap_dma(&UnmapDma::All).expect("all can go");
    assert_eq!(gone.bytes, count * PAGE);
    assert_eq!((container.mapping_count(), container.free_mappings()), (0, limit));
    none_is_reached();
    container.map_dma(&request(middle)).expect("there is room again");
    load.arrives(slot(middle), load.phys(middle));
}

/// Very many mappings in one domain, without gaps. Every other one goes, then a half at once, then the
/// rest.
pub fn load_of_very_many_mappings(load: &Load) {
    const PROBES: u64 = 24;
    let count = load.sizes.mappings;
    // Odd and even ones, the first and the last.
    let probed = || (0..PROBES).map(|probe| probe * (count - 1) / (PROBES - 1));
    let domain = PagingDomain::new(load.world.unit_of(place::ROOT), &slab::POOL);
    let domain = domain.expect("the unit has a domain left");
    let attached = load.world.claim(place::ROOT).attach(&domain).expect("it can be attached");
    // A record that was used once keeps a node.
    domain.map(page(0), load.phys(0), Prot::RW).expect("there is room");
    assert_eq!(domain.unmap(page(0)), Ok(PAGE));
    let empty = slab::POOL.usage();
    let reached = |is_mapped: &dyn Fn(u64) -> bool| {
        for index in probed() {
            match is_mapped(index) {
                true => load.arrives(at(index), load.phys(index)),
                false => load.refused(at(index)),
            }
        }
        load.refused(BASE - PAGE);
        load.refused(at(count));
    };
    reached(&|_| false);
    for index in 0..count {
        domain.map(page(index), load.phys(index), Prot::RW).expect("there is room");
    }
    reached(&|_| true);
    for index in (1..count).step_by(2) {
        assert_eq!(domain.unmap(page(index)), Ok(PAGE));
    }
    reached(&|index| index % 2 == 0);
    let half = count / 2;
    assert_eq!(domain.unmap(range(BASE, half)), Ok(half.div_ceil(2) * PAGE));
    reached(&|index| index % 2 == 0 && index >= half);
    let rest = count.div_ceil(2) - half.div_ceil(2);
    assert_eq!(domain.unmap(range(at(half), count - half)), Ok(rest * PAGE));
    reached(&|_| false);
    assert_eq!(slab::POOL.usage(), empty, "mappings that are gone keep memory");
    drop(attached);
}

/// One page is mapped and unmapped over and over, each time to other memory than before: a translation
/// that stays behind would show.
pub fn load_of_map_and_unmap_cycles(load: &Load) {
    const PROBES: u64 = 16;
    let cycles = load.sizes.cycles;
    let container = load.container();
    // A record that was used once keeps a node.
    container.map_dma(&map_page(BASE, load.phys(0))).expect("nothing is there");
    container.unmap_dma(&unmap_page(BASE)).expect("it can go");
    let empty = slab::POOL.usage();
    let before = load.unit().counters();
    for cycle in 0..cycles {
        let phys = load.phys(cycle);
        let is_probed = cycle % (cycles / PROBES) == cycles / PROBES - 1;
        container.map_dma(&map_page(BASE, phys)).expect("nothing is there");
        if is_probed {
            load.arrives(BASE, phys);
        }
        let gone = container.unmap_dma(&unmap_page(BASE)).expect("it can go");
        assert_eq!(gone.bytes, PAGE);
        if is_probed {
            load.refused(BASE);
        }
    }
    let sent = load.unit().counters().since(&before);
    assert_eq!((sent.map, sent.unmap), (cycles, cycles));
    assert_eq!((slab::POOL.usage(), container.mapping_count()), (empty, 0));
}

/// For two CPUs, which this architecture's images don't start.
#[cfg(not(target_arch = "aarch64"))]
pub fn load_from_two_cpus(_: &Load) {
    defmt::println!("skipped: it needs a second CPU, which only the aarch64 images start");
}
