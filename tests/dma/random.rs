//! Random maps, unmaps, syncs and flushes against a model: what each device reads and writes, byte
//! by byte, and what the host sees.
#![expect(unsafe_code, reason = "maps by address")]

use core::ptr::NonNull;
use std::collections::BTreeMap;

use iommu::addr::Iova;
use iommu::dma::{Direction, DmaDevice, DmaOptions, Invalidation, Ticket};
use iommu::error::DmaError;
use iommu::sim::SimConfig;
use proptest::prelude::*;

use crate::fixture::{Dma, ME, PAGE, SECRET, World, aligned};

#[derive(Clone, Debug)]
enum Step {
    Map { device: usize, offset: usize, len: usize, direction: Direction },
    Unmap { pick: usize },
    Defer { pick: usize },
    Flush { device: usize },
    DeviceWrites { pick: usize, at: usize, len: usize },
    ForCpu { pick: usize },
    CpuWrites { pick: usize, at: usize, len: usize },
    FailMap { offset: usize, len: usize, nth: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let direction = prop_oneof![
        Just(Direction::ToDevice),
        Just(Direction::FromDevice),
        Just(Direction::Bidirectional)
    ];
    let len = prop_oneof![1..64_usize, 1..3 * PAGE, Just(PAGE), Just(2 * PAGE)];
    let offset = prop_oneof![Just(0), 0..PAGE];
    let pick = any::<usize>();
    let step = prop_oneof![
        6 => (0..2_usize, offset.clone(), len.clone(), direction)
            .prop_map(|(device, offset, len, direction)| {
                Step::Map { device, offset, len, direction }
            }),
        3 => pick.prop_map(|pick| Step::Unmap { pick }),
        3 => pick.prop_map(|pick| Step::Defer { pick }),
        1 => (0..2_usize).prop_map(|device| Step::Flush { device }),
        4 => (pick, any::<usize>(), 1..200_usize)
            .prop_map(|(pick, at, len)| Step::DeviceWrites { pick, at, len }),
        2 => pick.prop_map(|pick| Step::ForCpu { pick }),
        2 => (pick, any::<usize>(), 1..200_usize)
            .prop_map(|(pick, at, len)| Step::CpuWrites { pick, at, len }),
        1 => (offset, len, 0..4_u64)
            .prop_map(|(offset, len, nth)| Step::FailMap { offset, len, nth }),
    ];
    proptest::collection::vec(step, 1..50)
}

/// One mapping, and what the model says of its bytes.
struct Live {
    device: usize,
    iova: u64,
    memory: &'static mut [u8],
    start: usize,
    direction: Direction,
    /// What the device finds.
    device_sees: Vec<u8>,
}

impl Live {
    fn len(&self) -> usize {
        self.device_sees.len()
    }

    fn host(&mut self) -> &mut [u8] {
        let end = self.start + self.device_sees.len();
        &mut self.memory[self.start..end]
    }

    /// The granules of the buffer: first address, and how many bytes.
    fn window(&self) -> (u64, usize) {
        let first = self.iova & !0xfff;
        let last = (self.iova + self.len() as u64 - 1) | 0xfff;
        (first, (last + 1 - first) as usize)
    }

    fn writes(&self) -> bool {
        self.direction != Direction::ToDevice
    }

    fn beside_is_untouched(&self) -> bool {
        let (before, rest) = self.memory.split_at(self.start);
        before.iter().chain(&rest[self.len()..]).all(|byte| *byte == SECRET)
    }
}

struct Model<'w> {
    world: &'w World,
    handles: [Dma; 2],
    live: Vec<Live>,
    waiting: Vec<(Live, Ticket)>,
    counter: u8,
}

impl Model<'_> {
    fn fresh(&mut self, offset: usize, len: usize) -> (&'static mut [u8], usize) {
        let memory = aligned((offset + len).next_multiple_of(PAGE) + 2 * PAGE);
        memory.fill(SECRET);
        self.counter = self.counter.wrapping_add(1);
        let value = self.counter | 0x80;
        for (at, byte) in memory[PAGE + offset..][..len].iter_mut().enumerate() {
            *byte = value ^ (at as u8 & 0x0f);
        }
        (memory, PAGE + offset)
    }

    fn map(
        &mut self,
        device: usize,
        offset: usize,
        len: usize,
        direction: Direction,
    ) -> Option<DmaError> {
        let (memory, start) = self.fresh(offset, len);
        let buffer = NonNull::from(&mut memory[start..start + len]);
        // SAFETY: the memory lives for ever, and the model touches it as the calls allow.
        match unsafe { self.handles[device].map_raw(buffer, direction) } {
            Ok(iova) => {
                let device_sees = memory[start..start + len].to_vec();
                let live = Live { device, iova: iova.0, memory, start, direction, device_sees };
                let others = self.live.iter().chain(self.waiting.iter().map(|(live, _)| live));
                for other in others {
                    let ((a, n), (b, m)) = (live.window(), other.window());
                    assert!(a + n as u64 <= b || b + m as u64 <= a, "two mappings share a granule");
                }
                self.live.push(live);
                None
            }
            Err(error) => Some(error),
        }
    }

    /// What a host sees once the device is done: the buffer, and nothing beside it.
    fn ends(live: &mut Live) {
        if live.writes() {
            let seen = live.device_sees.clone();
            assert_eq!(live.host(), seen, "what the device wrote is there");
        }
        assert!(live.beside_is_untouched(), "a byte beside the buffer changed");
    }

    fn check(&mut self) {
        for live in self.live.iter().chain(self.waiting.iter().map(|(live, _)| live)) {
            if live.direction == Direction::FromDevice {
                assert_eq!(self.world.read(ME, live.iova, 1), None, "the device may not read");
                continue;
            }
            let (first, len) = live.window();
            let seen = self.world.read(ME, first, len).expect("all granules are mapped");
            let offset = (live.iova - first) as usize;
            let (front, rest) = seen.split_at(offset);
            let (middle, back) = rest.split_at(live.len());
            assert_eq!(middle, live.device_sees);
            let beside = front.iter().chain(back);
            assert!(
                beside.copied().all(|byte| byte != SECRET),
                "the device sees beside its buffer"
            );
        }
        let count = self.live.len() + self.waiting.len();
        assert_eq!(self.handles[0].mapping_count(), count);
        let waiting = self.handles[0].waiting() + self.handles[1].waiting();
        assert_eq!(waiting, self.waiting.len());
        // The unit's own tables: every granule is somebody's.
        let mut granules = BTreeMap::new();
        for (_, domain, runs) in self.world.sim.digest() {
            if domain.0 != 0 {
                for run in runs {
                    granules.insert(run.range.first().0, run.range.len().unwrap());
                }
            }
        }
        let mapped: u64 = granules.values().sum();
        let all = self.live.iter().chain(self.waiting.iter().map(|(live, _)| live));
        let expected: u64 = all.map(|live| live.window().1 as u64).sum();
        assert_eq!(mapped, expected, "no more is mapped than buffers need");
    }

    /// Takes out of the model what a flush ended.
    fn flushed(&mut self) {
        let handles = &self.handles;
        let (ended, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<Vec<_>, _>(|(live, ticket)| handles[live.device].is_flushed(*ticket));
        self.waiting = waiting;
        for (live, _) in ended {
            assert!(self.world.read(ME, live.iova, 1).is_none(), "cut off");
            assert!(!self.world.write(ME, live.iova, &[1]), "cut off");
            assert!(live.beside_is_untouched());
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Map { device, offset, len, direction } => {
                assert_eq!(self.map(device, offset, len, direction), None);
            }
            Step::FailMap { offset, len, nth } => {
                self.handles[0].trim();
                let before = (self.world.pool.usage(), self.handles[0].mapping_count());
                self.world.pool.refuse_nth(nth, true);
                let error = self.map(0, offset, len, Direction::Bidirectional);
                if self.world.pool.refuse_none() > 0 {
                    assert_eq!(error, Some(DmaError::OutOfMemory));
                    let after = (self.world.pool.usage(), self.handles[0].mapping_count());
                    assert_eq!(after, before);
                } else {
                    assert_eq!(error, None);
                }
            }
            Step::Flush { device } => {
                self.handles[device].flush().unwrap();
                self.flushed();
            }
            _ if self.live.is_empty() => {}
            Step::Unmap { pick } => {
                let mut live = self.live.swap_remove(pick % self.live.len());
                // SAFETY: the memory lives for ever.
                unsafe { self.handles[live.device].unmap_raw(Iova(live.iova)) }.unwrap();
                assert!(self.world.read(ME, live.iova, 1).is_none(), "cut off");
                assert!(!self.world.write(ME, live.iova, &[1]), "cut off");
                Self::ends(&mut live);
            }
            Step::Defer { pick } => {
                let mut live = self.live.swap_remove(pick % self.live.len());
                // SAFETY: the memory lives for ever.
                let ticket = unsafe { self.handles[live.device].defer_raw(Iova(live.iova)) };
                Self::ends(&mut live);
                self.waiting.push((live, ticket.unwrap()));
                self.flushed();
            }
            Step::DeviceWrites { pick, at, len } => {
                let index = pick % self.live.len();
                let counter = self.counter;
                let live = &mut self.live[index];
                let at = at % live.len();
                let len = len.min(live.len() - at);
                let bytes: Vec<u8> = (0..len).map(|n| n as u8 ^ counter).collect();
                let written = self.world.write(ME, live.iova + at as u64, &bytes);
                assert_eq!(written, live.writes(), "rights");
                if written {
                    live.device_sees[at..at + len].copy_from_slice(&bytes);
                    // Beside the buffer, as far as its granules go: it must come to nothing.
                    let (first, window) = live.window();
                    for place in [first, first + window as u64 - 1] {
                        let inside = live.iova..live.iova + live.len() as u64;
                        if !inside.contains(&place) {
                            assert!(self.world.write(ME, place, &[0xab]));
                        }
                    }
                }
            }
            Step::ForCpu { pick } => {
                let index = pick % self.live.len();
                let live = &mut self.live[index];
                // SAFETY: the memory lives for ever.
                unsafe { self.handles[live.device].sync_for_cpu(Iova(live.iova)) }.unwrap();
                Self::ends(live);
            }
            Step::CpuWrites { pick, at, len } => {
                let index = pick % self.live.len();
                let live = &mut self.live[index];
                // First what the device wrote, or the sync would put old bytes over it.
                // SAFETY: the memory lives for ever.
                unsafe { self.handles[live.device].sync_for_cpu(Iova(live.iova)) }.unwrap();
                let at = at % live.len();
                let len = len.min(live.len() - at);
                let counter = self.counter;
                live.host()[at..at + len].fill(counter | 0x40);
                live.device_sees[at..at + len].fill(counter | 0x40);
                // SAFETY: the memory lives for ever.
                unsafe { self.handles[live.device].sync_for_device(Iova(live.iova)) }.unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn devices_see_their_buffers_and_nothing_else(
        steps in steps(),
        lazy in any::<bool>(),
        coherent in any::<bool>(),
        limits in (0..6_usize, 0..6_usize),
    ) {
        let world = if lazy { World::lazy() } else { World::with(SimConfig::default()) };
        let group = world.join(ME, None);
        let before = world.usage();
        let handle = |limit| {
            let invalidation = Invalidation::Deferred { limit };
            let options = DmaOptions { coherent, invalidation, ..DmaOptions::default() };
            DmaDevice::new(&group, world.machine, &options).unwrap()
        };
        let handles = [handle(limits.0), handle(limits.1)];
        let mut model =
            Model { world: &world, handles, live: Vec::new(), waiting: Vec::new(), counter: 0 };
        for step in steps {
            model.step(step);
            model.check();
        }
        drop(model);
        prop_assert_eq!(world.usage(), before, "nothing is left");
    }
}
