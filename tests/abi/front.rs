//! A container file with real groups, as a host writes it, and what SET_IOMMU and joining answer
//! (rules T1-060 to T1-069, T1-150 to T1-163), by the typed call and through the file.

use std::cell::{Cell, OnceCell, RefCell};
use std::ops::Deref;

use iommu::addr::{Iova, IovaRange, PageSizes};
use iommu::container::abi::{Errno, FrontEnd, ioctl, request};
use iommu::container::*;
use iommu::device::DeviceId;
use iommu::error::{AttachError, ClaimError};
use iommu::group::{Group, GroupId, OwnerId, Ownership};
use iommu::prot::Prot;
use iommu::reserved::{ReservedKind, ReservedRegion, ReservedRegions};
use iommu::sim::{Refusal, SimConfig};

use crate::fixture::{PAGE, Script, World};
use crate::memory::User;
use crate::route::{AT, GROUP, Request};

/// A container file: groups that wait for a backend, then a backend that has them.
struct File<'a> {
    world: &'a World,
    options: Options,
    waiting: RefCell<Vec<Ownership>>,
    attached: RefCell<Vec<GroupId>>,
    backend: OnceCell<Container<&'static Script>>,
    opened: Cell<u32>,
}

impl<'a> File<'a> {
    fn new(world: &'a World, options: Options) -> Self {
        Self {
            world,
            options,
            waiting: RefCell::default(),
            attached: RefCell::default(),
            backend: OnceCell::new(),
            opened: Cell::new(0),
        }
    }

    /// A group file joins (rule T1-065): `ownership` is the claim.
    fn join(&self, ownership: Ownership) -> Result<(), Errno> {
        let id = ownership.group().id();
        if let Some(container) = self.backend.get() {
            container.attach_group(ownership).map_err(|refused| refused.error)?;
            self.attached.borrow_mut().push(id);
        } else {
            self.waiting.borrow_mut().push(ownership);
        }
        Ok(())
    }
}

impl FrontEnd for File<'_> {
    type Backend = Container<&'static Script>;

    fn backend(&self) -> Option<impl Deref<Target = Self::Backend>> {
        self.backend.get()
    }

    fn has_groups(&self) -> bool {
        !self.waiting.borrow().is_empty() || !self.attached.borrow().is_empty()
    }

    fn open(&self, kind: Kind) -> Result<(), Errno> {
        self.opened.set(self.opened.get() + 1);
        let options = Options { kind, ..self.options };
        let container = Container::new(self.world.pool, self.world.memory, options);
        let (mut waiting, mut attached) = (self.waiting.borrow_mut(), vec![]);
        while let Some(ownership) = waiting.pop() {
            let id = ownership.group().id();
            let Err(refused) = container.attach_group(ownership) else {
                attached.push(id);
                continue;
            };
            waiting.push(refused.ownership);
            for id in attached.into_iter().rev() {
                waiting.extend(container.detach_group(id));
            }
            return Err(refused.error.into());
        }
        attached.reverse();
        self.attached.replace(attached);
        self.backend.set(container).map_err(|_| Errno::INVAL)
    }
}

fn set_iommu(file: &File, number: u64) -> Result<i32, Errno> {
    ioctl(file, &User::new(0), request::SET_IOMMU, number)
}

const SAFE: Options = Options { kind: Kind::V2, allow_unsafe_interrupts: false, mapping_limit: 4 };
const UNSAFE: Options = Options { allow_unsafe_interrupts: true, ..SAFE };

#[test]
fn a_file_is_opened_used_and_closed() {
    // T1-060, T1-062, T1-064, T1-067, T1-069
    for (number, kind) in [(1, Kind::V1), (3, Kind::V2)] {
        let world = World::new(1);
        let file = File::new(&world, UNSAFE);
        assert_eq!(set_iommu(&file, number), Err(Errno::INVAL), "no group");
        let (ownership, endpoint) = world.group(0);
        file.join(ownership).unwrap();
        let info = ioctl(&file, &User::new(0), request::IOMMU_GET_INFO, 0);
        assert_eq!(info, Err(Errno::INVAL), "T1-069: no backend");
        assert_eq!(set_iommu(&file, 6), Err(Errno::NODEV), "nesting");
        assert_eq!(set_iommu(&file, 9), Err(Errno::INVAL), "T1-064: no kind");
        assert_eq!(file.opened.get(), 0);
        assert_eq!(set_iommu(&file, number), Ok(0));
        assert_eq!(set_iommu(&file, number), Err(Errno::INVAL), "set already");
        let container = file.backend.get().unwrap();
        assert_eq!((container.kind(), container.group_count()), (kind, 1));
        let map = MapDma { iova: AT, vaddr: AT, size: PAGE, prot: Prot::RW };
        container.map_dma(&map).unwrap();
        assert!(world.reaches(0, endpoint, AT).is_some());
        drop(file);
        assert_eq!(world.reaches(0, endpoint, AT), None);
    }
}

/// A region that no device may use.
fn reserving(first: u64, last: u64) -> SimConfig {
    let mut reserved = ReservedRegions::new();
    let range = IovaRange::new(Iova(first), Iova(last)).unwrap();
    reserved.add(ReservedRegion { range, kind: ReservedKind::Msi }).unwrap();
    SimConfig { reserved, ..SimConfig::default() }
}

/// Rule, what is wrong, the unit of the group that is refused, options, what else happens, errno.
type Row = (&'static str, &'static str, SimConfig, Options, fn(&World, u32), i32);

fn refusals() -> Vec<Row> {
    let plain = SimConfig::default;
    let nothing: fn(&World, u32) = |_, _| ();
    let no_domain = SimConfig { domains: 0, ..plain() };
    vec![
        ("T1-152", "no entry", plain(), UNSAFE, |w, _| w.pool.refuse_nth(0, true), 12),
        ("T1-154", "no device", plain(), UNSAFE, gone, 19),
        ("T1-156", "interrupts", plain(), SAFE, nothing, 1),
        ("T1-159", "a hard error", plain(), UNSAFE, unit_refuses, 5),
        ("T1-160", "no domain id", no_domain, UNSAFE, nothing, 28),
        ("T1-160", "no entry", plain(), UNSAFE, |w, _| w.pool.refuse_nth(1, true), 12),
        ("T1-163", "not even a fresh domain", plain(), UNSAFE, incompatible, 124),
        ("T1-161", "all is reserved", reserving(0, u64::MAX), UNSAFE, nothing, 22),
    ]
}

fn gone(world: &World, endpoint: u32) {
    world.registry.remove_device(DeviceId(endpoint.into())).unwrap();
}

fn refuses(world: &World, error: AttachError) {
    let refusal = Refusal { error, left: iommu::driver::Left::Unchanged, ..Refusal::ONCE };
    world.units[1].0.refuse(0, refusal);
}

fn unit_refuses(world: &World, _: u32) {
    refuses(world, AttachError::Io);
}

/// EMEDIUMTYPE of the domain that was allocated last passes through (W-23).
fn incompatible(world: &World, _: u32) {
    refuses(world, AttachError::Incompatible);
}

/// T1-062: the errno of the attach, every group back, no backend; the typed call says the same.
#[test]
fn a_group_that_is_refused_by_the_open() {
    for (rule, what, config, options, spoil, errno) in refusals() {
        let here = format!("{rule}, {what}");
        for through_file in [false, true] {
            let world = World::open(vec![SimConfig::default(), config.clone()], options);
            let (ownership, endpoint) = world.group(1);
            let (other, beside) = world.group(0);
            let before = world.digest();
            if !through_file {
                spoil(&world, endpoint);
                let refused = world.container.attach_group(ownership).unwrap_err();
                assert_eq!(refused.error.errno(), errno, "typed: {here}");
                world.pool.refuse_none();
                continue;
            }
            let file = File::new(&world, options);
            file.join(ownership).unwrap();
            // The group that joined last is attached first, unless that is what is refused.
            if !["T1-156", "T1-152", "T1-160"].contains(&rule) {
                file.join(other).unwrap();
            }
            let joined = file.waiting.borrow().len();
            spoil(&world, endpoint);
            assert_eq!(set_iommu(&file, 3), Err(Errno(errno)), "{here}");
            world.pool.refuse_none();
            assert!(file.backend.get().is_none());
            assert_eq!(file.waiting.borrow().len(), joined, "{here}");
            assert_eq!(world.reaches(0, beside, AT), None);
            if rule != "T1-154" {
                assert_eq!(world.digest(), before, "{here}");
            }
        }
    }
}

/// What mappings forbid: a group joins a file that has a backend.
#[test]
fn a_group_that_is_refused_later() {
    let coarse =
        SimConfig { page_sizes: PageSizes::from_bits(1 << 16).unwrap(), ..SimConfig::default() };
    let narrow = SimConfig {
        aperture: IovaRange::new(Iova(0), Iova(AT - 1)).unwrap(),
        ..SimConfig::default()
    };
    let nothing: fn(&Container<&Script>) = |_| ();
    let empty: fn(&Container<&Script>) = |container| {
        container.unmap_dma(&UnmapDma::All).unwrap();
    };
    let void: fn(&Container<&Script>) = |container| {
        container.invalidate_vaddr(&UnmapDma::All).unwrap();
    };
    let rows = [
        ("T1-150", SimConfig::default(), void, 16),
        ("T1-157", reserving(AT, AT + PAGE - 1), nothing, 22),
        ("T1-158", reserving(0, (1 << 48) - 1), empty, 22),
        ("T1-161", narrow, nothing, 22),
        ("T1-162", coarse, nothing, 22),
    ];
    for (rule, config, change, errno) in rows {
        let world = World::with(vec![SimConfig::default(), config]);
        let file = File::new(&world, UNSAFE);
        file.join(world.group(0).0).unwrap();
        set_iommu(&file, 3).unwrap();
        let container = file.backend.get().unwrap();
        let map = MapDma { iova: AT, vaddr: AT, size: PAGE, prot: Prot::RW };
        container.map_dma(&map).unwrap();
        change(container);
        let (ownership, _) = world.group(1);
        let before = world.digest();
        let refused = container.attach_group(ownership).unwrap_err();
        assert_eq!(refused.error.errno(), errno, "{rule}");
        assert_eq!(file.join(refused.ownership), Err(Errno(errno)), "{rule}");
        assert_eq!((container.group_count(), world.digest()), (1, before), "{rule}");
    }
}

/// T1-065: a group that has an owner; T1-151: a group that is there. The second can only be said of
/// emulated groups: a claim can be given away once.
#[test]
fn a_group_that_is_taken() {
    let world = World::new(1);
    let (ownership, _) = world.group(0);
    let again = Group::claim(ownership.group(), OwnerId(2)).unwrap_err();
    assert_eq!((again, Errno::from(again)), (ClaimError::NotPermitted, Errno::PERM));
    world.container.attach_emulated(GROUP).unwrap();
    let again = world.container.attach_emulated(GROUP).unwrap_err();
    assert_eq!((again.errno(), Errno::from(again)), (22, Errno::INVAL));
    // T1-354 is about these: no new addresses while one is there.
    assert_eq!(Request::invalidate(0, 1).ask(&world), 16);
}
