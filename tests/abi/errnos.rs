//! Bad input: for each refusal of sections 8, 10, 11, 12 and 14 a request, put by the typed call and by
//! ioctl to containers that are equal, with the errno of the rule. Attaches are in `front.rs`, the
//! order of checks is in `order.rs`; pins and copies have no ioctl (`tests/container/pins.rs`).

use iommu::container::{PinError, UnmapDma};

use crate::fixture::PAGE;
use crate::memory::TOP;
use crate::route::{AT, RESERVED, Request};
use crate::worlds::*;

const EIO: i32 = 5;
const ENOENT: i32 = 2;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const EFAULT: i32 = 14;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const ENOTTY: i32 = 25;
const ENOSPC: i32 = 28;
const EOVERFLOW: i32 = 75;

/// Rule, what is wrong, the world, the request, the errno.
type Row = (&'static str, &'static str, Setup, Request, i32);

fn maps() -> Vec<Row> {
    let map = || Request::map(16, 2);
    vec![
        ("T1-260", "the structure ends early", plain, map().but(|r| r.there = 31), EFAULT),
        ("T1-261", "argsz", plain, map().but(|r| r.argsz = 31), EINVAL),
        ("T1-261", "an unknown flag", plain, map().but(|r| r.flags = 8 | 3), EINVAL),
        ("T1-262", "too large for the host", plain, map().but(on_32_bit), EOVERFLOW),
        ("T1-263", "empty", plain, map().but(|r| r.size = 0), EINVAL),
        ("T1-264", "the IOVA wraps", plain, map().but(|r| r.iova = !0xfff), EOVERFLOW),
        ("T1-264", "the address wraps", plain, map().but(|r| r.vaddr = !0xfff), EOVERFLOW),
        ("T1-265", "no direction", plain, map().but(|r| r.flags = 0), EINVAL),
        ("T1-265", "VADDR and READ", void, Request::update(0, 4).but(|r| r.flags = 5), EINVAL),
        ("T1-265", "VADDR and WRITE", void, Request::update(0, 4).but(|r| r.flags = 6), EINVAL),
        ("T1-266", "IOVA misaligned", plain, map().but(|r| r.iova += 1), EINVAL),
        ("T1-266", "address misaligned", plain, map().but(|r| r.vaddr += 0x800), EINVAL),
        ("T1-266", "size misaligned", plain, map().but(|r| r.size -= 1), EINVAL),
        ("T1-268", "there already", plain, Request::map(0, 4), EEXIST),
        ("T1-268", "overlaps one page", plain, Request::map(3, 2), EEXIST),
        ("T1-268", "around a mapping", plain, Request::map(7, 6), EEXIST),
        ("T1-268", "there, with a void address", void, Request::map(0, 4), EEXIST),
        ("T1-269", "no mapping is left", full, map(), ENOSPC),
        ("T1-270", "reserved", plain, map().but(|r| r.iova = RESERVED), EINVAL),
        ("T1-270", "beyond the aperture", plain, map().but(|r| r.iova = 1 << 48), EINVAL),
        ("T1-271", "no node", || without_memory(bare()), map(), ENOMEM),
        ("T1-274", "the limit", at_the_limit, map(), ENOMEM),
        ("T1-274", "no memory there", || refusing(PinError::Fault), map(), EFAULT),
        ("T1-274", "no memory to pin", || refusing(PinError::OutOfMemory), map(), ENOMEM),
        ("T1-274", "the owner is gone", || refusing(PinError::NoOwner), map(), ENODEV),
        ("T1-274", "the unit refuses", refusing_unit, map(), EIO),
        ("T1-275", "no bitmap", || without_memory(tracked()), Request::map(16, 65), ENOMEM),
        ("T1-275", "too many pages", tracked_bare, Request::map(0, 1 << 31), EINVAL),
    ]
}

fn updates() -> Vec<Row> {
    let update = || Request::update(0, 4);
    vec![
        ("T1-407", "empty", void, update().but(|r| r.size = 0), EINVAL),
        ("T1-407", "the IOVA wraps", void, update().but(|r| r.iova = !0xfff), EOVERFLOW),
        ("T1-407", "the address wraps", void, update().but(|r| r.vaddr = !0xfff), EOVERFLOW),
        ("T1-407", "misaligned", void, update().but(|r| r.vaddr += 1), EINVAL),
        ("T1-404", "nothing there", void, Request::update(16, 4), ENOENT),
        ("T1-404", "not void", void, Request::update(8, 4), EINVAL),
        ("T1-404", "shorter", void, Request::update(0, 3), EINVAL),
        ("T1-404", "another start", void, Request::update(1, 3), EINVAL),
        ("T1-405", "the caller's limit", another_owner, update(), ENOMEM),
    ]
}

fn unmaps() -> Vec<Row> {
    let unmap = || Request::unmap(0, 4);
    let all = || Request::unmap(0, 0).but(|r| (r.flags, r.iova) = (2, 0));
    let void_all = || all().but(|r| r.flags = 6);
    let void_one = || Request::invalidate(0, 4);
    vec![
        ("T1-350", "the structure ends early", plain, unmap().but(|r| r.there = 23), EFAULT),
        ("T1-351", "argsz", plain, unmap().but(|r| r.argsz = 23), EINVAL),
        ("T1-351", "an unknown flag", plain, unmap().but(|r| r.flags = 8), EINVAL),
        ("T1-354", "an emulated group", emulated, void_one(), EBUSY),
        ("T1-354", "an emulated group, all", emulated, void_all(), EBUSY),
        ("T1-355", "too large for the host", plain, unmap().but(on_32_bit), EOVERFLOW),
        ("T1-356", "IOVA misaligned", plain, unmap().but(|r| r.iova += 1), EINVAL),
        ("T1-357", "all, with an IOVA", plain, all().but(|r| r.iova = AT), EINVAL),
        ("T1-357", "all, with a size", plain, all().but(|r| r.size = PAGE), EINVAL),
        ("T1-357", "all void, with a size", plain, void_all().but(|r| r.size = PAGE), EINVAL),
        ("T1-358", "empty", plain, unmap().but(|r| r.size = 0), EINVAL),
        ("T1-358", "size misaligned", plain, unmap().but(|r| r.size += 1), EINVAL),
        ("T1-359", "it wraps", plain, unmap().but(|r| r.iova = !0xfff), EOVERFLOW),
        ("T1-361", "begins inside", plain, Request::unmap(1, 3), EINVAL),
        ("T1-361", "ends inside", plain, Request::unmap(0, 10), EINVAL),
        ("T1-361", "the same, void", plain, Request::invalidate(1, 3), EINVAL),
        ("T1-371", "the holder keeps it", held, all(), EBUSY),
        ("T1-372", "cut in between", held_by_a_mapper, Request::unmap(8, 8), EINVAL),
        ("T1-373", "nobody to tell", held_by_nobody, all(), EBUSY),
        ("T1-383", "the unit refuses", refusing_unit, unmap(), EIO),
        ("T1-401", "void already", void, void_one(), EINVAL),
        ("T1-401", "one of all void already", void, void_all(), EINVAL),
    ]
}

fn dirty_unmaps() -> Vec<Row> {
    let unmap = || Request::unmap_dirty(0, 4);
    let mut rows = bitmaps(["T1-353", "T1-353"], tracked, unmap);
    rows.extend([
        ("T1-352", "with ALL", tracked as Setup, unmap().but(|r| r.flags = 3), EINVAL),
        ("T1-352", "with VADDR", tracked, unmap().but(|r| r.flags = 5), EINVAL),
        ("T1-353", "argsz", tracked, unmap().but(|r| r.argsz = 47), EINVAL),
        ("T1-353", "the bitmap's structure", tracked, unmap().but(|r| r.there = 47), EFAULT),
        ("T1-356", "IOVA misaligned", tracked, unmap().but(|r| r.iova += 1), EINVAL),
        ("T1-358", "size misaligned", tracked, unmap().but(|r| r.size += 1), EINVAL),
        ("T1-359", "it wraps", tracked, unmap().but(|r| r.iova = !0xfff), EOVERFLOW),
        ("T1-360", "off", plain, unmap(), EINVAL),
        ("T1-360", "off, in the first kind", first_kind, unmap(), EINVAL),
        ("T1-360", "another granule", tracked, unmap().but(|r| r.pgsize *= 2), EINVAL),
        ("T1-361", "begins inside", tracked, Request::unmap_dirty(1, 3), EINVAL),
        ("T1-374", "no bitmap there", tracked, unmap().but(|r| r.bitmap_there = 0), EFAULT),
    ]);
    rows
}

/// What is wrong with bitmaps alone.
fn bitmaps(rules: [&'static str; 2], setup: Setup, good: fn() -> Request) -> Vec<Row> {
    let [place, size] = rules;
    let large = move || good().but(|r| r.size = 65 * PAGE);
    vec![
        (place, "not the user's", setup, good().but(|r| r.data = TOP - 7), EINVAL),
        (place, "it wraps", setup, good().but(|r| r.data = u64::MAX - 3), EINVAL),
        (size, "page size 0 (W-17)", setup, good().but(|r| r.pgsize = 0), EINVAL),
        (size, "less than a page", setup, good().but(|r| r.pgsize = 1 << 40), EINVAL),
        (size, "no bytes", setup, good().but(|r| r.bytes = 0), EINVAL),
        (size, "less than a word", setup, good().but(|r| r.bytes = 7), EINVAL),
        (size, "a word too small", setup, large(), EINVAL),
        (size, "more than 2^28 bytes", setup, good().but(|r| r.bytes = (1 << 28) + 1), EINVAL),
    ]
}

fn dirty_pages() -> Vec<Row> {
    let get = || Request::get(0, 4);
    let start = Request::start;
    let stop = || start().but(|r| r.flags = 2);
    let mut rows = bitmaps(["T1-425", "T1-426"], tracked, get);
    rows.extend([
        ("T1-416", "start in the first kind", first_kind as Setup, start(), EACCES),
        ("T1-416", "stop in the first kind", first_kind, stop(), EACCES),
        ("T1-416", "get in the first kind", first_kind, get().but(|r| r.size = 0), EACCES),
        ("T1-416", "before anything", first_kind, start().but(|r| r.there = 0), EACCES),
        ("T1-417", "the header ends early", tracked, start().but(|r| r.there = 7), EFAULT),
        ("T1-418", "argsz", tracked, stop().but(|r| r.argsz = 7), EINVAL),
        ("T1-418", "an unknown flag", tracked, stop().but(|r| r.flags |= 8), EINVAL),
        ("T1-419", "no flag", tracked, start().but(|r| r.flags = 0), EINVAL),
        ("T1-419", "two flags", tracked, start().but(|r| r.flags = 3), EINVAL),
        ("T1-420", "argsz", tracked, get().but(|r| r.argsz = 47), EINVAL),
        ("T1-421", "the range ends early", tracked, get().but(|r| r.there = 47), EFAULT),
        ("T1-422", "too large for the host", tracked, get().but(on_32_bit), EOVERFLOW),
        ("T1-423", "empty", tracked, get().but(|r| r.size = 0), EINVAL),
        ("T1-424", "it wraps", tracked, get().but(|r| r.iova = !0xfff), EOVERFLOW),
        ("T1-427", "another granule", tracked, get().but(|r| r.pgsize *= 2), EINVAL),
        ("T1-428", "IOVA misaligned", tracked, get().but(|r| r.iova += 1), EINVAL),
        ("T1-428", "size misaligned", tracked, get().but(|r| r.size += 1), EINVAL),
        ("T1-429", "off", plain, get(), EINVAL),
        ("T1-430", "begins inside", tracked, Request::get(1, 3), EINVAL),
        ("T1-430", "ends inside", tracked, Request::get(0, 3), EINVAL),
        ("T1-433", "no bitmap", || without_memory(plain()), start(), ENOMEM),
        ("T1-433", "too many pages", huge, start(), EINVAL),
        ("T1-447", "no bitmap there", tracked, get().but(|r| r.bitmap_there = 0), EFAULT),
    ]);
    rows
}

fn others() -> Vec<Row> {
    let info = Request::info;
    vec![
        ("T1-520", "the header ends early", plain, info().but(|r| r.there = 15), EFAULT),
        ("T1-520", "argsz", plain, info().but(|r| r.argsz = 15), EINVAL),
        ("T1-529", "no memory for the list", || without_memory(plain()), info(), ENOMEM),
        ("T1-069", "ENABLE", plain, info().but(|r| r.number = 0x3B73), ENOTTY),
        ("T1-069", "DISABLE", plain, info().but(|r| r.number = 0x3B74), ENOTTY),
        ("T1-069", "no such number", plain, info().but(|r| r.number = 0x3B76), ENOTTY),
    ]
}

/// A number that a host of 32 bits can't hold.
fn on_32_bit(request: &mut Request) {
    request.native_max = u32::MAX.into();
    request.iova = 1 << 32;
}

/// Refusals of these rules have changed something: a part is gone.
const PARTIAL: [&str; 3] = ["T1-371", "T1-372", "T1-373"];

#[test]
fn every_refusal_by_both_routes() {
    let lists = [maps(), updates(), unmaps(), dirty_unmaps(), dirty_pages(), others()];
    let (mut typed, mut all) = (0, 0);
    for (rule, what, setup, request, errno) in lists.into_iter().flatten() {
        let here = format!("{rule}, {what}: {request:x?}");
        let (one, other) = (setup(), setup());
        let asked = request.ask(one);
        settle(one);
        assert_eq!(asked, errno, "{here}");
        if let Some(called) = request.call(other) {
            assert_eq!(called, errno, "typed: {here}");
            typed += 1;
        }
        settle(other);
        all += 1;
        let content = one.content();
        assert_eq!(content, other.content(), "{here}");
        if !PARTIAL.contains(&rule) {
            let fresh = setup();
            settle(fresh);
            assert_eq!(content, fresh.content(), "something has changed: {here}");
        }
        one.container.check_invariants().expect(&here);
    }
    assert!(all > 100 && typed > 70, "{all} requests, {typed} of them typed");
}

/// T1-369: what is gone when an unmap ends early is told by the typed call. A program gets the errno
/// and its structure as it was, as in Linux.
#[test]
fn an_unmap_that_ends_early() {
    let all = || Request::unmap(0, 0).but(|r| (r.flags, r.iova) = (2, 0));
    let world = held();
    let failed = world.container.unmap_dma(&UnmapDma::All).unwrap_err();
    assert_eq!((failed.errno(), failed.unmapped.bytes), (EBUSY, 4 * PAGE));
    let world = held();
    assert_eq!(all().ask(world), EBUSY); // nothing is written: `ask` looks
    assert_eq!(world.container.mapping_count(), 1);
    world.container.unpin_pages(AT + 9 * PAGE, 1);
    assert_eq!(all().ask(world), 0);
    assert_eq!(world.memory.pins(), 0);
}

/// Good requests by both routes, from those that the tables change.
#[test]
fn the_requests_are_good_but_for_what_is_wrong() {
    let good: [(Setup, Request); 9] = [
        (plain, Request::map(16, 2)),
        (void, Request::update(0, 4)),
        (plain, Request::unmap(0, 4)),
        (plain, Request::unmap(0, 0).but(|r| (r.flags, r.iova) = (2, 0))),
        (plain, Request::invalidate(0, 4)),
        (tracked, Request::unmap_dirty(0, 4)),
        (plain, Request::start()),
        (tracked, Request::get(0, 4)),
        (plain, Request::info()),
    ];
    for (setup, request) in good {
        let (one, other) = (setup(), setup());
        assert_eq!((request.ask(one), request.call(other)), (0, Some(0)), "{request:x?}");
        assert_eq!(one.content(), other.content());
    }
}
