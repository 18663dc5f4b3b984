//! The memory provider of the cases: an owner whose pages lie anywhere, over memory that devices
//! really reach.

use alloc::sync::Arc;
use alloc::vec::Vec;

use iommu::addr::PhysAddr;
use iommu::container::{Frame, MapDma, Memory as Provider, MemoryOwner, PinError, Pinned};
use iommu::prot::Prot;
use iommu::sync::{Mutex, SpinLock};

use crate::bench::{Bench, Store};
use crate::steps::{Memory, PAGE};

/// An owner's address space: page n is the n-th that was added. Clones are the same one.
#[derive(Clone)]
pub struct Owner {
    store: &'static dyn Store,
    state: Arc<Mutex<SpinLock, State>>,
}

#[derive(Default)]
struct State {
    pages: Vec<Option<PhysAddr>>,
    kinds: Vec<(PhysAddr, Frame)>,
    pins: Vec<PhysAddr>,
    caller: MemoryOwner,
    /// Pages charged, of the owners 0 and 1.
    charged: [u64; 2],
    limit: Option<u64>,
    unpinned_twice: bool,
}

impl Owner {
    /// An owner without memory.
    #[must_use]
    pub fn new(bench: &dyn Bench) -> Self {
        Self { store: bench.store(), state: Arc::default() }
    }

    /// Adds the pages of `memory` in order; returns the address of the first one.
    pub fn add(&self, memory: &Memory) -> u64 {
        self.add_pages((0..memory.len() / PAGE).map(|page| Some(memory.at(page * PAGE))))
    }

    /// Adds the pages of `memory` in reverse order, so that each is a run of its own.
    pub fn add_scattered(&self, memory: &Memory) -> u64 {
        self.add_pages((0..memory.len() / PAGE).rev().map(|page| Some(memory.at(page * PAGE))))
    }

    /// Adds a page where there is no memory.
    pub fn add_hole(&self) -> u64 {
        self.add_pages([None].into_iter())
    }

    /// Puts memory where a hole was.
    pub fn fill(&self, vaddr: u64, memory: &Memory) {
        self.state.lock().pages[(vaddr / PAGE) as usize] = Some(memory.phys());
    }

    fn add_pages(&self, pages: impl Iterator<Item = Option<PhysAddr>>) -> u64 {
        let mut state = self.state.lock();
        let first = state.pages.len() as u64 * PAGE;
        state.pages.extend(pages);
        first
    }

    /// The frames of `memory` are of this kind.
    pub fn is_a(&self, kind: Frame, memory: &Memory) {
        let frames = (0..memory.len() / PAGE).map(|page| (memory.at(page * PAGE), kind));
        self.state.lock().kinds.extend(frames);
    }

    /// So many pages may be locked by each owner.
    pub fn limit(&self, pages: u64) {
        self.state.lock().limit = Some(pages);
    }

    /// Who calls from now on: owner 0 or 1.
    pub fn call_as(&self, owner: u32) {
        self.state.lock().caller = MemoryOwner(owner);
    }

    /// How often pages are pinned, and how many are charged to the owners 0 and 1.
    ///
    /// # Panics
    ///
    /// When more was unpinned or given back than was pinned or charged.
    #[must_use]
    #[track_caller]
    pub fn held(&self) -> (usize, [u64; 2]) {
        let state = self.state.lock();
        assert!(
            !state.unpinned_twice,
            "only what is pinned is unpinned, and what is charged given back"
        );
        (state.pins.len(), state.charged)
    }

    /// A request to map `pages` pages of it.
    #[must_use]
    pub fn request(&self, iova: u64, vaddr: u64, pages: u64) -> MapDma {
        MapDma { iova, vaddr, size: pages * PAGE, prot: Prot::RW }
    }
}

impl State {
    fn page(&self, vaddr: u64) -> Result<PhysAddr, PinError> {
        let page = usize::try_from(vaddr / PAGE).ok().and_then(|page| self.pages.get(page));
        page.copied().flatten().ok_or(PinError::Fault)
    }

    fn kind(&self, phys: PhysAddr) -> Frame {
        let found = self.kinds.iter().find(|(frame, _)| *frame == phys);
        found.map_or(Frame::Ordinary, |(_, kind)| *kind)
    }

    fn byte(&self, vaddr: u64) -> Result<PhysAddr, PinError> {
        Ok(PhysAddr(self.page(vaddr)?.0 + vaddr % PAGE))
    }
}

impl Provider for Owner {
    fn page_size(&self) -> u64 {
        PAGE
    }

    fn pin(
        &self,
        _owner: MemoryOwner,
        vaddr: u64,
        pages: u64,
        _prot: Prot,
    ) -> Result<Pinned, PinError> {
        let mut state = self.state.lock();
        let phys = state.page(vaddr)?;
        let kind = state.kind(phys);
        let mut run = 1;
        while run < pages
            && state.page(vaddr + run * PAGE) == Ok(PhysAddr(phys.0 + run * PAGE))
            && state.kind(PhysAddr(phys.0 + run * PAGE)) == kind
        {
            run += 1;
        }
        if kind == Frame::Ordinary {
            state.pins.extend((0..run).map(|page| PhysAddr(phys.0 + page * PAGE)));
        }
        Ok(Pinned { phys, pages: run })
    }

    fn unpin(&self, run: Pinned, _prot: Prot) {
        let mut state = self.state.lock();
        for page in 0..run.pages {
            let frame = PhysAddr(run.phys.0 + page * PAGE);
            // Told by `held`, not here: a container is closed while a case fails, too.
            match state.pins.iter().position(|pinned| *pinned == frame) {
                Some(place) => _ = state.pins.swap_remove(place),
                None => state.unpinned_twice = true,
            }
        }
    }

    fn caller(&self) -> MemoryOwner {
        self.state.lock().caller
    }

    fn frame(&self, phys: PhysAddr) -> Frame {
        self.state.lock().kind(phys)
    }

    fn charge(&self, owner: MemoryOwner, pages: u64) -> Result<(), PinError> {
        let mut state = self.state.lock();
        let limit = state.limit.unwrap_or(u64::MAX);
        let charged = state.charged.get_mut(owner.0 as usize).ok_or(PinError::NoOwner)?;
        if *charged + pages > limit {
            return Err(PinError::OutOfMemory);
        }
        *charged += pages;
        Ok(())
    }

    fn uncharge(&self, owner: MemoryOwner, pages: u64) {
        let mut state = self.state.lock();
        match state.charged[owner.0 as usize].checked_sub(pages) {
            Some(left) => state.charged[owner.0 as usize] = left,
            None => state.unpinned_twice = true,
        }
    }

    fn read(&self, _owner: MemoryOwner, vaddr: u64, into: &mut [u8]) -> Result<(), PinError> {
        let state = self.state.lock();
        for (at, byte) in (vaddr..).zip(into) {
            *byte = self.store.read(state.byte(at)?);
        }
        Ok(())
    }

    fn write(&self, _owner: MemoryOwner, vaddr: u64, from: &[u8]) -> Result<(), PinError> {
        let state = self.state.lock();
        for (at, byte) in (vaddr..).zip(from) {
            self.store.write(state.byte(at)?, *byte);
        }
        Ok(())
    }
}
