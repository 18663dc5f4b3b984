//! Groups that come to a container and leave it: at once they reach everything that is mapped, and
//! at once nothing.

use iommu::container::{EmulatedId, IdentityMemory, Options, UnmapDma};
use iommu::group::GroupId;
use iommu::prot::Prot;

use crate::bench::{Bench, Outcome, Transfer, Who};
use crate::owner::Owner;
use crate::session::{Session, options, request};
use crate::steps::{AT, Memory, PAGE, arrives, claim, cost_of, groups, join, put_back, refused};
use crate::steps::{READ_LEN, everyone, kinds, write_refused};

const EPERM: i32 = 1;
const ENOMEM: i32 = 12;
const EFAULT: i32 = 14;
const EINVAL: i32 = 22;

/// The host's number of the emulated group.
const EMULATED: EmulatedId = EmulatedId(1);

/// T1-159, T1-160, T1-168: one group after the other reaches what is mapped, also what was mapped
/// between; who has not come yet reaches nothing.
pub(crate) fn groups_come_one_by_one(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 1));
    for (n, who) in (0..).zip(groups(bench)) {
        session.join(who);
        session.map(AT + n * PAGE, &memory);
        (0..=n).for_each(|n| session.reached(AT + n * PAGE, &memory, 0));
        session.lost(AT + (n + 1) * PAGE);
    }
    assert_eq!(session.container.domain_count(), bench.units().len());
}

/// T1-230 to T1-236: groups leave in the order they came, or in the opposite one; the rest reach
/// everything, and with the last one the mappings go (T1-232).
pub(crate) fn groups_leave_in_any_order(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for backwards in [false, true] {
        let session = Session::of_all(bench);
        session.map(AT, &memory);
        session.reached(AT, &memory, 0);
        let count = groups(bench).count();
        let place = |n: usize| if backwards { count.checked_sub(n + 1) } else { Some(n) };
        let order = (0..count).filter_map(|n| groups(bench).nth(place(n)?));
        for (left, who) in (0..count).rev().zip(order) {
            session.leave(who);
            if left > 0 {
                session.reached(AT, &memory, 0);
            }
        }
        session.lost(AT);
        assert_eq!((session.container.mapping_count(), session.container.domain_count()), (0, 0));
    }
}

/// T1-171, T1-242: rounds of coming and leaving cost the same each time, and reach the same.
pub(crate) fn groups_come_and_go(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 1));
    session.join(Who::One);
    session.map(AT, &memory);
    for _ in 0..8 {
        let sent = cost_of(bench, Who::Pair, || session.join(Who::Pair));
        assert_eq!((sent.attach, sent.map), (1, 0));
        session.reached(AT, &memory, 0);
        session.leave(Who::Pair);
        session.reached(AT, &memory, 0);
    }
}

/// T1-037: one container, and a device of every kind in it: two that share a group, two groups
/// that share a domain, and those behind another unit if there is one. After one map each of them
/// transfers in both directions, all at the same time; after one unmap none does, in neither.
pub(crate) fn all_transfer_until_the_unmap(bench: &dyn Bench) {
    const TO: u64 = AT + 0x10_0000;
    let pages = Who::ALL.len() as u64;
    let (source, target) = (Memory::new(bench, pages), Memory::new(bench, pages));
    let session = Session::of_all(bench);
    assert_eq!(session.container.domain_count(), bench.units().len());
    // What is refused is refused at one place: two devices that share an id share their records.
    let transfer = |apart: u64, check: &dyn Fn(&Transfer)| {
        let mut jobs: [_; Who::ALL.len()] = core::array::from_fn(|index| {
            let at = index as u64 * apart;
            Transfer::new(Who::ALL[index], AT + at, source.at(at), Some((TO + at, target.at(at))))
        });
        let jobs = &mut jobs[..everyone(bench).count()]; // the one that may be missing is the last
        bench.transfer(jobs, READ_LEN);
        assert!(jobs.len() >= 4, "two of a group, and two groups beside it");
        jobs.iter().for_each(check);
    };
    let all_refused = || {
        transfer(0, &|job| {
            assert!(job.read.is_refused_at(AT), "{job:?}");
            assert!(job.write.is_refused_at(TO), "{job:?}");
        });
    };
    all_refused();
    session.map(AT, &source);
    session.map(TO, &target);
    transfer(PAGE, &|job| {
        assert_eq!((job.read, job.write), (Outcome::Arrived, Outcome::Arrived), "{job:?}");
    });
    assert_eq!(session.unmap(AT, TO / PAGE - AT / PAGE + pages), Ok(2 * pages * PAGE));
    all_refused();
}

/// T1-226: to detach a group that is not there changes nothing.
pub(crate) fn an_unknown_group_does_not_leave(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 1));
    session.join(Who::One);
    session.map(AT, &memory);
    session.reached(AT, &memory, 0);
    let two = bench.group(Who::Two).id();
    for unknown in [two, GroupId(0xdead)] {
        let made = session.cost(|| assert!(session.container.detach_group(unknown).is_none()));
        assert_eq!(made, [0; 5]);
    }
    assert!(!session.container.detach_emulated(EMULATED));
    session.reached(AT, &memory, 0);
}

/// T1-233: the last real group leaves while an emulated one stays: the mappings stay, unpinned, and
/// whoever comes next reaches them.
pub(crate) fn mappings_wait_with_an_emulated_group(bench: &dyn Bench) {
    let (owner, memory) = (Owner::new(bench), Memory::new(bench, 3));
    let start = owner.add_scattered(&memory);
    let session = Session::with(bench, owner.clone(), options());
    session.container.attach_emulated(EMULATED).expect("there is a node");
    assert_eq!(session.ask(&owner.request(AT, start, 3)), Ok(()));
    for who in kinds(bench) {
        session.lost(AT);
        assert_eq!(owner.held(), (0, [0, 0]));
        session.join(who);
        session.reached(AT, &memory, 2 * PAGE);
        session.reached(AT + 2 * PAGE, &memory, 0);
        assert_eq!(owner.held(), (3, [3, 0]));
        session.leave(who);
        assert_eq!(session.container.mapping_count(), 1);
    }
    assert!(session.container.detach_emulated(EMULATED));
    assert_eq!(session.container.mapping_count(), 0, "T1-225");
    session.join(Who::One);
    session.lost(AT);
}

/// T1-225: an emulated group comes and leaves; real ones do not notice.
pub(crate) fn an_emulated_group_moves_nobody(bench: &dyn Bench) {
    let (session, memory) = (Session::of_all(bench), Memory::new(bench, 1));
    session.map(AT, &memory);
    session.reached(AT, &memory, 0);
    for _ in 0..2 {
        let made = session.cost(|| session.container.attach_emulated(EMULATED).expect("a node"));
        assert_eq!(made, [0; 5], "T1-153");
        session.reached(AT, &memory, 0);
        assert!(session.container.detach_emulated(EMULATED));
        session.reached(AT, &memory, 0);
    }
}

/// T1-214: the first attach fails on memory that is not there: the group stays blocked, nothing is
/// pinned, and when the memory is there the attach works.
pub(crate) fn an_attach_fails_on_a_hole(bench: &dyn Bench) {
    let owner = Owner::new(bench);
    let (memory, patch) = (Memory::new(bench, 2), Memory::new(bench, 1));
    let start = owner.add(&memory);
    let hole = owner.add_hole();
    let session = Session::with(bench, owner.clone(), options());
    assert_eq!(session.ask(&owner.request(AT, start, 2)), Ok(()));
    assert_eq!(session.ask(&owner.request(AT + 8 * PAGE, hole, 1)), Ok(()));
    for who in kinds(bench) {
        assert_eq!(session.try_join(who), Err(EFAULT));
        session.lost(AT);
        assert_eq!((owner.held(), session.container.mapping_count()), ((0, [0, 0]), 2));
    }
    owner.fill(hole, &patch);
    session.join(Who::Pair);
    session.reached(AT + PAGE, &memory, PAGE);
    session.reached(AT + 8 * PAGE, &patch, 0);
}

/// T1-257: the first attach would lock one page too many.
pub(crate) fn an_attach_fails_at_the_limit(bench: &dyn Bench) {
    let (owner, memory) = (Owner::new(bench), Memory::new(bench, 4));
    let start = owner.add_scattered(&memory);
    let session = Session::with(bench, owner.clone(), options());
    assert_eq!(session.ask(&owner.request(AT, start, 4)), Ok(()));
    owner.limit(3);
    assert_eq!(session.try_join(Who::One), Err(ENOMEM));
    session.lost(AT);
    assert_eq!(owner.held(), (0, [0, 0]));
    owner.limit(4);
    session.join(Who::One);
    session.reached(AT, &memory, 3 * PAGE);
    session.reached(AT + 3 * PAGE, &memory, 0);
}

/// T1-156: a group whose interrupts are not isolated comes only if the owner said so.
pub(crate) fn interrupts_that_are_not_isolated(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    let safe = Session::with(bench, IdentityMemory, Options::default());
    safe.map(AT, &memory);
    for who in kinds(bench) {
        assert_eq!(safe.try_join(who), Err(EPERM));
        refused(bench, who, AT);
    }
    let session = Session::of_all(bench);
    session.map(AT, &memory);
    session.reached(AT, &memory, 0);
}

/// T1-157: who reserves what is mapped can't come; who is there reaches it, until it is unmapped.
pub(crate) fn after_a_failed_attach_to_a_container(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 1));
    let regions = bench.group(Who::One).reserved();
    let window = regions.as_slice().first().expect("there is an MSI window").range.first().0;
    session.map(AT, &memory);
    session.map(window, &memory);
    for who in kinds(bench) {
        assert_eq!(session.try_join(who), Err(EINVAL));
        session.lost(AT);
    }
    assert_eq!(session.unmap(window, 1), Ok(PAGE));
    let session = session.and_all();
    session.reached(AT, &memory, 0);
}

/// T1-170, T1-270: the MSI window of the groups is not usable, and a mapping there keeps them out.
pub(crate) fn the_msi_window_is_no_place_for_memory(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 1));
    let regions = bench.group(Who::One).reserved();
    let window = regions.as_slice().first().expect("the machine has an MSI window").range;
    session.map(window.first().0, &memory);
    let made = session.cost(|| assert_eq!(session.try_join(Who::One), Err(EINVAL)));
    assert_eq!(made, [0; 5]);
    assert_eq!(session.unmap_all(), Ok(PAGE));
    session.join(Who::One);
    let again = request(window.first().0, &memory, Prot::RW);
    assert_eq!(session.ask(&again), Err(EINVAL));
    session.map(AT, &memory);
    session.reached(AT, &memory, 0);
}

/// T1-212, T1-273: memory mapped before the first group is reached after its attach.
pub(crate) fn mapped_before_the_first_group(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 2));
    session.map(AT, &memory);
    session.lost(AT);
    session.join(Who::One);
    session.reached(AT + PAGE, &memory, PAGE);
    session.lost(AT + 2 * PAGE);
}

/// What was unmapped before the first group came is not reached after its attach.
pub(crate) fn unmapped_before_the_first_group(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 1));
    (0..3).for_each(|page| session.map(AT + page * PAGE, &memory));
    assert_eq!(session.unmap(AT + PAGE, 1), Ok(PAGE));
    let session = session.and_all();
    session.reached(AT, &memory, 0);
    session.lost(AT + PAGE);
    session.reached(AT + 2 * PAGE, &memory, 0);
}

/// T1-211: a group that comes later has the rights of each mapping, not more.
pub(crate) fn rights_of_those_who_come_later(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 1));
    session.join(Who::One);
    assert_eq!(session.ask(&request(AT, &memory, Prot::READ)), Ok(()));
    session.map(AT + PAGE, &memory);
    let rest = groups(bench).filter(|who| *who != Who::One);
    for who in rest {
        session.join(who);
        write_refused(bench, who, AT);
        session.reached(AT + PAGE, &memory, 0);
    }
}

/// T1-042: a device that is added to an attached group reaches what the container maps, and when
/// it is taken away nothing.
pub(crate) fn a_device_joins_a_group_of_a_container(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 1));
    session.join(Who::One);
    session.map(AT, &memory);
    session.reached(AT, &memory, 0);
    join(bench, Who::Two, Who::One);
    arrives(bench, Who::Two, AT, &memory, 0);
    session.map(AT + PAGE, &memory);
    for who in [Who::One, Who::Two] {
        arrives(bench, who, AT + PAGE, &memory, 0);
    }
    assert_eq!(session.unmap(AT, 1), Ok(PAGE));
    for who in [Who::One, Who::Two] {
        refused(bench, who, AT);
        arrives(bench, who, AT + PAGE, &memory, 0);
    }
    bench.registry().remove_device(bench.seat(Who::Two).device).expect("it is there");
    put_back(bench, Who::Two);
    session.reached(AT + PAGE, &memory, 0);
}

/// A device of an attached group is removed: it reaches nothing, its group what it did.
pub(crate) fn a_device_leaves_a_group_of_a_container(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 1));
    join(bench, Who::Two, Who::One);
    session.join(Who::One);
    session.map(AT, &memory);
    for who in [Who::One, Who::Two] {
        arrives(bench, who, AT, &memory, 0);
    }
    bench.registry().remove_device(bench.seat(Who::Two).device).expect("it is there");
    session.reached(AT, &memory, 0);
    put_back(bench, Who::Two);
    session.reached(AT, &memory, 0);
    session.leave(Who::One);
    session.lost(AT);
}

/// T1-068: closing with everything attached blocks everything, and gives all groups and all memory
/// back.
pub(crate) fn closing_a_container(bench: &dyn Bench) {
    let (owner, memory) = (Owner::new(bench), Memory::new(bench, 2));
    let start = owner.add_scattered(&memory);
    let session = Session::with(bench, owner.clone(), options()).and_all();
    session.container.attach_emulated(EMULATED).expect("there is a node");
    assert_eq!(session.ask(&owner.request(AT, start, 2)), Ok(()));
    session.reached(AT, &memory, PAGE);
    assert_eq!(owner.held(), (2, [2, 0]));
    drop(session);
    for who in groups(bench) {
        refused(bench, who, AT);
        assert_eq!(bench.group(who).owner(), None);
    }
    assert_eq!(owner.held(), (0, [0, 0]));
}

/// A group leaves one container for another: it reaches the new one's memory only.
pub(crate) fn a_group_changes_its_container(bench: &dyn Bench) {
    let (one, two) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let (first, second) = (Session::open(bench), Session::open(bench));
    for who in kinds(bench) {
        first.map(AT, &one);
        second.map(AT + PAGE, &two);
        first.join(who);
        first.reached(AT, &one, 0);
        let ownership = first.take_out(who);
        refused(bench, who, AT);
        assert_eq!(second.put_in(who, ownership), Ok(()));
        second.lost(AT);
        second.reached(AT + PAGE, &two, 0);
        second.leave(who);
        second.lost(AT + PAGE);
        // The last group took the mappings of its container along.
        assert_eq!(first.container.mapping_count() + second.container.mapping_count(), 0);
    }
}

/// T1-232: after the last group nothing is mapped; a group that comes finds nothing, until it is
/// mapped again.
pub(crate) fn the_last_group_takes_the_mappings_along(bench: &dyn Bench) {
    let (session, memory) = (Session::open(bench), Memory::new(bench, 1));
    for who in kinds(bench) {
        session.join(who);
        session.map(AT, &memory);
        session.reached(AT, &memory, 0);
        session.leave(who);
        assert_eq!(session.container.mapping_count(), 0);
        session.join(who);
        session.lost(AT);
        session.map(AT, &memory);
        session.reached(AT, &memory, 0);
        session.leave(who);
    }
}

/// A group leaves and comes back while another one stays: the mappings of then and now.
pub(crate) fn a_group_comes_back_to_its_container(bench: &dyn Bench) {
    let session = Session::open(bench);
    let (old, new) = (Memory::new(bench, 1), Memory::new(bench, 1));
    session.join(Who::One);
    session.join(Who::Pair);
    session.map(AT, &old);
    session.reached(AT, &old, 0);
    session.leave(Who::Pair);
    session.map(AT + PAGE, &new);
    assert_eq!(session.unmap(AT, 1), Ok(PAGE));
    session.reached(AT + PAGE, &new, 0);
    session.join(Who::Pair);
    session.lost(AT);
    session.reached(AT + PAGE, &new, 0);
}

/// T1-150: while an address is void nobody comes, and nobody who is there is disturbed.
pub(crate) fn nobody_comes_while_an_address_is_void(bench: &dyn Bench) {
    const EBUSY: i32 = 16;
    let (session, memory) = (Session::open(bench), Memory::new(bench, 1));
    session.join(Who::One);
    session.map(AT, &memory);
    session.container.invalidate_vaddr(&UnmapDma::All).expect("nothing is void yet");
    for who in groups(bench).filter(|who| *who != Who::One) {
        let ownership = claim(bench, who);
        let refusal = session.container.attach_group(ownership).expect_err("an address is void");
        assert_eq!(refusal.error.errno(), EBUSY);
    }
    session.reached(AT, &memory, 0);
    assert_eq!(session.unmap_all(), Ok(PAGE), "T1-375");
    session.lost(AT);
    session.join(Who::Two);
    session.map(AT, &memory);
    session.reached(AT, &memory, 0);
}
