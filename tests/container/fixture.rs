//! A container, groups behind up to three software units, and a memory provider with a script.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use iommu::addr::{Iova, PhysAddr};
use iommu::container::{
    Container, Frame, MapDma, Memory, MemoryOwner, Operations, Options, PinError, Pinned,
};
use iommu::device::DeviceId;
use iommu::driver::EndpointId;
use iommu::fault::Access;
use iommu::group::{Group, GroupId, OwnerId, Ownership};
use iommu::instance::Instance;
use iommu::pool::{Pool, Shared};
use iommu::prot::Prot;
use iommu::registry::{DeviceInfo, Registry};
use iommu::sim::{Sim, SimConfig};

pub const PAGE: u64 = 0x1000;

/// Frames by a script: scattered where told, missing where told, and every pin counted.
#[derive(Default)]
pub struct Script {
    state: Mutex<ScriptState>,
}

#[derive(Default)]
struct ScriptState {
    pins: BTreeMap<u64, u64>,
    refuse: Option<(u64, PinError)>,
    refused: u64,
    scattered: bool,
    /// At most so many pages in an answer.
    piece: Option<u64>,
    /// So many pages more than asked for.
    surplus: u64,
    unpinned_with: Vec<Prot>,
    charged: BTreeMap<MemoryOwner, u64>,
    limit: Option<u64>,
    /// Addresses in the owner's space whose frames are not ordinary.
    frames: BTreeMap<u64, Frame>,
    bytes: BTreeMap<u64, u8>,
    caller: MemoryOwner,
    /// Runs before each pin, each copy and each charge, unlocked.
    hook: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Script {
    /// Every page is its own run: consecutive pages are 16 pages apart in memory.
    pub fn scatter(&self) {
        self.state.lock().unwrap().scattered = true;
    }

    /// No answer has more than `pages`; memory stays contiguous.
    pub fn in_pieces_of(&self, pages: u64) {
        self.state.lock().unwrap().piece = Some(pages);
    }

    /// Every answer has `pages` more than were asked for.
    pub fn give_too_much(&self, pages: u64) {
        self.state.lock().unwrap().surplus = pages;
    }

    /// Refuses the `n`-th pin from now on, once.
    pub fn refuse(&self, n: u64, error: PinError) {
        self.state.lock().unwrap().refuse = Some((n, error));
    }

    pub fn refuse_none(&self) -> u64 {
        let mut state = self.state.lock().unwrap();
        state.refuse = None;
        std::mem::take(&mut state.refused)
    }

    /// Each owner may lock so many pages.
    pub fn limit(&self, pages: u64) {
        self.state.lock().unwrap().limit = Some(pages);
    }

    /// Pages charged, over all owners.
    pub fn charged(&self) -> u64 {
        self.state.lock().unwrap().charged.values().sum()
    }

    /// Pages charged to one owner.
    pub fn charged_to(&self, owner: u32) -> u64 {
        self.state.lock().unwrap().charged.get(&MemoryOwner(owner)).copied().unwrap_or(0)
    }

    /// Who calls from now on.
    pub fn call_as(&self, owner: u32) {
        self.state.lock().unwrap().caller = MemoryOwner(owner);
    }

    /// The frame at `vaddr` is of this kind; it ends a run.
    pub fn frame_at(&self, vaddr: u64, kind: Frame) {
        self.state.lock().unwrap().frames.insert(vaddr, kind);
    }

    /// `hook` runs in each pin, charge and copy.
    pub fn hook(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.state.lock().unwrap().hook = Some(Arc::new(hook));
    }

    /// No hook any more.
    pub fn unhook(&self) {
        self.state.lock().unwrap().hook = None;
    }

    fn run_hook(&self) {
        let hook = self.state.lock().unwrap().hook.clone();
        if let Some(hook) = hook {
            hook();
        }
    }

    /// What the runs were unpinned with so far.
    pub fn unpinned_with(&self) -> Vec<Prot> {
        self.state.lock().unwrap().unpinned_with.clone()
    }

    /// Pinned pages, each as often as it is pinned.
    pub fn pins(&self) -> u64 {
        self.state.lock().unwrap().pins.values().sum()
    }
}

impl ScriptState {
    fn phys(&self, vaddr: u64) -> u64 {
        if self.scattered { vaddr * 16 } else { vaddr + 0x4000_0000 }
    }

    fn kind(&self, vaddr: u64) -> Frame {
        self.frames.get(&vaddr).copied().unwrap_or(Frame::Ordinary)
    }
}

impl Memory for Script {
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
        self.run_hook();
        let mut state = self.state.lock().unwrap();
        if let Some((left, error)) = state.refuse {
            if left == 0 {
                state.refuse = None;
                state.refused += 1;
                return Err(error);
            }
            state.refuse = Some((left - 1, error));
        }
        let kind = state.kind(vaddr);
        let same = |n: &u64| *n == 0 || (!state.scattered && state.kind(vaddr + n * PAGE) == kind);
        let most = state.piece.map_or(pages, |piece| pages.min(piece));
        let run = if state.frames.is_empty() && !state.scattered {
            most
        } else {
            (0..most).take_while(same).count() as u64
        };
        let pages = run + state.surplus;
        let phys = state.phys(vaddr);
        if kind == Frame::Ordinary {
            for page in 0..pages {
                *state.pins.entry(phys + page * PAGE).or_default() += 1;
            }
        }
        Ok(Pinned { phys: PhysAddr(phys), pages })
    }

    fn unpin(&self, run: Pinned, prot: Prot) {
        let mut state = self.state.lock().unwrap();
        state.unpinned_with.push(prot);
        for page in 0..run.pages {
            let key = run.phys.0 + page * PAGE;
            let count = state.pins.get_mut(&key).expect("unpinned a page that is not pinned");
            *count -= 1;
            if *count == 0 {
                state.pins.remove(&key);
            }
        }
    }

    fn caller(&self) -> MemoryOwner {
        self.state.lock().unwrap().caller
    }

    fn frame(&self, phys: PhysAddr) -> Frame {
        let state = self.state.lock().unwrap();
        let vaddr = if state.scattered { phys.0 / 16 } else { phys.0.wrapping_sub(0x4000_0000) };
        state.kind(vaddr)
    }

    fn charge(&self, owner: MemoryOwner, pages: u64) -> Result<(), PinError> {
        self.run_hook();
        let mut state = self.state.lock().unwrap();
        let limit = state.limit.unwrap_or(u64::MAX);
        let charged = state.charged.entry(owner).or_default();
        if *charged + pages > limit {
            return Err(PinError::OutOfMemory);
        }
        *charged += pages;
        Ok(())
    }

    fn uncharge(&self, owner: MemoryOwner, pages: u64) {
        let mut state = self.state.lock().unwrap();
        let charged = state.charged.get_mut(&owner).expect("charged before");
        *charged = charged.checked_sub(pages).expect("no more than was charged");
    }

    fn read(&self, _owner: MemoryOwner, vaddr: u64, into: &mut [u8]) -> Result<(), PinError> {
        self.run_hook();
        let state = self.state.lock().unwrap();
        for (at, byte) in (vaddr..).zip(into) {
            if state.kind(at & !(PAGE - 1)) == Frame::Device {
                return Err(PinError::Fault);
            }
            *byte = state.bytes.get(&at).copied().unwrap_or(0);
        }
        Ok(())
    }

    fn write(&self, _owner: MemoryOwner, vaddr: u64, from: &[u8]) -> Result<(), PinError> {
        self.run_hook();
        let mut state = self.state.lock().unwrap();
        for (at, byte) in (vaddr..).zip(from) {
            if state.kind(at & !(PAGE - 1)) == Frame::Device {
                return Err(PinError::Fault);
            }
            state.bytes.insert(at, *byte);
        }
        Ok(())
    }
}

/// Where most tests map.
pub const AT: u64 = 0x10_0000;

/// Pages that the owner sees where the devices do.
pub fn request(iova: u64, pages: u64) -> MapDma {
    MapDma { iova, vaddr: iova, size: pages * PAGE, prot: Prot::RW }
}

/// Units, each with groups of one device; endpoint ids count up from 1 over all of them.
pub struct World {
    pub pool: &'static Pool,
    pub registry: Registry,
    pub units: Vec<(Sim, Shared<Instance>)>,
    pub container: Container<&'static Script>,
    pub memory: &'static Script,
    next: Mutex<u32>,
}

impl World {
    pub fn new(units: usize) -> Self {
        Self::with(vec![SimConfig::default(); units])
    }

    pub fn with(configs: Vec<SimConfig>) -> Self {
        Self::open(configs, Options { allow_unsafe_interrupts: true, ..Options::default() })
    }

    pub fn open(configs: Vec<SimConfig>, options: Options) -> Self {
        let pool: &'static Pool = Box::leak(Box::new(Pool::heap()));
        let registry = Registry::new(pool);
        let units = configs.into_iter().map(|config| {
            let sim = Sim::with(config);
            let instance = registry.add_instance(sim.driver()).unwrap();
            (sim, instance)
        });
        let units = units.collect();
        let memory: &'static Script = Box::leak(Box::default());
        let container = Container::new(pool, memory, options);
        Self { pool, registry, units, container, memory, next: Mutex::new(1) }
    }

    /// A new group behind `unit`, claimed, and its endpoint.
    pub fn group(&self, unit: usize) -> (Ownership, u32) {
        let endpoint = {
            let mut next = self.next.lock().unwrap();
            *next += 1;
            *next
        };
        let info = DeviceInfo {
            id: DeviceId(endpoint.into()),
            endpoints: &[EndpointId(endpoint)],
            with: None,
        };
        let group = self.registry.add_device(&self.units[unit].1, &info).unwrap();
        (Group::claim(&group, OwnerId(1)).unwrap(), endpoint)
    }

    /// A new group behind `unit`, attached to the container.
    pub fn attached(&self, unit: usize) -> (GroupId, u32) {
        let (ownership, endpoint) = self.group(unit);
        let id = ownership.group().id();
        self.container.attach_group(ownership).unwrap();
        (id, endpoint)
    }

    pub fn reaches(&self, unit: usize, endpoint: u32, iova: u64) -> Option<u64> {
        let found = self.units[unit].0.reach(EndpointId(endpoint), Iova(iova), Access::READ);
        found.ok().map(|phys| phys.0)
    }

    /// Operations of one call.
    pub fn cost(&self, call: impl FnOnce()) -> Operations {
        let before = self.container.operations();
        call();
        self.container.operations().since(&before)
    }

    /// Everything that must be equal after a failed call (T1-169, T1-722).
    pub fn digest(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        (self.content(), self.pool.usage())
    }

    /// As `digest`, but for the nodes in use: a tree may stay split after an undo.
    pub fn content(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let mut windows = vec![];
        self.container.for_each_window(|window| windows.push(window));
        let mut units: Vec<_> = self.units.iter().map(|(sim, _)| sim.digest()).collect();
        for unit in &mut units {
            unit.retain(|(_, domain, _)| domain.0 != 0);
        }
        let container = &self.container;
        (
            (windows, units, self.memory.pins(), self.memory.charged()),
            (container.domain_count(), container.group_count(), container.mapping_count()),
            (container.free_mappings(), container.page_sizes()),
            (container.emulated_count(), container.pinned_pages()),
        )
    }
}

/// Attaches that succeeded and failed, domains allocated and freed, detaches.
pub fn shape(cost: Operations) -> [u64; 5] {
    [cost.dom_alloc, cost.attach_ok, cost.attach_fail, cost.detach, cost.dom_free]
}
