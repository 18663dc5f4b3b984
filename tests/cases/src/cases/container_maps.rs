//! Maps of a container: what the container says is mapped is what every device of it reaches.

use iommu::container::{Frame, Kind, MapDma, Options, UnmapDma};
use iommu::prot::Prot;

use crate::bench::{Bench, Outcome, Transfer, Who};
use crate::owner::Owner;
use crate::session::{Session, options, request};
use crate::steps::{AT, LANDING, Memory, PAGE, arrives, groups, read_refused, reads, refused};
use crate::steps::{READ_LEN, kinds, write_refused};

const EINVAL: i32 = 22;
const EEXIST: i32 = 17;
const EFAULT: i32 = 14;
const ENOMEM: i32 = 12;
const ENOSPC: i32 = 28;

/// T1-037: each page of a mapping, and neither neighbour, before, while and after it is mapped.
pub(crate) fn each_page_that_a_container_maps(bench: &dyn Bench) {
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 4));
    let pages = || (0..4).map(|page| (AT + page * PAGE, page * PAGE));
    pages().for_each(|(iova, _)| session.lost(iova));
    session.map(AT, &memory);
    pages().for_each(|(iova, offset)| session.reached(iova, &memory, offset));
    session.reached(AT + 4 * PAGE - 4, &memory, 4 * PAGE - 4);
    session.lost(AT - PAGE);
    session.lost(AT + 4 * PAGE);
    assert_eq!(session.unmap(AT, 4), Ok(4 * PAGE));
    pages().for_each(|(iova, _)| session.lost(iova));
}

/// T1-030: mappings that touch stay two: either goes alone.
pub(crate) fn mappings_that_touch_stay_two(bench: &dyn Bench) {
    let session = Session::of_all(bench);
    let (low, high) = (Memory::new(bench, 1), Memory::new(bench, 1));
    for (goes, stays, other) in [(AT, AT + PAGE, &high), (AT + PAGE, AT, &low)] {
        session.map(AT, &low);
        session.map(AT + PAGE, &high);
        session.reached(AT, &low, 0);
        session.reached(AT + PAGE, &high, 0);
        assert_eq!(session.unmap(goes, 1), Ok(PAGE));
        session.lost(goes);
        session.reached(stays, other, 0);
        assert_eq!(session.unmap(AT, 2), Ok(PAGE));
        session.lost(stays);
    }
}

/// One transfer over the border of two mappings: whole while both are there, cut when one is gone.
pub(crate) fn a_transfer_over_two_mappings(bench: &dyn Bench) {
    let (session, landing) = (Session::of_all(bench), Memory::new(bench, 1));
    let (memory, border) = (Memory::new(bench, 2), AT + PAGE);
    let half = |iova, offset| {
        let vaddr = memory.phys().0 + offset;
        session.ask(&MapDma { iova, vaddr, size: PAGE, prot: Prot::RW })
    };
    assert_eq!((half(AT, 0), half(border, PAGE)), (Ok(()), Ok(())));
    session.map(LANDING, &landing);
    let at = READ_LEN as u64 / 2;
    let read = |to| {
        let mut jobs = [Transfer::new(Who::One, border - at, memory.at(PAGE - at), to)];
        bench.transfer(&mut jobs, READ_LEN);
        let [Transfer { read, write, .. }] = jobs;
        (read, write)
    };
    let whole = read(Some((LANDING, landing.phys())));
    assert_eq!(whole, (Outcome::Arrived, Outcome::Arrived));
    assert_eq!(session.unmap(border, 1), Ok(PAGE));
    // What a device does with half a read is its own affair: it must not show it.
    let (cut, _) = read(None);
    assert!(cut.is_refused_at(border), "{cut:?}");
    session.reached(border - 4, &memory, PAGE - 4);
    session.lost(border);
}

/// T1-268: a map into a hole must fit it exactly.
pub(crate) fn a_hole_of_a_container_is_filled_exactly(bench: &dyn Bench) {
    let session = Session::of_all(bench);
    let (side, two, three) = (Memory::new(bench, 1), Memory::new(bench, 2), Memory::new(bench, 3));
    session.map(AT, &side);
    session.map(AT + 3 * PAGE, &side);
    for wrong in [AT, AT + PAGE, AT - 2 * PAGE] {
        assert_eq!(session.ask(&request(wrong, &three, Prot::RW)), Err(EEXIST));
    }
    session.lost(AT + PAGE);
    session.lost(AT + 2 * PAGE);
    session.map(AT + PAGE, &two);
    session.reached(AT, &side, 0);
    session.reached(AT + PAGE, &two, 0);
    session.reached(AT + 2 * PAGE, &two, PAGE);
    session.reached(AT + 3 * PAGE, &side, 0);
}

/// T1-280: a mapping that is for writing only refuses reads, and one for reading only writes.
pub(crate) fn a_container_s_rights(bench: &dyn Bench) {
    let (session, landing) = (Session::of_all(bench), Memory::new(bench, 1));
    let (source, sink) = (Memory::new(bench, 1), Memory::new(bench, 1));
    session.map(LANDING, &landing);
    assert_eq!(session.ask(&request(AT, &source, Prot::READ)), Ok(()));
    assert_eq!(session.ask(&request(AT + PAGE, &sink, Prot::WRITE)), Ok(()));
    for who in kinds(bench) {
        write_refused(bench, who, AT);
        arrives(bench, who, AT + PAGE, &sink, 0);
    }
    reads(bench, Who::One, AT, &source, &landing);
    read_refused(bench, Who::One, AT + PAGE, &sink);
    assert_eq!(session.unmap(AT, 2), Ok(2 * PAGE));
    session.lost(AT);
    session.lost(AT + PAGE);
    // The same places with the other rights.
    assert_eq!(session.ask(&request(AT, &sink, Prot::WRITE)), Ok(()));
    assert_eq!(session.ask(&request(AT + PAGE, &source, Prot::READ)), Ok(()));
    session.reached(AT, &sink, 0);
    kinds(bench).for_each(|who| write_refused(bench, who, AT + PAGE));
}

/// The same memory at two places: each goes alone.
pub(crate) fn one_memory_twice_in_a_container(bench: &dyn Bench) {
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 2));
    session.map(AT, &memory);
    session.map(AT + 16 * PAGE, &memory);
    session.reached(AT + PAGE, &memory, PAGE);
    session.reached(AT + 17 * PAGE, &memory, PAGE);
    assert_eq!(session.unmap(AT, 2), Ok(2 * PAGE));
    session.lost(AT + PAGE);
    session.reached(AT + 17 * PAGE, &memory, PAGE);
}

/// Many mappings: each is reached, and when every other one is gone the rest still is.
pub(crate) fn many_mappings_of_a_container(bench: &dyn Bench) {
    const COUNT: u64 = 150;
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 1));
    let at = |n: u64| AT + n * PAGE;
    (0..COUNT).for_each(|n| session.map(at(n), &memory));
    assert_eq!(session.container.mapping_count() as u64, COUNT);
    for n in [0, 63, 64, COUNT - 1] {
        session.reached(at(n), &memory, 0);
    }
    for n in (0..COUNT).step_by(2) {
        assert_eq!(session.unmap(at(n), 1), Ok(PAGE));
    }
    for n in [0, 64, COUNT - 2] {
        session.lost(at(n));
        session.reached(at(n + 1), &memory, 0);
    }
    assert_eq!(session.unmap(AT, COUNT), Ok(COUNT / 2 * PAGE));
    session.lost(at(1));
    session.lost(at(COUNT - 1));
}

/// IOVA 0 is a place like any other.
pub(crate) fn a_container_maps_iova_zero(bench: &dyn Bench) {
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 1));
    session.lost(0);
    session.map(0, &memory);
    session.reached(0, &memory, 0);
    session.reached(PAGE - 4, &memory, PAGE - 4);
    assert_eq!(session.unmap(0, 1), Ok(PAGE));
    session.lost(0);
}

/// T1-283: a map that finds a hole in the owner's memory leaves nothing mapped and nothing pinned.
pub(crate) fn a_map_that_fails_half_way(bench: &dyn Bench) {
    let owner = Owner::new(bench);
    let (first, second, patch) =
        (Memory::new(bench, 3), Memory::new(bench, 2), Memory::new(bench, 1));
    let start = owner.add(&first);
    let hole = owner.add_hole();
    owner.add(&second);
    let session = Session::with(bench, owner.clone(), options()).and_all();
    assert_eq!(session.ask(&owner.request(AT + 16 * PAGE, start, 1)), Ok(()));
    let whole = owner.request(AT, start, 6);
    assert_eq!(session.ask(&whole), Err(EFAULT));
    (0..6).for_each(|page| session.lost(AT + page * PAGE));
    session.reached(AT + 16 * PAGE, &first, 0);
    assert_eq!(owner.held(), (1, [1, 0]));
    owner.fill(hole, &patch);
    assert_eq!(session.ask(&whole), Ok(()));
    session.reached(AT + 2 * PAGE, &first, 2 * PAGE);
    session.reached(AT + 3 * PAGE, &patch, 0);
    session.reached(AT + 5 * PAGE, &second, PAGE);
    assert_eq!(session.unmap_all(), Ok(7 * PAGE));
    (0..6).for_each(|page| session.lost(AT + page * PAGE));
    assert_eq!(owner.held(), (0, [0, 0]));
}

/// T1-320: exactly the limit of locked memory is allowed, one page more maps nothing.
pub(crate) fn the_limit_of_locked_memory(bench: &dyn Bench) {
    let (owner, memory) = (Owner::new(bench), Memory::new(bench, 4));
    let start = owner.add(&memory);
    let session = Session::with(bench, owner.clone(), options()).and_all();
    owner.limit(3);
    assert_eq!(session.ask(&owner.request(AT, start, 4)), Err(ENOMEM));
    session.lost(AT);
    assert_eq!(session.ask(&owner.request(AT, start, 3)), Ok(()));
    session.reached(AT + 2 * PAGE, &memory, 2 * PAGE);
    assert_eq!(session.ask(&owner.request(AT + 3 * PAGE, start + 3 * PAGE, 1)), Err(ENOMEM));
    session.lost(AT + 3 * PAGE);
    session.reached(AT, &memory, 0);
    assert_eq!(session.unmap(AT, 3), Ok(3 * PAGE));
    assert_eq!(session.ask(&owner.request(AT + 3 * PAGE, start + 3 * PAGE, 1)), Ok(()));
    session.reached(AT + 3 * PAGE, &memory, 3 * PAGE);
    session.lost(AT);
}

/// T1-310: memory that lies scattered is reached page by page, over more than one batch of runs.
pub(crate) fn scattered_memory_of_a_container(bench: &dyn Bench) {
    const PAGES: u64 = 70;
    let (owner, memory) = (Owner::new(bench), Memory::new(bench, PAGES));
    let start = owner.add_scattered(&memory);
    let session = Session::with(bench, owner.clone(), options()).and_all();
    assert_eq!(session.ask(&owner.request(AT, start, PAGES)), Ok(()));
    let tries = [0, 1, 63, 64, 65, PAGES - 1];
    for page in tries {
        session.reached(AT + page * PAGE, &memory, (PAGES - 1 - page) * PAGE);
    }
    session.lost(AT + PAGES * PAGE);
    assert_eq!(owner.held(), (PAGES as usize, [PAGES, 0]));
    assert_eq!(session.unmap(AT, PAGES), Ok(PAGES * PAGE));
    tries.into_iter().for_each(|page| session.lost(AT + page * PAGE));
    assert_eq!(owner.held(), (0, [0, 0]));
}

/// T1-315: reserved frames are reached as others are, and neither charged nor unpinned.
pub(crate) fn reserved_frames_are_reached(bench: &dyn Bench) {
    let owner = Owner::new(bench);
    let (plain, reserved) = (Memory::new(bench, 2), Memory::new(bench, 1));
    let start = owner.add(&plain);
    owner.add(&reserved);
    owner.is_a(Frame::Reserved, &reserved);
    let session = Session::with(bench, owner.clone(), options()).and_all();
    assert_eq!(session.ask(&owner.request(AT, start, 3)), Ok(()));
    session.reached(AT + PAGE, &plain, PAGE);
    session.reached(AT + 2 * PAGE, &reserved, 0);
    assert_eq!(owner.held(), (2, [2, 0]));
    assert_eq!(session.unmap(AT, 3), Ok(3 * PAGE));
    session.lost(AT + 2 * PAGE);
    assert_eq!(owner.held(), (0, [0, 0]));
}

/// T1-521: what `info` says is what is: the granule maps, half of it does not.
pub(crate) fn the_granule_of_a_container(bench: &dyn Bench) {
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 1));
    let info = session.container.info().expect("there is memory for the list");
    let granule = 1 << info.page_sizes.trailing_zeros();
    assert_eq!(granule, PAGE);
    let right = request(AT, &memory, Prot::RW);
    let half = granule / 2;
    for wrong in [
        MapDma { size: half, ..right },
        MapDma { iova: AT + half, ..right },
        MapDma { vaddr: right.vaddr + half, ..right },
    ] {
        assert_eq!(session.ask(&wrong), Err(EINVAL));
        session.lost(wrong.iova & !3);
    }
    assert_eq!(session.ask(&right), Ok(()));
    session.reached(AT + half, &memory, half);
    let left = session.container.info().expect("there is memory for the list").free_mappings;
    assert_eq!(left + 1, info.free_mappings, "T1-528");
}

/// T1-285: a mapping larger than the large pages of most units, at its corners.
pub(crate) fn a_large_mapping_of_a_container(bench: &dyn Bench) {
    const PAGES: u64 = 1025;
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 1));
    // One to one, so that the memory of the case is its last page; nobody writes to the others.
    let size = PAGES * PAGE;
    let vaddr = memory.phys().0 + PAGE - size;
    assert_eq!(session.ask(&MapDma { iova: AT, vaddr, size, prot: Prot::RW }), Ok(()));
    session.reached(AT + size - PAGE, &memory, 0);
    session.reached(AT + size - 4, &memory, PAGE - 4);
    session.lost(AT + size);
    assert_eq!(session.unmap(AT + size - PAGE, 1), Err(EINVAL));
    session.reached(AT + size - PAGE, &memory, 0);
    assert_eq!(session.unmap(AT, PAGES), Ok(size));
    session.lost(AT + size - PAGE);
}

/// T1-262: a read-only mapping refuses a device's write.
pub(crate) fn a_container_s_read_only_memory(bench: &dyn Bench) {
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 1));
    assert_eq!(session.ask(&request(AT, &memory, Prot::READ)), Ok(()));
    assert_eq!(session.ask(&request(AT + PAGE, &memory, Prot::WRITE)), Ok(()));
    kinds(bench).for_each(|who| write_refused(bench, who, AT));
    session.reached(AT + PAGE, &memory, 0);
}

/// T1-268: an overlap is refused, and the old mapping is in use as before.
pub(crate) fn a_container_s_overlap_is_refused(bench: &dyn Bench) {
    let session = Session::of_all(bench);
    let (old, new) = (Memory::new(bench, 3), Memory::new(bench, 1));
    session.map(AT, &old);
    for page in 0..3 {
        assert_eq!(session.ask(&request(AT + page * PAGE, &new, Prot::RW)), Err(EEXIST));
    }
    assert_eq!(session.ask(&request(AT - PAGE, &old, Prot::RW)), Err(EEXIST));
    (0..3).for_each(|page| session.reached(AT + page * PAGE, &old, page * PAGE));
    session.lost(AT - PAGE);
}

/// T1-263 to T1-266: wrong requests map nothing.
pub(crate) fn a_container_s_wrong_requests(bench: &dyn Bench) {
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 1));
    let right = request(AT, &memory, Prot::RW);
    let wrong = [
        MapDma { size: 0, ..right },
        MapDma { size: PAGE / 2, ..right },
        MapDma { iova: AT + 8, ..right },
        MapDma { vaddr: right.vaddr + 8, ..right },
        MapDma { prot: Prot::empty(), ..right },
    ];
    for request in &wrong {
        assert_eq!(session.ask(request), Err(EINVAL), "{request:?}");
        session.lost(AT);
    }
    assert_eq!(session.container.mapping_count(), 0);
    assert_eq!(session.ask(&right), Ok(()));
    session.reached(AT, &memory, 0);
}

/// T1-269: the limit of mappings is exact, and what is mapped works on.
pub(crate) fn a_container_s_limit(bench: &dyn Bench) {
    let limited = Options { mapping_limit: 2, ..options() };
    let session = Session::with(bench, iommu::container::IdentityMemory, limited).and_all();
    let memory = Memory::new(bench, 1);
    session.map(AT, &memory);
    session.map(AT + PAGE, &memory);
    let third = request(AT + 2 * PAGE, &memory, Prot::RW);
    assert_eq!(session.ask(&third), Err(ENOSPC));
    session.lost(AT + 2 * PAGE);
    session.reached(AT + PAGE, &memory, 0);
    assert_eq!(session.unmap(AT, 1), Ok(PAGE));
    assert_eq!(session.ask(&third), Ok(()));
    session.lost(AT);
    session.reached(AT + 2 * PAGE, &memory, 0);
}

/// T1-193: the usable ranges leave every reserved region out, and memory can be mapped right up to
/// them.
pub(crate) fn windows_leave_reserved_regions_out(bench: &dyn Bench) {
    let session = Session::open(bench);
    let memory = Memory::new(bench, 1);
    session.join(Who::One);
    let regions = bench.group(Who::One).reserved();
    assert!(!regions.as_slice().is_empty(), "there is an MSI window");
    for region in regions.as_slice() {
        session.container.for_each_window(|window| assert!(!window.overlaps(region.range)));
        let (first, last) = (region.range.first().0, region.range.last().0);
        for inside in [first, last & !(PAGE - 1)] {
            assert_eq!(session.ask(&request(inside, &memory, Prot::RW)), Err(EINVAL));
        }
        for beside in [first - PAGE, last + 1] {
            session.lost(beside);
            session.map(beside, &memory);
            session.reached(beside, &memory, 0);
        }
    }
}

/// T1-365, T1-367, T1-368: a container of the first kind maps as the second; its unmaps round.
pub(crate) fn the_first_kind_rounds_its_unmaps(bench: &dyn Bench) {
    let first = Options { kind: Kind::V1, ..options() };
    let session = Session::with(bench, iommu::container::IdentityMemory, first).and_all();
    let (low, high) = (Memory::new(bench, 3), Memory::new(bench, 3));
    session.map(AT, &low);
    session.map(AT + 3 * PAGE, &high);
    assert_eq!(session.unmap(AT + PAGE, 5), Ok(0), "it begins inside a mapping");
    session.reached(AT + PAGE, &low, PAGE);
    session.reached(AT + 5 * PAGE, &high, 2 * PAGE);
    assert_eq!(session.unmap(AT, 4), Ok(6 * PAGE), "it ends inside a mapping");
    (0..6).for_each(|page| session.lost(AT + page * PAGE));
    session.map(AT, &low);
    session.map(AT + 3 * PAGE, &high);
    let gone = session.container.unmap_dma(&UnmapDma::All).map(|gone| gone.bytes);
    assert_eq!(gone, Ok(6 * PAGE));
    (0..6).for_each(|page| session.lost(AT + page * PAGE));
}

/// Two containers: the same address, each its own memory, and closing one leaves the other.
pub(crate) fn two_containers_are_apart(bench: &dyn Bench) {
    let (one, two) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let (first, second) = (Session::open(bench), Session::open(bench));
    first.join(Who::One);
    groups(bench).filter(|who| *who != Who::One).for_each(|who| second.join(who));
    first.map(AT, &one);
    first.reached(AT, &one, 0);
    second.map(AT + PAGE, &two);
    second.reached(AT + PAGE, &two, 0);
    second.map(AT, &two);
    arrives(bench, Who::One, AT, &one, 0);
    arrives(bench, Who::Two, AT, &two, 0);
    drop(first);
    refused(bench, Who::One, AT);
    arrives(bench, Who::Two, AT, &two, 0);
    second.reached(AT, &two, 0);
}
