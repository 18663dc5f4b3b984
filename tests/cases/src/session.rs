//! What container cases are made of: a container, the groups in it, and the comparison of what it
//! says is mapped with what each device reaches.

use alloc::sync::Arc;
use core::cell::RefCell;

use iommu::addr::Iova;
use iommu::container::{
    Container, IdentityMemory, MapDma, Memory as Provider, Operations, Options, UnmapDma,
};
use iommu::group::{GroupId, Ownership};
use iommu::prot::Prot;

use crate::bench::{Bench, Who};
use crate::steps::{Memory, PAGE, arrives, claim, everyone, groups, refused};

/// A container on the bench, and which groups are in it.
pub struct Session<'a, M: Provider = IdentityMemory> {
    bench: &'a dyn Bench,
    /// The container; holders of pins may keep it too.
    pub container: Arc<Container<M>>,
    inside: RefCell<[Option<GroupId>; Who::GROUPS.len()]>,
}

/// The defaults, for groups whose interrupts are not isolated.
#[must_use]
pub fn options() -> Options {
    Options { allow_unsafe_interrupts: true, ..Options::default() }
}

/// A request to map all of `memory`, as an owner whose addresses are those of the machine.
#[must_use]
pub fn request(iova: u64, memory: &Memory, prot: Prot) -> MapDma {
    MapDma { iova, vaddr: memory.phys().0, size: memory.len(), prot }
}

impl<'a> Session<'a> {
    /// A container of an owner whose memory is mapped one to one, without groups.
    #[must_use]
    pub fn open(bench: &'a dyn Bench) -> Self {
        Self::with(bench, IdentityMemory, options())
    }

    /// The same, with every group of the bench in it.
    #[must_use]
    pub fn of_all(bench: &'a dyn Bench) -> Self {
        Self::open(bench).and_all()
    }

    /// Maps all of `memory`, for reading and writing.
    ///
    /// # Panics
    ///
    /// When it can't be mapped.
    #[track_caller]
    pub fn map(&self, iova: u64, memory: &Memory) {
        assert_eq!(self.ask(&request(iova, memory, Prot::RW)), Ok(()));
    }
}

impl<'a, M: Provider> Session<'a, M> {
    /// A container without groups.
    #[must_use]
    pub fn with(bench: &'a dyn Bench, memory: M, options: Options) -> Self {
        let container = Container::new(bench.registry().pool(), memory, options);
        Self { bench, container: Arc::new(container), inside: RefCell::default() }
    }

    /// Attaches every group of the bench.
    #[must_use]
    pub fn and_all(self) -> Self {
        groups(self.bench).for_each(|who| self.join(who));
        self
    }

    /// Attaches the group of a device.
    ///
    /// # Panics
    ///
    /// When it can't be attached.
    #[track_caller]
    pub fn join(&self, who: Who) {
        assert_eq!(self.try_join(who), Ok(()));
    }

    /// Attaches the group of a device, or says with which errno it was refused.
    ///
    /// # Errors
    ///
    /// The errno.
    #[track_caller]
    pub fn try_join(&self, who: Who) -> Result<(), i32> {
        self.put_in(who, claim(self.bench, who))
    }

    /// Attaches the group of a device, which is owned, or says with which errno it was refused.
    ///
    /// # Errors
    ///
    /// The errno.
    pub fn put_in(&self, who: Who, ownership: Ownership) -> Result<(), i32> {
        let group = ownership.group().id();
        self.container.attach_group(ownership).map_err(|refusal| refusal.error.errno())?;
        self.inside.borrow_mut()[index(who)] = Some(group);
        Ok(())
    }

    /// Detaches the group of a device.
    ///
    /// # Panics
    ///
    /// When it is not in the container.
    #[track_caller]
    pub fn leave(&self, who: Who) {
        drop(self.take_out(who));
    }

    /// Detaches the group of a device, and keeps its ownership.
    ///
    /// # Panics
    ///
    /// When it is not in the container.
    #[track_caller]
    pub fn take_out(&self, who: Who) -> Ownership {
        let group = self.inside.borrow_mut()[index(who)].take();
        self.container.detach_group(group.expect("it is in")).expect("it is in")
    }

    /// The number of the group of a device.
    ///
    /// # Panics
    ///
    /// When it is not in the container.
    #[must_use]
    #[track_caller]
    pub fn group(&self, who: Who) -> GroupId {
        self.inside.borrow()[index(who)].expect("it is in")
    }

    /// Maps.
    ///
    /// # Errors
    ///
    /// The errno.
    pub fn ask(&self, request: &MapDma) -> Result<(), i32> {
        self.container.map_dma(request).map_err(|error| error.errno())
    }

    /// Unmaps `pages` pages and says how many bytes are gone.
    ///
    /// # Errors
    ///
    /// The errno.
    pub fn unmap(&self, iova: u64, pages: u64) -> Result<u64, i32> {
        let request = UnmapDma::Range { iova, size: pages * PAGE };
        self.container.unmap_dma(&request).map(|gone| gone.bytes).map_err(|error| error.errno())
    }

    /// Unmaps everything and says how many bytes are gone.
    ///
    /// # Errors
    ///
    /// The errno.
    pub fn unmap_all(&self) -> Result<u64, i32> {
        let gone = self.container.unmap_dma(&UnmapDma::All);
        gone.map(|gone| gone.bytes).map_err(|error| error.errno())
    }

    /// Domains allocated, attaches, refusals, detaches, domains freed by `call`.
    pub fn cost(&self, call: impl FnOnce()) -> [u64; 5] {
        let before = self.container.operations();
        call();
        let Operations { dom_alloc, attach_ok, attach_fail, detach, dom_free, .. } =
            self.container.operations().since(&before);
        [dom_alloc, attach_ok, attach_fail, detach, dom_free]
    }

    /// Every device whose group is in the container gets from `iova` to `offset` of `memory`, as the
    /// container says; every other device of the bench is refused there.
    ///
    /// # Panics
    ///
    /// When it is otherwise, or when no group is in.
    #[track_caller]
    pub fn reached(&self, iova: u64, memory: &Memory, offset: u64) {
        let said = self.container.iova_to_phys(Iova(iova));
        assert_eq!(said, Some(memory.at(offset)), "what the container says of {iova:#x}");
        let mut count = 0;
        for who in everyone(self.bench) {
            if self.has(who) {
                count += 1;
                arrives(self.bench, who, iova, memory, offset);
            } else {
                refused(self.bench, who, iova);
            }
        }
        assert!(count > 0, "no group is in the container");
    }

    /// No device of the bench gets anywhere from `iova`, and the container says so.
    ///
    /// # Panics
    ///
    /// When it is otherwise.
    #[track_caller]
    pub fn lost(&self, iova: u64) {
        let said = self.container.iova_to_phys(Iova(iova));
        assert_eq!(said, None, "what the container says of {iova:#x}");
        everyone(self.bench).for_each(|who| refused(self.bench, who, iova));
    }

    fn has(&self, who: Who) -> bool {
        self.inside.borrow()[index(who)].is_some()
    }
}

/// The place of the group of a device.
fn index(who: Who) -> usize {
    let one = if who == Who::Twin { Who::Pair } else { who };
    Who::GROUPS.iter().position(|group| *group == one).unwrap_or(0)
}
