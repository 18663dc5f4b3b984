//! The device side of the rings, its registers, and its lies. Under the machine's lock.

use std::collections::VecDeque;
use std::vec;
use std::vec::Vec;

use super::memory::Memory;
use super::model::{Model, bypass_write_breaks};
use super::{FakeConfig, Lie};
use crate::virtio::DeviceStatus;
use crate::virtio::transport::{QueueSetup, TransportError};

pub(super) const REQUESTS: usize = 0;
pub(super) const EVENTS: usize = 1;

/// One queue as the device sees it.
#[derive(Default)]
pub(super) struct Queue {
    setup: Option<QueueSetup>,
    /// The next available entry to take.
    taken: u16,
    used: u16,
    pub(super) notifies: u64,
}

impl Queue {
    pub(super) fn indexes(&self) -> [u16; 2] {
        [self.taken, self.used]
    }
}

/// A chain that the device took from a ring.
struct Chain {
    head: u16,
    readable: Vec<u8>,
    /// Address and length of each writable piece.
    writable: Vec<(u64, u32)>,
}

/// Registers, rings and lies.
pub(super) struct Device {
    pub(super) config: FakeConfig,
    pub(super) status: DeviceStatus,
    pub(super) accepted: u64,
    pub(super) generation: u32,
    pub(super) bypass: u8,
    pub(super) isr: u8,
    pub(super) queues: [Queue; 2],
    pub(super) model: Model,
    /// Each request as it was read from the ring.
    pub(super) log: Vec<Vec<u8>>,
    /// Lies for the requests to come, by number from now.
    pub(super) lies: VecDeque<(u64, Lie)>,
    /// What is written into the used ring once the requests of a notify are done.
    ring_writes: Vec<(u16, [u8; 8])>,
    /// Whether the device stopped answering until its next reset.
    stopped: bool,
    /// Fault records that found no buffer.
    pub(super) dropped_events: u64,
    pub(super) flags: Vec<u16>,
}

impl Device {
    pub(super) fn new(config: FakeConfig) -> Self {
        let mut model = Model::default();
        model.known.extend(config.endpoints.iter().copied());
        model.properties.clone_from(&config.properties);
        Self {
            bypass: config.bypass,
            config,
            status: DeviceStatus::empty(),
            accepted: 0,
            generation: 0,
            isr: 0,
            queues: Default::default(),
            model,
            log: Vec::new(),
            lies: VecDeque::new(),
            ring_writes: Vec::new(),
            stopped: false,
            dropped_events: 0,
            flags: Vec::new(),
        }
    }

    /// Whether the device may still reach memory.
    pub(super) fn is_running(&self) -> bool {
        self.queues.iter().any(|queue| queue.setup.is_some())
    }

    pub(super) fn write_status(&mut self, status: DeviceStatus) {
        if !status.is_empty() {
            let refused = self.config.refuse_features && !status.contains(DeviceStatus::DRIVER_OK);
            self.status |= status;
            self.status.set(
                DeviceStatus::FEATURES_OK,
                status.contains(DeviceStatus::FEATURES_OK) && !refused,
            );
            return;
        }
        if self.config.ignore_reset {
            return;
        }
        self.status = status; // the bypass byte stays
        self.accepted = 0;
        self.isr = 0;
        self.stopped = false;
        if !self.config.keep_domains {
            self.model.reset();
        }
        for queue in &mut self.queues {
            *queue = Queue { notifies: queue.notifies, ..Queue::default() };
        }
    }

    pub(super) fn needs_reset(&mut self) {
        self.status |= DeviceStatus::DEVICE_NEEDS_RESET;
        self.isr |= 2;
        self.stopped = true;
    }

    pub(super) fn enable(&mut self, queue: u16, setup: QueueSetup) -> Result<(), TransportError> {
        let size = self.config.queue_sizes.get(usize::from(queue)).copied().unwrap_or(0);
        match self.queues.get_mut(usize::from(queue)) {
            Some(place) if place.setup.is_none() && setup.size <= size => {
                place.setup = Some(setup);
                Ok(())
            }
            _ => Err(TransportError::NoQueue(queue)),
        }
    }

    pub(super) fn write_bypass(&mut self, value: u8) {
        if bypass_write_breaks(self.accepted, value) {
            self.needs_reset();
        } else if !self.config.keep_bypass {
            self.bypass = value;
        }
    }

    /// Does every request that waits in the ring.
    pub(super) fn run(&mut self, memory: &mut Memory) {
        let mut done = Vec::new();
        while !self.stopped
            && let Some(chain) = self.take(memory, REQUESTS)
        {
            let lie = self.next_lie();
            self.log.push(chain.readable.clone());
            self.answer(memory, &chain, lie, &mut done);
        }
        if self.config.reverse {
            done.reverse();
        }
        for (id, len) in done {
            self.push_used(memory, REQUESTS, id, len);
        }
        for (at, bytes) in core::mem::take(&mut self.ring_writes) {
            self.write_used_ring(memory, REQUESTS, at, bytes);
        }
    }

    /// Writes into a used ring, wherever `at` leads inside it.
    pub(super) fn write_used_ring(
        &self,
        memory: &mut Memory,
        queue: usize,
        at: u16,
        bytes: [u8; 8],
    ) {
        let Some(setup) = self.queues.get(queue).and_then(|queue| queue.setup) else { return };
        let len = 6 + u64::from(setup.size) * 8;
        memory.write(setup.used.0 + u64::from(at) % (len - 7), &bytes);
    }

    /// Writes a fault record into the next event buffer, and says it wrote `len` bytes.
    pub(super) fn event(&mut self, memory: &mut Memory, record: &[u8], len: u32) {
        match self.take(memory, EVENTS) {
            Some(chain) => {
                write_pieces(memory, &chain.writable, 0, record);
                self.push_used(memory, EVENTS, chain.head.into(), len);
            }
            None => self.dropped_events += 1,
        }
    }

    /// Adds an entry to a used ring and shows it.
    pub(super) fn push_used(&mut self, memory: &mut Memory, queue: usize, id: u32, len: u32) {
        let Some(Queue { setup: Some(setup), used, .. }) = self.queues.get_mut(queue) else {
            return;
        };
        let at = setup.used.0 + 4 + u64::from(*used % setup.size) * 8;
        memory.write(at, &id.to_le_bytes());
        memory.write(at + 4, &len.to_le_bytes());
        *used = used.wrapping_add(1);
        memory.write(setup.used.0 + 2, &used.to_le_bytes());
        self.isr |= 1;
    }

    pub(super) fn available_flags(&self, memory: &Memory, queue: usize) -> u16 {
        let setup = self.queues.get(queue).and_then(|queue| queue.setup);
        setup.map_or(u16::MAX, |setup| memory.read_u16(setup.available.0))
    }

    fn answer(
        &mut self,
        memory: &mut Memory,
        chain: &Chain,
        lie: Option<Lie>,
        done: &mut Vec<(u32, u32)>,
    ) {
        let room: u32 = chain.writable.iter().map(|(_, len)| *len).sum();
        let probe = chain.readable.first() == Some(&5);
        if room < 4 || chain.readable.len() < 4 || (probe && room < self.config.probe_size + 4) {
            return self.needs_reset();
        }
        let (mut id, mut len) = (u32::from(chain.head), 4);
        let mut reply = vec![0; if probe { self.config.probe_size as usize } else { 0 }];
        match lie {
            Some(Lie::NoAnswer) => return self.stopped = true,
            Some(Lie::NeedsReset) => return self.needs_reset(),
            Some(Lie::StatusNotWritten) => return done.push((id, len + reply.len() as u32)),
            _ => {}
        }
        let status = match lie {
            Some(Lie::Status(status)) => status,
            Some(Lie::StatusAfter(wrong)) => {
                self.model.execute(&chain.readable, &mut reply);
                wrong
            }
            _ => self.model.execute(&chain.readable, &mut reply),
        };
        len += reply.len() as u32;
        write_pieces(memory, &chain.writable, reply.len(), &[status, 0, 0, 0]);
        reply.truncate(self.model.properties.len()); // the rest is left as it was
        write_pieces(memory, &chain.writable, 0, &reply);
        match lie {
            Some(Lie::UsedLen(wrong)) => len = wrong,
            Some(Lie::UsedId(wrong)) => id = wrong,
            Some(Lie::Twice) => done.push((id, len)),
            Some(Lie::UsedJump(extra)) => {
                let queue = &mut self.queues[REQUESTS];
                queue.used = queue.used.wrapping_add(extra);
            }
            Some(Lie::RingWrite { at, bytes }) => self.ring_writes.push((at, bytes)),
            _ => {}
        }
        done.push((id, len));
    }

    fn next_lie(&mut self) -> Option<Lie> {
        for (left, _) in &mut self.lies {
            *left = left.wrapping_sub(1);
        }
        let due = self.lies.iter().position(|(left, _)| *left == u64::MAX)?;
        self.lies.remove(due).map(|(_, lie)| lie)
    }

    fn take(&mut self, memory: &Memory, queue: usize) -> Option<Chain> {
        let driver_ok = self.status.contains(DeviceStatus::DRIVER_OK);
        let Some(Queue { setup: Some(setup), taken, .. }) = self.queues.get_mut(queue) else {
            return None;
        };
        if !driver_ok || memory.read_u16(setup.available.0 + 2) == *taken {
            return None;
        }
        let at = setup.available.0 + 4 + u64::from(*taken % setup.size) * 2;
        let head = memory.read_u16(at);
        *taken = taken.wrapping_add(1);
        let mut chain = Chain { head, readable: Vec::new(), writable: Vec::new() };
        let mut next = Some(head);
        while let Some(index) = next {
            assert!(index < setup.size, "descriptor {index} in a table of {}", setup.size);
            let mut bytes = [0; 16];
            memory.read(setup.descriptors.0 + u64::from(index) * 16, &mut bytes);
            let (address, rest) = bytes.split_at(8);
            let address = super::model::u64_at(address, 0);
            let rest = super::model::u64_at(rest, 0);
            let (len, flags) = (rest as u32, (rest >> 32) as u16);
            self.flags.push(flags);
            if flags & 2 != 0 {
                chain.writable.push((address, len));
            } else {
                assert!(chain.writable.is_empty(), "a readable part after a writable one");
                let mut part = vec![0; len as usize];
                memory.read(address, &mut part);
                chain.readable.extend(part);
            }
            next = (flags & 1 != 0).then_some((rest >> 48) as u16);
        }
        Some(chain)
    }
}

/// Writes `bytes` at `offset` of the writable part of a chain.
fn write_pieces(memory: &mut Memory, pieces: &[(u64, u32)], offset: usize, bytes: &[u8]) {
    let mut start = 0;
    for (address, len) in pieces {
        let len = *len as usize;
        for (index, byte) in bytes.iter().enumerate() {
            let at = offset + index;
            if (start..start + len).contains(&at) {
                memory.write(address + (at - start) as u64, &[*byte]);
            }
        }
        start += len;
    }
}
