//! The software IOMMU: a second, real [`Driver`](crate::driver::Driver), in memory, for tests. Feature `sim`.
//!
//! It behaves like a paravirtual unit: a domain exists in it only while an endpoint is attached,
//! so mappings are replayed; what a device reaches is decided by the unit's own tables, not by the
//! API's record, so a test that asks [`Sim::reach`] sees a forgotten request. Every request can be
//! refused on purpose ([`Sim::refuse`]), and every call is logged.
//!
//! ```
//! use iommu::{addr::*, driver::EndpointId, pool::Pool, prot::Prot, registry::*, sim::Sim};
//! use iommu::{device::DeviceId, domain::PagingDomain, fault::Access, group::*};
//!
//! static POOL: Pool = Pool::heap();
//! let registry = Registry::new(&POOL);
//! let sim = Sim::new();
//! let instance = registry.add_instance(sim.driver()).unwrap();
//! let info = DeviceInfo { id: DeviceId(1), endpoints: &[EndpointId(8)], with: None };
//! let group = registry.add_device(&instance, &info).unwrap();
//! assert!(sim.reach(EndpointId(8), Iova(0x1000), Access::READ).is_err(), "blocked at first");
//!
//! let domain = PagingDomain::new(&instance, &POOL).unwrap();
//! let page = IovaRange::from_len(Iova(0x1000), 0x1000).unwrap();
//! domain.map(page, PhysAddr(0x8000), Prot::READ).unwrap();
//! let attached = Group::claim(&group, OwnerId(1)).unwrap().attach(&domain).unwrap();
//! assert_eq!(sim.reach(EndpointId(8), Iova(0x1010), Access::READ), Ok(PhysAddr(0x8010)));
//! assert!(sim.reach(EndpointId(8), Iova(0x1010), Access::WRITE).is_err(), "read only");
//!
//! drop(attached);
//! assert!(sim.reach(EndpointId(8), Iova(0x1010), Access::READ).is_err(), "blocked again");
//! ```

mod driver;
mod platform;
mod unit;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use crate::addr::{Iova, IovaRange, PageSizes, PhysAddr};
use crate::driver::{Capabilities, DomainFeatures, DomainId, EndpointId, Left, Run};
use crate::error::AttachError;
use crate::fault::{Access, DriverFault};
use crate::reserved::ReservedRegions;
pub use platform::SimPlatform;
use unit::Unit;

/// What a software IOMMU is like; [`Default`] is a plain 4 KiB unit with 48 bits.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Page sizes of every domain.
    pub page_sizes: PageSizes,
    /// Aperture of every domain.
    pub aperture: IovaRange,
    /// Reserved regions that every endpoint reports, unless [`Sim::reserve`] gives it others.
    pub reserved: ReservedRegions,
    /// What the unit can do. With [`Capabilities::DEFERRED_UNMAP`], an unmapped range stays
    /// reachable until it is synchronised, as behind a real IOTLB.
    pub capabilities: Capabilities,
    /// Whether the unit has an identity domain of its own.
    pub identity: bool,
    /// How many paging domains there may be at a time.
    pub domains: usize,
}

impl Default for SimConfig {
    fn default() -> Self {
        let sizes = const { PageSizes::from_bits(!0xfff).unwrap() };
        let aperture = const { IovaRange::new(Iova(0), Iova((1 << 48) - 1)).unwrap() };
        Self {
            page_sizes: sizes,
            aperture,
            reserved: ReservedRegions::new(),
            capabilities: Capabilities::MMIO,
            identity: true,
            domains: 1 << 16,
        }
    }
}

/// What the next refused request answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The error of an attach. Maps answer `OutOfMemory` for it, or `Io`; probes the like of it;
    /// everything else `Io`.
    pub error: AttachError,
    /// Where an attach leaves the endpoint: `Unknown` takes it off its old domain, as QEMU does.
    pub left: Left,
    /// Whether every later request is refused as well.
    pub then_all: bool,
    /// Whether a map is done all the same, and the unit dies before it says so (`Unconfirmed`).
    pub silent: bool,
}

impl Refusal {
    /// One request fails with `Io`, and its endpoint ends on no domain.
    pub const ONCE: Self =
        Self { error: AttachError::Io, left: Left::Unknown, then_all: false, silent: false };
    /// Every request from there on fails.
    pub const FOREVER: Self = Self { then_all: true, ..Self::ONCE };
    /// A map is done and not answered, and every later request fails: the unit is dead.
    pub const SILENCE: Self = Self { silent: true, left: Left::Unchanged, ..Self::FOREVER };
}

/// One request that reached the unit, in order. Refused ones are logged too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the fields are the request's")]
pub enum Call {
    /// The endpoint was asked for its reserved regions.
    Probe { endpoint: EndpointId },
    /// The endpoint was moved.
    Attach { endpoint: EndpointId, to: DomainId },
    /// A run was mapped.
    Map { domain: DomainId, run: Run },
    /// A range was unmapped.
    Unmap { domain: DomainId, range: IovaRange },
    /// The translations of a range were invalidated; only with [`Capabilities::DEFERRED_UNMAP`].
    Sync { domain: DomainId, range: IovaRange },
    /// The recording of dirty pages was switched.
    Track { domain: DomainId, on: bool },
    /// Dirty pages were read.
    ReadDirty { domain: DomainId, range: IovaRange, clear: bool },
}

/// The test's handle on a software unit. Clones are handles on the same unit.
#[derive(Clone, Debug)]
pub struct Sim {
    unit: Arc<Mutex<Unit>>,
    config: SimConfig,
}

/// The driver of a software unit: give it to
/// [`Registry::add_instance`](crate::registry::Registry::add_instance).
#[derive(Debug)]
pub struct SimDriver {
    sim: Sim,
}

/// The blocking domain; paging domains count from 1.
const BLOCKED: DomainId = DomainId(0);

/// The identity domain.
const IDENTITY: DomainId = DomainId(u32::MAX);

impl Default for Sim {
    fn default() -> Self {
        Self::new()
    }
}

impl Sim {
    /// A unit with the default configuration.
    #[must_use]
    pub fn new() -> Self {
        Self::with(SimConfig::default())
    }

    /// A unit with this configuration.
    #[must_use]
    pub fn with(config: SimConfig) -> Self {
        Self { unit: Arc::new(Mutex::new(Unit::default())), config }
    }

    /// The driver of this unit.
    #[must_use]
    pub fn driver(&self) -> SimDriver {
        SimDriver { sim: self.clone() }
    }

    /// A device's access: where it lands, or the fault that it raised (which is queued as well).
    ///
    /// # Errors
    ///
    /// The fault record, as the driver reports it.
    pub fn reach(
        &self,
        endpoint: EndpointId,
        iova: Iova,
        access: Access,
    ) -> Result<PhysAddr, DriverFault> {
        self.unit().access(endpoint, iova, access)
    }

    /// Refuses the `n`-th request from now on; 0 is the next one. A request is one ATTACH, MAP,
    /// UNMAP or PROBE of one endpoint or range.
    pub fn refuse(&self, n: u64, refusal: Refusal) {
        self.unit().plan(&[n], refusal);
    }

    /// As [`refuse`](Self::refuse), for several requests: an undo that fails, but not all of it.
    pub fn refuse_each(&self, numbers: &[u64], refusal: Refusal) {
        self.unit().plan(numbers, refusal);
    }

    /// Ends the plan of [`refuse`](Self::refuse) and returns how many requests it refused.
    pub fn refuse_none(&self) -> u64 {
        self.unit().end_plan()
    }

    /// From now on, started calls ([`PagingDomain::start_map`] and its like) stay on their way until
    /// [`release`](Self::release), at most `room` requests at a time. A call that waits, and the
    /// hundredth look in vain, make the unit work off what was started before.
    ///
    /// [`PagingDomain::start_map`]: crate::domain::PagingDomain::start_map
    pub fn hold(&self, room: usize) {
        self.unit().room = Some(room);
    }

    /// Works off what is on its way, and ends [`hold`](Self::hold).
    pub fn release(&self) {
        let mut unit = self.unit();
        unit.work_off();
        unit.room = None;
    }

    /// Declares a pair incompatible: the endpoint answers `Incompatible` to every attach to a
    /// domain that has an endpoint of this unit already, until [`agree`](Self::agree).
    pub fn disagree(&self, endpoint: EndpointId) {
        self.unit().loners.insert(endpoint);
    }

    /// Takes [`disagree`](Self::disagree) back.
    pub fn agree(&self, endpoint: EndpointId) {
        self.unit().loners.remove(&endpoint);
    }

    /// Says that an endpoint can't do what a domain may be made for: it is incompatible with every
    /// domain that has one of these features (rules C-193, C-199).
    pub fn lacks(&self, endpoint: EndpointId, features: DomainFeatures) {
        self.unit().unable.insert(endpoint, features);
    }

    /// Gives an endpoint reserved regions of its own, for the next probe.
    pub fn reserve(&self, endpoint: EndpointId, reserved: ReservedRegions) {
        self.unit().reserved.insert(endpoint, reserved);
    }

    /// The requests since the last call of this method.
    #[must_use]
    pub fn take_log(&self) -> Vec<Call> {
        core::mem::take(&mut self.unit().log)
    }

    /// Everything that the unit translates: endpoint, its domain, and the domain's mappings.
    ///
    /// Two equal digests mean that no device can tell the difference.
    #[must_use]
    pub fn digest(&self) -> Vec<(EndpointId, DomainId, Vec<Run>)> {
        self.unit().digest()
    }

    fn unit(&self) -> MutexGuard<'_, Unit> {
        self.unit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
