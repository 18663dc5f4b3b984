//! Unmaps of a container: when one returns, no device reaches the memory, and everything else is
//! reached as before.

use iommu::container::UnmapDma;

use crate::bench::Bench;
use crate::owner::Owner;
use crate::session::{Session, options};
use crate::steps::{AT, Memory, PAGE};

const EINVAL: i32 = 22;
const EOVERFLOW: i32 = 75;

/// T1-366: everything goes at once, however it lies; there may be nothing.
pub(crate) fn a_container_unmaps_everything(bench: &dyn Bench) {
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 2));
    let places = [AT, AT + 2 * PAGE, AT + 64 * PAGE, 0];
    assert_eq!(session.unmap_all(), Ok(0));
    places.into_iter().for_each(|at| session.map(at, &memory));
    places.into_iter().for_each(|at| session.reached(at + PAGE, &memory, PAGE));
    assert_eq!(session.unmap_all(), Ok(8 * PAGE));
    places.into_iter().for_each(|at| session.lost(at + PAGE));
    session.map(AT, &memory);
    session.reached(AT, &memory, 0);
}

/// The middle one of three mappings that touch goes alone.
pub(crate) fn the_middle_of_three_mappings_goes(bench: &dyn Bench) {
    let session = Session::of_all(bench);
    let memory = [0; 3].map(|_| Memory::new(bench, 2));
    let at = [AT, AT + 2 * PAGE, AT + 4 * PAGE];
    for (iova, memory) in at.into_iter().zip(&memory) {
        session.map(iova, memory);
        session.reached(iova, memory, 0);
    }
    assert_eq!(session.unmap(at[1], 2), Ok(2 * PAGE));
    session.reached(at[1] - 4, &memory[0], 2 * PAGE - 4);
    session.lost(at[1]);
    session.lost(at[2] - 4);
    session.reached(at[2], &memory[2], 0);
}

/// T1-361: a range that cuts one of two mappings removes neither.
pub(crate) fn a_cut_of_one_mapping_spares_the_other(bench: &dyn Bench) {
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 2));
    session.map(AT, &memory);
    session.map(AT + 4 * PAGE, &memory);
    for (first, pages) in [(0, 5), (1, 5), (1, 3), (5, 8)] {
        assert_eq!(session.unmap(AT + first * PAGE, pages), Err(EINVAL));
        session.reached(AT, &memory, 0);
        session.reached(AT + 5 * PAGE, &memory, PAGE);
    }
    assert_eq!(session.unmap(AT, 6), Ok(4 * PAGE));
    session.lost(AT);
    session.lost(AT + 5 * PAGE);
}

/// T1-361: a mapping is not cut, and nothing is removed.
pub(crate) fn a_container_s_mapping_is_not_cut(bench: &dyn Bench) {
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 3));
    session.map(AT, &memory);
    for (first, pages) in [(0, 1), (1, 1), (2, 1), (2, 4)] {
        assert_eq!(session.unmap(AT + first * PAGE, pages), Err(EINVAL));
    }
    (0..3).for_each(|page| session.reached(AT + page * PAGE, &memory, page * PAGE));
    assert_eq!(session.unmap(AT, 3), Ok(3 * PAGE));
    (0..3).for_each(|page| session.lost(AT + page * PAGE));
}

/// T1-365: nothing is there: success, 0 bytes, and the neighbours stay.
pub(crate) fn a_container_s_unmap_of_nothing(bench: &dyn Bench) {
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 1));
    assert_eq!(session.unmap(AT, 4), Ok(0));
    session.map(AT, &memory);
    session.map(AT + 3 * PAGE, &memory);
    assert_eq!(session.unmap(AT + PAGE, 2), Ok(0));
    session.reached(AT, &memory, 0);
    session.lost(AT + PAGE);
    session.reached(AT + 3 * PAGE, &memory, 0);
}

/// One unmap over mappings and holes says what is gone.
pub(crate) fn a_container_s_wide_unmap(bench: &dyn Bench) {
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 1));
    let places = [AT, AT + 2 * PAGE, AT + 9 * PAGE, AT + 40 * PAGE];
    for at in places {
        session.map(at, &memory);
        session.reached(at, &memory, 0);
    }
    assert_eq!(session.unmap(AT - PAGE, 20), Ok(3 * PAGE));
    places[..3].iter().for_each(|at| session.lost(*at));
    session.reached(places[3], &memory, 0);
    assert_eq!(session.unmap(AT, 20), Ok(0), "a hole");
}

/// What is mapped next at the same place is what is reached there.
pub(crate) fn a_container_s_place_is_used_again(bench: &dyn Bench) {
    let session = Session::of_all(bench);
    let (old, new) = (Memory::new(bench, 2), Memory::new(bench, 2));
    for memory in [&old, &new, &old] {
        session.map(AT, memory);
        session.reached(AT, memory, 0);
        session.reached(AT + PAGE, memory, PAGE);
        assert_eq!(session.unmap(AT, 2), Ok(2 * PAGE));
        session.lost(AT);
    }
}

/// T1-356 to T1-359: wrong requests remove nothing.
pub(crate) fn a_container_s_wrong_unmaps(bench: &dyn Bench) {
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 1));
    session.map(AT, &memory);
    let last = u64::MAX - (PAGE - 1);
    let wrong = [
        (AT + 8, PAGE, EINVAL),
        (AT, 0, EINVAL),
        (AT, PAGE / 2, EINVAL),
        (AT, PAGE + 8, EINVAL),
        (last, 2 * PAGE, EOVERFLOW),
    ];
    for (iova, size, errno) in wrong {
        let failed = session.container.unmap_dma(&UnmapDma::Range { iova, size }).unwrap_err();
        assert_eq!((failed.errno(), failed.unmapped.bytes), (errno, 0), "{iova:#x}, {size:#x}");
        session.reached(AT, &memory, 0);
    }
    assert_eq!(session.unmap(AT, 1), Ok(PAGE));
    session.lost(AT);
}

/// T1-322, T1-382: memory is pinned as long as it is reached, and not longer.
pub(crate) fn memory_is_pinned_while_it_is_reached(bench: &dyn Bench) {
    let (owner, memory) = (Owner::new(bench), Memory::new(bench, 6));
    let start = owner.add(&memory);
    let session = Session::with(bench, owner.clone(), options()).and_all();
    for page in 0..3 {
        let request = owner.request(AT + 2 * page * PAGE, start + 2 * page * PAGE, 2);
        assert_eq!(session.ask(&request), Ok(()));
    }
    for left in (0..3).rev() {
        let at = 2 * left * PAGE;
        session.reached(AT + at + PAGE, &memory, at + PAGE);
        assert_eq!(owner.held(), (2 * (left + 1) as usize, [2 * (left + 1), 0]));
        assert_eq!(session.unmap(AT + at, 2), Ok(2 * PAGE));
        session.lost(AT + at + PAGE);
        assert_eq!(owner.held(), (2 * left as usize, [2 * left, 0]));
    }
}

/// One unmap takes several scattered mappings, in more than one batch, and spares what is beside.
pub(crate) fn scattered_mappings_go_at_once(bench: &dyn Bench) {
    const PAGES: u64 = 40;
    let (owner, memory) = (Owner::new(bench), Memory::new(bench, PAGES));
    let start = owner.add_scattered(&memory);
    let session = Session::with(bench, owner.clone(), options()).and_all();
    // The same memory three times, with a hole of one page after each.
    let places = [0, 1, 2].map(|n| AT + n * (PAGES + 1) * PAGE);
    for at in places {
        assert_eq!(session.ask(&owner.request(at, start, PAGES)), Ok(()));
    }
    places.into_iter().for_each(|at| session.reached(at + PAGE, &memory, (PAGES - 2) * PAGE));
    assert_eq!(session.unmap(AT, 2 * (PAGES + 1)), Ok(2 * PAGES * PAGE));
    for page in [0, 1, PAGES - 1] {
        session.lost(places[0] + page * PAGE);
        session.lost(places[1] + page * PAGE);
        session.reached(places[2] + page * PAGE, &memory, (PAGES - 1 - page) * PAGE);
    }
    assert_eq!(owner.held(), (PAGES as usize, [PAGES, 0]));
}
