//! Dirty tracking of a container, with devices that really write.

use iommu::container::{DirtyRange, EmulatedId, IdentityMemory, Memory as Provider, PinHolder};
use iommu::prot::Prot;

use crate::bench::{Bench, Who};
use crate::owner::Owner;
use crate::session::{Session, options, request};
use crate::steps::{AT, Memory, PAGE, groups};

const EINVAL: i32 = 22;
const EMULATED: EmulatedId = EmulatedId(1);

/// A device that is never told anything.
struct Quiet;

impl PinHolder for Quiet {
    fn dma_unmap(&self, _range: iommu::addr::IovaRange) {}
}

fn range(iova: u64, pages: u64) -> DirtyRange {
    DirtyRange { iova, size: pages * PAGE, page_size: PAGE }
}

/// The dirty bits of up to 64 pages.
#[track_caller]
fn dirty<M: Provider>(session: &Session<'_, M>, iova: u64, pages: u64) -> u64 {
    let mut bits = [0];
    session.container.read_dirty(&range(iova, pages), &mut bits[..]).expect("tracking is on");
    u64::from_le(bits[0])
}

/// T1-436: while real devices may write anywhere, all that they reach is dirty at every look, written
/// or not; a hole is not.
pub(crate) fn what_a_device_may_write_is_dirty(bench: &dyn Bench) {
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 2));
    session.map(AT, &memory);
    session.map(AT + 4 * PAGE, &memory);
    assert_eq!(session.container.start_dirty_tracking(), Ok(()));
    for _ in 0..2 {
        session.reached(AT + PAGE, &memory, PAGE);
        assert_eq!(dirty(&session, AT, 8), 0b11_0011);
    }
    assert_eq!(session.unmap(AT, 2), Ok(2 * PAGE));
    session.lost(AT);
    assert_eq!(dirty(&session, AT, 8), 0b11_0000);
    assert_eq!(session.container.stop_dirty_tracking(), Ok(()));
    let off = session.container.read_dirty(&range(AT, 8), &mut [0][..]);
    assert_eq!(off.map_err(|error| error.errno()), Err(EINVAL));
    session.reached(AT + 5 * PAGE, &memory, PAGE);
}

/// T1-443: what is mapped while tracking is reached, and tracked.
pub(crate) fn mapped_while_tracking(bench: &dyn Bench) {
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 2));
    assert_eq!(session.container.start_dirty_tracking(), Ok(()));
    assert_eq!(dirty(&session, AT, 2), 0);
    session.map(AT, &memory);
    session.reached(AT + PAGE, &memory, PAGE);
    assert_eq!(dirty(&session, AT, 2), 0b11);
}

/// T1-236: what a group wrote before it left is dirty once after it left.
pub(crate) fn a_group_that_left_was_a_writer(bench: &dyn Bench) {
    let (owner, memory) = (Owner::new(bench), Memory::new(bench, 3));
    let start = owner.add(&memory);
    let session = Session::with(bench, owner.clone(), options());
    session.container.attach_emulated(EMULATED).expect("there is a node");
    assert_eq!(session.ask(&owner.request(AT, start, 3)), Ok(()));
    assert_eq!(session.container.start_dirty_tracking(), Ok(()));
    assert_eq!(dirty(&session, AT, 3), 0, "nobody could write");
    let session = session.and_all();
    session.reached(AT, &memory, 0);
    groups(bench).for_each(|who| session.leave(who));
    session.lost(AT);
    assert_eq!(dirty(&session, AT, 3), 0b111);
    assert_eq!(dirty(&session, AT, 3), 0);
}

/// T1-175: a group comes while tracking is on: it reaches everything, and everything is dirty.
pub(crate) fn a_group_comes_while_tracking(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 2));
    session.map(AT, &memory);
    assert_eq!(session.container.start_dirty_tracking(), Ok(()));
    session.lost(AT);
    assert_eq!(dirty(&session, AT, 2), 0);
    for who in groups(bench) {
        session.join(who);
        session.reached(AT + PAGE, &memory, PAGE);
        assert_eq!(dirty(&session, AT, 2), 0b11);
    }
}

/// T1-444, T1-445, T1-439: groups that pin are trusted to write nowhere else; copies are dirty once.
pub(crate) fn groups_that_pin_limit_what_is_dirty(bench: &dyn Bench) {
    let (owner, memory) = (Owner::new(bench), Memory::new(bench, 4));
    let start = owner.add_scattered(&memory);
    let session = Session::with(bench, owner.clone(), options()).and_all();
    session.container.register_device(Quiet).expect("there is a node");
    assert_eq!(session.ask(&owner.request(AT, start, 4)), Ok(()));
    assert_eq!(session.container.start_dirty_tracking(), Ok(()));
    session.reached(AT, &memory, 3 * PAGE);
    assert_eq!(dirty(&session, AT, 4), 0b1111);
    for who in groups(bench) {
        let member = session.group(who);
        session.container.pin_pages(member, AT + PAGE, Prot::RW, &mut [None]).expect("pins");
    }
    assert_eq!(dirty(&session, AT, 4), 0b1111, "what it was before");
    assert_eq!(dirty(&session, AT, 4), 0b0010, "the pinned page");
    session.container.dma_write(AT + 3 * PAGE, &[1, 2, 3, 4]).expect("it is mapped");
    assert_eq!(memory.take(0), [1, 2, 3, 4]);
    assert_eq!(dirty(&session, AT, 4), 0b1010);
    assert_eq!(dirty(&session, AT, 4), 0b0010);
    session.reached(AT + PAGE, &memory, 2 * PAGE);
    let pins = groups(bench).count() as u64;
    (0..pins).for_each(|_| assert_eq!(session.container.unpin_pages(AT + PAGE, 1), 1));
    assert_eq!(dirty(&session, AT, 4), 0b0010, "it was pinned at the last look");
    assert_eq!(dirty(&session, AT, 4), 0);
}

/// T1-446: an unmap tells what was dirty, and then nobody reaches it.
pub(crate) fn an_unmap_tells_what_is_dirty(bench: &dyn Bench) {
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 2));
    session.map(AT, &memory);
    session.map(AT + 4 * PAGE, &memory);
    assert_eq!(session.container.start_dirty_tracking(), Ok(()));
    session.reached(AT, &memory, 0);
    let mut bits = [0];
    let whole = range(AT - PAGE, 4);
    let gone = session.container.unmap_dma_dirty(&whole, &mut bits[..]).expect("tracking is on");
    assert_eq!((gone.bytes, u64::from_le(bits[0])), (2 * PAGE, 0b110));
    session.lost(AT);
    session.lost(AT + PAGE);
    session.reached(AT + 5 * PAGE, &memory, PAGE);
    let cut = session.container.unmap_dma_dirty(&range(AT + 5 * PAGE, 1), &mut bits[..]);
    assert_eq!(cut.map_err(|failed| failed.errno()), Err(EINVAL));
    session.reached(AT + 5 * PAGE, &memory, PAGE);
}

/// T1-433, T1-434: tracking that begins and ends changes nothing of what is reached.
pub(crate) fn tracking_changes_no_mapping(bench: &dyn Bench) {
    let session = Session::with(bench, IdentityMemory, options()).and_all();
    let memory = Memory::new(bench, 1);
    assert_eq!(session.ask(&request(AT, &memory, Prot::RW)), Ok(()));
    for _ in 0..2 {
        assert_eq!(session.container.start_dirty_tracking(), Ok(()));
        session.reached(AT, &memory, 0);
        session.lost(AT + PAGE);
        assert_eq!(session.container.stop_dirty_tracking(), Ok(()));
        session.reached(AT, &memory, 0);
        session.lost(AT + PAGE);
    }
}

/// T1-511: a copy over a border dirties both pages, and a device's write neither, once all groups
/// are trusted.
pub(crate) fn trusted_groups_and_copies(bench: &dyn Bench) {
    let (owner, memory) = (Owner::new(bench), Memory::new(bench, 3));
    let start = owner.add(&memory);
    let session = Session::with(bench, owner.clone(), options());
    session.join(Who::One);
    session.container.register_device(Quiet).expect("there is a node");
    assert_eq!(session.ask(&owner.request(AT, start, 3)), Ok(()));
    let member = session.group(Who::One);
    session.container.pin_pages(member, AT, Prot::RW, &mut [None]).expect("pins");
    assert_eq!(session.container.unpin_pages(AT, 1), 1);
    assert_eq!(session.container.start_dirty_tracking(), Ok(()));
    session.reached(AT + PAGE, &memory, PAGE);
    assert_eq!(dirty(&session, AT, 3), 0, "the group is trusted");
    session.container.dma_write(AT + 2 * PAGE - 2, &[1, 2, 3, 4]).expect("it is mapped");
    assert_eq!(memory.take(2 * PAGE - 2), [1, 2, 3, 4]);
    assert_eq!(dirty(&session, AT, 3), 0b110);
    assert_eq!(dirty(&session, AT, 3), 0);
}
