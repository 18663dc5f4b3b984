//! Map and unmap for a driver of the kernel: the addresses are handed out too.

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
        exchange(rig, count, at);
    }
}

/// Ends a mapping anywhere among others and makes another one, of one to four pages each.
fn exchange(rig: &Rig, count: usize, at: &'static str) {
    let options = DmaOptions { mask: u64::MAX, ..DmaOptions::default() };
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
    maps.tell(Name::of("dma_map").at(at));
    unmaps.tell(Name::of("dma_unmap").at(at));
    live.into_iter().for_each(|iova| unmap(&dma, iova));
}

/// One to four pages.
fn len(number: usize) -> u64 {
    (number as u64 % 4 + 1) * PAGE
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
