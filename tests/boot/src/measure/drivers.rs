//! Map and unmap for a driver of the kernel: the addresses are handed out too. Runs of up to 32 pages
//! wait for the next mapping of their length when they are given back; for longer ones the allocator
//! searches each time.

use alloc::vec::Vec;

use iommu::addr::{Iova, PhysAddr};
use iommu::dma::{Direction, DmaDevice, DmaOptions};
use iommu::sync::{RawLock, SpinLock};
use iommu_runtime::dma::Machine;

use super::growth::Random;
use super::meter::{Costs, MOST, Name};
use super::rig::{BASE, PAGE, Rig};
use crate::machine::PLATFORM;

/// How many mappings are there already.
const COUNTS: [(usize, &str); 3] = [(10, "@10"), (1_000, "@1k"), (100_000, "@100k")];
/// How many are exchanged before it counts.
const WARM: usize = 512;

type Dma<R = SpinLock> = DmaDevice<&'static Machine, R>;

/// Measures it, with at most `most` mappings.
pub fn measure(rig: &Rig, most: u64) {
    for (count, at) in COUNTS.into_iter().filter(|(count, _)| *count as u64 <= most) {
        exchange(rig, (count, at), 1, ["dma_map", "dma_unmap"]);
        exchange(rig, (count, at), 33, ["dma_map_long", "dma_unmap_long"]);
    }
}

/// Ends a mapping anywhere among others and makes another one, of `least` pages and up to three more.
fn exchange(rig: &Rig, there: (usize, &'static str), least: u64, ops: [&'static str; 2]) {
    let (count, at) = there;
    let len = |number: usize| (number as u64 % 4 + least) * PAGE;
    let options = DmaOptions { coherent_mask: u64::MAX, ..DmaOptions::default() };
    let dma = DmaDevice::new(rig.group(0), &PLATFORM, &options).expect("nobody owns the group");
    let mut live: Vec<Iova> = (0..count).map(|number| map(&dma, len(number))).collect();
    let (mut maps, mut unmaps) = (Costs::default(), Costs::default());
    let mut random = Random(1);
    for number in 0..WARM + MOST {
        let place = live.get_mut(random.next() as usize % count).expect("it is one of them");
        let ((), gone) = rig.meter.count(|| unmap(&dma, *place));
        let (iova, cost) = rig.meter.count(|| map(&dma, len(number)));
        *place = iova;
        if number >= WARM {
            maps.push(cost);
            unmaps.push(gone);
        }
    }
    for (costs, op) in [maps, unmaps].into_iter().zip(ops) {
        costs.tell(Name::of(op).at(at));
    }
    live.into_iter().for_each(|iova| unmap(&dma, iova));
}

/// Maps whole pages.
///
/// # Panics
///
/// When it is refused.
pub fn map<R: RawLock>(dma: &Dma<R>, len: u64) -> Iova {
    let mapped = dma.map_pages_raw(PhysAddr(BASE), len, Direction::Bidirectional);
    mapped.expect("the map is refused")
}

/// Unmaps what [`map`] mapped.
///
/// # Panics
///
/// When it is refused.
#[expect(unsafe_code, reason = "unmaps by address")]
pub fn unmap<R: RawLock>(dma: &Dma<R>, iova: Iova) {
    // SAFETY: what is mapped is no memory of ours, and nothing of it is bounced.
    let gone = unsafe { dma.unmap_raw(iova) };
    assert_eq!(gone, Ok(()), "the unmap is refused");
}
