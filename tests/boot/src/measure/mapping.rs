//! Map and unmap by size, with both kinds of providers, and at the API without a container.

use iommu::addr::PhysAddr;
use iommu::container::{IdentityMemory, Memory, UnmapDma};
use iommu::domain::PagingDomain;
use iommu::prot::Prot;

use super::memory::{Pages, Scattered};
use super::meter::{Costs, Name};
use super::rig::{BASE, PAGE, Rig, claim, map, page, unmap};
use super::slab::POOL;

/// A size and how its operations are named.
struct Size {
    bytes: u64,
    map: &'static str,
    unmap: &'static str,
    repetitions: usize,
}

const SIZES: [Size; 4] = [
    Size { bytes: PAGE, map: "map_4k", unmap: "unmap_4k", repetitions: 32 },
    Size { bytes: 64 << 10, map: "map_64k", unmap: "unmap_64k", repetitions: 32 },
    Size { bytes: 2 << 20, map: "map_2m", unmap: "unmap_2m", repetitions: 16 },
    Size { bytes: 1 << 30, map: "map_1g", unmap: "unmap_1g", repetitions: 3 },
];
#[rustfmt::skip] // one size per line
const SCATTERED: [Size; 4] = [
    Size { bytes: 16 * PAGE, map: "map_scattered@16", unmap: "unmap_scattered@16", repetitions: 8 },
    Size { bytes: 256 * PAGE, map: "map_scattered@256", unmap: "unmap_scattered@256", repetitions: 8 },
    Size { bytes: 4096 * PAGE, map: "map_scattered@4k", unmap: "unmap_scattered@4k", repetitions: 3 },
    Size { bytes: 64 << 20, map: "map_64m_scattered", unmap: "unmap_64m_scattered", repetitions: 3 },
];
const MANY: u64 = 10_000;

/// Measures it.
pub fn measure(rig: &Rig) {
    without_container(rig);
    sizes(rig, IdentityMemory, "runs", &SIZES);
    sizes(rig, Pages, "pages", &SIZES);
    sizes(rig, Scattered, "pages", &SCATTERED);
    all(rig, IdentityMemory, "runs");
    all(rig, Pages, "pages");
}

fn sizes<M: Memory>(rig: &Rig, memory: M, provider: &'static str, sizes: &[Size]) {
    let container = rig.attached(memory);
    for size in sizes {
        let (mut maps, mut unmaps) = (Costs::default(), Costs::default());
        for repetition in 0..=size.repetitions {
            let ((), cost) = rig.meter.count(|| map(&container, BASE, size.bytes));
            let ((), gone) = rig.meter.count(|| unmap(&container, BASE, size.bytes));
            if repetition > 0 {
                maps.push(cost);
                unmaps.push(gone);
            }
        }
        maps.tell(Name::of(size.map).with(provider));
        unmaps.tell(Name::of(size.unmap).with(provider));
    }
}

/// 10 000 mappings that go at once.
fn all<M: Memory>(rig: &Rig, memory: M, provider: &'static str) {
    const REPETITIONS: usize = 3;
    let container = rig.attached(memory);
    let mut costs = Costs::default();
    for _ in 0..REPETITIONS {
        (0..MANY).for_each(|index| map(&container, BASE + index * PAGE, PAGE));
        let gone = rig.meter.add(&mut costs, || container.unmap_dma(&UnmapDma::All));
        assert!(gone.is_ok_and(|gone| gone.bytes == MANY * PAGE), "all mappings go");
    }
    costs.tell(Name::of("unmap_all").at("@10k").with(provider));
}

/// A kernel that maps for itself: a domain, and no container above it.
fn without_container(rig: &Rig) {
    const REPETITIONS: usize = 32;
    let domain = PagingDomain::new(&rig.unit, &POOL).expect("the unit has a domain left");
    let attached = claim(rig.group(0)).attach(&domain);
    let attached = attached.expect("the group can be attached");
    let (mut maps, mut unmaps) = (Costs::default(), Costs::default());
    for repetition in 0..=REPETITIONS {
        let phys = PhysAddr(BASE);
        let (mapped, cost) = rig.meter.count(|| domain.map(page(BASE), phys, Prot::RW));
        let (gone, less) = rig.meter.count(|| domain.unmap(page(BASE)));
        assert_eq!((mapped, gone), (Ok(()), Ok(PAGE)), "the page is mapped, and goes");
        if repetition > 0 {
            maps.push(cost);
            unmaps.push(less);
        }
    }
    maps.tell(Name::of("domain_map_4k"));
    unmaps.tell(Name::of("domain_unmap_4k"));
    drop(attached);
}
