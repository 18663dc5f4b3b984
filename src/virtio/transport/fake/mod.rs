//! A fake machine with a virtio-iommu: platform and transport in memory, for tests. Feature `sim`.
//!
//! The device walks the real rings and behaves as QEMU does by the measured tables, also where that
//! is odd. On demand it lies: see [`Lie`] and the switches of [`FakeConfig`]. Memory that was freed,
//! or never given, makes it panic when the driver sends it there.
//!
//! ```
//! use iommu::drivers::virtio_iommu::{Options, VirtioIommu};
//! use iommu::{driver::*, pool::Pool, virtio::transport::fake::*};
//!
//! static POOL: Pool = Pool::heap();
//! let machine = FakeMachine::new(FakeConfig::default());
//! let transport = machine.transport();
//! let unit = VirtioIommu::new(machine.clone(), transport, &POOL, Options::default()).unwrap();
//! assert_eq!(unit.health(), Health::Good);
//! assert_eq!(machine.translate(EndpointId(8), 0x1000, false), Err(0), "out of bypass");
//! ```
//!
//! Lock: one for the whole machine, a leaf.

mod device;
mod memory;
mod model;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec;
use std::vec::Vec;

pub use model::FakeMapping;

use super::{InterruptStatus, QueueSetup, Transport, TransportError};
use crate::driver::{DomainId, EndpointId};
use crate::virtio::DeviceStatus;
use device::{Device, EVENTS, REQUESTS};
use memory::Memory;

/// What the device is like. [`Default`] is QEMU 10.0 on `virt`, with endpoints 8, 16, 24 and 32.
#[derive(Clone, Debug)]
pub struct FakeConfig {
    /// The virtio device id.
    pub device_id: u32,
    /// The feature bits offered.
    pub features: u64,
    /// `page_size_mask`.
    pub page_size_mask: u64,
    /// `input_range`, both ends.
    pub input_range: (u64, u64),
    /// `domain_range`, both ends.
    pub domain_range: (u32, u32),
    /// `probe_size`.
    pub probe_size: u32,
    /// The bypass byte at power on.
    pub bypass: u8,
    /// The largest sizes of the two queues.
    pub queue_sizes: [u16; 2],
    /// The endpoints that exist.
    pub endpoints: Vec<u32>,
    /// What PROBE answers with.
    pub properties: Vec<u8>,
    /// The size of the machine's pages.
    pub system_page: u64,
    /// How far each look at the clock moves it, in nanoseconds.
    pub tick_ns: u64,
    /// How many looks at the clock a notify waits before it is served; 0: it is served at once.
    pub delay: u32,
    /// Whether the requests of one notify complete in reverse order.
    pub reverse: bool,
    /// Lie: FEATURES_OK does not stick.
    pub refuse_features: bool,
    /// Lie: a reset is ignored.
    pub ignore_reset: bool,
    /// Lie: a reset keeps domains, mappings and attached endpoints.
    pub keep_domains: bool,
    /// Lie: the bypass byte can't be changed.
    pub keep_bypass: bool,
    /// Lie: the generation of the configuration changes with each look.
    pub restless: bool,
}

impl Default for FakeConfig {
    fn default() -> Self {
        let msi = [1, 0, 20, 0, 1, 0, 0, 0, 0, 0, 2, 8, 0, 0, 0, 0, 0xff, 0xf, 2, 8, 0, 0, 0, 0];
        Self {
            device_id: 23,
            features: 0x101_3000_0077,
            page_size_mask: !0xfff,
            input_range: (0, (1 << 48) - 1),
            domain_range: (0, u32::MAX),
            probe_size: 512,
            bypass: 1,
            queue_sizes: [256, 256],
            endpoints: vec![8, 16, 24, 32],
            properties: msi.to_vec(),
            system_page: 4096,
            tick_ns: 1000,
            delay: 0,
            reverse: false,
            refuse_features: false,
            ignore_reset: false,
            keep_domains: false,
            keep_bypass: false,
            restless: false,
        }
    }
}

/// What the device does wrong with one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// It takes the request, and nothing comes back, nor of later ones.
    NoAnswer,
    /// It gives up: `DEVICE_NEEDS_RESET`.
    NeedsReset,
    /// It does nothing and answers with this status: a refusal, or nonsense.
    Status(u8),
    /// It does the request and answers with this status.
    StatusAfter(u8),
    /// It does nothing and says it wrote the whole answer.
    StatusNotWritten,
    /// It does the request and says it wrote this many bytes.
    UsedLen(u32),
    /// It does the request and names another chain.
    UsedId(u32),
    /// It does the request and completes it twice.
    Twice,
    /// It does the request and moves the used index by this many more; `0xfffe` moves it back.
    UsedJump(u16),
    /// It does the request, and when the requests of the notify are done it writes these bytes into
    /// the used ring: over flags, index or entries.
    RingWrite {
        /// From here on, counted from the start of the used ring and kept inside it.
        at: u16,
        /// What it writes.
        bytes: [u8; 8],
    },
}

/// The test's handle on the machine, and its [`Platform`](crate::platform::Platform). Clones are
/// handles on the same machine.
#[derive(Clone)]
pub struct FakeMachine {
    state: Arc<Mutex<State>>,
}

/// The registers of the machine's device.
pub struct FakeTransport {
    machine: FakeMachine,
}

struct State {
    memory: Memory,
    device: Device,
    now_ns: u64,
    /// Looks at the clock until a notify is served.
    due: Option<u32>,
    register_accesses: u64,
    /// Register accesses until the device gives up.
    give_up_in: Option<u64>,
}

impl State {
    fn tick(&mut self) -> u64 {
        self.now_ns = self.now_ns.saturating_add(self.device.config.tick_ns);
        match self.due {
            Some(0) => {
                self.due = None;
                self.device.run(&mut self.memory);
            }
            Some(left) => self.due = Some(left - 1),
            None => {}
        }
        self.now_ns
    }
}

impl FakeMachine {
    /// A machine with one device.
    #[must_use]
    pub fn new(config: FakeConfig) -> Self {
        let state = State {
            memory: Memory::default(),
            device: Device::new(config),
            now_ns: 0,
            due: None,
            register_accesses: 0,
            give_up_in: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The registers of the device.
    #[must_use]
    pub fn transport(&self) -> FakeTransport {
        FakeTransport { machine: self.clone() }
    }

    /// Changes the switches of the device.
    pub fn configure(&self, change: impl FnOnce(&mut FakeConfig)) {
        let device = &mut self.state().device;
        change(&mut device.config);
        device.model.properties.clone_from(&device.config.properties);
    }

    /// Changes the configuration as a device may at run time: with a new generation, and an
    /// interrupt.
    pub fn change_config(&self, change: impl FnOnce(&mut FakeConfig)) {
        self.configure(change);
        let device = &mut self.state().device;
        device.generation += 1;
        device.isr |= 2;
    }

    /// Changes the bypass byte from the device's side.
    pub fn set_bypass(&self, bypass: u8) {
        self.state().device.bypass = bypass;
    }

    /// Plans a lie for the `n`-th request from now; 0 is the next one.
    pub fn lie(&self, n: u64, lie: Lie) {
        self.state().device.lies.push_back((n, lie));
    }

    /// Refuses the `n`-th allocation of DMA memory from now, and all after it.
    pub fn refuse_memory_after(&self, n: Option<usize>) {
        self.state().memory.refuse_after = n;
    }

    /// How many pages of DMA memory are in use.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.state().memory.pages()
    }

    /// The requests that the device took so far, byte by byte; the log is empty afterwards.
    #[must_use]
    pub fn take_log(&self) -> Vec<Vec<u8>> {
        core::mem::take(&mut self.state().device.log)
    }

    /// How often the request queue was notified.
    #[must_use]
    pub fn notifies(&self) -> u64 {
        self.state().device.queues[REQUESTS].notifies
    }

    /// How many registers were read or written: exits, on a real machine.
    #[must_use]
    pub fn register_accesses(&self) -> u64 {
        self.state().register_accesses
    }

    /// Lets time pass: one look at the clock.
    pub fn tick(&self) {
        self.state().tick();
    }

    /// The clock, without moving it.
    #[must_use]
    pub fn clock_ns(&self) -> u64 {
        self.state().now_ns
    }

    /// The device status.
    #[must_use]
    pub fn status(&self) -> DeviceStatus {
        self.state().device.status
    }

    /// The features that the driver accepted.
    #[must_use]
    pub fn accepted_features(&self) -> u64 {
        self.state().device.accepted
    }

    /// The bypass byte.
    #[must_use]
    pub fn bypass(&self) -> u8 {
        self.state().device.bypass
    }

    /// The flags of each descriptor that the device took so far.
    #[must_use]
    pub fn descriptor_flags(&self) -> Vec<u16> {
        self.state().device.flags.clone()
    }

    /// The flags that the driver wrote into the available rings of both queues.
    #[must_use]
    pub fn available_flags(&self) -> [u16; 2] {
        let State { memory, device, .. } = &*self.state();
        [REQUESTS, EVENTS].map(|queue| device.available_flags(memory, queue))
    }

    /// How far the device is in the rings of the request queue: the next available entry, and the
    /// used index.
    #[must_use]
    pub fn indexes(&self) -> [u16; 2] {
        self.state().device.queues[REQUESTS].indexes()
    }

    /// The domain that the device has the endpoint on.
    #[must_use]
    pub fn domain_of(&self, endpoint: EndpointId) -> Option<DomainId> {
        self.state().device.model.domain_of(endpoint.0).map(DomainId)
    }

    /// What the device maps in a domain, in order.
    #[must_use]
    pub fn mappings(&self, domain: DomainId) -> Vec<FakeMapping> {
        self.state().device.model.mappings(domain.0)
    }

    /// Puts a mapping into the device that the driver knows nothing of: a left-over.
    pub fn plant(&self, domain: DomainId, mapping: FakeMapping) {
        self.state().device.model.insert(domain.0, mapping);
    }

    /// Where an access of an endpoint arrives, or the reason of the fault (as in a fault record).
    ///
    /// # Errors
    ///
    /// 0: the endpoint is on no domain. 2: nothing is mapped there, or not for this.
    pub fn translate(&self, endpoint: EndpointId, iova: u64, write: bool) -> Result<u64, u8> {
        let state = self.state();
        let bypass = state.device.bypass != 0;
        state.device.model.translate(endpoint.0, iova, write, bypass)
    }

    /// Reports a fault: writes `record` into the next event buffer and says it wrote `len` bytes.
    pub fn event(&self, record: &[u8], len: u32) {
        let State { memory, device, .. } = &mut *self.state();
        device.event(memory, record, len);
    }

    /// Completes an event buffer that the device may not have.
    pub fn event_used(&self, id: u32, len: u32) {
        let State { memory, device, .. } = &mut *self.state();
        device.push_used(memory, EVENTS, id, len);
    }

    /// Writes into a used ring (queue 0: requests, 1: events) as no device should, `at` counted from
    /// its start and kept inside it. Nothing happens while the queue is not set up.
    pub fn write_used_ring(&self, queue: usize, at: u16, bytes: [u8; 8]) {
        let State { memory, device, .. } = &mut *self.state();
        device.write_used_ring(memory, queue, at, bytes);
    }

    /// How many fault records found no buffer.
    #[must_use]
    pub fn dropped_events(&self) -> u64 {
        self.state().device.dropped_events
    }

    /// Makes the device give up now.
    pub fn give_up(&self) {
        self.state().device.needs_reset();
    }

    /// Makes the device give up at the `n`-th register access from now; 0 is the next one.
    pub fn give_up_at(&self, n: u64) {
        self.state().give_up_in = Some(n);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeTransport {
    fn access(&self) -> MutexGuard<'_, State> {
        let mut state = self.machine.state();
        state.register_accesses += 1;
        if let Some(left) = state.give_up_in {
            state.give_up_in = left.checked_sub(1);
            if left == 0 {
                state.device.needs_reset();
            }
        }
        state
    }
}

impl Transport for FakeTransport {
    fn device_id(&self) -> u32 {
        self.machine.state().device.config.device_id
    }

    fn status(&self) -> DeviceStatus {
        self.access().device.status
    }

    fn set_status(&self, status: DeviceStatus) {
        self.access().device.write_status(status);
    }

    fn device_features(&mut self) -> u64 {
        self.access().device.config.features
    }

    fn set_driver_features(&mut self, features: u64) {
        self.access().device.accepted = features;
    }

    fn queue_max(&mut self, queue: u16) -> u16 {
        let state = self.access();
        state.device.config.queue_sizes.get(usize::from(queue)).copied().unwrap_or(0)
    }

    fn enable_queue(&mut self, queue: u16, setup: &QueueSetup) -> Result<(), TransportError> {
        self.access().device.enable(queue, *setup)
    }

    fn notify(&self, queue: u16) {
        let mut state = self.access();
        let State { memory, device, due, .. } = &mut *state;
        assert!(device.status.contains(DeviceStatus::DRIVER_OK), "notified before DRIVER_OK");
        device.queues[usize::from(queue)].notifies += 1;
        match device.config.delay {
            _ if usize::from(queue) != REQUESTS => {}
            0 => device.run(memory),
            delay => *due = Some(delay),
        }
    }

    fn config_generation(&self) -> u32 {
        let device = &mut self.access().device;
        device.generation += u32::from(device.config.restless);
        device.generation
    }

    fn config_read_u8(&self, offset: u16) -> u8 {
        let state = self.access();
        if offset == 36 { state.device.bypass } else { 0xff }
    }

    fn config_read_u32(&self, offset: u16) -> u32 {
        let config = &self.access().device.config;
        let half = |value: u64| if offset.is_multiple_of(8) { value } else { value >> 32 } as u32;
        match offset {
            0 | 4 => half(config.page_size_mask),
            8 | 12 => half(config.input_range.0),
            16 | 20 => half(config.input_range.1),
            24 => config.domain_range.0,
            28 => config.domain_range.1,
            32 => config.probe_size,
            _ => u32::MAX,
        }
    }

    fn config_write_u8(&self, offset: u16, value: u8) {
        let device = &mut self.access().device;
        if offset == 36 {
            device.write_bypass(value);
        } else {
            device.needs_reset();
        }
    }

    fn take_interrupt(&self) -> InterruptStatus {
        let isr = core::mem::take(&mut self.access().device.isr);
        InterruptStatus::from_bits_truncate(isr)
    }
}
