//! Two CPUs map and unmap in one container at the same time; afterwards a device says what is mapped.
//!
//! Three areas. Of its *own* pages a CPU knows each answer in advance, though those of the other CPU lie
//! between them. *Shared* pages are mapped and unmapped by both: over both CPUs, the maps of a page are
//! at most one more than its unmaps. In the *wide* area ranges of several pages overlap each other in
//! every way, and the sum of the bytes must come out.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use iommu::addr::Iova;
use iommu::container::{Container, IdentityMemory, MapDma, MapDmaError, UnmapDma, UnmapDmaError};
use iommu::prot::Prot;
use iommu_cases::steps::PAGE;
use spin::Mutex;

use super::{BASE, FRAMES, Load, map_page, unmap_page};
use crate::arch::second;
use crate::measure::Random;

/// What a CPU does before it waits for the other one.
const PER_ROUND: u64 = 64;
const OWN: usize = 32;
const SHARED: usize = 16;
const SHARED_BASE: u64 = BASE + 0x100_0000;
const WIDE: u64 = 48;
const WIDE_BASE: u64 = BASE + 0x200_0000;
/// The most pages of one mapping in the wide area.
const WIDEST: u64 = 4;

/// What both CPUs have.
struct Common {
    container: Container<IdentityMemory>,
    /// The first byte of the memory behind the mappings.
    phys: u64,
    rounds: u64,
    /// How many rounds each CPU has begun.
    begun: [AtomicU64; 2],
}

/// What one CPU did.
struct Done {
    /// Which of its own pages are mapped.
    own: [bool; OWN],
    /// Maps of each shared page, less the unmaps.
    shared: [i64; SHARED],
    /// Pages that were mapped in the wide area, less those that were unmapped.
    wide: i64,
    /// Unmaps that the other CPU was in the way of at that moment.
    busy: u64,
}

impl Common {
    fn own(cpu: usize, index: usize) -> u64 {
        BASE + (index * 2 + cpu) as u64 * PAGE
    }

    /// The memory from page `frame` on; `WIDEST` pages of it.
    fn phys(&self, frame: u64) -> iommu::addr::PhysAddr {
        iommu::addr::PhysAddr(self.phys + frame % (FRAMES - WIDEST + 1) * PAGE)
    }

    /// Waits until the other CPU has begun the round as well.
    fn meet(&self, cpu: usize, round: u64) {
        self.begun[cpu].store(round, Ordering::Release);
        while self.begun[1 - cpu].load(Ordering::Acquire) < round {
            second::give_way();
        }
    }

    fn work(&self, cpu: usize) -> Done {
        let mut random = Random(cpu as u64);
        let mut done = Done { own: [false; OWN], shared: [0; SHARED], wide: 0, busy: 0 };
        for round in 1..=self.rounds {
            self.meet(cpu, round);
            for _ in 0..PER_ROUND {
                let number = random.next();
                let (kind, is_map, number) = (number % 3, number & 1 << 8 != 0, number >> 16);
                match kind {
                    0 => self.in_own(cpu, number as usize % OWN, is_map, &mut done),
                    1 => self.in_shared(number as usize % SHARED, is_map, &mut done),
                    _ => self.in_wide(number, is_map, &mut done),
                }
                if number & 3 == 0 {
                    second::give_way();
                }
            }
        }
        done
    }

    fn in_own(&self, cpu: usize, index: usize, is_map: bool, done: &mut Done) {
        let iova = Self::own(cpu, index);
        let was_mapped = done.own[index];
        if is_map {
            let answer = self.container.map_dma(&map_page(iova, self.phys(index as u64)));
            assert_eq!(answer, if was_mapped { Err(MapDmaError::Exists) } else { Ok(()) });
        } else {
            let gone = self.container.unmap_dma(&unmap_page(iova)).expect("nobody else is there");
            assert_eq!(gone.bytes, if was_mapped { PAGE } else { 0 });
        }
        done.own[index] = is_map;
    }

    fn in_shared(&self, index: usize, is_map: bool, done: &mut Done) {
        let iova = SHARED_BASE + index as u64 * PAGE;
        if is_map {
            match self.container.map_dma(&map_page(iova, self.phys(index as u64))) {
                Ok(()) => done.shared[index] += 1,
                Err(MapDmaError::Exists) => {}
                Err(other) => panic!("a map of a shared page: {other}"),
            }
        } else {
            match self.container.unmap_dma(&unmap_page(iova)) {
                Ok(gone) if gone.bytes == PAGE => done.shared[index] -= 1,
                Ok(gone) => assert_eq!(gone.bytes, 0),
                Err(refused) => {
                    assert_eq!((refused.error, refused.unmapped.bytes), (UnmapDmaError::Busy, 0));
                    done.busy += 1;
                }
            }
        }
    }

    fn in_wide(&self, number: u64, is_map: bool, done: &mut Done) {
        let first = number % WIDE;
        let pages = (1 + (number >> 8) % WIDEST).min(WIDE - first);
        let (iova, size) = (WIDE_BASE + first * PAGE, pages * PAGE);
        if is_map {
            let request = MapDma { iova, vaddr: self.phys(first).0, size, prot: Prot::RW };
            match self.container.map_dma(&request) {
                Ok(()) => done.wide += pages as i64,
                Err(MapDmaError::Exists) => {}
                Err(other) => panic!("a map in the wide area: {other}"),
            }
        } else {
            let unmapped = match self.container.unmap_dma(&UnmapDma::Range { iova, size }) {
                Ok(gone) => gone,
                Err(refused) => {
                    let error = refused.error;
                    assert!(matches!(error, UnmapDmaError::Busy | UnmapDmaError::InvalidArg));
                    done.busy += u64::from(error == UnmapDmaError::Busy);
                    refused.unmapped
                }
            };
            assert!(unmapped.bytes <= size && unmapped.bytes.is_multiple_of(PAGE));
            done.wide -= (unmapped.bytes / PAGE) as i64;
        }
    }
}

/// Whether the page at `iova` is on record. A device says the same: it reaches the memory that the
/// record names, or nothing.
fn is_mapped(load: &Load, common: &Common, iova: u64) -> bool {
    let record = common.container.iova_to_phys(Iova(iova));
    match record {
        Some(phys) => load.arrives(iova, phys),
        None => load.refused(iova),
    }
    record.is_some()
}

/// Both CPUs at once, for a fixed number of operations. Nothing is lost, nothing is there twice, and
/// the device sees what is on record.
///
/// # Panics
///
/// When that is not so, or when the machine has one CPU.
pub fn load_from_two_cpus(load: &Load) {
    let common = Arc::new(Common {
        container: load.container(),
        phys: load.phys(0).0,
        rounds: load.sizes.rounds,
        begun: [const { AtomicU64::new(0) }; 2],
    });
    let theirs = Arc::new(Mutex::new(None));
    let working = {
        let (common, theirs) = (common.clone(), theirs.clone());
        // What is moved in is dropped before the CPU says that it is done.
        second::start(move || *theirs.lock() = Some(common.work(1)))
    };
    let working = working.expect("the machine has a second CPU");
    let mine = common.work(0);
    working.join();
    let theirs = theirs.lock().take().expect("the second CPU has worked");
    defmt::info!(
        "{=u64} operations on each CPU, with the other one in the way of {=u64} and {=u64}",
        common.rounds * PER_ROUND,
        mine.busy,
        theirs.busy
    );

    let mut pages = 0;
    for (cpu, done) in [&mine, &theirs].into_iter().enumerate() {
        for (index, wanted) in done.own.iter().enumerate() {
            let is_mapped = is_mapped(load, &common, Common::own(cpu, index));
            assert_eq!(is_mapped, *wanted, "page {index} of CPU {cpu}");
            pages += u64::from(is_mapped);
        }
    }
    for index in 0..SHARED {
        let wanted = mine.shared[index] + theirs.shared[index];
        let is_mapped = is_mapped(load, &common, SHARED_BASE + index as u64 * PAGE);
        assert_eq!(i64::from(is_mapped), wanted, "shared page {index}");
        pages += u64::from(is_mapped);
    }
    let wide = (0..WIDE).filter(|index| is_mapped(load, &common, WIDE_BASE + index * PAGE));
    let wide = wide.count() as u64;
    assert_eq!(wide as i64, mine.wide + theirs.wide, "pages in the wide area");
    pages += wide;

    let gone = common.container.unmap_dma(&UnmapDma::All).expect("all can go");
    assert_eq!(gone.bytes, pages * PAGE, "what is recorded is what was seen");
    assert_eq!(common.container.mapping_count(), 0);
    for iova in [Common::own(0, 0), Common::own(1, OWN - 1), SHARED_BASE, WIDE_BASE] {
        assert!(!is_mapped(load, &common, iova));
    }
}
