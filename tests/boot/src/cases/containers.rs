//! The container on two real units: costs, and reach before and after each call.

use iommu::container::{Container, IdentityMemory, MapDma, Operations, Options, UnmapDma};
use iommu::group::GroupId;
use iommu::prot::Prot;
use iommu_runtime::dma::Buffer;

use super::{AT, PAGE, arrives, buffer, refused, refused_from};
use crate::machine::POOL;
use crate::world::{World, place};

fn open() -> Container<IdentityMemory> {
    let options = Options { allow_unsafe_interrupts: true, ..Options::default() };
    Container::new(&POOL, IdentityMemory, options)
}

fn map(container: &Container<IdentityMemory>, iova: u64, memory: &Buffer) {
    let (vaddr, size) = (memory.phys().0, memory.len() as u64);
    container.map_dma(&MapDma { iova, vaddr, size, prot: Prot::RW }).expect("the range is free");
}

fn attach(world: &World, container: &Container<IdentityMemory>, index: usize) -> GroupId {
    let ownership = world.claim(index);
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
pub fn attach_costs_what_the_table_says(world: &World) {
    let container = open();
    let rows = [
        (place::ROOT, [1, 1, 0, 0, 0]),   // T1-600: first group
        (place::BRIDGE, [0, 1, 0, 0, 0]), // T1-601: second, compatible
        (place::OTHER, [1, 1, 1, 0, 0]),  // T1-602: incompatible
        (place::ROOT_2, [0, 1, 1, 0, 0]), // T1-604: fits the second in the list
    ];
    for (index, expected) in rows {
        let made = cost(&container, || {
            attach(world, &container, index);
        });
        assert_eq!(made, expected, "device {index}");
    }
    assert_eq!(container.domain_count(), 2);
    drop(container);

    // T1-603: two domains, the group fits the head of the list.
    let container = open();
    attach(world, &container, place::OTHER);
    attach(world, &container, place::ROOT);
    let made = cost(&container, || {
        attach(world, &container, place::ROOT_2);
    });
    assert_eq!(made, [0, 1, 0, 0, 0]);
}

/// T1-140: an attach to a domain that is there is one request, with 1000 mappings as with none.
pub fn reuse_costs_one_request(world: &World) {
    let (container, memory) = (open(), buffer(1));
    attach(world, &container, place::ROOT);
    for n in 0..1000 {
        map(&container, AT + n * 2 * PAGE, &memory);
    }
    let sent = world.sent(place::BRIDGE, || {
        attach(world, &container, place::BRIDGE);
    });
    assert_eq!((sent.attach, sent.map, sent.detach, sent.notifies), (1, 0, 0, 1));
    arrives(world, place::BRIDGE_2, AT + 1998 * PAGE, &memory, 0);
}

/// T1-212, T1-273: memory mapped before the first group is reached after its attach.
pub fn mapped_before_the_first_group(world: &World) {
    let (container, memory) = (open(), buffer(2));
    map(&container, AT, &memory);
    refused_from(world, place::ROOT, AT, &memory);
    attach(world, &container, place::ROOT);
    arrives(world, place::ROOT, AT + PAGE, &memory, PAGE as usize);
}

/// T1-037: a map reaches the devices of every group, an unmap leaves none.
pub fn a_map_reaches_all_and_an_unmap_leaves_none(world: &World) {
    let (container, memory) = (open(), buffer(1));
    for index in [place::ROOT, place::OTHER, place::BRIDGE] {
        attach(world, &container, index);
    }
    let all = [place::ROOT, place::OTHER, place::BRIDGE, place::BRIDGE_2];
    map(&container, AT, &memory);
    for index in all {
        arrives(world, index, AT, &memory, 0);
        refused(world, index, AT + PAGE);
    }
    let gone = container.unmap_dma(&UnmapDma::Range { iova: AT, size: PAGE });
    assert_eq!(gone.map(|gone| gone.bytes), Ok(PAGE));
    for index in all {
        refused_from(world, index, AT, &memory);
    }
    map(&container, AT, &memory);
    assert_eq!(container.unmap_dma(&UnmapDma::All).map(|gone| gone.bytes), Ok(PAGE));
    for index in all {
        refused_from(world, index, AT, &memory);
    }
}

/// T1-166, T1-211: a group behind the other unit finds the memory that was mapped before.
pub fn a_new_domain_is_given_the_mappings(world: &World) {
    let (container, memory) = (open(), buffer(3));
    attach(world, &container, place::ROOT);
    map(&container, AT, &memory);
    map(&container, AT + 16 * PAGE, &memory);
    let sent = world.sent(place::OTHER, || {
        attach(world, &container, place::OTHER);
    });
    assert_eq!((sent.attach, sent.map), (1, 2));
    arrives(world, place::OTHER, AT + 2 * PAGE, &memory, 2 * PAGE as usize);
    arrives(world, place::OTHER, AT + 16 * PAGE, &memory, 0);
    refused_from(world, place::OTHER, AT + 3 * PAGE, &memory);
}

/// T1-230 to T1-236: a detached group reaches nothing, the others everything.
pub fn a_group_leaves_and_the_others_stay(world: &World) {
    let (container, memory) = (open(), buffer(1));
    let one = attach(world, &container, place::ROOT);
    let two = attach(world, &container, place::BRIDGE);
    let other = attach(world, &container, place::OTHER);
    map(&container, AT, &memory);
    let made = cost(&container, || drop(container.detach_group(one)));
    assert_eq!(made, [0, 0, 0, 1, 0]);
    refused_from(world, place::ROOT, AT, &memory);
    arrives(world, place::BRIDGE, AT, &memory, 0);
    arrives(world, place::OTHER, AT, &memory, 0);
    let made = cost(&container, || drop(container.detach_group(two)));
    assert_eq!(made, [0, 0, 0, 1, 1], "the last group of a domain takes it along");
    refused_from(world, place::BRIDGE, AT, &memory);
    arrives(world, place::OTHER, AT, &memory, 0);
    drop(container.detach_group(other));
    refused_from(world, place::OTHER, AT, &memory);
    assert_eq!(container.mapping_count(), 0, "T1-232");
}

/// T1-068: closing with everything attached blocks everything.
pub fn closing_blocks_everything(world: &World) {
    let (container, memory) = (open(), buffer(1));
    let all = [place::ROOT, place::BRIDGE, place::OTHER];
    for index in all {
        attach(world, &container, index);
    }
    map(&container, AT, &memory);
    for index in all {
        arrives(world, index, AT, &memory, 0);
    }
    drop(container);
    for index in all {
        refused_from(world, index, AT, &memory);
        assert_eq!(world.devices.get(index).and_then(|member| member.group.owner()), None);
    }
}

/// T1-170, T1-270: the MSI window of the groups is not usable, and a mapping there keeps them out.
pub fn the_msi_window_is_no_place_for_memory(world: &World) {
    let (container, memory) = (open(), buffer(1));
    let member = world.devices.first().expect("there are devices");
    let regions = member.group.reserved().expect("the regions fit");
    let window = regions.as_slice().first().expect("the machine has an MSI window").range;
    map(&container, window.first().0, &memory);
    let ownership = world.claim(place::ROOT);
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
