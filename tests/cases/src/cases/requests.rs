//! The examples of virtio 1.2, sections 5.13.6.5 and 5.13.6.6, in pages: what MAP and UNMAP do with
//! mappings that are there. The API answers them the same at every unit, because its own record
//! decides (rule D-22), and what a device reaches afterwards shows that the unit agrees.
//!
//! Each runs with the mappings made while a group is attached, and again with a replay.

use iommu::error::{MapError, UnmapError};
use iommu::prot::Prot;

use crate::bench::{Bench, Who};
use crate::steps::*;

/// Makes mappings (first page, pages), unmaps (first page, pages), and looks which pages are left.
fn example(
    bench: &dyn Bench,
    mappings: &[(u64, u64)],
    (first, pages): (u64, u64),
    answer: Result<u64, UnmapError>,
) {
    let memory = Memory::new(bench, 16);
    let is_mapped = |page: u64| mappings.iter().any(|(at, len)| (*at..at + len).contains(&page));
    let is_gone = |page: u64| answer.is_ok() && (first..first + pages).contains(&page);
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        let map_all = || {
            for (at, len) in mappings {
                let phys = memory.at(at * PAGE);
                domain.map(range(AT + at * PAGE, *len), phys, Prot::RW).expect("is free");
            }
        };
        let look = |is_left: &dyn Fn(u64) -> bool| {
            for page in 0..16 {
                let at = page * PAGE;
                if is_left(page) {
                    arrives(bench, who, AT + at, &memory, at);
                } else {
                    refused(bench, who, AT + at);
                }
            }
        };
        let attached = attach(bench, who, &domain);
        map_all();
        look(&is_mapped);
        let result = domain.unmap(range(AT + first * PAGE, pages));
        assert_eq!(result, answer.map(|pages| pages * PAGE));
        look(&|page| is_mapped(page) && !is_gone(page));
        drop(attached);
        let attached = attach(bench, who, &domain);
        look(&|page| is_mapped(page) && !is_gone(page));
        drop(attached);
    }
}

/// (1) `unmap(0, 4)`: nothing is there, nothing happens.
pub(crate) fn unmap_of_nothing(bench: &dyn Bench) {
    example(bench, &[(8, 2)], (0, 5), Ok(0));
}

/// (2) `map(0, 9); unmap(0, 9)`.
pub(crate) fn unmap_of_a_mapping(bench: &dyn Bench) {
    example(bench, &[(0, 10)], (0, 10), Ok(10));
}

/// (3) `map(0, 4); map(5, 9); unmap(0, 9)`: both.
pub(crate) fn unmap_of_two_that_touch(bench: &dyn Bench) {
    example(bench, &[(0, 5), (5, 5)], (0, 10), Ok(10));
}

/// (4) `map(0, 9); unmap(0, 4)`: a mapping is not split.
pub(crate) fn unmap_of_the_first_half(bench: &dyn Bench) {
    example(bench, &[(0, 10)], (0, 5), Err(UnmapError::InvalidArg));
}

/// As (4), at the other end, and in the middle.
pub(crate) fn unmap_of_the_other_half_or_the_middle(bench: &dyn Bench) {
    example(bench, &[(0, 10)], (5, 5), Err(UnmapError::InvalidArg));
    example(bench, &[(0, 10)], (3, 2), Err(UnmapError::InvalidArg));
}

/// (5) `map(0, 4); map(5, 9); unmap(0, 4)`: the first of two.
pub(crate) fn unmap_of_the_first_of_two(bench: &dyn Bench) {
    example(bench, &[(0, 5), (5, 5)], (0, 5), Ok(5));
}

/// (6) `map(0, 4); unmap(0, 9)`: more than is mapped.
pub(crate) fn unmap_of_more_than_is_mapped(bench: &dyn Bench) {
    example(bench, &[(0, 5)], (0, 10), Ok(5));
}

/// (7) `map(0, 4); map(10, 14); unmap(0, 14)`: over a hole.
pub(crate) fn unmap_over_a_hole(bench: &dyn Bench) {
    example(bench, &[(0, 5), (10, 5)], (0, 15), Ok(10));
}

/// C-274: whole mappings and then a cut one. QEMU would remove the first ones and then refuse; so
/// the request is not sent, and all of them stay.
pub(crate) fn unmap_that_cuts_only_the_last(bench: &dyn Bench) {
    example(bench, &[(0, 1), (2, 1), (4, 2)], (0, 5), Err(UnmapError::InvalidArg));
}

/// One mapping of four pages, and a second one (first page, pages) that is refused or not.
fn overlap(bench: &dyn Bench, second: (u64, u64), answer: Result<(), MapError>) {
    let (old, new) = (Memory::new(bench, 16), Memory::new(bench, 16));
    for who in kinds(bench) {
        let domain = domain_for(bench, who);
        let attached = attach(bench, who, &domain);
        domain.map(range(AT + 6 * PAGE, 4), old.at(6 * PAGE), Prot::RW).expect("is free");
        let (first, pages) = second;
        let place = range(AT + first * PAGE, pages);
        assert_eq!(domain.map(place, new.at(first * PAGE), Prot::RW), answer);
        let look = || {
            for page in 0..16 {
                let at = page * PAGE;
                match ((6..10).contains(&page), (first..first + pages).contains(&page)) {
                    (true, _) => arrives(bench, who, AT + at, &old, at),
                    (_, true) if answer.is_ok() => arrives(bench, who, AT + at, &new, at),
                    _ => refused(bench, who, AT + at),
                }
            }
        };
        look();
        drop(attached);
        let attached = attach(bench, who, &domain);
        look();
        drop(attached);
    }
}

/// The same range again.
pub(crate) fn map_of_the_same_range(bench: &dyn Bench) {
    overlap(bench, (6, 4), Err(MapError::Exists));
}

/// A part of what is mapped, at either end and in the middle.
pub(crate) fn map_inside_a_mapping(bench: &dyn Bench) {
    for second in [(6, 1), (7, 2), (9, 1)] {
        overlap(bench, second, Err(MapError::Exists));
    }
}

/// Over all of a mapping, and more.
pub(crate) fn map_around_a_mapping(bench: &dyn Bench) {
    overlap(bench, (4, 8), Err(MapError::Exists));
}

/// Over the start of a mapping.
pub(crate) fn map_over_the_start(bench: &dyn Bench) {
    overlap(bench, (4, 3), Err(MapError::Exists));
}

/// Over the end of a mapping.
pub(crate) fn map_over_the_end(bench: &dyn Bench) {
    overlap(bench, (9, 3), Err(MapError::Exists));
}

/// Right below and right above: no overlap.
pub(crate) fn map_beside_a_mapping(bench: &dyn Bench) {
    overlap(bench, (4, 2), Ok(()));
    overlap(bench, (10, 2), Ok(()));
}

/// The same place in another domain is another place.
pub(crate) fn map_of_the_same_range_elsewhere(bench: &dyn Bench) {
    let (one, two) = (Memory::new(bench, 1), Memory::new(bench, 1));
    let (first, second) = (domain_for(bench, Who::One), domain_for(bench, Who::Two));
    map(&first, AT, &one, Prot::RW);
    map(&second, AT, &two, Prot::RW);
    let attached = [attach(bench, Who::One, &first), attach(bench, Who::Two, &second)];
    arrives(bench, Who::One, AT, &one, 0);
    arrives(bench, Who::Two, AT, &two, 0);
    unmap(&first, AT, 1);
    refused(bench, Who::One, AT);
    arrives(bench, Who::Two, AT, &two, 0);
    drop(attached);
}
