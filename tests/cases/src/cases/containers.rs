//! The container on two real units: costs, and reach before and after each call.

use iommu::container::{Container, IdentityMemory, MapDma, Operations, Options, UnmapDma};
use iommu::group::GroupId;
use iommu::prot::Prot;

use crate::bench::{Bench, Who};
use crate::steps::{AT, Memory, PAGE, arrives, claim, cost_of, kinds, refused, write_refused};

fn open(bench: &dyn Bench) -> Container<IdentityMemory> {
    Container::new(bench.registry().pool(), IdentityMemory, options())
}

fn options() -> Options {
    Options { allow_unsafe_interrupts: true, ..Options::default() }
}

fn map(container: &Container<IdentityMemory>, iova: u64, memory: &Memory) {
    let (vaddr, size) = (memory.phys().0, memory.len());
    container.map_dma(&MapDma { iova, vaddr, size, prot: Prot::RW }).expect("the range is free");
}

fn attach(bench: &dyn Bench, container: &Container<IdentityMemory>, who: Who) -> GroupId {
    let ownership = claim(bench, who);
    let group = ownership.group().id();
    container.attach_group(ownership).expect("attaches");
    group
}

/// Domains allocated, attaches, refusals, detaches, domains freed.
fn cost(container: &Container<IdentityMemory>, call: impl FnOnce()) -> [u64; 5] {
    let before = container.operations();
    call();
    let Operations { dom_alloc, attach_ok, attach_fail, detach, dom_free, .. } =
        container.operations().since(&before);
    [dom_alloc, attach_ok, attach_fail, detach, dom_free]
}

/// T1-600 to T1-604, column NEW: the rows that two units can show.
pub(crate) fn attach_costs_what_the_table_says(bench: &dyn Bench) {
    let container = open(bench);
    let rows = [
        (Who::One, [1, 1, 0, 0, 0]),   // T1-600: first group
        (Who::Pair, [0, 1, 0, 0, 0]),  // T1-601: second, compatible
        (Who::Other, [1, 1, 1, 0, 0]), // T1-602: incompatible
        (Who::Two, [0, 1, 1, 0, 0]),   // T1-604: fits the second in the list
    ];
    for (who, expected) in rows {
        let made = cost(&container, || {
            attach(bench, &container, who);
        });
        assert_eq!(made, expected, "{who:?}");
    }
    assert_eq!(container.domain_count(), 2);
    drop(container);

    // T1-603: two domains, the group fits the head of the list.
    let container = open(bench);
    attach(bench, &container, Who::Other);
    attach(bench, &container, Who::One);
    let made = cost(&container, || {
        attach(bench, &container, Who::Two);
    });
    assert_eq!(made, [0, 1, 0, 0, 0]);
}

/// T1-140: an attach to a domain that is there is one request, with 1000 mappings as with none.
pub(crate) fn reuse_costs_one_request(bench: &dyn Bench) {
    let (container, memory) = (open(bench), Memory::new(bench, 1));
    attach(bench, &container, Who::One);
    for n in 0..1000 {
        map(&container, AT + n * 2 * PAGE, &memory);
    }
    let sent = cost_of(bench, Who::Pair, || {
        attach(bench, &container, Who::Pair);
    });
    assert_eq!((sent.attach, sent.map, sent.detach, sent.notifies), (1, 0, 0, 1));
    arrives(bench, Who::Twin, AT + 1998 * PAGE, &memory, 0);
}

/// T1-212, T1-273: memory mapped before the first group is reached after its attach.
pub(crate) fn mapped_before_the_first_group(bench: &dyn Bench) {
    let (container, memory) = (open(bench), Memory::new(bench, 2));
    map(&container, AT, &memory);
    refused(bench, Who::One, AT);
    attach(bench, &container, Who::One);
    arrives(bench, Who::One, AT + PAGE, &memory, PAGE);
}

/// T1-037: a map reaches the devices of every group, an unmap leaves none.
pub(crate) fn a_map_reaches_all_and_an_unmap_leaves_none(bench: &dyn Bench) {
    let (container, memory) = (open(bench), Memory::new(bench, 1));
    for who in [Who::One, Who::Other, Who::Pair] {
        attach(bench, &container, who);
    }
    let all = [Who::One, Who::Other, Who::Pair, Who::Twin];
    map(&container, AT, &memory);
    for who in all {
        arrives(bench, who, AT, &memory, 0);
        refused(bench, who, AT + PAGE);
    }
    let gone = container.unmap_dma(&UnmapDma::Range { iova: AT, size: PAGE });
    assert_eq!(gone.map(|gone| gone.bytes), Ok(PAGE));
    for who in all {
        refused(bench, who, AT);
    }
    map(&container, AT, &memory);
    assert_eq!(container.unmap_dma(&UnmapDma::All).map(|gone| gone.bytes), Ok(PAGE));
    for who in all {
        refused(bench, who, AT);
    }
}

/// T1-166, T1-211: a group behind the other unit finds the memory that was mapped before.
pub(crate) fn a_new_domain_is_given_the_mappings(bench: &dyn Bench) {
    let (container, memory) = (open(bench), Memory::new(bench, 3));
    attach(bench, &container, Who::One);
    map(&container, AT, &memory);
    map(&container, AT + 16 * PAGE, &memory);
    let sent = cost_of(bench, Who::Other, || {
        attach(bench, &container, Who::Other);
    });
    assert_eq!((sent.attach, sent.map), (1, 2));
    arrives(bench, Who::Other, AT + 2 * PAGE, &memory, 2 * PAGE);
    arrives(bench, Who::Other, AT + 16 * PAGE, &memory, 0);
    refused(bench, Who::Other, AT + 3 * PAGE);
}

/// T1-230 to T1-236: a detached group reaches nothing, the others everything.
pub(crate) fn a_group_leaves_and_the_others_stay(bench: &dyn Bench) {
    let (container, memory) = (open(bench), Memory::new(bench, 1));
    let one = attach(bench, &container, Who::One);
    let two = attach(bench, &container, Who::Pair);
    let other = attach(bench, &container, Who::Other);
    map(&container, AT, &memory);
    let made = cost(&container, || drop(container.detach_group(one)));
    assert_eq!(made, [0, 0, 0, 1, 0]);
    refused(bench, Who::One, AT);
    arrives(bench, Who::Pair, AT, &memory, 0);
    arrives(bench, Who::Other, AT, &memory, 0);
    let made = cost(&container, || drop(container.detach_group(two)));
    assert_eq!(made, [0, 0, 0, 1, 1], "the last group of a domain takes it along");
    refused(bench, Who::Pair, AT);
    arrives(bench, Who::Other, AT, &memory, 0);
    drop(container.detach_group(other));
    refused(bench, Who::Other, AT);
    assert_eq!(container.mapping_count(), 0, "T1-232");
}

/// T1-068: closing with everything attached blocks everything.
pub(crate) fn closing_blocks_everything(bench: &dyn Bench) {
    let (container, memory) = (open(bench), Memory::new(bench, 1));
    let all = [Who::One, Who::Pair, Who::Other];
    for who in all {
        attach(bench, &container, who);
    }
    map(&container, AT, &memory);
    for who in all {
        arrives(bench, who, AT, &memory, 0);
    }
    drop(container);
    for who in all {
        refused(bench, who, AT);
        assert_eq!(bench.group(who).owner(), None);
    }
}

/// T1-170, T1-270: the MSI window of the groups is not usable, and a mapping there keeps them out.
pub(crate) fn the_msi_window_is_no_place_for_memory(bench: &dyn Bench) {
    let (container, memory) = (open(bench), Memory::new(bench, 1));
    let regions = bench.group(Who::One).reserved();
    let window = regions.as_slice().first().expect("the machine has an MSI window").range;
    map(&container, window.first().0, &memory);
    let ownership = claim(bench, Who::One);
    let mut back = None;
    let made = cost(&container, || back = container.attach_group(ownership).err());
    let refusal = back.expect("the window is mapped");
    assert_eq!((refusal.error.errno(), made), (22, [0; 5]));
    container.unmap_dma(&UnmapDma::All).expect("unmaps");
    container.attach_group(refusal.ownership).expect("attaches");
    let (iova, vaddr) = (window.first().0, memory.phys().0);
    let again = container.map_dma(&MapDma { iova, vaddr, size: PAGE, prot: Prot::RW });
    assert_eq!(again.map_err(|error| error.errno()), Err(22));
}

/// How a request looks, and how it is undone.
fn request(iova: u64, memory: &Memory, prot: Prot) -> MapDma {
    MapDma { iova, vaddr: memory.phys().0, size: memory.len(), prot }
}

fn errno_of_map(container: &Container<IdentityMemory>, request: &MapDma) -> Option<i32> {
    container.map_dma(request).err().map(|error| error.errno())
}

fn unmap(container: &Container<IdentityMemory>, iova: u64, pages: u64) -> Result<u64, i32> {
    let request = UnmapDma::Range { iova, size: pages * PAGE };
    container.unmap_dma(&request).map(|gone| gone.bytes).map_err(|error| error.errno())
}

/// T1-262: a read-only mapping refuses a device's write.
pub(crate) fn a_container_s_read_only_memory(bench: &dyn Bench) {
    let (container, memory) = (open(bench), Memory::new(bench, 1));
    for who in kinds(bench) {
        attach(bench, &container, who);
    }
    container.map_dma(&request(AT, &memory, Prot::READ)).expect("is free");
    container.map_dma(&request(AT + PAGE, &memory, Prot::WRITE)).expect("is free");
    for who in kinds(bench) {
        write_refused(bench, who, AT);
        arrives(bench, who, AT + PAGE, &memory, 0);
    }
}

/// T1-268: an overlap is refused, and the old mapping is in use as before.
pub(crate) fn a_container_s_overlap_is_refused(bench: &dyn Bench) {
    let (container, old, new) = (open(bench), Memory::new(bench, 3), Memory::new(bench, 1));
    for who in kinds(bench) {
        attach(bench, &container, who);
    }
    map(&container, AT, &old);
    for page in 0..3 {
        let again = request(AT + page * PAGE, &new, Prot::RW);
        assert_eq!(errno_of_map(&container, &again), Some(17));
    }
    assert_eq!(errno_of_map(&container, &request(AT - PAGE, &old, Prot::RW)), Some(17));
    for who in kinds(bench) {
        for page in 0..3 {
            arrives(bench, who, AT + page * PAGE, &old, page * PAGE);
        }
        refused(bench, who, AT - PAGE);
    }
}

/// T1-361: a mapping is not cut, and nothing is removed.
pub(crate) fn a_container_s_mapping_is_not_cut(bench: &dyn Bench) {
    let (container, memory) = (open(bench), Memory::new(bench, 3));
    for who in kinds(bench) {
        attach(bench, &container, who);
    }
    map(&container, AT, &memory);
    for (first, pages) in [(0, 1), (1, 1), (2, 1), (2, 4)] {
        assert_eq!(unmap(&container, AT + first * PAGE, pages), Err(22));
    }
    for who in kinds(bench) {
        for page in 0..3 {
            arrives(bench, who, AT + page * PAGE, &memory, page * PAGE);
        }
    }
    assert_eq!(unmap(&container, AT, 3), Ok(3 * PAGE));
    kinds(bench).for_each(|who| refused(bench, who, AT));
}

/// One unmap over mappings and holes says what is gone.
pub(crate) fn a_container_s_wide_unmap(bench: &dyn Bench) {
    let (container, memory) = (open(bench), Memory::new(bench, 1));
    for who in kinds(bench) {
        attach(bench, &container, who);
    }
    let places = [AT, AT + 2 * PAGE, AT + 9 * PAGE, AT + 40 * PAGE];
    for at in places {
        map(&container, at, &memory);
    }
    assert_eq!(unmap(&container, AT - PAGE, 20), Ok(3 * PAGE));
    for who in kinds(bench) {
        for at in &places[..3] {
            refused(bench, who, *at);
        }
        arrives(bench, who, places[3], &memory, 0);
    }
    assert_eq!(unmap(&container, AT, 20), Ok(0), "a hole");
}

/// T1-265 to T1-267: wrong requests map nothing.
pub(crate) fn a_container_s_wrong_requests(bench: &dyn Bench) {
    let (container, memory) = (open(bench), Memory::new(bench, 1));
    attach(bench, &container, Who::One);
    let right = request(AT, &memory, Prot::RW);
    let wrong = [
        MapDma { size: 0, ..right },
        MapDma { size: PAGE / 2, ..right },
        MapDma { iova: AT + 8, ..right },
        MapDma { vaddr: right.vaddr + 8, ..right },
        MapDma { prot: Prot::empty(), ..right },
    ];
    for request in &wrong {
        assert_eq!(errno_of_map(&container, request), Some(22), "{request:?}");
        refused(bench, Who::One, AT);
    }
    assert_eq!(container.mapping_count(), 0);
    container.map_dma(&right).expect("is free");
    arrives(bench, Who::One, AT, &memory, 0);
}

/// T1-269: the limit of mappings is exact, and what is mapped works on.
pub(crate) fn a_container_s_limit(bench: &dyn Bench) {
    let limited = Options { mapping_limit: 2, ..options() };
    let container = Container::new(bench.registry().pool(), IdentityMemory, limited);
    let memory = Memory::new(bench, 1);
    attach(bench, &container, Who::One);
    map(&container, AT, &memory);
    map(&container, AT + PAGE, &memory);
    let third = request(AT + 2 * PAGE, &memory, Prot::RW);
    assert_eq!(errno_of_map(&container, &third), Some(28));
    refused(bench, Who::One, AT + 2 * PAGE);
    arrives(bench, Who::One, AT + PAGE, &memory, 0);
    assert_eq!(unmap(&container, AT, 1), Ok(PAGE));
    container.map_dma(&third).expect("there is room again");
    refused(bench, Who::One, AT);
    arrives(bench, Who::One, AT + 2 * PAGE, &memory, 0);
}

/// Two containers: the same address, each its own memory, and closing one leaves the other.
pub(crate) fn two_containers_are_apart(bench: &dyn Bench) {
    let (one, two) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let (first, second) = (open(bench), open(bench));
    attach(bench, &first, Who::One);
    attach(bench, &second, Who::Two);
    map(&first, AT, &one);
    refused(bench, Who::Two, AT);
    map(&second, AT, &two);
    arrives(bench, Who::One, AT, &one, 0);
    arrives(bench, Who::Two, AT, &two, 0);
    drop(first);
    refused(bench, Who::One, AT);
    arrives(bench, Who::Two, AT, &two, 0);
}

/// A group leaves one container for another: it reaches the new one's memory only.
pub(crate) fn a_group_changes_its_container(bench: &dyn Bench) {
    let (one, two) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let (first, second) = (open(bench), open(bench));
    map(&first, AT, &one);
    map(&second, AT + PAGE, &two);
    for who in kinds(bench) {
        let group = attach(bench, &first, who);
        arrives(bench, who, AT, &one, 0);
        let ownership = first.detach_group(group).expect("it is there");
        refused(bench, who, AT);
        second.attach_group(ownership).expect("fits");
        refused(bench, who, AT);
        arrives(bench, who, AT + PAGE, &two, 0);
        // The last group took the mappings of the container along.
        drop(second.detach_group(group));
        refused(bench, who, AT + PAGE);
        map(&first, AT, &one);
        map(&second, AT + PAGE, &two);
    }
}

/// T1-232: after the last group nothing is mapped; a group that comes finds nothing, until it is
/// mapped again.
pub(crate) fn the_last_group_takes_the_mappings_along(bench: &dyn Bench) {
    let (container, memory) = (open(bench), Memory::new(bench, 1));
    for who in kinds(bench) {
        let group = attach(bench, &container, who);
        map(&container, AT, &memory);
        arrives(bench, who, AT, &memory, 0);
        drop(container.detach_group(group));
        assert_eq!(container.mapping_count(), 0);
        let group = attach(bench, &container, who);
        refused(bench, who, AT);
        map(&container, AT, &memory);
        arrives(bench, who, AT, &memory, 0);
        drop(container.detach_group(group));
    }
}

/// A group leaves and comes back while another one stays: the mappings of then and now.
pub(crate) fn a_group_comes_back_to_its_container(bench: &dyn Bench) {
    let (container, old, new) = (open(bench), Memory::new(bench, 1), Memory::new(bench, 1));
    attach(bench, &container, Who::One);
    let group = attach(bench, &container, Who::Pair);
    map(&container, AT, &old);
    arrives(bench, Who::Twin, AT, &old, 0);
    let ownership = container.detach_group(group).expect("it is there");
    refused(bench, Who::Twin, AT);
    map(&container, AT + PAGE, &new);
    assert_eq!(unmap(&container, AT, 1), Ok(PAGE));
    refused(bench, Who::Twin, AT + PAGE);
    arrives(bench, Who::One, AT + PAGE, &new, 0);
    container.attach_group(ownership).expect("fits");
    refused(bench, Who::Twin, AT);
    arrives(bench, Who::Twin, AT + PAGE, &new, 0);
}

/// T1-193: the usable ranges leave every reserved region out, and memory can be mapped right up to
/// them.
pub(crate) fn windows_leave_reserved_regions_out(bench: &dyn Bench) {
    let (container, memory) = (open(bench), Memory::new(bench, 1));
    attach(bench, &container, Who::One);
    let regions = bench.group(Who::One).reserved();
    assert!(!regions.as_slice().is_empty(), "there is an MSI window");
    for region in regions.as_slice() {
        container.for_each_window(|window| assert!(!window.overlaps(region.range)));
        let (first, last) = (region.range.first().0, region.range.last().0);
        for inside in [first, last & !(PAGE - 1)] {
            assert_eq!(errno_of_map(&container, &request(inside, &memory, Prot::RW)), Some(22));
        }
        for beside in [first - PAGE, last + 1] {
            refused(bench, Who::One, beside);
            map(&container, beside, &memory);
            arrives(bench, Who::One, beside, &memory, 0);
        }
    }
}

/// T1-154, T1-169: a group that can't come leaves those that are there alone.
pub(crate) fn after_a_failed_attach_to_a_container(bench: &dyn Bench) {
    let (container, memory) = (open(bench), Memory::new(bench, 1));
    let regions = bench.group(Who::One).reserved();
    let window = regions.as_slice().first().expect("there is an MSI window").range.first().0;
    map(&container, AT, &memory);
    map(&container, window, &memory);
    for who in kinds(bench) {
        let ownership = claim(bench, who);
        let refusal = container.attach_group(ownership).expect_err("the window is mapped");
        assert_eq!(refusal.error.errno(), 22);
        refused(bench, who, AT);
        drop(refusal);
        refused(bench, who, AT);
    }
    assert_eq!(unmap(&container, window, 1), Ok(PAGE));
    for who in kinds(bench) {
        attach(bench, &container, who);
        arrives(bench, who, AT, &memory, 0);
    }
}

/// T1-230: one unit's last group leaves the container and comes back, while the other unit's stays.
pub(crate) fn a_unit_leaves_and_comes_back(bench: &dyn Bench) {
    let (container, memory) = (open(bench), Memory::new(bench, 2));
    attach(bench, &container, Who::One);
    map(&container, AT, &memory);
    for _ in 0..2 {
        let other = attach(bench, &container, Who::Other);
        assert_eq!(container.domain_count(), 2);
        arrives(bench, Who::Other, AT + PAGE, &memory, PAGE);
        drop(container.detach_group(other));
        assert_eq!(container.domain_count(), 1);
        refused(bench, Who::Other, AT + PAGE);
        arrives(bench, Who::One, AT, &memory, 0);
    }
}

/// The other group of a container after its detach, for each of two, at two units.
pub(crate) fn either_of_two_groups_leaves(bench: &dyn Bench) {
    let memory = Memory::new(bench, 1);
    for (leaves, stays) in [(Who::One, Who::Other), (Who::Other, Who::One), (Who::Pair, Who::One)] {
        let container = open(bench);
        let group = attach(bench, &container, leaves);
        attach(bench, &container, stays);
        map(&container, AT, &memory);
        arrives(bench, leaves, AT, &memory, 0);
        arrives(bench, stays, AT, &memory, 0);
        drop(container.detach_group(group));
        refused(bench, leaves, AT);
        arrives(bench, stays, AT, &memory, 0);
        map(&container, AT + PAGE, &memory);
        refused(bench, leaves, AT + PAGE);
        arrives(bench, stays, AT + PAGE, &memory, 0);
    }
}

/// T1-042, T1-191: the windows end where the narrower of two units ends, and grow back when its
/// group leaves.
pub(crate) fn the_narrower_unit_decides(bench: &dyn Bench) {
    let (container, memory) = (open(bench), Memory::new(bench, 1));
    let end = |who| bench.unit(who).geometry().aperture.last().0;
    let (narrow, wide) = if end(Who::One) < end(Who::Other) {
        (Who::One, Who::Other)
    } else {
        (Who::Other, Who::One)
    };
    let top = end(narrow) - (PAGE - 1);
    attach(bench, &container, wide);
    let group = attach(bench, &container, narrow);
    container.for_each_window(|window| assert!(window.last().0 <= end(narrow)));
    map(&container, top, &memory);
    for who in [narrow, wide] {
        arrives(bench, who, top, &memory, 0);
    }
    if end(narrow) < end(wide) {
        let beyond = request(end(narrow) + 1, &memory, Prot::RW);
        assert_eq!(errno_of_map(&container, &beyond), Some(22));
        for who in [narrow, wide] {
            refused(bench, who, beyond.iova);
        }
        drop(container.detach_group(group));
        container.map_dma(&beyond).expect("the wide unit has the place");
        arrives(bench, wide, beyond.iova, &memory, 0);
    }
}
