//! The owner's side of a container: emulated devices that pin and copy what real devices reach, and
//! addresses that move under both.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use iommu::addr::{IovaRange, PhysAddr};
use iommu::container::{
    Container, EmulatedId, HolderId, Member, Options, PinHolder, UnmapDma, UpdateVaddr,
};
use iommu::prot::Prot;

use crate::bench::{Bench, Who};
use crate::owner::Owner;
use crate::session::{Session, options};
use crate::steps::{AT, Memory, PAGE, groups, write_refused};

const EPERM: i32 = 1;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const EINVAL: i32 = 22;

const EMULATED: EmulatedId = EmulatedId(1);

/// Counts how often it was told; lets go if it has the container.
struct Holder {
    told: Arc<AtomicU32>,
    container: Option<Arc<Container<Owner>>>,
}

impl PinHolder for Holder {
    fn dma_unmap(&self, range: IovaRange) {
        self.told.fetch_add(1, Ordering::Relaxed);
        if let Some(container) = &self.container {
            container.unpin_pages(range.first().0, range.span() / PAGE + 1);
        }
    }
}

/// A container with every real group and an emulated one, and a device that pins.
struct Owned<'a> {
    session: Session<'a, Owner>,
    owner: Owner,
    told: Arc<AtomicU32>,
    holder: HolderId,
}

impl<'a> Owned<'a> {
    fn open(bench: &'a dyn Bench, lets_go: bool) -> Self {
        let owner = Owner::new(bench);
        let session = Session::with(bench, owner.clone(), options()).and_all();
        session.container.attach_emulated(EMULATED).expect("there is a node");
        let told = Arc::new(AtomicU32::new(0));
        let container = lets_go.then(|| session.container.clone());
        let holder = Holder { told: told.clone(), container };
        let holder = session.container.register_device(holder).expect("there is a node");
        Self { session, owner, told, holder }
    }

    fn pin(&self, member: impl Into<Member>, iova: u64, prot: Prot) -> Result<PhysAddr, i32> {
        let mut out = [None];
        let pinned = self.session.container.pin_pages(member, iova, prot, &mut out);
        pinned.map_err(|error| error.errno())?;
        Ok(out[0].expect("a page was pinned"))
    }

    fn told(&self) -> u32 {
        self.told.load(Ordering::Relaxed)
    }

    fn write(&self, iova: u64, bytes: [u8; 4]) -> Result<(), i32> {
        self.session.container.dma_write(iova, &bytes).map_err(|error| error.errno())
    }

    fn read(&self, iova: u64) -> Result<[u8; 4], i32> {
        let mut bytes = [0; 4];
        let read = self.session.container.dma_read(iova, &mut bytes);
        read.map(|()| bytes).map_err(|error| error.errno())
    }
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        self.session.container.unregister_device(self.holder); // it may keep the container
    }
}

/// T1-471, T1-476: an emulated device pins the page that the real ones reach.
pub(crate) fn a_pinned_page_is_the_one_that_devices_reach(bench: &dyn Bench) {
    let (owned, memory) = (Owned::open(bench, false), Memory::new(bench, 3));
    let start = owned.owner.add_scattered(&memory);
    assert_eq!(owned.session.ask(&owned.owner.request(AT, start, 3)), Ok(()));
    for page in 0..3 {
        let pinned = owned.pin(EMULATED, AT + page * PAGE, Prot::RW);
        assert_eq!(pinned, Ok(memory.at((2 - page) * PAGE)));
        owned.session.reached(AT + page * PAGE, &memory, (2 - page) * PAGE);
    }
    assert_eq!(owned.owner.held(), (6, [3, 0]), "T1-045: charged once");
    assert_eq!(owned.pin(EMULATED, AT + 3 * PAGE, Prot::RW), Err(EINVAL), "T1-469");
    assert_eq!(owned.session.container.unpin_pages(AT, 3), 3);
    owned.session.reached(AT, &memory, 2 * PAGE);
    assert_eq!(owned.owner.held(), (3, [3, 0]));
}

/// T1-482: real groups leave and come back; what an emulated device holds is held throughout.
pub(crate) fn pins_outlive_the_groups(bench: &dyn Bench) {
    let (owned, memory) = (Owned::open(bench, false), Memory::new(bench, 2));
    let start = owned.owner.add_scattered(&memory);
    assert_eq!(owned.session.ask(&owned.owner.request(AT, start, 2)), Ok(()));
    assert_eq!(owned.pin(EMULATED, AT, Prot::RW), Ok(memory.at(PAGE)));
    owned.session.reached(AT, &memory, PAGE);
    groups(bench).for_each(|who| owned.session.leave(who));
    owned.session.lost(AT);
    assert_eq!(owned.owner.held(), (1, [1, 0]), "T1-255");
    groups(bench).for_each(|who| owned.session.join(who));
    owned.session.reached(AT, &memory, PAGE);
    owned.session.reached(AT + PAGE, &memory, 0);
    assert_eq!(owned.owner.held(), (3, [2, 0]), "T1-252");
    assert_eq!(owned.session.container.unpin_pages(AT, 1), 1);
    owned.session.reached(AT, &memory, PAGE);
}

/// T1-370: the holder of a page is told and lets go; then the memory is gone for everybody.
pub(crate) fn an_unmap_waits_for_a_holder(bench: &dyn Bench) {
    let (owned, memory) = (Owned::open(bench, true), Memory::new(bench, 2));
    let start = owned.owner.add(&memory);
    assert_eq!(owned.session.ask(&owned.owner.request(AT, start, 2)), Ok(()));
    assert_eq!(owned.pin(EMULATED, AT + PAGE, Prot::RW), Ok(memory.at(PAGE)));
    owned.session.reached(AT + PAGE, &memory, PAGE);
    assert_eq!(owned.session.unmap(AT, 2), Ok(2 * PAGE));
    assert_eq!((owned.told(), owned.owner.held()), (1, (0, [0, 0])));
    owned.session.lost(AT);
    owned.session.lost(AT + PAGE);
}

/// T1-371: a holder that does not let go: the mapping stays, for real devices too, until it does.
pub(crate) fn a_holder_keeps_its_mapping(bench: &dyn Bench) {
    let (owned, memory) = (Owned::open(bench, false), Memory::new(bench, 2));
    let start = owned.owner.add(&memory);
    for page in 0..2 {
        let request = owned.owner.request(AT + page * PAGE, start + page * PAGE, 1);
        assert_eq!(owned.session.ask(&request), Ok(()));
    }
    assert_eq!(owned.pin(EMULATED, AT + PAGE, Prot::RW), Ok(memory.at(PAGE)));
    let failed = owned.session.container.unmap_dma(&UnmapDma::All).unwrap_err();
    assert_eq!((failed.errno(), failed.unmapped.bytes, owned.told()), (EBUSY, PAGE, 11));
    owned.session.lost(AT);
    owned.session.reached(AT + PAGE, &memory, PAGE);
    assert_eq!(owned.session.container.unpin_pages(AT + PAGE, 1), 1);
    owned.session.reached(AT + PAGE, &memory, PAGE);
    assert_eq!(owned.session.unmap_all(), Ok(PAGE));
    owned.session.lost(AT + PAGE);
}

/// T1-464: a container of the first kind pins nothing for emulated devices; real ones reach all.
pub(crate) fn the_first_kind_pins_nothing(bench: &dyn Bench) {
    let (owner, memory) = (Owner::new(bench), Memory::new(bench, 1));
    let start = owner.add(&memory);
    let first = Options { kind: iommu::container::Kind::V1, ..options() };
    let session = Session::with(bench, owner.clone(), first).and_all();
    session.container.attach_emulated(EMULATED).expect("there is a node");
    assert_eq!(session.ask(&owner.request(AT, start, 1)), Ok(()));
    let pinned = session.container.pin_pages(EMULATED, AT, Prot::RW, &mut [None]);
    assert_eq!(pinned.map_err(|error| error.errno()), Err(EACCES));
    session.reached(AT, &memory, 0);
    assert_eq!(owner.held(), (1, [1, 0]));
}

/// What an emulated device copies to memory a real one reads, and carries elsewhere.
pub(crate) fn a_copy_is_what_a_device_reads(bench: &dyn Bench) {
    let owned = Owned::open(bench, false);
    let (source, target) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let (from, to) = (owned.owner.add(&source), owned.owner.add(&target));
    assert_eq!(owned.session.ask(&owned.owner.request(AT, from, 1)), Ok(()));
    assert_eq!(owned.session.ask(&owned.owner.request(AT + 4 * PAGE, to, 1)), Ok(()));
    owned.session.reached(AT + 16, &source, 16);
    assert_eq!(owned.write(AT + 16, [1, 2, 3, 4]), Ok(()));
    bench.carry(Who::One, AT + 16, AT + 4 * PAGE + 8);
    assert_eq!(owned.read(AT + 4 * PAGE + 8), Ok([1, 2, 3, 4]));
    assert_eq!((source.take(16), target.take(8)), ([1, 2, 3, 4], [1, 2, 3, 4]));
    // Unmapped, neither kind of device gets there any more.
    assert_eq!(owned.session.unmap(AT + 4 * PAGE, 1), Ok(PAGE));
    assert_eq!(owned.read(AT + 4 * PAGE + 8), Err(EINVAL));
    owned.session.lost(AT + 4 * PAGE);
}

/// T1-508: copies and devices have the same rights.
pub(crate) fn copies_have_the_rights_of_devices(bench: &dyn Bench) {
    let (owned, memory) = (Owned::open(bench, false), Memory::new(bench, 2));
    let start = owned.owner.add(&memory);
    for (page, prot) in [(0, Prot::READ), (1, Prot::WRITE)] {
        let mut request = owned.owner.request(AT + page * PAGE, start + page * PAGE, 1);
        request.prot = prot;
        assert_eq!(owned.session.ask(&request), Ok(()));
    }
    groups(bench).for_each(|who| write_refused(bench, who, AT));
    assert_eq!(owned.write(AT, [1; 4]), Err(EPERM));
    assert!(owned.read(AT).is_ok());
    owned.session.reached(AT + PAGE, &memory, PAGE);
    assert_eq!(owned.write(AT + PAGE, [1; 4]), Ok(()));
    assert_eq!(owned.read(AT + PAGE), Err(EPERM));
    assert_eq!(memory.take(PAGE), [1; 4]);
    assert_eq!(owned.pin(EMULATED, AT, Prot::WRITE), Err(EPERM), "T1-470");
}

/// T1-507: a copy goes over the border of two mappings as a device does.
pub(crate) fn a_copy_goes_over_two_mappings(bench: &dyn Bench) {
    let owned = Owned::open(bench, false);
    let (low, high) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let (first, second) = (owned.owner.add(&low), owned.owner.add(&high));
    assert_eq!(owned.session.ask(&owned.owner.request(AT, first, 1)), Ok(()));
    assert_eq!(owned.session.ask(&owned.owner.request(AT + PAGE, second, 1)), Ok(()));
    let border = AT + PAGE;
    assert_eq!(owned.write(border - 2, [1, 2, 3, 4]), Ok(()));
    bench.carry(Who::One, border - 2, AT);
    let carried = owned.read(AT);
    assert_eq!(carried, Ok([1, 2, 3, 4]));
    assert_eq!((low.take(0), low.take(PAGE - 4)), ([1, 2, 3, 4], [0xee, 0xee, 1, 2]));
    assert_eq!(high.take(0), [3, 4, 0xee, 0xee]);
    owned.session.reached(border - 4, &low, PAGE - 4);
    owned.session.reached(border, &high, 0);
}

/// T1-402: devices go on while the owner's addresses are void; copies and pins wait (T1-403).
pub(crate) fn devices_go_on_while_an_address_is_void(bench: &dyn Bench) {
    let (owned, memory) = (Owned::open(bench, false), Memory::new(bench, 2));
    let (old, new) = (owned.owner.add(&memory), owned.owner.add(&memory));
    let container = &owned.session.container;
    assert_eq!(owned.session.ask(&owned.owner.request(AT, old, 2)), Ok(()));
    let busy = container.invalidate_vaddr(&UnmapDma::All).unwrap_err();
    assert_eq!((busy.errno(), busy.unmapped.bytes), (EBUSY, 0), "T1-354: an emulated group");
    assert!(container.detach_emulated(EMULATED));
    let void = container.invalidate_vaddr(&UnmapDma::All);
    assert_eq!(void.map(|void| void.bytes), Ok(2 * PAGE));
    owned.session.reached(AT + PAGE, &memory, PAGE);
    assert_eq!(owned.write(AT, [1; 4]), Err(EBUSY));
    let member = owned.session.group(Who::One);
    assert_eq!(owned.pin(member, AT, Prot::RW), Err(EBUSY));
    let update = UpdateVaddr { iova: AT, vaddr: new, size: 2 * PAGE };
    container.update_vaddr(&update).expect("it is void");
    owned.session.reached(AT, &memory, 0);
    assert_eq!(owned.write(AT + PAGE, [1, 2, 3, 4]), Ok(()));
    assert_eq!(memory.take(PAGE), [1, 2, 3, 4]);
    assert_eq!(owned.pin(member, AT, Prot::RW), Ok(memory.at(0)));
    assert_eq!(container.unpin_pages(AT, 1), 1);
}

/// T1-405: the owner changes: it is charged for what devices go on to reach; one that may not lock so
/// much does not become it.
pub(crate) fn the_owner_of_a_mapping_changes(bench: &dyn Bench) {
    let (owner, memory) = (Owner::new(bench), Memory::new(bench, 3));
    let start = owner.add_scattered(&memory);
    let session = Session::with(bench, owner.clone(), options()).and_all();
    assert_eq!(session.ask(&owner.request(AT, start, 3)), Ok(()));
    session.reached(AT, &memory, 2 * PAGE);
    session.container.invalidate_vaddr(&UnmapDma::All).expect("nothing is void yet");
    owner.call_as(1);
    owner.limit(2);
    let update = UpdateVaddr { iova: AT, vaddr: start, size: 3 * PAGE };
    let refused = session.container.update_vaddr(&update).map_err(|error| error.errno());
    assert_eq!((refused, owner.held()), (Err(ENOMEM), (3, [3, 0])));
    session.reached(AT, &memory, 2 * PAGE);
    owner.limit(3);
    session.container.update_vaddr(&update).expect("it may lock as much");
    assert_eq!(owner.held(), (3, [0, 3]));
    session.reached(AT + 2 * PAGE, &memory, 0);
    assert_eq!(session.unmap_all(), Ok(3 * PAGE));
    assert_eq!(owner.held(), (0, [0, 0]));
    session.lost(AT + 2 * PAGE);
}
