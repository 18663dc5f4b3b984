//! A container in the model: its groups, and a memory provider that looks at the unit whenever
//! memory is unpinned.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use iommu::addr::{Iova, PhysAddr};
use iommu::container::{
    EmulatedId, MapDma, Memory, MemoryOwner, Options, PinError, Pinned, UnmapDma, UnmapDmaError,
};
use iommu::driver::EndpointId;
use iommu::fault::Access;
use iommu::group::GroupId;
use iommu::pool::Shared;
use iommu::prot::Prot;
use lock_api::Mutex;

use crate::lock::LoomLock;
use crate::unit::Unit;
use crate::world::{Group, World, claim, spawn};

pub type Container = iommu::container::Container<Owner, LoomLock>;

/// The emulated group.
pub const EMULATED: EmulatedId = EmulatedId(1);

/// A container and what the threads of a scenario share beside it. Clones are the same session.
#[derive(Clone)]
pub struct Session {
    pub world: World,
    pub container: Arc<Container>,
    pub owner: Owner,
}

/// The owner's memory: every page is there, at `place`. Clones are the same owner.
#[derive(Clone)]
pub struct Owner(Arc<Parts>);

struct Parts {
    /// Whose devices must not reach a frame that is unpinned.
    units: Vec<Unit>,
    state: Mutex<LoomLock, State>,
    /// Who takes this keeps every pin waiting.
    gate: Mutex<LoomLock, ()>,
    /// Called back in every call, if there.
    container: OnceLock<Weak<Container>>,
}

#[derive(Default)]
struct State {
    pins: BTreeMap<u64, u32>,
    charged: u64,
    refused: bool,
}

/// Where the owner's page at `vaddr` is. The sessions map each page at its own address.
pub fn place(vaddr: u64) -> PhysAddr {
    PhysAddr(vaddr + (1 << 40))
}

impl Owner {
    fn call_back(&self) {
        if let Some(container) = self.0.container.get().and_then(Weak::upgrade) {
            let _ = (container.mapping_count(), container.iova_to_phys(Iova(0)));
        }
    }

    /// Holds every pin up until the guard is dropped.
    pub fn hold_up(&self) -> lock_api::MutexGuard<'_, LoomLock, ()> {
        self.0.gate.lock()
    }

    /// The next pin is refused.
    pub fn refuse(&self) {
        self.0.state.lock().refused = true;
    }

    /// How many pages are pinned, each as often as it is, and how many are charged.
    pub fn held(&self) -> (u32, u64) {
        let state = self.0.state.lock();
        (state.pins.values().sum(), state.charged)
    }
}

impl Memory for Owner {
    fn page_size(&self) -> u64 {
        0x1000
    }

    fn pin(&self, _: MemoryOwner, vaddr: u64, pages: u64, _: Prot) -> Result<Pinned, PinError> {
        self.call_back();
        drop(self.0.gate.lock());
        let mut state = self.0.state.lock();
        if std::mem::take(&mut state.refused) {
            return Err(PinError::Fault);
        }
        for page in 0..pages {
            *state.pins.entry(place(vaddr).0 + page * 0x1000).or_default() += 1;
        }
        Ok(Pinned { phys: place(vaddr), pages })
    }

    /// Rule T1-382: what nobody holds any more is reached by nobody.
    fn unpin(&self, run: Pinned, _: Prot) {
        self.call_back();
        let mut state = self.0.state.lock();
        for page in 0..run.pages {
            let at = run.phys.0 + page * 0x1000;
            let count = state.pins.get_mut(&at).expect("only what is pinned is unpinned");
            *count -= 1;
            if *count == 0 {
                state.pins.remove(&at);
                for unit in &self.0.units {
                    let reached = unit.sim().digest().into_iter().any(|(_, _, runs)| {
                        runs.iter()
                            .any(|run| (run.phys.0..=run.phys.0 + run.range.span()).contains(&at))
                    });
                    assert!(!reached, "a device reaches what is unpinned");
                }
            }
        }
    }

    fn charge(&self, _: MemoryOwner, pages: u64) -> Result<(), PinError> {
        self.call_back();
        self.0.state.lock().charged += pages;
        Ok(())
    }

    fn uncharge(&self, _: MemoryOwner, pages: u64) {
        let mut state = self.0.state.lock();
        state.charged = state.charged.checked_sub(pages).expect("no more than was charged");
    }

    fn read(&self, _: MemoryOwner, _: u64, _: &mut [u8]) -> Result<(), PinError> {
        drop(self.0.gate.lock());
        Ok(())
    }

    fn write(&self, _: MemoryOwner, _: u64, _: &[u8]) -> Result<(), PinError> {
        drop(self.0.gate.lock());
        Ok(())
    }
}

impl Session {
    /// A container without groups, in the world of a run. With `calls_back` the provider looks at
    /// the container whenever it is called.
    pub fn open(world: &World, calls_back: bool) -> Self {
        let owner = Owner(Arc::new(Parts {
            units: vec![world.unit.clone(), world.second.0.clone()],
            state: Mutex::new(State::default()),
            gate: Mutex::new(()),
            container: OnceLock::new(),
        }));
        let options = Options { allow_unsafe_interrupts: true, ..Options::default() };
        let container = Arc::new(Container::new(world.pool, owner.clone(), options));
        if calls_back {
            let _ = owner.0.container.set(Arc::downgrade(&container));
        }
        Self { world: world.clone(), container, owner }
    }

    /// A thread that works on the session.
    pub fn spawn<T: 'static>(
        &self,
        body: impl FnOnce(&Self) -> T + 'static,
    ) -> loom::thread::JoinHandle<T> {
        let session = self.clone();
        spawn(move || body(&session))
    }

    pub fn attach(&self, group: &Shared<Group>) -> GroupId {
        let id = group.id();
        self.container.attach_group(claim(group)).expect("nothing is in the way");
        id
    }

    pub fn detach(&self, group: GroupId) {
        drop(self.container.detach_group(group).expect("it is attached"));
    }

    pub fn map(&self, iova: u64) {
        self.container.map_dma(&request(iova)).expect("nothing is in the way");
    }

    /// Unmaps a page: the bytes that are gone, or `None`: another call is at work on it.
    pub fn try_unmap(&self, iova: u64) -> Option<u64> {
        match self.container.unmap_dma(&UnmapDma::Range { iova, size: 0x1000 }) {
            Ok(gone) => Some(gone.bytes),
            Err(failed) => {
                assert_eq!((failed.error, failed.unmapped.bytes), (UnmapDmaError::Busy, 0));
                None
            }
        }
    }

    /// Unmaps a page on which nobody else is at work.
    pub fn unmap(&self, iova: u64) {
        assert_eq!(self.try_unmap(iova), Some(0x1000));
    }

    /// Where a read of an endpoint of the first unit leads, at a moment that loom chooses.
    pub fn read(&self, endpoint: u32, iova: u64) -> Option<PhysAddr> {
        self.world.unit.read(endpoint, iova)
    }

    /// Asserts, when all threads are done, that the invariants of the container hold, that exactly
    /// `mapped` is mapped, and that the endpoints of `first` and `second` (of the two units) reach
    /// exactly that, in memory that is pinned and charged once.
    pub fn check(&self, mapped: &[u64], first: &[u32], second: &[u32]) {
        self.container.check_invariants().expect("the container is whole");
        assert_eq!(self.container.mapping_count(), mapped.len());
        let seen = first.iter().map(|id| (&self.world.unit, id));
        let seen = seen.chain(second.iter().map(|id| (&self.world.second.0, id)));
        for (unit, endpoint) in seen {
            let digest = unit.sim().digest();
            let (.., runs) = digest.iter().find(|(id, ..)| id.0 == *endpoint).expect("is known");
            let reached: Vec<_> = runs.iter().map(|run| (run.range.first().0, run.phys)).collect();
            let right: Vec<_> = mapped.iter().map(|iova| (*iova, place(*iova))).collect();
            assert_eq!(reached, right, "what endpoint {endpoint} reaches");
            for iova in mapped {
                let at = unit.sim().reach(EndpointId(*endpoint), Iova(*iova), Access::WRITE);
                assert_eq!(at.ok(), Some(place(*iova)));
            }
        }
        let pages = if first.is_empty() && second.is_empty() { 0 } else { mapped.len() as u32 };
        let (pins, charged) = self.owner.held();
        let external = self.container.pinned_pages() as u32;
        assert_eq!(pins, pages + external, "pinned once for all domains, and for each holder");
        assert_eq!(charged, u64::from(if pages > 0 { pages } else { external }), "T1-045");
    }

    /// Closes the container: nothing is left.
    pub fn close(self) {
        drop(Arc::into_inner(self.container).expect("every thread is done"));
        assert_eq!(self.owner.held(), (0, 0));
    }
}

/// A page of the owner at its own address.
pub fn request(iova: u64) -> MapDma {
    MapDma { iova, vaddr: iova, size: 0x1000, prot: Prot::RW }
}
