//! The situations. In each the access is refused, and arrives as soon as, or as long as, it is
//! allowed: the control is part of the situation.

use iommu::container::{MapDma, UnmapDma};
use iommu::driver::{Health, Run};
use iommu::error::{AttachError, MapError};
use iommu::fault::Access;
use iommu::prot::Prot;
use iommu::registry::DeviceInfo;

use super::{Kind, Situation, Stage};
use crate::bench::{Seat, Who};
use crate::steps::{self, AT, Memory, PAGE, map, range, unmap};

macro_rules! situations {
    ($($name:ident $(if $fits:expr)?,)+) => {
        /// All situations.
        pub const SITUATIONS: &[Situation] = &[$(Situation {
            name: stringify!($name),
            fits: situations!(@fits $($fits)?),
            run: $name,
        },)+];
    };
    (@fits) => { |_| true };
    (@fits $fits:expr) => { $fits };
}

situations! {
    never_attached,
    not_mapped,
    read_only if |kind| kind.access() == Access::WRITE,
    write_only if |kind| kind.access() == Access::READ,
    one_page_below,
    one_page_above,
    across_the_end if |kind| kind != Kind::Message, // it is one word, and aligned
    after_unmap,
    after_unmap_of_the_neighbours,
    after_detach,
    after_replace,
    mapped_in_another_domain,
    after_its_group_left_the_container,
    after_removal,
    after_a_failed_attach,
    after_a_failed_map,
    after_the_container_went,
    after_the_unit_was_given_up,
}

/// Maps, attaches, arrives.
#[track_caller]
fn works(stage: &Stage<'_>, memory: &Memory) {
    let domain = stage.domain();
    map(&domain, AT, memory, Prot::RW);
    let attached = stage.attach(&domain);
    stage.arrives(AT, memory, 0);
    drop(attached);
}

/// C-082, C-270: a device that nobody ever attached; it has just been added.
fn never_attached(stage: &mut Stage<'_>) {
    let memory = stage.memory(1);
    let Seat { device, .. } = stage.bench.seat(stage.who());
    stage.bench.registry().remove_device(device).expect("it is there");
    put_back(stage, stage.who());
    stage.blocked(AT);
    stage.blocked(memory.phys().0);
    works(stage, &memory);
}

/// Attached, with all that the device needs, but not this.
fn not_mapped(stage: &mut Stage<'_>) {
    let memory = stage.memory(1);
    let domain = stage.domain();
    let attached = stage.attach(&domain);
    stage.refused(AT);
    stage.refused(memory.phys().0);
    map(&domain, AT, &memory, stage.right());
    stage.arrives(AT, &memory, 0);
    drop(attached);
}

/// C-158: the device may only read, and writes.
fn read_only(stage: &mut Stage<'_>) {
    wrong_right(stage, Prot::READ);
}

/// C-158: the device may only write, and reads.
fn write_only(stage: &mut Stage<'_>) {
    wrong_right(stage, Prot::WRITE);
}

fn wrong_right(stage: &Stage<'_>, wrong: Prot) {
    let memory = stage.memory(1);
    let domain = stage.domain();
    map(&domain, AT, &memory, wrong);
    let attached = stage.attach(&domain);
    stage.denied(AT);
    unmap(&domain, AT, 1);
    map(&domain, AT, &memory, stage.right());
    stage.arrives(AT, &memory, 0);
    drop(attached);
}

/// A whole granule below: the byte right below is no good test (rule C-279).
fn one_page_below(stage: &mut Stage<'_>) {
    beside(stage, AT - PAGE);
}

fn one_page_above(stage: &mut Stage<'_>) {
    beside(stage, AT + PAGE);
}

fn beside(stage: &Stage<'_>, beside: u64) {
    let (memory, other) = (stage.memory(1), stage.memory(1));
    let domain = stage.domain();
    map(&domain, AT, &memory, stage.right());
    let attached = stage.attach(&domain);
    stage.refused(beside);
    stage.arrives(AT, &memory, 0);
    map(&domain, beside, &other, stage.right());
    stage.arrives(beside, &other, 0);
    drop(attached);
}

/// One access over the end of a mapping, in the middle.
fn across_the_end(stage: &mut Stage<'_>) {
    let memory = stage.memory(2);
    let domain = stage.domain();
    domain.map(range(AT, 1), memory.phys(), stage.right()).expect("is free");
    let attached = stage.attach(&domain);
    let half = stage.len() / 2;
    let (at, offset) = (AT + PAGE - half, PAGE - half);
    stage.refused_after(at, &memory, offset, half);
    domain.map(range(AT + PAGE, 1), memory.at(PAGE), stage.right()).expect("is free");
    stage.arrives(at, &memory, offset);
    drop(attached);
}

/// C-180.
fn after_unmap(stage: &mut Stage<'_>) {
    let memory = stage.memory(1);
    let domain = stage.domain();
    let attached = stage.attach(&domain);
    map(&domain, AT, &memory, Prot::RW);
    stage.arrives(AT, &memory, 0);
    unmap(&domain, AT, 1);
    stage.refused(AT);
    map(&domain, AT, &memory, Prot::RW);
    stage.arrives(AT, &memory, 0);
    drop(attached);
}

/// C-180: the neighbours are refused, the page between them is reached.
fn after_unmap_of_the_neighbours(stage: &mut Stage<'_>) {
    let memory = stage.memory(3);
    let domain = stage.domain();
    for at in [0, PAGE, 2 * PAGE] {
        domain.map(range(AT + at, 1), memory.at(at), Prot::RW).expect("is free");
    }
    let attached = stage.attach(&domain);
    stage.arrives(AT, &memory, 0);
    unmap(&domain, AT, 1);
    unmap(&domain, AT + 2 * PAGE, 1);
    stage.refused(AT);
    stage.refused(AT + 2 * PAGE);
    stage.arrives(AT + PAGE, &memory, PAGE);
    drop(attached);
}

/// C-126, C-259: after detach, although the domain still maps all of it.
fn after_detach(stage: &mut Stage<'_>) {
    let memory = stage.memory(1);
    let domain = stage.domain();
    map(&domain, AT, &memory, Prot::RW);
    let attached = stage.attach(&domain);
    stage.arrives(AT, &memory, 0);
    let ownership = attached.detach();
    stage.blocked(AT);
    let attached = ownership.attach(&domain).expect("attaches again");
    stage.arrives(AT, &memory, 0);
    drop(attached);
    stage.blocked(AT);
}

/// C-130: only the old domain maps it.
fn after_replace(stage: &mut Stage<'_>) {
    let memory = stage.memory(1);
    let (old, new) = (stage.domain(), stage.domain());
    map(&old, AT, &memory, Prot::RW);
    let mut attached = stage.attach(&old);
    stage.arrives(AT, &memory, 0);
    attached.replace(&new).expect("fits");
    stage.refused(AT);
    attached.replace(&old).expect("fits");
    stage.arrives(AT, &memory, 0);
    drop(attached);
}

/// Another domain maps it, for another group of the same unit.
fn mapped_in_another_domain(stage: &mut Stage<'_>) {
    let memory = stage.memory(1);
    let (mine, theirs) = (stage.domain(), steps::domain_for(stage.bench, stage.partner()));
    map(&theirs, AT, &memory, Prot::RW);
    let other = steps::attach(stage.bench, stage.partner(), &theirs);
    let attached = stage.attach(&mine);
    stage.refused(AT);
    steps::arrives(stage.bench, stage.partner(), AT, &memory, 0);
    map(&mine, AT, &memory, Prot::RW);
    stage.arrives(AT, &memory, 0);
    drop((attached, other));
}

fn request(memory: &Memory) -> MapDma {
    MapDma { iova: AT, vaddr: memory.phys().0, size: PAGE, prot: Prot::RW }
}

/// T1-230: one group leaves a container, the other one stays.
fn after_its_group_left_the_container(stage: &mut Stage<'_>) {
    let memory = stage.memory(1);
    let container = stage.container();
    container.map_dma(&request(&memory)).expect("is free");
    let group = stage.join(&container, stage.who());
    stage.join(&container, stage.partner());
    stage.arrives(AT, &memory, 0);
    drop(container.detach_group(group).expect("it was attached"));
    stage.blocked(AT);
    steps::arrives(stage.bench, stage.partner(), AT, &memory, 0);
    stage.join(&container, stage.who());
    stage.arrives(AT, &memory, 0);
    let gone = container.unmap_dma(&UnmapDma::Range { iova: AT, size: PAGE });
    assert_eq!(gone.map(|gone| gone.bytes), Ok(PAGE));
    stage.refused(AT);
    steps::refused(stage.bench, stage.partner(), AT);
}

/// C-151: a device that is unplugged from its attached group, and comes back.
fn after_removal(stage: &mut Stage<'_>) {
    let memory = stage.memory(1);
    let domain = stage.domain();
    map(&domain, AT, &memory, Prot::RW);
    let attached = stage.attach(&domain);
    stage.arrives(AT, &memory, 0);
    let Seat { device, .. } = stage.bench.seat(stage.who());
    stage.bench.registry().remove_device(device).expect("it is there");
    stage.blocked(AT);
    drop(attached);
    put_back(stage, stage.who());
    stage.blocked(AT);
    let attached = stage.attach(&domain);
    stage.arrives(AT, &memory, 0);
    drop(attached);
}

fn put_back(stage: &Stage<'_>, who: Who) {
    let Seat { device, endpoint, .. } = stage.bench.seat(who);
    let info = DeviceInfo { id: device, endpoints: &[endpoint], with: None };
    stage.bench.registry().add_device(stage.bench.unit(who), &info).expect("it can be added");
}

/// D-28: the domain maps where the group's interrupts go.
fn after_a_failed_attach(stage: &mut Stage<'_>) {
    let memory = stage.memory(1);
    let regions = stage.bench.group(stage.who()).reserved();
    let window = regions.as_slice().first().expect("there is an MSI window").range.first().0;
    let domain = stage.domain();
    map(&domain, window, &memory, Prot::RW);
    map(&domain, AT, &memory, Prot::RW);
    let ownership = steps::claim(stage.bench, stage.who());
    let refusal = ownership.attach(&domain).expect_err("the window is mapped");
    assert_eq!(refusal.error, AttachError::AddrInUse);
    stage.blocked(AT);
    unmap(&domain, window, 1);
    let attached = refusal.ownership.attach(&domain).expect("nothing is in the way now");
    stage.arrives(AT, &memory, 0);
    drop(attached);
}

/// C-174: a list of runs of which the last can't be mapped leaves nothing of it.
fn after_a_failed_map(stage: &mut Stage<'_>) {
    let memory = stage.memory(1);
    let domain = stage.domain();
    map(&domain, AT + 2 * PAGE, &memory, Prot::RW);
    let attached = stage.attach(&domain);
    let run = |page| Run { range: range(AT + page * PAGE, 1), phys: memory.phys(), prot: Prot::RW };
    assert_eq!(domain.map_runs(&[run(0), run(1), run(2)]), Err(MapError::Exists));
    stage.refused(AT);
    stage.arrives(AT + 2 * PAGE, &memory, 0);
    domain.map_runs(&[run(0), run(1)]).expect("both are free");
    stage.arrives(AT, &memory, 0);
    drop(attached);
}

/// T1-235: the container is closed with all that it holds.
fn after_the_container_went(stage: &mut Stage<'_>) {
    let memory = stage.memory(1);
    for _ in 0..2 {
        let container = stage.container();
        container.map_dma(&request(&memory)).expect("is free");
        stage.blocked(AT);
        stage.join(&container, stage.who());
        stage.arrives(AT, &memory, 0);
        drop(container);
        stage.blocked(AT);
    }
}

/// D-35: a unit that does not answer is given up and reset; nothing is reached through it, by an
/// attached device as by others, until it is started anew.
fn after_the_unit_was_given_up(stage: &mut Stage<'_>) {
    let memory = stage.memory(1);
    let (domain, spare) = (stage.domain(), stage.memory(1));
    map(&domain, AT, &memory, Prot::RW);
    let attached = stage.attach(&domain);
    stage.arrives(AT, &memory, 0);
    stage.bench.silence(stage.who());
    let refused = domain.map(range(AT + PAGE, 1), spare.phys(), Prot::RW);
    assert_eq!(refused, Err(MapError::Unconfirmed));
    assert_eq!(stage.bench.unit(stage.who()).health(), Health::Poisoned);
    stage.gets_nowhere(AT);
    stage.gets_nowhere(AT + PAGE);
    stage.gets_nowhere(memory.phys().0);
    drop((attached, domain));
    stage.gets_nowhere(AT);
    stage.bench.renew();
    stage.blocked(AT);
    works(stage, &memory);
}
