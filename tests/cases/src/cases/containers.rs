//! The container on two real units: costs, and reach before and after each call.

use iommu::container::{Container, IdentityMemory, MapDma, Operations, Options, UnmapDma};
use iommu::group::GroupId;
use iommu::prot::Prot;

use crate::bench::{Bench, Who};
use crate::steps::{AT, Memory, PAGE, arrives, claim, cost_of, refused};

fn open(bench: &dyn Bench) -> Container<IdentityMemory> {
    let options = Options { allow_unsafe_interrupts: true, ..Options::default() };
    Container::new(bench.registry().pool(), IdentityMemory, options)
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
