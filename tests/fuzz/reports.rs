//! PROBE and event bytes: an input is what the device answers to PROBE, and what it reports.
//!
//! The parser of the driver is compared with one that was written here on its own, from virtio 1.2
//! §5.13.6.7 and §5.13.6.9. Every record that found a buffer comes out once and in order, or is
//! counted as malformed; buffers go back; after a lie of the ring the instance is poisoned, the
//! device reset, and nothing comes any more.

use std::collections::VecDeque;

use iommu::addr::{Iova, IovaRange};
use iommu::driver::{Driver, EndpointId, Health};
use iommu::drivers::virtio_iommu::{Options, VirtioIommu};
use iommu::error::ProbeError;
use iommu::fault::{Access, DriverFault, FaultReason};
use iommu::pool::Pool;
use iommu::reserved::{ReservedKind, ReservedRegion, ReservedRegions};
use iommu::virtio::transport::fake::{FakeConfig, FakeMachine, FakeTransport};

use super::input::Input;

static POOL: Pool = Pool::heap();

const ENDPOINT: EndpointId = EndpointId(8);
/// The most properties that are looked at.
const MAX_PROPERTIES: usize = 1024;

struct Scene {
    machine: FakeMachine,
    unit: VirtioIommu<FakeMachine, FakeTransport>,
    /// Event buffers.
    capacity: usize,
    /// What each record in the ring must come out as.
    waiting: VecDeque<Option<DriverFault>>,
    malformed: u64,
    /// Whether the device wrote into the event ring what no device may.
    lied: bool,
    probe_size: usize,
    properties: Vec<u8>,
}

/// Plays the input.
pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut scene = Scene::new(&mut input);
    let mut calls = 0;
    while !input.is_empty() && calls < 256 {
        calls += 1;
        scene.call(&mut input);
    }
    scene.drain();
    let Scene { machine, unit, .. } = scene;
    drop(unit);
    assert_eq!(machine.pages(), 0);
}

impl Scene {
    fn new(input: &mut Input<'_>) -> Self {
        let capacity = [1, 2, 16, 256][input.below(4)];
        let probe_size = usize::from(input.u16() % 5000);
        let len = usize::from(input.u16()) % (probe_size + 2); // one too long is a case of its own
        let properties = input.slice(len).to_vec();
        let machine = FakeMachine::new(FakeConfig {
            queue_sizes: [4, capacity],
            probe_size: probe_size as u32,
            properties: properties.clone(),
            ..FakeConfig::default()
        });
        let options = Options { wait_limit_ns: 200_000, ..Options::default() };
        let unit = VirtioIommu::new(machine.clone(), machine.transport(), &POOL, options);
        let unit = unit.expect("the device is in order but for what it reports");
        let scene = Self {
            machine,
            unit,
            capacity: capacity.into(),
            waiting: VecDeque::new(),
            malformed: 0,
            lied: false,
            probe_size,
            properties,
        };
        scene.probe();
        scene
    }

    fn call(&mut self, input: &mut Input<'_>) {
        match input.below(8) {
            0 | 1 => {
                let record = input.array();
                self.report(record, 24);
            }
            2 => {
                let (len, record) = (input.u32(), input.array());
                self.report(record, len);
            }
            3 => {
                let record =
                    [2, 0, 0, 0, 0, 1, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0];
                for _ in 0..=input.u8() {
                    self.report(record, 24); // a flood
                }
            }
            4 => self.drain(),
            5 => {
                let (id, len) = (input.u32(), input.u32());
                self.lied = true;
                self.machine.event_used(id, len);
            }
            6 => {
                let (at, bytes) = (input.u16(), input.array());
                self.lied = true;
                self.machine.write_used_ring(1, at, bytes);
            }
            _ => {
                let len = usize::from(input.u8());
                self.properties = input.slice(len).to_vec();
                self.machine.configure(|config| config.properties = self.properties.clone());
                self.probe();
            }
        }
    }

    fn report(&mut self, record: [u8; 24], len: u32) {
        let dropped = self.machine.dropped_events();
        self.machine.event(&record, len);
        if self.machine.dropped_events() == dropped {
            self.waiting.push_back(decode(&record, len));
        } else if !self.lied {
            assert!(self.waiting.len() >= self.capacity, "dropped, and there was a buffer");
        }
    }

    /// One look takes at most a queue full.
    fn drain(&mut self) {
        let poisoned = self.unit.health() == Health::Poisoned;
        let (before, accesses) = (self.unit.counters(), self.machine.register_accesses());
        let mut seen = Vec::new();
        let lost = self.unit.take_faults(&mut |fault| seen.push(fault));
        let counted = self.unit.counters().since(&before);
        let accesses = self.machine.register_accesses() - accesses;
        assert!(accesses <= 4, "{accesses} register accesses");
        assert!(seen.len() + lost as usize <= self.capacity, "more than the queue holds");
        assert_eq!((seen.len() as u64, lost), (counted.faults, counted.bad_faults));
        if poisoned {
            assert_eq!((seen.len(), lost, accesses), (0, 0, 0), "poisoned is silent");
        }
        if self.unit.health() == Health::Poisoned {
            assert!(self.lied, "poisoned without a lie");
            assert!(self.machine.status().is_empty(), "the device was reset");
        } else if !self.lied {
            let mut wanted = Vec::new();
            self.malformed = 0;
            for record in self.waiting.drain(..) {
                match record {
                    Some(fault) => wanted.push(fault),
                    None => self.malformed += 1,
                }
            }
            assert_eq!((seen, lost), (wanted, self.malformed));
        }
        self.waiting.clear();
    }

    fn probe(&self) {
        let answer = self.unit.probe(ENDPOINT);
        if self.unit.health() == Health::Poisoned {
            assert_eq!(answer.err(), Some(ProbeError::Io));
            return;
        }
        let wanted = if self.properties.len() > self.probe_size {
            Err(ProbeError::Io) // the device refuses: its list does not fit
        } else {
            let mut area = self.properties.clone();
            area.resize(self.probe_size, 0);
            parse(&area)
        };
        assert_eq!(answer, wanted);
    }
}

/// What a record of `len` bytes must come out as, or `None`: malformed.
fn decode(record: &[u8; 24], len: u32) -> Option<DriverFault> {
    if len != 24 || record[1..4] != [0, 0, 0] {
        return None;
    }
    let endpoint = u32::from_le_bytes(record[8..12].try_into().unwrap());
    let address = u64::from_le_bytes(record[16..24].try_into().unwrap());
    let mut access = Access::empty();
    if record[4] & 1 != 0 {
        access |= Access::READ;
    }
    if record[4] & 2 != 0 {
        access |= Access::WRITE;
    }
    Some(DriverFault {
        endpoint: EndpointId(endpoint),
        address: (record[5] & 1 != 0).then_some(Iova(address)),
        access,
        reason: match record[0] {
            1 => FaultReason::Domain,
            2 => FaultReason::Mapping,
            _ => FaultReason::Unknown,
        },
    })
}

/// The regions in a PROBE area, written a second time.
fn parse(mut area: &[u8]) -> Result<ReservedRegions, ProbeError> {
    let mut regions = ReservedRegions::new();
    let mut add = |first: u64, last: u64, kind| {
        let Some(range) = IovaRange::new(Iova(first), Iova(last)) else { return Ok(()) };
        regions.add(ReservedRegion { range, kind }).map_err(|_| ProbeError::NoSpace)
    };
    let mut doorbell = false;
    let mut seen = 0;
    while let Some((head, rest)) = area.split_first_chunk::<4>() {
        seen += 1;
        if seen > MAX_PROPERTIES {
            return Err(ProbeError::InvalidArg);
        }
        let (kind, len) = (
            head[0] as usize | (head[1] as usize) << 8,
            head[2] as usize | (head[3] as usize) << 8,
        );
        if kind & 0xfff == 0 {
            break;
        }
        let value = rest.get(..len).ok_or(ProbeError::InvalidArg)?;
        area = &rest[len..];
        if kind != 1 {
            continue;
        }
        let value = value.first_chunk::<20>().ok_or(ProbeError::InvalidArg)?;
        let number = |at: usize| u64::from_le_bytes(value[at..at + 8].try_into().unwrap());
        let (first, last) = (number(4), number(12));
        let msi = value[0] == 1;
        doorbell |= msi && first <= last;
        add(first, last, if msi { ReservedKind::Msi } else { ReservedKind::Reserved })?;
    }
    if !doorbell {
        add(0x0800_0000, 0x080f_ffff, ReservedKind::SoftwareMsi)?;
    }
    Ok(regions)
}
