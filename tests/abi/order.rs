//! Requests that are wrong in two ways: the error is that of the check that comes first, by both
//! routes. Each list has the checks of one request in the order of the rules; every pair is tried.

use iommu::container::{Kind, PinError};

use crate::fixture::{PAGE, World};
use crate::memory::TOP;
use crate::route::{AT, Request};
use crate::worlds::*;

const EINVAL: i32 = 22;
const EFAULT: i32 = 14;
const EOVERFLOW: i32 = 75;

/// A rule, its errno, and how a good request, or the container, becomes wrong for it. `false`: the
/// container can't be, because of what is wrong already.
struct Check {
    rule: &'static str,
    errno: i32,
    spoil: fn(&mut Request, &World) -> bool,
}

/// A check that is about the request alone.
macro_rules! request {
    ($rule:literal, $errno:expr, $request:ident, $change:expr) => {
        Check {
            rule: $rule,
            errno: $errno,
            spoil: |$request, _| {
                $change;
                true
            },
        }
    };
}

/// Spoils a request in two ways, the later check first, and asks by both routes. Returns how many
/// pairs the typed call could be given.
fn all_pairs(setup: Setup, good: fn() -> Request, checks: &[Check]) -> usize {
    let (mut pairs, mut typed) = (0, 0);
    for (index, first) in checks.iter().enumerate() {
        for second in checks.iter().skip(index) {
            let here = format!("{} and {}", first.rule, second.rule);
            let prepare = || {
                let (world, mut request) = (setup(), good());
                let holds = (second.spoil)(&mut request, world);
                (holds && (first.spoil)(&mut request, world)).then_some((world, request))
            };
            let Some((world, request)) = prepare() else { continue };
            assert_eq!(request.ask(world), first.errno, "{here}: {request:x?}");
            pairs += 1;
            let Some((world, request)) = prepare() else { continue };
            if let Some(errno) = request.call(world) {
                assert_eq!(errno, first.errno, "typed, {here}: {request:x?}");
                typed += 1;
            }
        }
    }
    assert!(pairs >= checks.len() * checks.len() / 2, "{pairs} pairs");
    typed
}

#[test]
fn map() {
    let checks = [
        request!("T1-260", EFAULT, r, r.there = 31),
        request!("T1-261", EINVAL, r, r.argsz = 0),
        request!("T1-261", EINVAL, r, r.flags |= 8),
        request!("T1-262", EOVERFLOW, r, (r.native_max, r.iova) = (u32::MAX.into(), 1 << 48)),
        request!("T1-263", EINVAL, r, r.size = 0),
        request!("T1-264", EOVERFLOW, r, r.vaddr = !0xfff),
        request!("T1-265", EINVAL, r, r.flags = 0),
        request!("T1-266", EINVAL, r, r.vaddr |= 1),
        request!("T1-268", 17, r, r.iova = AT + PAGE),
        Check {
            rule: "T1-269",
            errno: 28,
            spoil: |_, world| {
                Request::map(12, 1).call(world);
                Request::map(13, 1).call(world) == Some(0)
            },
        },
        request!("T1-270", EINVAL, r, r.size = 1 << 48),
        Check {
            rule: "T1-274",
            errno: 19,
            spoil: |_, world| {
                world.memory.refuse(2, PinError::NoOwner); // the third page, or nothing of T1-269
                true
            },
        },
    ];
    let setup = || {
        let world = two_mappings(1, Kind::V2);
        world.memory.in_pieces_of(1);
        world
    };
    assert!(all_pairs(setup, || Request::map(16, 3), &checks) > 30);
}

#[test]
fn update() {
    let checks = [
        request!("T1-260", EFAULT, r, r.there = 31),
        request!("T1-261", EINVAL, r, r.argsz = 31),
        request!("T1-262", EOVERFLOW, r, (r.native_max, r.vaddr) = (u32::MAX.into(), 1 << 32)),
        request!("T1-263", EINVAL, r, r.size = 0),
        request!("T1-264", EOVERFLOW, r, r.vaddr = !0xfff),
        request!("T1-265", EINVAL, r, r.flags = 7),
        request!("T1-266", EINVAL, r, r.size -= 1),
        request!("T1-404", 2, r, r.iova = AT - 64 * PAGE),
        request!("T1-404", EINVAL, r, r.size += PAGE),
        Check {
            rule: "T1-405",
            errno: 12,
            spoil: |_, world| {
                world.memory.call_as(9);
                world.memory.limit(3);
                true
            },
        },
    ];
    assert!(all_pairs(void, || Request::update(0, 4), &checks) > 15);
}

#[test]
fn unmap_with_bits() {
    let checks = [
        request!("T1-350", EFAULT, r, r.there = 23),
        request!("T1-351", EINVAL, r, r.argsz = 0),
        request!("T1-352", EINVAL, r, r.flags |= 6),
        request!("T1-353", EINVAL, r, r.argsz = 47),
        request!("T1-353", EFAULT, r, r.there = 47),
        request!("T1-353", EINVAL, r, r.data = TOP),
        request!("T1-353", EINVAL, r, r.bytes = 0),
        request!("T1-355", EOVERFLOW, r, {
            r.native_max = u32::MAX.into();
            r.iova |= 1 << 40;
        }),
        request!("T1-356", EINVAL, r, r.iova |= 1),
        request!("T1-358", EINVAL, r, r.size |= 1),
        request!("T1-359", EOVERFLOW, r, r.iova = !0xfff),
        Check {
            rule: "T1-360",
            errno: EINVAL,
            spoil: |_, world| world.container.stop_dirty_tracking().is_ok(),
        },
        request!("T1-361", EINVAL, r, r.iova |= PAGE),
        request!("T1-374", EFAULT, r, r.bitmap_there = 0),
    ];
    assert!(all_pairs(tracked, || Request::unmap_dirty(0, 4), &checks) > 20);
}

#[test]
fn invalidate() {
    let checks = [
        request!("T1-350", EFAULT, r, r.there = 23),
        request!("T1-351", EINVAL, r, r.argsz = 0),
        Check {
            rule: "T1-354",
            errno: 16,
            spoil: |_, world| world.container.attach_emulated(crate::route::GROUP).is_ok(),
        },
        request!("T1-355", EOVERFLOW, r, (r.native_max, r.size) = (u32::MAX.into(), 1 << 40)),
        request!("T1-356", EINVAL, r, r.iova |= 1),
        request!("T1-358", EINVAL, r, r.size = 0),
        request!("T1-359", EOVERFLOW, r, r.iova = !0xfff),
        request!("T1-361", EINVAL, r, r.size -= PAGE),
        Check {
            rule: "T1-401",
            errno: EINVAL,
            spoil: |_, world| Request::invalidate(0, 4).call(world) == Some(0),
        },
    ];
    let setup = || two_mappings(1, Kind::V2);
    assert!(all_pairs(setup, || Request::invalidate(0, 4), &checks) > 15);
}

#[test]
fn unmap_all() {
    let checks = [
        request!("T1-350", EFAULT, r, r.there = 0),
        request!("T1-351", EINVAL, r, r.argsz = 23),
        request!("T1-355", EOVERFLOW, r, (r.native_max, r.size) = (u32::MAX.into(), 1 << 40)),
        request!("T1-357", EINVAL, r, r.iova = AT),
        Check {
            rule: "T1-383",
            errno: 5,
            spoil: |_, world| {
                world.units[0].0.refuse(0, iommu::sim::Refusal::ONCE);
                true
            },
        },
    ];
    let all = || Request::unmap(0, 0).but(|r| (r.flags, r.iova) = (2, 0));
    let typed = all_pairs(|| two_mappings(1, Kind::V2), all, &checks);
    assert_eq!(typed, 1, "nothing else that is wrong can be said in types");
}

#[test]
fn dirty_get() {
    let checks = [
        request!("T1-417", EFAULT, r, r.there = 7),
        request!("T1-418", EINVAL, r, r.argsz = 7),
        request!("T1-419", EINVAL, r, r.flags |= 2),
        request!("T1-420", EINVAL, r, r.argsz = 47),
        request!("T1-421", EFAULT, r, r.there = 47),
        request!("T1-422", EOVERFLOW, r, {
            r.native_max = u32::MAX.into();
            r.iova |= 1 << 40;
        }),
        request!("T1-423", EINVAL, r, r.size = 0),
        request!("T1-424", EOVERFLOW, r, r.iova = !0xfff),
        request!("T1-425", EINVAL, r, r.data = TOP),
        request!("T1-426", EINVAL, r, r.bytes = 0),
        request!("T1-427", EINVAL, r, r.pgsize = 2 * PAGE),
        request!("T1-428", EINVAL, r, r.iova |= 1),
        Check {
            rule: "T1-429",
            errno: EINVAL,
            spoil: |_, world| world.container.stop_dirty_tracking().is_ok(),
        },
        request!("T1-430", EINVAL, r, r.iova |= PAGE),
        request!("T1-447", EFAULT, r, r.bitmap_there = 0),
    ];
    assert!(all_pairs(tracked, || Request::get(0, 4), &checks) > 30);
    // T1-416 is first of all.
    for check in &checks {
        let (world, mut request) = (first_kind(), Request::get(0, 4));
        assert!((check.spoil)(&mut request, tracked()));
        assert_eq!(request.ask(world), 13, "{}", check.rule);
        assert!(request.call(world).is_none_or(|errno| errno == 13), "{}", check.rule);
    }
}
