//! Random sequences of all operations against the naive model of `plain.rs`, with the invariants
//! checked after every step. A failing sequence is made short before it is shown.
//!
//! `MODEL_SEED` repeats a run; `MODEL_OPERATIONS` makes it longer.

mod plain;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use iommu::addr::{Iova, IovaRange, PageSizes};
use iommu::container::*;
use iommu::group::Ownership;
use iommu::prot::Prot;
use iommu::reserved::{ReservedKind, ReservedRegion, ReservedRegions};
use iommu::sim::{Refusal, SimConfig};

use crate::fixture::{PAGE, Script, World};
use plain::{MAPPINGS, Model, RESERVED};

const SPACE: u64 = 64;
const UNITS: [usize; 5] = [0, 0, 1, 1, 2];
/// A power of two above everything, so that a page number is an address as well.
const BASE: u64 = 1 << 32;

type Range = Option<(u64, u64)>;

#[derive(Clone, Copy, Debug)]
enum Op {
    Map {
        page: u64,
        pages: u64,
        vaddr: u64,
        read: bool,
        write: bool,
    },
    Unmap(Range),
    Attach(usize),
    Detach(usize),
    AttachEmulated(u64),
    DetachEmulated(u64),
    Pin {
        member: Result<usize, u64>,
        page: u64,
        count: u64,
        write: bool,
    },
    Unpin {
        page: u64,
        count: u64,
    },
    Start,
    Stop,
    ReadDirty {
        page: u64,
        pages: u64,
        granule: u64,
    },
    UnmapDirty {
        page: u64,
        pages: u64,
        granule: u64,
    },
    Copy {
        page: u64,
        count: u64,
        write: bool,
    },
    Invalidate(Range),
    Update {
        page: u64,
        vaddr: u64,
        pages: u64,
    },
    Limit(u64),
    Stubborn(bool),
    /// The next map, attach, pin or start meets this failure, if it gets that far.
    Fault {
        kind: u64,
        nth: u64,
    },
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    v1: bool,
    scattered: bool,
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn range(&mut self) -> (u64, u64) {
        // Even numbers often: then a unit with a coarse granule has something to do.
        let even = self.below(4) > 0;
        let (page, pages) = (self.below(SPACE - 10), self.below(if even { 8 } else { 6 }));
        if even { (page & !1, (pages + 1) & !1) } else { (page, pages) }
    }

    fn wide(&mut self) -> Range {
        let page = self.below(SPACE / 2) & !1;
        match self.below(8) {
            0 => None,
            1 => Some((0, SPACE)),
            2 | 3 => Some((page, self.below(SPACE - page) & !1)),
            _ => Some(self.range()),
        }
    }

    fn op(&mut self) -> Op {
        let (page, pages) = self.range();
        let flag = self.below(3) > 0;
        let granule = if self.below(6) == 0 { 2 } else { 1 };
        let slot = self.below(UNITS.len() as u64) as usize;
        match self.below(100) {
            0..22 => {
                let vaddr = self.below(SPACE) & !u64::from(self.below(4) > 0);
                let (read, write) = [(true, true), (true, false), (false, true), (true, true)]
                    [self.below(4) as usize];
                Op::Map { page, pages, vaddr, read, write }
            }
            22..30 => Op::Unmap(self.wide()),
            30..38 => Op::Attach(slot),
            38..44 => Op::Detach(slot),
            44..47 => Op::AttachEmulated(self.below(2)),
            47..49 => Op::DetachEmulated(self.below(2)),
            49..61 => {
                let page = self.below(SPACE - 10);
                let member = if flag { Err(self.below(2)) } else { Ok(slot) };
                Op::Pin { member, page, count: pages, write: self.below(2) == 0 }
            }
            61..67 => Op::Unpin { page: self.below(SPACE - 10), count: pages },
            67..71 => Op::Start,
            71..73 => Op::Stop,
            73..80 => {
                let (page, pages) = self.wide().unwrap_or((0, SPACE));
                Op::ReadDirty { page, pages, granule }
            }
            80..83 => {
                let (page, pages) = self.wide().unwrap_or((0, SPACE));
                Op::UnmapDirty { page, pages, granule }
            }
            83..89 => Op::Copy { page: self.below(SPACE - 10), count: pages, write: flag },
            89..91 => Op::Invalidate(self.wide()),
            91..94 => {
                Op::Update { page: self.below(SPACE - 10), vaddr: self.below(SPACE) & !1, pages }
            }
            94..95 => Op::Limit(self.below(60)),
            95..96 => Op::Stubborn(!flag),
            _ => Op::Fault { kind: self.below(4), nth: self.below(8) },
        }
    }
}

/// Lets go of everything, unless told not to.
struct Holder {
    container: &'static Container<&'static Script>,
    stubborn: &'static AtomicBool,
}

impl PinHolder for Holder {
    fn dma_unmap(&self, range: IovaRange) {
        let pages = range.len().unwrap() / PAGE;
        let obeys = !self.stubborn.load(Ordering::Relaxed);
        while obeys && self.container.unpin_pages(range.first().0, pages) > 0 {}
    }
}

struct Run {
    world: &'static World,
    container: &'static Container<&'static Script>,
    stubborn: &'static AtomicBool,
    /// By slot: the ownership while it is not attached, and the endpoint.
    groups: Vec<(Option<Ownership>, iommu::group::GroupId, u32)>,
    model: Model,
    scattered: bool,
    fault: Option<(u64, u64)>,
}

fn at(page: u64) -> u64 {
    BASE + page * PAGE
}

fn errno<T>(result: &Result<T, i32>) -> i32 {
    result.as_ref().err().copied().unwrap_or(0)
}

impl Run {
    fn new(setup: Setup) -> Self {
        let mut reserved = ReservedRegions::new();
        let window = IovaRange::from_len(Iova(at(RESERVED.start)), 4 * PAGE).unwrap();
        reserved.add(ReservedRegion { range: window, kind: ReservedKind::Reserved }).unwrap();
        let coarse = PageSizes::from_bits(1 << 13 | 1 << 21).unwrap();
        let configs = vec![
            SimConfig::default(),
            SimConfig { reserved, ..SimConfig::default() },
            SimConfig { page_sizes: coarse, ..SimConfig::default() },
        ];
        let options = Options {
            kind: if setup.v1 { Kind::V1 } else { Kind::V2 },
            allow_unsafe_interrupts: true,
            mapping_limit: MAPPINGS as u32,
        };
        let world: &'static World = Box::leak(Box::new(World::open(configs, options)));
        let stubborn: &'static AtomicBool = Box::leak(Box::default());
        let container = &world.container;
        container.register_device(Holder { container, stubborn }).unwrap();
        if setup.scattered {
            world.memory.scatter();
        }
        world.memory.limit(40);
        let groups = UNITS.map(|unit| {
            let (ownership, endpoint) = world.group(unit);
            let id = ownership.group().id();
            (Some(ownership), id, endpoint)
        });
        let model = Model { v1: setup.v1, limit: 40, ..Model::default() };
        let (groups, scattered) = (groups.into_iter().collect(), setup.scattered);
        Self { world, container, stubborn, groups, model, scattered, fault: None }
    }

    fn unmap_request(range: Range) -> UnmapDma {
        match range {
            None => UnmapDma::All,
            Some((page, pages)) => UnmapDma::Range { iova: at(page), size: pages * PAGE },
        }
    }

    /// Applies `call` with the planned failure; `true`: it was met and ended the call, and nothing
    /// has changed.
    fn failing<T>(
        &mut self,
        call: impl FnOnce(&mut Self) -> Result<T, i32>,
    ) -> Result<(bool, Result<T, i32>), String> {
        let Some((kind, nth)) = self.fault.take() else { return Ok((false, call(self))) };
        let before = self.world.content();
        match kind {
            0 => self.world.pool.refuse_nth(nth, true),
            1 => self.world.memory.refuse(nth, PinError::NoOwner),
            unit => self.world.units[unit as usize - 2].0.refuse(nth, Refusal::ONCE),
        }
        let result = call(self);
        let units: u64 = self.world.units.iter().map(|(sim, _)| sim.refuse_none()).sum();
        let met = self.world.pool.refuse_none() + self.world.memory.refuse_none() + units;
        if met == 0 || result.is_ok() {
            return Ok((false, result));
        }
        let after = self.world.content();
        if after != before {
            return Err(format!("a failure changed something:\n{before:?}\n{after:?}"));
        }
        Ok((matches!(errno(&result), 5 | 12 | 19), result))
    }

    /// Most requests aim at a mapping that is there: random pages seldom meet one.
    fn aimed(&self, op: Op) -> Op {
        let all = &self.model.mappings;
        let nth = |n: u64| all.iter().nth(n as usize % all.len().max(1));
        match op {
            Op::Pin { member, page, count, write } if page % 4 != 0 => {
                let Some((first, mapping)) = nth(page) else { return op };
                let page = first + page % mapping.pages;
                Op::Pin { member, page, count: 1 + count % 3, write }
            }
            Op::Unpin { page, count } if page % 4 != 0 => {
                let pins = &self.model.pins;
                let pin = pins.keys().nth(page as usize % pins.len().max(1));
                pin.map_or(op, |page| Op::Unpin { page: *page, count: 1 + count % 3 })
            }
            Op::Copy { page, count, write } if page % 4 != 0 => {
                let Some((first, mapping)) = nth(page) else { return op };
                let page = first + page % mapping.pages;
                Op::Copy { page, count: 1 + count % 3, write }
            }
            Op::Update { page, vaddr, .. } if page % 4 != 0 => {
                let void = all.iter().find(|(_, mapping)| mapping.void);
                let exact = |(page, one): (&u64, &plain::Mapping)| Op::Update {
                    page: *page,
                    vaddr,
                    pages: one.pages,
                };
                void.map_or(op, exact)
            }
            _ => op,
        }
    }

    /// The errno of the answer, or how it differs from the model's.
    fn step(&mut self, op: Op) -> Result<i32, String> {
        let container = self.container;
        let op = self.aimed(op);
        let same = |got: &dyn std::fmt::Debug, want: &dyn std::fmt::Debug| {
            let (got, want) = (format!("{got:?}"), format!("{want:?}"));
            if got == want { Ok(()) } else { Err(format!("got {got}, the model says {want}")) }
        };
        let errno = match op {
            Op::Map { page, pages, vaddr, read, write } => {
                let mut prot = Prot::empty();
                prot.set(Prot::READ, read);
                prot.set(Prot::WRITE, write);
                let size = pages * PAGE;
                let request = MapDma { iova: at(page), vaddr: vaddr * PAGE, size, prot };
                let call = |_: &mut Self| container.map_dma(&request).map_err(|e| e.errno());
                let (met, result) = self.failing(call)?;
                if !met {
                    same(&errno(&result), &self.model.map(page, pages, vaddr, read, write))?;
                }
                errno(&result)
            }
            Op::Unmap(range) => {
                let (got, bytes) = match container.unmap_dma(&Self::unmap_request(range)) {
                    Ok(gone) => (0, gone.bytes),
                    Err(failed) => (failed.errno(), failed.unmapped.bytes),
                };
                same(&(got, bytes / PAGE), &self.model.unmap(range))?;
                got
            }
            Op::Attach(slot) => {
                let unit = UNITS[slot];
                if unit == 2 && self.scattered {
                    return Ok(-1); // memory in single pages fits no coarse granule
                }
                let Some(ownership) = self.groups[slot].0.take() else { return Ok(-1) };
                let (met, result) = self.failing(|run| {
                    container.attach_group(ownership).map_err(|refused| {
                        run.groups[slot].0 = Some(refused.ownership);
                        refused.error.errno()
                    })
                })?;
                if !met {
                    same(&errno(&result), &self.model.attach(slot, unit))?;
                }
                errno(&result)
            }
            Op::Detach(slot) => {
                let back = container.detach_group(self.groups[slot].1);
                same(&back.is_some(), &self.model.groups.contains_key(&slot))?;
                let back_empty = back.is_none();
                if !back_empty {
                    self.groups[slot].0 = back;
                }
                self.model.detach(slot);
                i32::from(back_empty)
            }
            Op::AttachEmulated(id) => {
                let call =
                    |_: &mut Self| container.attach_emulated(EmulatedId(id)).map_err(|e| e.errno());
                let (met, result) = self.failing(call)?;
                if !met {
                    same(&errno(&result), &self.model.attach_emulated(id))?;
                }
                errno(&result)
            }
            Op::DetachEmulated(id) => {
                let found = container.detach_emulated(EmulatedId(id));
                same(&found, &self.model.detach_emulated(id))?;
                i32::from(!found)
            }
            Op::Pin { member, page, count, write } => {
                let who = match member {
                    Ok(slot) => Member::Group(self.groups[slot].1),
                    Err(id) => Member::Emulated(EmulatedId(id)),
                };
                let prot = if write { Prot::WRITE } else { Prot::READ };
                let mut out = vec![None; count as usize];
                let call = |_: &mut Self| {
                    container.pin_pages(who, at(page), prot, &mut out).map_err(|e| e.errno())
                };
                // Dirty bits of a pin that failed stay set, which the digest does not see.
                let planned = self.fault.take_if(|_| container.is_tracking());
                let (met, result) = self.failing(call)?;
                self.fault = self.fault.or(planned);
                if !met {
                    same(&errno(&result), &self.model.pin(member, page, count, write))?;
                }
                for (n, phys) in
                    out.iter().enumerate().filter(|_| result.is_ok() && !self.model.moved)
                {
                    let want = self.model_phys(page + n as u64);
                    same(&phys.map(|phys| phys.0), &want)?;
                }
                errno(&result)
            }
            Op::Unpin { page, count } => {
                let dropped = container.unpin_pages(at(page), count);
                same(&dropped, &self.model.unpin(page, count))?;
                i32::from(dropped == 0)
            }
            Op::Start => {
                let call = |_: &mut Self| container.start_dirty_tracking().map_err(|e| e.errno());
                let (met, result) = self.failing(call)?;
                if !met {
                    same(&errno(&result), &self.model.start())?;
                }
                errno(&result)
            }
            Op::Stop => {
                let got = container.stop_dirty_tracking().map_err(|e| e.errno());
                same(&errno(&got), &self.model.stop())?;
                errno(&got)
            }
            Op::ReadDirty { page, pages, granule } => {
                let mut words = [0_u64; 2];
                let (iova, size) = (at(page), pages * PAGE);
                let request = DirtyRange { iova, size, page_size: granule * PAGE };
                let got = container.read_dirty(&request, words.as_mut_slice());
                let want = self.model.read_dirty(page, pages, granule);
                let got = errno(&got.map_err(|e| e.errno()));
                same(&(got, bits(words)), &want)?;
                got
            }
            Op::UnmapDirty { page, pages, granule } => {
                let mut words = [0_u64; 2];
                let (iova, size) = (at(page), pages * PAGE);
                let request = DirtyRange { iova, size, page_size: granule * PAGE };
                let got = match container.unmap_dma_dirty(&request, words.as_mut_slice()) {
                    Ok(gone) => (0, gone.bytes / PAGE, bits(words)),
                    Err(failed) => (failed.errno(), failed.unmapped.bytes / PAGE, bits(words)),
                };
                same(&got, &self.model.unmap_dirty(page, pages, granule))?;
                got.0
            }
            Op::Copy { page, count, write } => {
                let mut buffer = vec![1; (count * PAGE) as usize];
                let got = if write {
                    container.dma_write(at(page), &buffer)
                } else {
                    container.dma_read(at(page), &mut buffer)
                };
                let want = self.model.copy(page, count, write);
                same(&errno(&got.map_err(|e| e.errno())), &want)?;
                want
            }
            Op::Invalidate(range) => {
                let got = match container.invalidate_vaddr(&Self::unmap_request(range)) {
                    Ok(void) => (0, void.bytes / PAGE),
                    Err(failed) => (failed.errno(), failed.unmapped.bytes / PAGE),
                };
                same(&got, &self.model.invalidate(range))?;
                got.0
            }
            Op::Update { page, vaddr, pages } => {
                // Pages stay where they are pinned: what fits a coarse granule must go on to fit.
                let odd = self.model.at(page).map_or(0, |(_, mapping)| mapping.vaddr & 1);
                let vaddr = vaddr | odd;
                let request =
                    UpdateVaddr { iova: at(page), vaddr: vaddr * PAGE, size: pages * PAGE };
                let got = container.update_vaddr(&request);
                let want = self.model.update(page, vaddr, pages);
                same(&errno(&got.map_err(|e| e.errno())), &want)?;
                want
            }
            Op::Limit(pages) => {
                self.model.limit = pages.max(self.model.charged());
                self.world.memory.limit(self.model.limit);
                0
            }
            Op::Stubborn(stubborn) => {
                self.model.stubborn = stubborn;
                self.stubborn.store(stubborn, Ordering::Relaxed);
                0
            }
            Op::Fault { kind, nth } => {
                self.fault = Some((kind, nth));
                0
            }
        };
        Ok(errno)
    }

    fn model_phys(&self, page: u64) -> Option<u64> {
        let (first, mapping) = self.model.at(page)?;
        let vaddr = (mapping.vaddr + page - first) * PAGE;
        Some(if self.scattered { vaddr * 16 } else { vaddr + 0x4000_0000 })
    }

    /// The container against the model, and its own invariants.
    fn check(&self, step: usize) -> Result<(), String> {
        let (container, model) = (self.container, &self.model);
        container.check_invariants()?;
        let units: BTreeSet<usize> = model.groups.values().map(|(unit, _)| *unit).collect();
        let mapped = if model.mapped() { model.pages() } else { 0 };
        let want = [
            model.mappings.len() as u64,
            (MAPPINGS - model.mappings.len()) as u64,
            model.groups.len() as u64,
            units.len() as u64,
            model.emulated.len() as u64,
            model.pins.len() as u64,
            model.voids() as u64,
            mapped + model.pins.len() as u64,
            model.charged(),
            u64::from(model.dirty.is_some()),
            1 << container.page_sizes().trailing_zeros(),
        ];
        let got = [
            container.mapping_count() as u64,
            u64::from(container.free_mappings()),
            container.group_count() as u64,
            container.domain_count() as u64,
            container.emulated_count() as u64,
            container.pinned_pages() as u64,
            container.invalid_vaddrs() as u64,
            self.world.memory.pins(),
            self.world.memory.charged(),
            u64::from(container.is_tracking()),
            model.granule() * PAGE,
        ];
        if got != want {
            return Err(format!("counts {got:?}, the model says {want:?}"));
        }
        // What a device reaches is decided by the unit's own tables, not by the container's record.
        for page in [step as u64 % SPACE, (step as u64 * 7 + 3) % SPACE] {
            for (slot, (_, _, endpoint)) in self.groups.iter().enumerate() {
                let reads = model.at(page).is_some_and(|(_, mapping)| mapping.read);
                let there = model.groups.contains_key(&slot) && reads;
                let got = self.world.reaches(UNITS[slot], *endpoint, at(page));
                // An address that changed after the pages were pinned does not move them.
                if got.is_some() != there {
                    return Err(format!("slot {slot} reaches page {page} at {got:x?}"));
                }
            }
        }
        for (sim, instance) in &self.world.units {
            drop(sim.take_log());
            while instance.next_fault().is_some() {}
        }
        Ok(())
    }
}

fn bits(words: [u64; 2]) -> BTreeSet<u64> {
    (0..128).filter(|n| words[n / 64] >> (n % 64) & 1 != 0).map(|n| n as u64).collect()
}

/// Which operation gave which errno, how often.
type Seen = BTreeMap<(String, i32), u64>;

fn run(setup: Setup, ops: &[Op], seen: &mut Seen) -> Result<(), String> {
    let mut run = Run::new(setup);
    for (step, op) in ops.iter().enumerate() {
        let result = catch_unwind(AssertUnwindSafe(|| {
            run.step(*op).and_then(|errno| run.check(step).map(|()| errno))
        }));
        let result = result.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(format!("panic: {}", text.unwrap_or_default()))
        });
        let errno = result.map_err(|what| format!("step {step}, {op:?}: {what}"))?;
        let name = format!("{op:?}");
        let name = name.split([' ', '(']).next().unwrap_or_default().to_string();
        *seen.entry((name, errno)).or_default() += 1;
    }
    Ok(())
}

/// Leaves out what is not needed for a failure, larger parts first.
fn shrink(setup: Setup, mut ops: Vec<Op>) -> Vec<Op> {
    let mut part = ops.len() / 2;
    while part > 0 {
        let mut from = 0;
        while from < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(from..(from + part).min(fewer.len()));
            if run(setup, &fewer, &mut Seen::new()).is_err() {
                ops = fewer;
            } else {
                from += part;
            }
        }
        part /= 2;
    }
    ops
}

#[test]
fn the_container_does_what_the_model_does() {
    // Section 2 after every step (T1-030 to T1-046, T1-723), and every operation's answer.
    const LENGTH: usize = 400;
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = number("MODEL_SEED").unwrap_or_else(|| time.unwrap().as_nanos() as u64);
    let total = number("MODEL_OPERATIONS").unwrap_or(120_000) as usize;
    println!("MODEL_SEED={seed}");
    let mut random = Random(seed | 1);
    let mut seen = Seen::new();
    for sequence in 0..total.div_ceil(LENGTH) {
        let setup = Setup { v1: random.below(8) == 0, scattered: random.below(2) == 0 };
        let ops: Vec<Op> = (0..LENGTH).map(|_| random.op()).collect();
        if run(setup, &ops, &mut seen).is_err() {
            let ops = shrink(setup, ops);
            let what = run(setup, &ops, &mut seen).unwrap_err();
            panic!("MODEL_SEED={seed}, sequence {sequence}, {setup:?}\n{ops:?}\n{what}");
        }
    }
    println!("{seen:?}");
    // It would be of no use if most calls were refused by the first check.
    let answers = [
        ("Map", &[0, 5, 12, 17, 19, 22, 28][..]),
        ("Unmap", &[0, 16, 22]),
        ("Attach", &[0, 5, 12, 16, 22]),
        ("Detach", &[0]),
        ("AttachEmulated", &[0, 16, 22]),
        ("DetachEmulated", &[0]),
        ("Pin", &[0, 1, 13, 16, 22]),
        ("Unpin", &[0]),
        ("Start", &[0, 13]),
        ("Stop", &[0, 13]),
        ("ReadDirty", &[0, 13, 22]),
        ("UnmapDirty", &[0, 16, 22]),
        ("Copy", &[0, 1, 16, 22]),
        ("Invalidate", &[0, 16, 22]),
        ("Update", &[0, 2, 22]),
    ];
    for (name, errnos) in answers {
        for errno in errnos {
            let count = seen.get(&(name.to_string(), *errno)).copied().unwrap_or(0);
            assert!(count > 0 || total < 100_000, "{name} answered {errno} {count} times");
        }
    }
}
