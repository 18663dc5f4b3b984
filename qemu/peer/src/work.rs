//! What is measured. The tool knows the names.

use crate::console;
use crate::devices::COUNT;
use crate::failure::Failure;
use crate::memory::{self, Part, Scattered};
use crate::series::{MOST, Marks, Series};
use crate::sys::{self, File, PAGE, READ};
use crate::vfio::{Container, Group};

/// Measures everything. What grows the kernel's memory for good comes last.
pub fn all(groups: &[Group; COUNT]) -> Result<(), Failure> {
    let marks = Marks::begin()?;
    let scattered = Scattered::take()?;
    system_calls(&marks, groups)?;
    attach_and_detach(&marks, groups)?;
    attach_with_mappings(&marks, groups, &scattered)?;
    sizes(&marks, groups, &scattered)?;
    unmap_all(&marks, groups, &scattered)?;
    many_mappings(&marks, groups, &scattered)
}

/// The first address that is mapped: above what boards reserve for interrupt messages.
const BASE: u64 = 1 << 32;
/// How often something short is measured.
const OFTEN: usize = 41;
/// How often something longer is.
const SOME: usize = 11;
/// How often something that takes seconds is: threads of the kernel may run in the midst of it, so that
/// one of a few can be twice as long.
const FEW: usize = 5;

/// What any request costs, whatever it does.
fn system_calls(marks: &Marks, groups: &[Group; COUNT]) -> Result<(), Failure> {
    let container = with_groups(groups, 1)?;
    let mut call = Series::new(marks, "system_call");
    let mut ioctl = Series::new(marks, "ioctl_nothing");
    let mut unmap = Series::new(marks, "unmap_nothing");
    for _ in 0..OFTEN {
        call.sample(sys::parent)?;
        ioctl.sample(|| container.nothing())?;
        unmap.sample(|| container.unmap(BASE, PAGE as u64))?;
    }
    [call, ioctl, unmap].into_iter().for_each(Series::tell);
    detach_all(groups, 1)
}

/// Groups one after another into an empty container, and out again.
fn attach_and_detach(marks: &Marks, groups: &[Group; COUNT]) -> Result<(), Failure> {
    let mut attach =
        ["attach_first", "attach_2nd", "attach_8th"].map(|name| Series::new(marks, name));
    let mut detach =
        ["detach_last", "detach_of_2", "detach_of_8"].map(|name| Series::new(marks, name));
    for _ in 0..SOME {
        let container = Container::open()?;
        for (before, group) in groups.iter().enumerate() {
            match before + 1 {
                1 => drop(attach[0].sample(|| attach_first(&container, group))?),
                2 => drop(attach[1].sample(|| container.attach(group))?),
                COUNT => drop(attach[2].sample(|| container.attach(group))?),
                _ => drop(container.attach(group).map_err(Failure::of("attach a group"))?),
            }
        }
        for (left, group) in groups.iter().enumerate().rev() {
            match left + 1 {
                1 => drop(detach[0].sample(|| group.detach())?),
                2 => drop(detach[1].sample(|| group.detach())?),
                COUNT => drop(detach[2].sample(|| group.detach())?),
                _ => drop(group.detach().map_err(Failure::of("detach a group"))?),
            }
        }
    }
    attach.into_iter().chain(detach).for_each(Series::tell);
    Ok(())
}

/// The same with mappings present.
fn attach_with_mappings(
    marks: &Marks,
    groups: &[Group; COUNT],
    memory: &Scattered,
) -> Result<(), Failure> {
    let mut attach = Series::new(marks, "attach_2nd@10k");
    let mut last = Series::new(marks, "detach_last@10k");
    for _ in 0..FEW {
        let container = with_groups(groups, 1)?;
        fill(&container, memory, 0, 10_000)?;
        for _ in 0..SOME {
            attach.sample(|| container.attach(&groups[1]))?;
            groups[1].detach().map_err(Failure::of("detach a group"))?;
        }
        last.sample(|| groups[0].detach())?;
    }
    [attach, last].into_iter().for_each(Series::tell);
    Ok(())
}

/// Maps and unmaps of one piece, from a page to a gigabyte.
fn sizes(marks: &Marks, groups: &[Group; COUNT], scattered: &Scattered) -> Result<(), Failure> {
    const MIB: usize = 1 << 20;
    let container = with_groups(groups, 1)?;
    let measure = |map: &'static str, unmap: &'static str, part: Part, count: usize| {
        let (mut maps, mut unmaps) = (Series::new(marks, map), Series::new(marks, unmap));
        for _ in 0..count {
            maps.sample(|| container.map(BASE, part))?;
            let size = part.len as u64;
            if unmaps.sample(|| container.unmap(BASE, size))? != size {
                return Err(Failure::odd(unmap, "not all was unmapped"));
            }
        }
        [maps, unmaps].into_iter().for_each(Series::tell);
        Ok(())
    };
    let huge = memory::transparent(2 * MIB)?;
    measure("map_4k", "unmap_4k", scattered.page(0), OFTEN)?;
    measure("map_64k", "unmap_64k", Part { len: 64 << 10, ..huge }, OFTEN)?;
    measure("map_2m", "unmap_2m", huge, OFTEN)?;
    measure("map_64m_scattered", "unmap_64m_scattered", scattered.whole(), FEW)?;
    measure("map_1g", "unmap_1g", memory::gigantic()?, FEW)?;
    measure("map_1g_of_2m", "unmap_1g_of_2m", memory::transparent(1024 * MIB)?, FEW)?;
    detach_all(groups, 1)
}

/// One request that unmaps 10 000 mappings.
fn unmap_all(marks: &Marks, groups: &[Group; COUNT], memory: &Scattered) -> Result<(), Failure> {
    let container = with_groups(groups, 1)?;
    let mut series = Series::new(marks, "unmap_all@10k");
    for _ in 0..FEW {
        fill(&container, memory, 0, 10_000)?;
        if series.sample(|| container.unmap_all())? != 10_000 * PAGE as u64 {
            return Err(Failure::odd("unmap_all@10k", "not all was unmapped"));
        }
    }
    series.tell();
    detach_all(groups, 1)
}

/// One page more, among many that lie in random order.
fn many_mappings(
    marks: &Marks,
    groups: &[Group; COUNT],
    memory: &Scattered,
) -> Result<(), Failure> {
    const STEPS: [(usize, &str, &str); 4] = [
        (1_000, "map_4k_random@1k", "unmap_4k_random@1k"),
        (10_000, "map_4k_random@10k", "unmap_4k_random@10k"),
        (100_000, "map_4k_random@100k", "unmap_4k_random@100k"),
        (1_000_000, "map_4k_random@1m", "unmap_4k_random@1m"),
    ];
    let container = with_groups(groups, 1)?;
    let mut have = 0;
    let mut before = 0;
    // The tool puts this file down when somebody is in a hurry.
    let most = if File::open(c"/quick", READ).is_ok() { 10_000 } else { 1_000_000 };
    for (count, map, unmap) in STEPS.into_iter().filter(|(count, ..)| *count <= most) {
        fill(&container, memory, have, count)?;
        have = count;
        let (mut maps, mut unmaps) = (Series::new(marks, map), Series::new(marks, unmap));
        for number in count..count + MOST {
            maps.sample(|| container.map(place(number), memory.page(number)))?;
        }
        for number in count..count + MOST {
            unmaps.sample(|| container.unmap(place(number), PAGE as u64))?;
        }
        [maps, unmaps].into_iter().for_each(Series::tell);
        match count {
            10_000 => before = slab()?,
            100_000 => {
                let grown = slab()?.saturating_sub(before);
                console::line(format_args!("value heap_random@100k {}", grown * 1024 * 10 / 9));
            }
            _ => {}
        }
    }
    Ok(()) // the machine ends: nobody waits for a million mappings to go
}

/// Opens a container with the first `count` groups.
fn with_groups(groups: &[Group; COUNT], count: usize) -> Result<Container, Failure> {
    let container = Container::open()?;
    for (at, group) in groups.iter().take(count).enumerate() {
        let attached = match at {
            0 => attach_first(&container, group),
            _ => container.attach(group),
        };
        attached.map_err(Failure::of("attach a group"))?;
    }
    Ok(container)
}

/// Two requests: the group into the container, and the container to its kind.
fn attach_first(container: &Container, group: &Group) -> Result<usize, syscalls::Errno> {
    container.attach(group)?;
    container.become_type1()
}

fn detach_all(groups: &[Group; COUNT], count: usize) -> Result<(), Failure> {
    let mut groups = groups.iter().take(count);
    groups.try_for_each(|group| group.detach().map(drop)).map_err(Failure::of("detach a group"))
}

/// Maps pages number `from..to`, each at its place.
fn fill(container: &Container, memory: &Scattered, from: usize, to: usize) -> Result<(), Failure> {
    let mut numbers = from..to;
    let map = |number| container.map(place(number), memory.page(number)).map(drop);
    numbers.try_for_each(map).map_err(Failure::of("map a page"))
}

/// Where mapping `number` lies: one of 2^21 places, in an order that looks random and meets none twice.
fn place(number: usize) -> u64 {
    const BITS: u32 = 21;
    const MASK: u64 = (1 << BITS) - 1;
    // Each step can be undone, so different numbers stay different.
    let mut at = number as u64;
    for _ in 0..3 {
        at = at.wrapping_mul(0x9e_3779_b97f_4a7d) & MASK;
        at ^= at >> 11;
    }
    BASE + at * PAGE as u64
}

/// Kilobytes of the kernel's small objects.
fn slab() -> Result<usize, Failure> {
    let step = "read Slab in /proc/meminfo";
    let file = File::open(c"/proc/meminfo", READ).map_err(Failure::of(step))?;
    let mut text = [0; 4096];
    let text = file.read(&mut text).map_err(Failure::of(step))?;
    let text = str::from_utf8(text).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Slab:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or(Failure::odd(step, "it is not there"))
}
