//! virtio-iommu: the driver of the paravirtual IOMMU. virtio 1.2 §5.13.
//!
//! [`VirtioIommu::new`] starts a device on a [`Transport`]; give the result to
//! [`Registry::add_instance`](crate::registry::Registry::add_instance).
//!
//! # What the device forgets
//!
//! A domain exists in the device only while an endpoint is attached (rule C-259). So a map or unmap
//! of a domain without endpoints sends nothing, and the attach that ends this sends every mapping
//! of the record: one ATTACH per endpoint, and one MAP per mapping. Neighbours are not joined into
//! one MAP, although that would be fewer requests: an UNMAP must not cut what one MAP made, so the
//! next unmap of a part would fail (rule C-267).
//!
//! # How DMA stays blocked
//!
//! An unattached endpoint bypasses the device as long as the configuration says so, and by default
//! it does (rule C-269). Start-up clears the `bypass` byte where the device has one, and checks that
//! it stays clear; where it has none (`BYPASS_CONFIG` not offered) the specification has unattached
//! endpoints blocked, because `BYPASS` is never accepted. To block an endpoint it is *attached to
//! one domain that stays empty for ever*; DETACH is never sent (rule C-270). So
//! [`release`](crate::driver::Driver::release) sends nothing: endpoints whose device is gone stay on that domain.
//!
//! # What a reset leaves behind
//!
//! A reset should drop every domain. Some devices keep them, mappings and attached endpoints
//! included (QEMU 10.0, cloud-hypervisor). So start-up empties every domain that it finds, and
//! never uses its id; and a unit that is given up while its ring still works is emptied first.
//! Where nothing answers any more, only the host can help: turn off the devices' bus mastering.
//!
//! # Identity
//!
//! [`Ownership::attach_identity`](crate::group::Ownership::attach_identity) attaches with the bypass
//! flag to a domain of its own where the device has `BYPASS_CONFIG`; without it the core maps the
//! aperture 1:1 (rule C-268).
//!
//! # When the device lies
//!
//! A missing answer, a broken ring, `DEVICE_NEEDS_RESET` or a refused undo *poisons* the instance:
//! the device is reset, which drops every domain, and later calls give `Io` at once. DMA memory goes
//! back only after the device confirmed a reset; otherwise it is leaked, with a warning.
//!
//! # Locks
//!
//! Three: the request queue (held while the device works, for at most [`Options::wait_limit_ns`] per
//! batch), the event queue, never held together with it, and the table of domain ids, a leaf. The
//! first is taken under the lock of the domain that a call is about.

mod config;
mod driver;
mod error;
mod event;
mod ids;
mod leftovers;
mod probe;
mod request;
#[cfg(test)]
mod tests;
mod tickets;
mod wire;

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

pub use config::{Config, ConfigField, Features, MAX_PROBE_SIZE};
pub use error::InitError;

use crate::driver::Counters;
use crate::mark::sabotaged;
use crate::platform::{self, Platform};
use crate::pool::Pool;
use crate::sync::{Mutex, RawLock, SpinLock};
use crate::trace::emit;
use crate::virtio::queue::SplitQueue;
use crate::virtio::transport::{InterruptStatus, Transport, TransportError};
use crate::virtio::{DeviceStatus, NegotiationError, Quiet, negotiate, reset};
use config::BYPASS_OFFSET;
use event::{EVENT_QUEUE, Events};
use ids::DomainIds;
use request::{Dead, REQUEST_QUEUE, Requests, Unit};

/// The virtio device id of an IOMMU.
pub const DEVICE_ID: u32 = 23;

/// Every status bit that a driver sets, in the end (virtio 1.2 §3.1.1).
const READY: DeviceStatus = DeviceStatus::ACKNOWLEDGE
    .union(DeviceStatus::DRIVER)
    .union(DeviceStatus::FEATURES_OK)
    .union(DeviceStatus::DRIVER_OK);

/// How an instance is driven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// How long the device may take for one batch of requests, or for a reset, in nanoseconds.
    /// After that it is taken for broken.
    ///
    /// Seconds, not microseconds: a host may hold a request back until another process of its
    /// gives up memory.
    pub wait_limit_ns: u64,
    /// Whether the device raises an interrupt for fault records. Polling works alone.
    pub interrupts: bool,
    /// Whether the device raises an interrupt when requests are done, so that a task can sleep until
    /// it is worth to ask a started map or unmap
    /// ([`PagingDomain::start_map`](crate::domain::PagingDomain::start_map)). Ask once more after you
    /// began to listen and before you sleep, or the interrupt may be gone already. Calls that wait
    /// don't use it, and ask the device for none.
    pub request_interrupts: bool,
    /// Whether the IOMMU's own accesses to its queues reach memory at the addresses that
    /// [`Platform::alloc_dma`] gives, even where the device asks for `VIRTIO_F_ACCESS_PLATFORM`.
    ///
    /// Without this promise the bit is not accepted; QEMU crashes when its virtio-iommu is put
    /// behind itself.
    pub own_dma_is_identity: bool,
    /// Whether each domain is emptied in the device (one UNMAP over everything) before it is used.
    ///
    /// For devices whose reset does not drop domains, such as cloud-hypervisor's: an earlier driver
    /// may have left mappings under our ids. Costs one request per attach to an unused domain. It
    /// is done anyway once an attach has failed, because then it isn't known what the device kept.
    pub empty_new_domains: bool,
}

impl Default for Options {
    /// Five seconds; everything else off.
    fn default() -> Self {
        Self {
            wait_limit_ns: 5_000_000_000,
            interrupts: false,
            request_interrupts: false,
            own_dma_is_identity: false,
            empty_new_domains: false,
        }
    }
}

/// One virtio-iommu, started.
///
/// Dropping it resets the device and gives its DMA memory back, or leaks it if the device does not
/// confirm.
pub struct VirtioIommu<P: Platform, T: Transport, R: RawLock = SpinLock> {
    platform: P,
    transport: T,
    options: Options,
    features: Features,
    config: Config,
    /// Set under the lock of the request queue, never cleared.
    poisoned: AtomicBool,
    /// Whether an attach has failed, so that domains of the device may hold more than we know. Set
    /// under the lock of the request queue, never cleared.
    suspect: AtomicBool,
    requests: Mutex<R, Requests>,
    events: Mutex<R, Events>,
    ids: Mutex<R, DomainIds>,
}

impl<P: Platform, T: Transport> VirtioIommu<P, T> {
    /// Resets and starts the device: features, configuration, queues, and out of bypass.
    ///
    /// When this returns `Ok`, an endpoint that is on no domain reaches nothing. Number the PCI
    /// buses before, because a device may remember them.
    ///
    /// # Errors
    ///
    /// Each variant of [`InitError`] says what is wrong with the device.
    pub fn new(
        platform: P,
        transport: T,
        pool: &'static Pool,
        options: Options,
    ) -> Result<Self, InitError> {
        Self::with_lock(platform, transport, pool, options)
    }
}

impl<P: Platform, T: Transport, R: RawLock> VirtioIommu<P, T, R> {
    /// As [`new`](VirtioIommu::new), with a raw lock of the host's choice.
    ///
    /// # Errors
    ///
    /// As [`new`](VirtioIommu::new).
    pub fn with_lock(
        platform: P,
        mut transport: T,
        pool: &'static Pool,
        options: Options,
    ) -> Result<Self, InitError> {
        match transport.device_id() {
            DEVICE_ID => {}
            device_id => return Err(InitError::NotAnIommu { device_id }),
        }
        platform::check_clock(&platform)?; // every wait below needs it
        let quiet = reset(&platform, &transport, options.wait_limit_ns);
        let quiet = quiet.map_err(|_| InitError::NoReset)?;
        platform::check_memory(&platform)?;
        let features = accept(&mut transport, &options)?;
        let config = Config::read(&transport, features, platform.page_size())?;
        let request_size = queue_size(&mut transport, REQUEST_QUEUE, 2)?;
        let event_size = queue_size(&mut transport, EVENT_QUEUE, 1)?;
        let mut requests = Requests::new(&platform, request_size, &config, &options, &quiet)?;
        let events = Events::new(&platform, event_size, options.interrupts, &quiet)
            .inspect_err(|_| requests.release(&platform, &quiet))?;
        let ids = DomainIds::new(pool, config.first_domain, config.last_domain);
        let mut this = Self {
            platform,
            transport,
            options,
            features,
            config,
            poisoned: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
            requests: Mutex::new(requests),
            events: Mutex::new(events),
            ids: Mutex::new(ids),
        };
        this.start()?; // on an error `Drop` resets the device and frees the memory
        emit!(debug, "iommu: virtio-iommu started, features {:#x}", this.features.bits());
        Ok(this)
    }

    /// The features in force: what is offered and of use to us.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    /// What the device says about itself.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The options of [`new`](Self::new).
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Reads what an interrupt of the device was about and lowers its line. Takes no lock, so an
    /// interrupt handler may call it; on `QUEUE` let a task call
    /// [`take_faults`](crate::driver::Driver::take_faults) and poll what was started, on `CONFIG`
    /// [`check`](Self::check).
    pub fn take_interrupt(&self) -> InterruptStatus {
        self.transport.take_interrupt()
    }

    /// Asks the device whether it gave up; if so the instance is poisoned. Costs a register read.
    pub fn check(&self) {
        if !self.is_poisoned() && self.transport.status().contains(DeviceStatus::DEVICE_NEEDS_RESET)
        {
            self.poison(&mut self.requests.lock(), Dead::NeedsReset);
        }
    }

    /// From the queues to DRIVER_OK and out of bypass, in the order of virtio 1.2 §3.1.1.
    fn start(&mut self) -> Result<(), InitError> {
        self.transport.enable_queue(REQUEST_QUEUE, &self.requests.get_mut().setup())?;
        self.transport.enable_queue(EVENT_QUEUE, &self.events.get_mut().setup())?;
        self.transport.set_status(READY);
        let can_bypass = self.features.contains(Features::BYPASS_CONFIG);
        if sabotaged!(LeaveBypass, can_bypass, false) {
            // Written even if it reads 0: cloud-hypervisor reads 0 and bypasses until it is written.
            self.transport.config_write_u8(BYPASS_OFFSET, 0);
            if self.transport.config_read_u8(BYPASS_OFFSET) != 0 {
                return Err(InitError::BypassStuck);
            }
        }
        let unit = unit(&self.platform, &self.transport, &self.options);
        self.events.get_mut().publish(&unit);
        if self.transport.status().contains(DeviceStatus::DEVICE_NEEDS_RESET) {
            return Err(InitError::NeedsReset);
        }
        let requests = self.requests.get_mut();
        leftovers::sweep(requests, &unit, self.ids.get_mut(), &self.config)
            .map_err(|_| InitError::NoAnswer)?;
        requests.counters = Counters::default(); // what start-up asked is nobody's cost
        Ok(())
    }

    fn unit(&self) -> Unit<'_, P, T> {
        unit(&self.platform, &self.transport, &self.options)
    }

    fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Gives the instance up and resets the device, whose request queue is locked.
    fn poison(&self, requests: &mut Requests, cause: Dead) {
        if self.poisoned.swap(true, Ordering::AcqRel) {
            return;
        }
        emit!(warn, "iommu: virtio-iommu gave up: {:?}", cause);
        if cause == Dead::UnmapRefused {
            // The ring still works, and a reset may not drop domains.
            let ids = self.ids.lock().taken();
            leftovers::empty(requests, &self.unit(), ids, self.config.input_range);
        }
        if self.reset().is_none() {
            emit!(warn, "iommu: no confirmation of the reset");
        }
    }

    fn reset(&self) -> Option<Quiet> {
        reset(&self.platform, &self.transport, self.options.wait_limit_ns).ok()
    }
}

impl<P: Platform, T: Transport, R: RawLock> Drop for VirtioIommu<P, T, R> {
    fn drop(&mut self) {
        let Some(quiet) = self.reset() else {
            emit!(warn, "iommu: no confirmation of the reset, DMA memory is leaked");
            return;
        };
        self.requests.get_mut().release(&self.platform, &quiet);
        self.events.get_mut().release(&self.platform, &quiet);
    }
}

impl<P: Platform, T: Transport, R: RawLock> fmt::Debug for VirtioIommu<P, T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioIommu")
            .field("features", &self.features)
            .field("config", &self.config)
            .field("poisoned", &self.is_poisoned())
            .finish_non_exhaustive()
    }
}

fn unit<'a, P, T>(platform: &'a P, transport: &'a T, options: &Options) -> Unit<'a, P, T> {
    let (limit_ns, interrupts) = (options.wait_limit_ns, options.request_interrupts);
    Unit { platform, transport, limit_ns, interrupts }
}

/// Accepts what we use of what is offered. `BYPASS` never: it would free unattached endpoints.
fn accept<T: Transport>(transport: &mut T, options: &Options) -> Result<Features, InitError> {
    let required = Features::VERSION_1 | Features::MAP_UNMAP;
    let mut wanted = required
        | Features::INPUT_RANGE
        | Features::DOMAIN_RANGE
        | Features::PROBE
        | Features::MMIO
        | Features::BYPASS_CONFIG;
    wanted.set(Features::ACCESS_PLATFORM, options.own_dma_is_identity);
    match negotiate(transport, wanted.bits(), required.bits()) {
        Ok(accepted) => Ok(Features::from_bits_truncate(accepted)),
        Err(NegotiationError::Missing(bits)) if bits & Features::VERSION_1.bits() != 0 => {
            Err(InitError::NoVersion1)
        }
        Err(NegotiationError::Missing(_)) => Err(InitError::NoMapUnmap),
        Err(NegotiationError::Refused) => Err(InitError::FeaturesRefused),
    }
}

/// The size that `queue` will have: room for one chain of `descriptors` at least.
fn queue_size<T: Transport>(
    transport: &mut T,
    queue: u16,
    descriptors: u16,
) -> Result<u16, InitError> {
    let size = SplitQueue::size_for(transport.queue_max(queue));
    if size < descriptors {
        return Err(TransportError::NoQueue(queue).into());
    }
    Ok(size)
}
