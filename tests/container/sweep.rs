//! Failure sweeps: every operation of the container, with the n-th allocation, the n-th request to
//! each unit, the n-th pin refused, and with each limit of locked memory, until none is met. After a
//! failure everything is as it was (rules T1-169, T1-283, T1-721, T1-722), and a retry works.
//!
//! Unmaps and detaches that a unit refuses are not among them: what is gone is gone
//! (`shortfalls.rs`, and `attach.rs` for groups that the unit does not let go).

use std::cell::RefCell;
use std::ops::Deref;

use iommu::container::*;
use iommu::group::Ownership;
use iommu::prot::Prot;
use iommu::sim::Refusal;

use crate::fixture::{PAGE, World};

/// Where four mappings are: 70 scattered pages, a page, a void page (if any is void), a page that
/// is pinned.
const AT: u64 = 0x10_0000;
const LARGE: u64 = 70;
const SECOND: u64 = 0x40_0000;
const THIRD: u64 = 0x50_0000;
const HELD: u64 = 0x60_0000;
const FREE: u64 = 0x80_0000;
const EMULATED: EmulatedId = EmulatedId(1);

/// What refuses.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Allocation,
    Request(usize),
    Pin,
    Limit,
}

const KINDS: [Kind; 5] =
    [Kind::Allocation, Kind::Request(0), Kind::Request(1), Kind::Pin, Kind::Limit];

impl Kind {
    fn arm(self, world: &World, n: u64) {
        match self {
            Self::Allocation => world.pool.refuse_nth(n, true),
            Self::Request(unit) => world.units[unit].0.refuse(n, Refusal::ONCE),
            Self::Pin => world.memory.refuse(n, PinError::Fault),
            Self::Limit => {
                let MemoryOwner(caller) = world.memory.caller();
                world.memory.limit(world.memory.charged_to(caller) + n);
            }
        }
    }

    /// How many refusals there were; for the limit that is not known.
    fn disarm(world: &World) -> u64 {
        world.memory.limit(1 << 40);
        let units: u64 = world.units.iter().map(|(sim, _)| sim.refuse_none()).sum();
        world.pool.refuse_none() + world.memory.refuse_none() + units
    }
}

type Setup = fn() -> World;

/// An operation: its name, what there is before, what it does (the errno if it fails), and by what
/// it can fail.
struct Row {
    name: &'static str,
    setup: Setup,
    call: fn(&Ready) -> Result<(), i32>,
    fails_by: &'static [&'static str],
}

/// A world, and a group behind each unit that may come.
struct Ready {
    world: World,
    groups: [RefCell<Option<Ownership>>; 2],
}

impl Deref for Ready {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl Ready {
    fn new(world: World) -> Self {
        let groups = [0, 1].map(|unit| RefCell::new(Some(world.group(unit).0)));
        Self { world, groups }
    }
}

fn map(world: &World, iova: u64, pages: u64) -> Result<(), i32> {
    let request = MapDma { iova, vaddr: iova, size: pages * PAGE, prot: Prot::RW };
    world.container.map_dma(&request).map_err(MapDmaError::errno)
}

fn mapped(world: World) -> World {
    world.memory.scatter();
    for (iova, pages) in [(AT, LARGE), (SECOND, 1), (THIRD, 1), (HELD, 1)] {
        map(&world, iova, pages).unwrap();
    }
    world
}

/// Nothing at all.
fn empty() -> World {
    World::new(2)
}

/// Four mappings, no group.
fn bare() -> World {
    mapped(World::new(2))
}

/// A group at each unit, four mappings, nothing else.
fn plain() -> World {
    let world = World::new(2);
    world.attached(0);
    world.attached(1);
    mapped(world)
}

/// One unit's group.
fn half() -> World {
    let world = World::new(2);
    world.attached(0);
    mapped(world)
}

/// Emulated devices beside: one page is pinned twice over.
fn emulated() -> World {
    let world = plain();
    world.container.register_device(crate::pins::nobody()).unwrap();
    world.container.attach_emulated(EMULATED).unwrap();
    world.container.pin_pages(EMULATED, HELD, Prot::RW, &mut [None]).unwrap();
    world
}

/// The same without real groups: pins are charged on their own.
fn only_emulated() -> World {
    let world = bare();
    world.container.register_device(crate::pins::nobody()).unwrap();
    world.container.attach_emulated(EMULATED).unwrap();
    world.container.pin_pages(EMULATED, HELD, Prot::RW, &mut [None]).unwrap();
    world
}

fn tracked() -> World {
    let world = plain();
    world.container.start_dirty_tracking().unwrap();
    world
}

fn void() -> World {
    let world = plain();
    let request = UnmapDma::Range { iova: THIRD, size: PAGE };
    world.container.invalidate_vaddr(&request).unwrap();
    world
}

/// The void mapping is asked for by another owner.
fn void_of_another() -> World {
    let world = void();
    world.memory.call_as(9);
    world
}

fn attach(ready: &Ready, unit: usize) -> Result<(), i32> {
    let ownership = ready.groups[unit].take().expect("it has not come yet");
    ready.container.attach_group(ownership).map_err(|refused| {
        ready.groups[unit].replace(Some(refused.ownership));
        refused.error.errno()
    })
}

fn pin(world: &World, member: EmulatedId) -> Result<(), i32> {
    let pinned = world.container.pin_pages(member, AT, Prot::RW, &mut [None; 40]);
    pinned.map_err(PinPagesError::errno)
}

fn update(world: &Ready) -> Result<(), i32> {
    let request = UpdateVaddr { iova: THIRD, vaddr: FREE, size: PAGE };
    world.container.update_vaddr(&request).map_err(UpdateVaddrError::errno)
}

const DIRTY: DirtyRange = DirtyRange { iova: AT, size: LARGE * PAGE, page_size: PAGE };

fn rows() -> Vec<Row> {
    let row = |name, setup, call, fails_by| Row { name, setup, call, fails_by };
    vec![
        row("first attach", bare, |w| attach(w, 0), &["Allocation", "Request(0)", "Pin", "Limit"]),
        row(
            "first attach, pins",
            only_emulated,
            |w| attach(w, 1),
            &["Allocation", "Request(1)", "Pin", "Limit"],
        ),
        row(
            "attach to a domain that is there",
            plain,
            |w| attach(w, 0),
            &["Allocation", "Request(0)"],
        ),
        row("attach at the other unit", half, |w| attach(w, 1), &["Allocation", "Request(1)"]),
        row(
            "attach_emulated",
            plain,
            |w| w.container.attach_emulated(EMULATED).map_err(AttachGroupError::errno),
            &["Allocation"],
        ),
        row("map without groups", empty, |w| map(w, FREE, LARGE), &["Allocation"]),
        row(
            "map",
            plain,
            |w| map(w, FREE, LARGE),
            &["Allocation", "Request(0)", "Request(1)", "Pin", "Limit"],
        ),
        row(
            "map while tracking",
            tracked,
            |w| map(w, FREE, LARGE),
            &["Allocation", "Request(0)", "Request(1)", "Pin", "Limit"],
        ),
        row("start of dirty tracking", plain, |w| start(w), &["Allocation"]),
        row("pin", emulated, |w| pin(w, EMULATED), &["Allocation", "Pin"]),
        row(
            "pin without groups",
            only_emulated,
            |w| pin(w, EMULATED),
            &["Allocation", "Pin", "Limit"],
        ),
        row(
            "register_device",
            plain,
            |w| w.container.register_device(crate::pins::nobody()).map(drop).map_err(|_| 12),
            &["Allocation"],
        ),
        row("update", void, update, &[]),
        row("update by another owner", void_of_another, update, &["Limit"]),
        row(
            "info",
            plain,
            |w| w.container.info().map(drop).map_err(|error| error.errno()),
            &["Allocation"],
        ),
        row(
            "refresh_windows",
            plain,
            |w| w.container.refresh_windows().map_err(|error| error.errno()),
            &[], // the digest has read the list; see `shortfalls`
        ),
        row(
            "invalidate",
            plain,
            |w| {
                let void = w.container.invalidate_vaddr(&UnmapDma::All);
                void.map(drop).map_err(|failed| failed.errno())
            },
            &[],
        ),
        row(
            "read_dirty",
            tracked,
            |w| w.container.read_dirty(&DIRTY, &mut [0; 2][..]).map_err(DirtyError::errno),
            &[],
        ),
        row(
            "stop of dirty tracking",
            tracked,
            |w| w.container.stop_dirty_tracking().map_err(DirtyError::errno),
            &[],
        ),
        row(
            "dma_write and dma_read",
            tracked,
            |w| {
                w.container.dma_write(AT, &[1; 0x2001]).map_err(DmaCopyError::errno)?;
                w.container.dma_read(AT, &mut [0; 0x2001]).map_err(DmaCopyError::errno)
            },
            &[],
        ),
        row(
            "unpin",
            emulated,
            |w| if w.container.unpin_pages(HELD, 1) == 1 { Ok(()) } else { Err(0) },
            &[],
        ),
    ]
}

fn start(world: &World) -> Result<(), i32> {
    world.container.start_dirty_tracking().map_err(DirtyError::errno)
}

/// What must be equal, with what only the container knows.
fn state(world: &World) -> impl PartialEq + std::fmt::Debug + use<> {
    let container = &world.container;
    let places: Vec<_> = world.units.iter().map(|(sim, _)| places(&sim.digest())).collect();
    let owners = [0, 9].map(|owner| world.memory.charged_to(owner));
    (world.content(), places, owners, container.invalid_vaddrs(), container.is_tracking())
}

type Digest = [(iommu::driver::EndpointId, iommu::driver::DomainId, Vec<iommu::driver::Run>)];

/// How many endpoints are on paging domains: a refused attach leaves its endpoint blocked.
fn places(digest: &Digest) -> usize {
    digest.iter().filter(|(_, place, _)| place.0 != 0).count()
}

/// The dirty bits, which reading clears: to be asked last.
fn bits(world: &World) -> Option<Vec<u64>> {
    let mut words = vec![0; 2];
    world.container.read_dirty(&DIRTY, &mut words[..]).ok().map(|()| words)
}

#[test]
fn every_operation_fails_at_every_point_and_changes_nothing() {
    let mut wrong = vec![];
    for Row { name, setup, call, fails_by } in rows() {
        for kind in KINDS {
            let mut failures = 0;
            for n in 0.. {
                let here = format!("{name}, {kind:?}, {n}");
                let world = Ready::new(setup());
                let before = state(&world);
                kind.arm(&world, n);
                let result = call(&world);
                let met = Kind::disarm(&world);
                let Err(errno) = result else {
                    assert_eq!(met, 0, "a failure was passed over: {here}");
                    break;
                };
                failures += 1;
                assert!([5, 12, 14].contains(&errno), "{here}: errno {errno}");
                assert_eq!(state(&world), before, "{here}");
                world.container.check_invariants().expect(&here);
                assert_eq!(call(&world), Ok(()), "the retry: {here}");
                world.container.check_invariants().expect(&here);
                if name == "map while tracking" {
                    assert_eq!(bits(&world), bits(&setup()), "{here}");
                }
            }
            if fails_by.contains(&format!("{kind:?}").as_str()) != (failures > 0) {
                wrong.push(format!("{name} by {kind:?}: {failures}"));
            }
        }
    }
    assert!(wrong.is_empty(), "how many failures, against the table: {wrong:#?}");
}

/// What must work without memory: removals of every kind, and what ends something.
#[test]
fn what_takes_away_needs_no_memory() {
    type Step = fn(&World) -> bool;
    let steps: [(&str, Setup, Step); 7] = [
        ("unmap", plain, |w| {
            let request = UnmapDma::Range { iova: AT, size: LARGE * PAGE };
            w.container.unmap_dma(&request).is_ok_and(|gone| gone.bytes == LARGE * PAGE)
        }),
        ("unmap with bits", tracked, |w| {
            w.container.unmap_dma_dirty(&DIRTY, &mut [0; 2][..]).is_ok()
        }),
        ("unmap of everything", plain, |w| w.container.unmap_dma(&UnmapDma::All).is_ok()),
        ("unpin", emulated, |w| w.container.unpin_pages(HELD, 1) == 1),
        ("detach of an emulated group", emulated, |w| w.container.detach_emulated(EMULATED)),
        ("stop", tracked, |w| w.container.stop_dirty_tracking().is_ok()),
        ("invalidate", plain, |w| w.container.invalidate_vaddr(&UnmapDma::All).is_ok()),
    ];
    for (name, setup, step) in steps {
        let world = setup();
        world.pool.refuse_nth(0, true);
        assert!(step(&world), "{name}");
        assert_eq!(world.pool.refuse_none(), 0, "{name} asked for memory");
        world.container.check_invariants().expect(name);
    }
}
