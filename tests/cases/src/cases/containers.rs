//! What containers cost, and containers over two real units: reach before and after each call.

use iommu::container::{UnmapDma, UpdateVaddr};
use iommu::prot::Prot;

use crate::bench::{Bench, Who};
use crate::owner::Owner;
use crate::session::{Session, options, request};
use crate::steps::{AT, Memory, PAGE, arrives, cost_of, range, refused, write_refused};

const EINVAL: i32 = 22;

/// T1-600 to T1-604, column NEW: the rows that two units can show.
pub(crate) fn attach_costs_what_the_table_says(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 1));
    session.map(AT, &memory);
    let rows = [
        (Who::One, [1, 1, 0, 0, 0]),   // T1-600: first group
        (Who::Pair, [0, 1, 0, 0, 0]),  // T1-601: second, compatible
        (Who::Other, [1, 1, 1, 0, 0]), // T1-602: incompatible
        (Who::Two, [0, 1, 1, 0, 0]),   // T1-604: fits the second in the list
    ];
    for (who, expected) in rows {
        assert_eq!(session.cost(|| session.join(who)), expected, "{who:?}");
        session.reached(AT, &memory, 0);
    }
    assert_eq!(session.container.domain_count(), 2);
    drop(session);

    // T1-603: two domains, the group fits the head of the list.
    let session = Session::open(bench);
    session.map(AT, &memory);
    session.join(Who::Other);
    session.join(Who::One);
    assert_eq!(session.cost(|| session.join(Who::Two)), [0, 1, 0, 0, 0]);
    session.reached(AT, &memory, 0);
}

/// T1-140: an attach to a domain that is there is one request, with 1000 mappings as with none.
pub(crate) fn reuse_costs_one_request(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 1));
    session.join(Who::One);
    for n in 0..1000 {
        session.map(AT + n * 2 * PAGE, &memory);
    }
    let sent = cost_of(bench, Who::Pair, || session.join(Who::Pair));
    assert_eq!((sent.attach, sent.map, sent.detach, sent.notifies), (1, 0, 0, 1));
    session.reached(AT + 1998 * PAGE, &memory, 0);
    session.lost(AT + 1997 * PAGE);
}

/// T1-242: what the unit is sent when a group leaves, when one of two domains goes, and at the end.
pub(crate) fn detach_costs_what_the_rule_says(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 1));
    session.join(Who::One);
    session.join(Who::Pair);
    (0..100).for_each(|n| session.map(AT + n * 2 * PAGE, &memory));
    session.reached(AT + 198 * PAGE, &memory, 0);
    let sent = cost_of(bench, Who::One, || session.leave(Who::Pair));
    assert_eq!((sent.attach, sent.map, sent.unmap, sent.detach), (1, 0, 0, 0), "blocked, no more");
    session.reached(AT + 198 * PAGE, &memory, 0);
    let made = session.cost(|| session.leave(Who::One));
    assert_eq!(made, [0, 0, 0, 1, 1]);
    session.lost(AT + 198 * PAGE);
}

/// T1-037: a map reaches the devices of every group, an unmap leaves none.
pub(crate) fn a_map_reaches_all_and_an_unmap_leaves_none(bench: &dyn Bench) {
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 1));
    assert_eq!(session.container.domain_count(), 2);
    session.map(AT, &memory);
    session.reached(AT, &memory, 0);
    session.lost(AT + PAGE);
    assert_eq!(session.unmap(AT, 1), Ok(PAGE));
    session.lost(AT);
    session.map(AT, &memory);
    session.reached(AT, &memory, 0);
    assert_eq!(session.unmap_all(), Ok(PAGE));
    session.lost(AT);
}

/// T1-166, T1-211: a group behind the other unit finds the memory that was mapped before.
pub(crate) fn a_new_domain_is_given_the_mappings(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 3));
    session.join(Who::One);
    session.map(AT, &memory);
    session.map(AT + 16 * PAGE, &memory);
    let sent = cost_of(bench, Who::Other, || session.join(Who::Other));
    assert_eq!((sent.attach, sent.map), (1, 2));
    session.reached(AT + 2 * PAGE, &memory, 2 * PAGE);
    session.reached(AT + 16 * PAGE, &memory, 0);
    session.lost(AT + 3 * PAGE);
}

/// T1-211: scattered memory, given to the second unit run by run, and taken from both.
pub(crate) fn scattered_memory_at_two_units(bench: &dyn Bench) {
    const PAGES: u64 = 70;
    let (owner, memory) = (Owner::new(bench), Memory::new(bench, PAGES));
    let start = owner.add_scattered(&memory);
    let session = Session::with(bench, owner.clone(), options());
    session.join(Who::One);
    assert_eq!(session.ask(&owner.request(AT, start, PAGES)), Ok(()));
    let sent = cost_of(bench, Who::Other, || session.join(Who::Other));
    assert_eq!((sent.attach, sent.map), (1, PAGES));
    for page in [0, 63, 64, PAGES - 1] {
        session.reached(AT + page * PAGE, &memory, (PAGES - 1 - page) * PAGE);
    }
    assert_eq!(owner.held(), (PAGES as usize, [PAGES, 0]), "pinned once for both");
    assert_eq!(session.unmap(AT, PAGES), Ok(PAGES * PAGE));
    for page in [0, 63, 64, PAGES - 1] {
        session.lost(AT + page * PAGE);
    }
    assert_eq!(owner.held(), (0, [0, 0]));
}

/// T1-243: the domain that a replay was read from goes; the next one is read from the other.
pub(crate) fn either_unit_is_the_source_of_a_replay(bench: &dyn Bench) {
    let (owner, memory) = (Owner::new(bench), Memory::new(bench, 2));
    let start = owner.add_scattered(&memory);
    let session = Session::with(bench, owner.clone(), options());
    session.join(Who::One);
    assert_eq!(session.ask(&owner.request(AT, start, 2)), Ok(()));
    for (comes, goes) in [(Who::Other, Who::One), (Who::Two, Who::Other), (Who::Other, Who::Two)] {
        session.join(comes);
        session.reached(AT, &memory, PAGE);
        session.leave(goes);
        session.reached(AT, &memory, PAGE);
        session.reached(AT + PAGE, &memory, 0);
        assert_eq!(owner.held(), (2, [2, 0]), "pinned by the first attach, and never again");
    }
}

/// T1-404: an address that moved is not looked at again for pages that are pinned: the second unit
/// gets the frames that the first one has.
pub(crate) fn a_unit_comes_after_an_address_moved(bench: &dyn Bench) {
    let owner = Owner::new(bench);
    let (old, new) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let (before, after) = (owner.add(&old), owner.add(&new));
    let session = Session::with(bench, owner.clone(), options());
    session.join(Who::One);
    assert_eq!(session.ask(&owner.request(AT, before, 1)), Ok(()));
    session.container.invalidate_vaddr(&UnmapDma::All).expect("nothing is void yet");
    let update = UpdateVaddr { iova: AT, vaddr: after, size: PAGE };
    session.container.update_vaddr(&update).expect("it is void");
    session.reached(AT, &old, 0);
    session.join(Who::Other);
    session.reached(AT, &old, 0);
    // Mapped anew, both units have the new memory.
    assert_eq!(session.unmap(AT, 1), Ok(PAGE));
    session.lost(AT);
    assert_eq!(session.ask(&owner.request(AT, after, 1)), Ok(()));
    session.reached(AT, &new, 0);
}

/// T1-283: a map that fails for want of memory leaves nothing in either unit.
pub(crate) fn a_failed_map_at_two_units(bench: &dyn Bench) {
    const EFAULT: i32 = 14;
    const PAGES: u64 = 66;
    let (owner, memory) = (Owner::new(bench), Memory::new(bench, PAGES));
    let start = owner.add_scattered(&memory);
    owner.add_hole();
    let session = Session::with(bench, owner.clone(), options());
    session.join(Who::One);
    session.join(Who::Other);
    assert_eq!(session.ask(&owner.request(AT, start, PAGES + 1)), Err(EFAULT));
    for page in [0, 63, 64, PAGES - 1, PAGES] {
        session.lost(AT + page * PAGE);
    }
    assert_eq!(owner.held(), (0, [0, 0]));
    assert_eq!(session.ask(&owner.request(AT, start, PAGES)), Ok(()));
    session.reached(AT, &memory, (PAGES - 1) * PAGE);
    session.reached(AT + (PAGES - 1) * PAGE, &memory, 0);
}

/// T1-230 to T1-236: a detached group reaches nothing, the others everything.
pub(crate) fn a_group_leaves_and_the_others_stay(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 1));
    for who in [Who::One, Who::Pair, Who::Other] {
        session.join(who);
    }
    session.map(AT, &memory);
    session.reached(AT, &memory, 0);
    assert_eq!(session.cost(|| session.leave(Who::One)), [0, 0, 0, 1, 0]);
    session.reached(AT, &memory, 0);
    let made = session.cost(|| session.leave(Who::Pair));
    assert_eq!(made, [0, 0, 0, 1, 1], "the last group of a domain takes it along");
    session.reached(AT, &memory, 0);
    session.leave(Who::Other);
    session.lost(AT);
    assert_eq!(session.container.mapping_count(), 0, "T1-232");
}

/// T1-068: closing with everything attached blocks everything, at both units.
pub(crate) fn closing_blocks_everything(bench: &dyn Bench) {
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 1));
    session.map(AT, &memory);
    session.reached(AT, &memory, 0);
    drop(session);
    for who in Who::GROUPS.into_iter().chain([Who::Twin]) {
        refused(bench, who, AT);
        assert_eq!(bench.group(who).owner(), None);
    }
}

/// T1-230: one unit's last group leaves the container and comes back, while the other unit's stays.
pub(crate) fn a_unit_leaves_and_comes_back(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 2));
    session.join(Who::One);
    session.map(AT, &memory);
    for _ in 0..2 {
        session.join(Who::Other);
        assert_eq!(session.container.domain_count(), 2);
        session.reached(AT + PAGE, &memory, PAGE);
        session.leave(Who::Other);
        assert_eq!(session.container.domain_count(), 1);
        session.reached(AT + PAGE, &memory, PAGE);
    }
}

/// The other group of a container after its detach, for each of two, at two units.
pub(crate) fn either_of_two_groups_leaves(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for (leaves, stays) in [(Who::One, Who::Other), (Who::Other, Who::One), (Who::Pair, Who::One)] {
        let session = Session::open(bench);
        session.join(leaves);
        session.join(stays);
        session.map(AT, &memory);
        session.reached(AT, &memory, 0);
        session.leave(leaves);
        session.reached(AT, &memory, 0);
        session.map(AT + PAGE, &memory);
        session.reached(AT + PAGE, &memory, 0);
    }
}

/// The narrower of the two units by its device, and the wider one.
fn by_width(bench: &dyn Bench) -> (Who, u64, Who, u64) {
    let end = |who| bench.unit(who).geometry().aperture.last().0;
    let (one, other) = (end(Who::One), end(Who::Other));
    if one < other {
        (Who::One, one, Who::Other, other)
    } else {
        (Who::Other, other, Who::One, one)
    }
}

/// T1-282: a map that one domain refuses is taken back from the one that took it before. The older of
/// two domains has a mapping there that the container does not know of.
pub(crate) fn a_map_that_one_domain_refuses_reaches_nobody(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 1));
    session.join(Who::One);
    session.join(Who::Other);
    let older = session.container.domain_of(bench.group(Who::One).id()).expect("it is attached");
    older.map(range(AT, 1), memory.phys(), Prot::READ).expect("the range is free");
    assert_eq!(session.ask(&request(AT, &memory, Prot::RW)), Err(17));
    refused(bench, Who::Other, AT);
    write_refused(bench, Who::One, AT);
    assert_eq!(older.unmap(range(AT, 1)), Ok(PAGE));
    session.map(AT, &memory);
    session.reached(AT, &memory, 0);
}

/// T1-042, T1-191: the windows end where the narrower of two units ends, and grow back when its
/// group leaves.
pub(crate) fn the_narrower_unit_decides(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 1));
    let (narrow, end, wide, wide_end) = by_width(bench);
    let top = end - (PAGE - 1);
    session.join(wide);
    session.join(narrow);
    session.container.for_each_window(|window| assert!(window.last().0 <= end));
    session.map(top, &memory);
    session.reached(top, &memory, 0);
    if end < wide_end {
        let beyond = request(end + 1, &memory, Prot::RW);
        assert_eq!(session.ask(&beyond), Err(EINVAL));
        session.lost(beyond.iova);
        session.leave(narrow);
        assert_eq!(session.ask(&beyond), Ok(()));
        session.reached(beyond.iova, &memory, 0);
    }
}

/// T1-161: a group whose unit ends below a mapping can't come, and changes nothing for those who are
/// there; without the mapping it comes.
pub(crate) fn a_unit_that_is_too_narrow(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 1));
    let (narrow, end, wide, wide_end) = by_width(bench);
    session.join(wide);
    session.map(AT, &memory);
    let top = wide_end - (PAGE - 1);
    session.map(top, &memory);
    session.reached(top, &memory, 0);
    if end < wide_end {
        let made = session.cost(|| assert_eq!(session.try_join(narrow), Err(EINVAL)));
        assert_eq!(made, [1, 0, 1, 0, 1], "T1-630: no attach that succeeded");
        session.reached(top, &memory, 0);
        refused(bench, narrow, AT);
        assert_eq!(session.unmap(top, 1), Ok(PAGE));
    }
    session.join(narrow);
    session.reached(AT, &memory, 0);
    arrives(bench, narrow, AT, &memory, 0);
}
