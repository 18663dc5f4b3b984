//! Random sequences of everything that changes who reaches what, against a model of plain lists.
//!
//! After every step each endpoint tries to read and write each page of a small address space, on
//! both units, and must get exactly where the model says. Requests are refused now and then: then
//! the call fails and nothing has changed.

use std::collections::BTreeMap;

use iommu::addr::{IovaRange, PhysAddr};
use iommu::device::DeviceId;
use iommu::driver::EndpointId;
use iommu::error::{AttachError, MapError, ProbeError, UnmapError};
use iommu::fault::Access;
use iommu::group::{
    Attachment, DmaUse, Group, GroupId, IdentityAttachment, OwnerId, Ownership, Refused,
};
use iommu::instance::Instance;
use iommu::pool::Shared;
use iommu::prot::Prot;
use iommu::registry::DeviceInfo;
use iommu::sim::{Refusal, Sim};
use proptest::prelude::*;

use crate::fixture::{World, pages};

/// The devices that may be there: unit, endpoints, and which other device they can't leave alone.
const DEVICES: [(usize, &[u32], Option<u64>); 6] = [
    (0, &[8], None),
    (0, &[9, 10], None),
    (0, &[10], None),
    (0, &[11], Some(0)),
    (1, &[8], None),
    (1, &[9], None),
];

/// The unit of each domain.
const DOMAINS: [usize; 4] = [0, 0, 0, 1];

/// Pages that can be mapped, from [`page`] 0 on.
const PAGES: u64 = 6;

fn page(n: u64, count: u64) -> IovaRange {
    pages(0x10_0000 + n * 0x1000, count)
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Add(usize),
    Remove(usize),
    Claim(usize),
    Release(usize),
    Attach(usize, usize),
    AttachIdentity(usize),
    Detach(usize),
    Use(usize),
    EndUse(usize),
    Map { domain: usize, first: u64, count: u64, phys: u64, write: bool },
    Unmap { domain: usize, first: u64, count: u64, deferred: bool },
}

fn steps() -> impl Strategy<Value = Vec<(Step, Option<u64>)>> {
    let (device, domain) = (0..DEVICES.len(), 0..DOMAINS.len());
    let range = (0..DOMAINS.len(), 0..PAGES, 1..4_u64);
    let step = prop_oneof![
        4 => device.clone().prop_map(Step::Add),
        1 => device.clone().prop_map(Step::Remove),
        2 => device.clone().prop_map(Step::Claim),
        1 => device.clone().prop_map(Step::Release),
        4 => (device.clone(), domain).prop_map(|(device, domain)| Step::Attach(device, domain)),
        1 => device.clone().prop_map(Step::AttachIdentity),
        1 => device.clone().prop_map(Step::Detach),
        1 => device.clone().prop_map(Step::Use),
        1 => device.prop_map(Step::EndUse),
        5 => (range.clone(), 0..64_u64, any::<bool>()).prop_map(
            |((domain, first, count), phys, write)| Step::Map { domain, first, count, phys, write }
        ),
        3 => (range, any::<bool>()).prop_map(|((domain, first, count), deferred)| {
            Step::Unmap { domain, first, count, deferred }
        }),
    ];
    let refusal = prop_oneof![3 => Just(None), 1 => (0..3_u64).prop_map(Some)];
    prop::collection::vec((step, refusal), 1..40)
}

/// The right over a group that the test holds.
enum Right {
    Owned(Ownership),
    Attached(Attachment, usize),
    Identity(IdentityAttachment),
    Used(Vec<DmaUse>),
}

/// One mapping of the model: first page, how many, first page frame, writable.
type Mapping = (u64, u64, u64, bool);

struct Run {
    world: World,
    sims: [Sim; 2],
    units: [Shared<Instance>; 2],
    domains: Vec<Shared<iommu::domain::PagingDomain>>,
    groups: BTreeMap<usize, Shared<Group>>,
    rights: BTreeMap<GroupId, Right>,
    mapped: [Vec<Mapping>; 4],
}

impl Run {
    fn new() -> Self {
        let world = World::new();
        let second = Sim::new();
        let units = [world.instance.clone(), world.registry.add_instance(second.driver()).unwrap()];
        let domains =
            DOMAINS.map(|unit| iommu::domain::PagingDomain::new(&units[unit], world.pool).unwrap());
        Self {
            sims: [world.sim.clone(), second],
            units,
            domains: domains.into(),
            groups: BTreeMap::new(),
            rights: BTreeMap::new(),
            mapped: Default::default(),
            world,
        }
    }

    /// Does a step; whether it worked. Panics where it should have ended otherwise.
    fn step(&mut self, step: Step, met: impl Fn() -> bool) {
        match step {
            Step::Add(device) => self.add(device, met),
            Step::Remove(device) => self.remove(device),
            Step::Claim(device) => {
                let Some(group) = self.groups.get(&device) else { return };
                let claimed = Group::claim(group, OwnerId(device as u64));
                assert_eq!(claimed.is_err(), self.rights.contains_key(&group.id()));
                if let Ok(ownership) = claimed {
                    self.rights.insert(group.id(), Right::Owned(ownership));
                }
            }
            Step::Release(device) => {
                if let Some(id) = self.group(device) {
                    self.rights.remove(&id);
                }
            }
            Step::Attach(device, domain) => self.attach(device, domain, met),
            Step::AttachIdentity(device) => {
                let Some(id) = self.group(device) else { return };
                match self.rights.remove(&id) {
                    Some(Right::Owned(ownership)) => match ownership.attach_identity() {
                        Ok(attached) => drop(self.rights.insert(id, Right::Identity(attached))),
                        Err(Refused { error, ownership }) => {
                            assert!(met() && error == AttachError::Io, "{error}");
                            self.rights.insert(id, Right::Owned(ownership));
                        }
                    },
                    Some(other) => drop(self.rights.insert(id, other)),
                    None => {}
                }
            }
            Step::Detach(device) => {
                let Some(id) = self.group(device) else { return };
                let back = match self.rights.remove(&id) {
                    Some(Right::Attached(attached, _)) => Right::Owned(attached.detach()),
                    Some(Right::Identity(attached)) => Right::Owned(attached.detach()),
                    Some(other) => other,
                    None => return,
                };
                self.rights.insert(id, back);
            }
            Step::Use(device) => {
                let Some(group) = self.groups.get(&device) else { return };
                match (Group::use_default(group), self.rights.get_mut(&group.id())) {
                    (Ok(used), Some(Right::Used(uses))) => uses.push(used),
                    (Ok(used), None) => {
                        self.rights.insert(group.id(), Right::Used(vec![used]));
                    }
                    (Err(error), Some(Right::Used(_)) | None) => {
                        assert!(met(), "{error}");
                    }
                    (used, Some(_)) => assert_eq!(used.unwrap_err().errno(), 16),
                }
            }
            Step::EndUse(device) => {
                let Some(id) = self.group(device) else { return };
                if let Some(Right::Used(uses)) = self.rights.get_mut(&id) {
                    uses.pop();
                    if uses.is_empty() {
                        self.rights.remove(&id);
                    }
                }
            }
            Step::Map { domain, first, count, phys, write } => {
                let prot = if write { Prot::RW } else { Prot::READ };
                let result =
                    self.domains[domain].map(page(first, count), PhysAddr(phys << 12), prot);
                let overlap = self.overlapping(domain, first, count).next().is_some();
                match result {
                    Ok(()) => {
                        assert!(!overlap);
                        self.mapped[domain].push((first, count, phys, write));
                    }
                    Err(MapError::Exists) => assert!(overlap),
                    Err(error) => assert!(met() && error == MapError::Io, "{error}"),
                }
            }
            Step::Unmap { domain, first, count, deferred } => {
                let result = if deferred {
                    let mut unmaps = self.domains[domain].defer_unmaps();
                    unmaps.unmap(page(first, count)).and_then(|_| unmaps.sync())
                } else {
                    self.domains[domain].unmap(page(first, count))
                };
                let inside = |m: &Mapping| m.0 >= first && m.0 + m.1 <= first + count;
                if self.overlapping(domain, first, count).all(inside) {
                    let gone: u64 = self.overlapping(domain, first, count).map(|m| m.1).sum();
                    assert_eq!(result, Ok(gone * 0x1000));
                    self.mapped[domain].retain(|mapping| !inside(mapping));
                } else {
                    assert_eq!(result, Err(UnmapError::InvalidArg));
                }
            }
        }
    }

    fn add(&mut self, device: usize, met: impl Fn() -> bool) {
        let (unit, ids, with) = DEVICES[device];
        let endpoints: Vec<_> = ids.iter().map(|id| EndpointId(*id)).collect();
        let with = with.filter(|other| self.groups.contains_key(&(*other as usize))).map(DeviceId);
        let info = DeviceInfo { id: DeviceId(device as u64), endpoints: &endpoints, with };
        match self.world.registry.add_device(&self.units[unit], &info) {
            Ok(group) => {
                let kin = self.groups.iter().find(|(other, _)| {
                    let (other_unit, other_ids, _) = DEVICES[**other];
                    let linked = with == Some(DeviceId(**other as u64));
                    other_unit == unit && (linked || other_ids.iter().any(|id| ids.contains(id)))
                });
                if let Some((_, kin)) = kin {
                    assert!(kin.ptr_eq(&group), "C-046");
                }
                assert!(self.groups.insert(device, group).is_none());
            }
            Err(ProbeError::Exists) => assert!(self.groups.contains_key(&device)),
            Err(error) => assert!(met() && error == ProbeError::Io, "{error}"),
        }
    }

    fn remove(&mut self, device: usize) {
        let removed = self.world.registry.remove_device(DeviceId(device as u64));
        let known = self.groups.remove(&device);
        assert_eq!(removed.is_ok(), known.is_some());
        let Some(group) = known else { return };
        if group.device_count() == 0 {
            self.rights.remove(&group.id()); // an owner without devices gives up
        }
    }

    fn attach(&mut self, device: usize, domain: usize, met: impl Fn() -> bool) {
        let Some(id) = self.group(device) else { return };
        let foreign = DOMAINS[domain] != DEVICES[device].0;
        let check = |error: AttachError| match error {
            AttachError::Incompatible => assert!(foreign),
            error => assert!(met() && error == AttachError::Io, "{error}"),
        };
        let to = &self.domains[domain];
        let right = match self.rights.remove(&id) {
            Some(Right::Owned(ownership)) => match ownership.attach(to) {
                Ok(attached) => Right::Attached(attached, domain),
                Err(Refused { error, ownership }) => {
                    check(error);
                    Right::Owned(ownership)
                }
            },
            Some(Right::Attached(mut attached, old)) => match attached.replace(to) {
                Ok(()) => Right::Attached(attached, domain),
                Err(error) => {
                    check(error);
                    Right::Attached(attached, old)
                }
            },
            Some(Right::Identity(attached)) => match attached.replace(to) {
                Ok(attached) => Right::Attached(attached, domain),
                Err((error, attached)) => {
                    check(error);
                    Right::Identity(attached)
                }
            },
            Some(other) => other,
            None => return,
        };
        assert!(!foreign || !matches!(right, Right::Attached(_, now) if now == domain));
        self.rights.insert(id, right);
    }

    fn group(&self, device: usize) -> Option<GroupId> {
        self.groups.get(&device).map(|group| group.id())
    }

    fn overlapping(&self, domain: usize, first: u64, count: u64) -> impl Iterator<Item = &Mapping> {
        self.mapped[domain].iter().filter(move |m| m.0 < first + count && first < m.0 + m.1)
    }

    /// Where the model says that an endpoint gets to.
    fn expected(&self, unit: usize, endpoint: u32, at: u64, write: bool) -> Option<PhysAddr> {
        let member = |device: &&usize| {
            DEVICES[**device].0 == unit && DEVICES[**device].1.contains(&endpoint)
        };
        let device = self.groups.keys().find(member)?;
        match self.rights.get(&self.group(*device)?)? {
            Right::Owned(_) | Right::Used(_) => None,
            Right::Identity(_) => Some(PhysAddr(page(at, 1).first().0)),
            Right::Attached(_, domain) => {
                let (first, _, phys, _) = self
                    .overlapping(*domain, at, 1)
                    .find(|(_, _, _, writable)| *writable || !write)?;
                Some(PhysAddr((phys + at - first) << 12))
            }
        }
    }

    fn check(&self) {
        for (unit, sim) in self.sims.iter().enumerate() {
            for endpoint in 8..12 {
                for (at, write) in (0..PAGES + 3).flat_map(|at| [(at, false), (at, true)]) {
                    let access = if write { Access::WRITE } else { Access::READ };
                    let got = sim.reach(EndpointId(endpoint), page(at, 1).first(), access).ok();
                    let expected = self.expected(unit, endpoint, at, write);
                    assert_eq!(got, expected, "unit {unit}, endpoint {endpoint}, page {at}");
                }
            }
        }
        for group in self.groups.values() {
            assert!(!group.is_poisoned());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn everybody_reaches_what_the_model_says_and_nothing_else(steps in steps()) {
        let mut run = Run::new();
        let empty = run.world.pool.usage();
        for (step, refusal) in steps {
            // What cannot fail can't be refused either: that poisons, and `attach.rs` is about it.
            let fallible = matches!(
                step,
                Step::Add(_) | Step::Attach(..) | Step::AttachIdentity(_) | Step::Use(_)
                    | Step::Map { .. }
            );
            let sims = run.sims.clone();
            if let Some(nth) = refusal.filter(|_| fallible) {
                sims.iter().for_each(|sim| sim.refuse(nth, Refusal::ONCE));
            }
            let met = std::cell::Cell::new(false);
            run.step(step, || {
                let now = sims.iter().map(Sim::refuse_none).sum::<u64>() > 0;
                met.replace(met.get() | now) | now
            });
            for sim in &sims {
                let _ = sim.refuse_none();
            }
            run.check();
        }
        // Everything can be taken apart in any order, and nothing is left.
        run.rights.clear();
        for device in 0..DEVICES.len() {
            run.remove(device);
        }
        run.check();
        let Run { world, domains, mapped, .. } = run;
        for (domain, mapped) in domains.iter().zip(mapped) {
            let bytes: u64 = mapped.iter().map(|mapping| mapping.1 * 0x1000).sum();
            prop_assert_eq!(domain.unmap(IovaRange::ALL), Ok(bytes));
            prop_assert_eq!(domain.endpoint_count(), 0);
        }
        // An empty record keeps one node for the next mapping; a domain is one, and frees it.
        let count = domains.len();
        prop_assert!(world.pool.usage().nodes <= empty.nodes + count);
        drop(domains);
        prop_assert_eq!(world.pool.usage().nodes, empty.nodes - count);
        prop_assert_eq!(world.registry.group_count(), 0);
    }
}
