//! Used ring and request replies: an input is a row of API calls, and lies of the device between.
//!
//! After each call, whatever the device did: its domains hold what our record says, or the group or
//! the instance is poisoned and DMA reaches nothing; the call looked at registers and clock a bounded
//! number of times; a failed map left the record as it was. In the end all memory is back, unless the
//! device never confirmed a reset; the fake panics when memory goes back under a running device, and
//! when it is sent to memory that is not there.

use iommu::addr::{Iova, IovaRange, PhysAddr};
use iommu::device::DeviceId;
use iommu::domain::{Chunk, PagingDomain, PendingMap, PendingUnmap};
use iommu::driver::{EndpointId, Health, Run};
use iommu::drivers::virtio_iommu::{Options, VirtioIommu};
use iommu::error::MapError;
use iommu::group::{Attachment, Group, OwnerId};
use iommu::instance::Instance;
use iommu::pool::{Pool, Shared};
use iommu::prot::Prot;
use iommu::registry::{DeviceInfo, Registry};
use iommu::virtio::transport::fake::{FakeConfig, FakeMachine, Lie};

use super::input::Input;

static POOL: Pool = Pool::heap();

/// The pages that calls are about: the first 32 of the space.
const PAGES: u64 = 32;
const PAGE: u64 = 0x1000;
/// Looks at the clock that one wait lasts.
const LOOKS: u64 = 200;
/// The bit of a page's number that makes a call one that nobody waits for.
const STARTED: u8 = 0x80;
const MEMBERS: [&[u32]; 2] = [&[8, 16], &[24]];

struct World {
    machine: FakeMachine,
    instance: Shared<Instance>,
    registry: Registry,
    domains: [Shared<PagingDomain>; 2],
    groups: [Shared<Group>; 2],
    /// Which domain each group is on.
    attached: [Option<(usize, Attachment)>; 2],
    /// Whether the device forged the ring while requests were out, so that an answer may be about
    /// another request: nobody can tell then what it maps.
    forged: bool,
    delay: bool,
    next_phys: u64,
    /// Started calls that nobody asked about to the end: in which domain, and where.
    started: Vec<(Started, usize, IovaRange)>,
    /// Whether they are asked about seldom.
    lazy: bool,
}

enum Started {
    Map(PendingMap),
    Unmap(PendingUnmap),
}

/// Plays the input.
pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let Some(mut world) = World::new(&mut input) else { return };
    let mut calls = 0;
    while !input.is_empty() && calls < 64 {
        calls += 1;
        let before = (world.instance.counters(), world.machine.register_accesses());
        let clock = world.machine.clock_ns();
        let started = world.started.len() as u64 + 1; // each may be waited for
        world.call(&mut input);
        let notifies = world.instance.counters().since(&before.0).notifies;
        let accesses = world.machine.register_accesses() - before.1;
        let looks = (world.machine.clock_ns() - clock) / PAGE_TICK;
        assert!(accesses <= 3 * notifies + LOOKS + 16, "{accesses} register accesses");
        assert!(
            looks <= (notifies + 2 + 2 * started) * (LOOKS + 2),
            "{looks} looks, {notifies} notifies"
        );
        world.check();
    }
    world.end();
}

const PAGE_TICK: u64 = 1000;

impl World {
    /// A machine as the first two bytes say, with two groups on the blocking domain.
    fn new(input: &mut Input<'_>) -> Option<Self> {
        let (shape, switches) = (input.below(4), input.u8());
        let size = [2, 8, 64, 256][shape];
        let delay = switches & 2 != 0;
        let machine = FakeMachine::new(FakeConfig {
            queue_sizes: [size, 16],
            reverse: switches & 1 != 0,
            delay: if delay { 3 + u32::from(switches >> 4) } else { 0 },
            tick_ns: PAGE_TICK,
            ..FakeConfig::default()
        });
        let options = Options {
            wait_limit_ns: LOOKS * PAGE_TICK,
            empty_new_domains: switches & 4 != 0,
            ..Options::default()
        };
        let unit = VirtioIommu::new(machine.clone(), machine.transport(), &POOL, options).ok()?;
        let registry = Registry::new(&POOL);
        let instance = registry.add_instance(unit).ok()?;
        let group = |n: usize| {
            let endpoints: Vec<_> = MEMBERS[n].iter().map(|id| EndpointId(*id)).collect();
            let info = DeviceInfo { id: DeviceId(n as u64), endpoints: &endpoints, with: None };
            registry.add_device(&instance, &info).expect("no lie yet")
        };
        let groups = [group(0), group(1)];
        let domain = || PagingDomain::new(&instance, &POOL).expect("no lie yet");
        let domains = [domain(), domain()];
        let (attached, next_phys) = ([None, None], 0x10_0000);
        Some(Self {
            machine,
            instance,
            registry,
            domains,
            groups,
            attached,
            forged: false,
            delay,
            next_phys,
            started: Vec::new(),
            lazy: switches & 8 != 0,
        })
    }

    /// Asks about everything that was started.
    fn poll(&mut self) {
        self.started.retain_mut(|(started, ..)| match started {
            Started::Map(map) => map.poll().is_none(),
            Started::Unmap(unmap) => unmap.poll().is_none(),
        });
    }

    fn call(&mut self, input: &mut Input<'_>) {
        if !self.lazy {
            self.poll();
        }
        match input.below(16) {
            0 => self.map(input),
            1 => {
                let on = input.below(2);
                let domain = &self.domains[on];
                let (range, started) = pages(input);
                if started {
                    let unmap = PagingDomain::start_unmap(domain, range).map(Started::Unmap);
                    self.started.extend(unmap.map(|unmap| (unmap, on, range)));
                } else {
                    let _ = domain.unmap(range);
                }
            }
            2 => self.attach(input),
            3 => self.attached[input.below(2)] = None,
            4 => {
                let (n, status) = (input.u8(), input.u8());
                // OK for nothing done can't be told from the truth; neither can a refusal of a
                // request that was done, below.
                self.machine.lie(n.into(), Lie::Status(status.max(1)));
            }
            5 => {
                let (n, status) = (input.u8(), input.u8());
                self.machine.lie(n.into(), Lie::StatusAfter(status.max(9)));
            }
            6 => {
                let (n, len) = (input.u8(), input.u32());
                self.machine.lie(n.into(), Lie::UsedLen(len));
            }
            7 => {
                let (n, id) = (input.u8(), input.u32());
                self.machine.lie(n.into(), Lie::UsedId(id));
            }
            8 => {
                let lies = [Lie::NoAnswer, Lie::NeedsReset, Lie::StatusNotWritten, Lie::Twice];
                let n = input.u8();
                self.machine.lie(n.into(), lies[input.below(4)]);
            }
            9 => {
                let (n, jump) = (input.u8(), input.u16());
                self.machine.lie(n.into(), Lie::UsedJump(jump));
            }
            10 => {
                let (n, at, bytes) = (input.u8(), input.u16(), input.array());
                self.forged |= self.delay;
                self.machine.lie(n.into(), Lie::RingWrite { at, bytes });
            }
            11 => {
                let (at, bytes) = (input.u16(), input.array());
                self.forged |= self.delay;
                self.machine.write_used_ring(0, at, bytes);
            }
            12 => self.machine.give_up(),
            13 => {
                self.poll();
                while self.instance.next_fault().is_some() {}
            }
            14 => self.machine.configure(|config| config.ignore_reset = true),
            _ => self.replug(),
        }
    }

    fn map(&mut self, input: &mut Input<'_>) {
        let on = input.below(2);
        let domain = &self.domains[on];
        let (first, count) = (input.u8(), input.below(8) as u64 + 1);
        let started = first & STARTED != 0;
        let first = u64::from(first) % PAGES;
        if started {
            let chunk = |n| Chunk { phys: PhysAddr(self.next_phys + 2 * PAGE * n), len: PAGE };
            let chunks: Vec<_> = (0..count.min(PAGES - first)).map(chunk).collect();
            self.next_phys += 2 * PAGE * count;
            let map = PagingDomain::start_map_chunks(domain, Iova(first * PAGE), &chunks, Prot::RW);
            let range =
                IovaRange::from_len(Iova(first * PAGE), chunks.len() as u64 * PAGE).unwrap();
            self.started.extend(map.map(|map| (Started::Map(map), on, range)));
            return;
        }
        let mut runs = Vec::new();
        for page in first..(first + count).min(PAGES) {
            let range = IovaRange::from_len(Iova(page * PAGE), PAGE).unwrap();
            runs.push(Run { range, phys: PhysAddr(self.next_phys), prot: Prot::RW });
            self.next_phys += 2 * PAGE;
        }
        let before = record(domain);
        let mapped = domain.map_runs(&runs);
        if mapped == Err(MapError::Unconfirmed) {
            assert_eq!(self.instance.health(), Health::Poisoned, "a unit that works confirms");
            let kept =
                runs.iter().all(|run| domain.iova_to_phys(run.range.first()) == Some(run.phys));
            assert!(kept, "what may be mapped stays in the record");
        } else if mapped.is_err() && self.started.is_empty() {
            assert_eq!(record(domain), before, "a failed map leaves the record as it was");
        }
    }

    fn attach(&mut self, input: &mut Input<'_>) {
        let (n, to) = (input.below(2), input.below(2));
        let domain = &self.domains[to];
        match &mut self.attached[n] {
            Some((on, attachment)) => {
                if attachment.replace(domain).is_ok() {
                    *on = to;
                }
            }
            place => {
                let Ok(owner) = Group::claim(&self.groups[n], OwnerId(1)) else { return };
                *place = owner.attach(domain).ok().map(|attachment| (to, attachment));
            }
        }
    }

    /// A device comes and goes: the only call that probes.
    fn replug(&self) {
        let info = DeviceInfo { id: DeviceId(9), endpoints: &[EndpointId(32)], with: None };
        if self.registry.add_device(&self.instance, &info).is_ok() {
            let _ = self.registry.remove_device(DeviceId(9));
        }
    }

    /// What every endpoint reaches is what the record says, or nothing.
    fn check(&self) {
        let records = [record(&self.domains[0]), record(&self.domains[1])];
        let poisoned = self.instance.health() == Health::Poisoned;
        if poisoned && !self.machine.status().is_empty() {
            return; // it ignored the reset: nobody can say what it does
        }
        for (n, members) in MEMBERS.iter().enumerate() {
            let on = self.attached[n].as_ref().map(|(on, _)| *on);
            for endpoint in *members {
                for page in 0..PAGES as usize {
                    let at = page as u64 * PAGE + 8;
                    let reached = self.machine.translate(EndpointId(*endpoint), at, true).ok();
                    if poisoned {
                        assert_eq!(reached, None, "DMA after the reset");
                    } else if self.forged {
                        // No more can be said than that it is alive.
                    } else if self.groups[n].is_poisoned() {
                        // The device refused every move: it is where it was, and still obeys UNMAP.
                        let known = records.iter().any(|record| reached == record[page]);
                        assert!(reached.is_none() || known, "endpoint {endpoint} at {at:#x}");
                    } else {
                        let wanted = on.and_then(|on| records[on][page]);
                        let busy = |(_, domain, range): &(_, usize, IovaRange)| {
                            on == Some(*domain) && range.contains(Iova(at))
                        };
                        if reached.is_none() && self.started.iter().any(busy) {
                            continue; // in the record, and on its way
                        }
                        assert_eq!(reached, wanted, "endpoint {endpoint} at {at:#x}");
                    }
                }
            }
        }
    }

    /// Everything goes; memory is back, or leaked because the device never confirmed.
    fn end(self) {
        let Self { machine, instance, registry, domains, groups, attached, started, .. } = self;
        drop(started); // waits
        let pages = machine.pages();
        drop((attached, domains, groups));
        drop((instance, registry));
        let confirmed = machine.status().is_empty();
        assert_eq!(machine.pages(), if confirmed { 0 } else { pages }, "confirmed: {confirmed}");
    }
}

/// Where each page of the record leads, 8 bytes in.
fn record(domain: &PagingDomain) -> Vec<Option<u64>> {
    let at = |page| domain.iova_to_phys(Iova(page * PAGE + 8)).map(|phys| phys.0);
    (0..PAGES).map(at).collect()
}

/// A range, and whether the call is only to be started.
fn pages(input: &mut Input<'_>) -> (IovaRange, bool) {
    let (first, count) = (input.u8(), u64::from(input.u8()) % PAGES + 1);
    let range = IovaRange::from_len(Iova(u64::from(first) % PAGES * PAGE), count * PAGE).unwrap();
    (range, first & STARTED != 0)
}
