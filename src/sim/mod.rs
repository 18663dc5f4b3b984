//! The software IOMMU: a second, real [`Driver`], in memory, for tests. Feature `sim`.
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

mod unit;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use crate::addr::{Iova, IovaRange, PageSizes, PhysAddr};
use crate::driver::{
    AttachFailure, Capabilities, Counters, DomainId, DomainView, Driver, EndpointId, Gather,
    Geometry, Health, Left, Run,
};
use crate::error::{AttachError, DomainError, MapError, ProbeError, UnmapError};
use crate::fault::{Access, DriverFault};
use crate::reserved::ReservedRegions;
use unit::Unit;

/// What a software IOMMU is like; [`Default`] is a plain 4 KiB unit with 48 bits.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Page sizes of every domain.
    pub page_sizes: PageSizes,
    /// Aperture of every domain.
    pub aperture: IovaRange,
    /// Reserved regions that every endpoint reports.
    pub reserved: ReservedRegions,
    /// What the unit says it can do.
    pub capabilities: Capabilities,
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
            capabilities: Capabilities::empty(),
            domains: 1 << 16,
        }
    }
}

/// What the next refused request answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The error of an attach; maps and unmaps answer `Io`.
    pub error: AttachError,
    /// Where an attach leaves the endpoint: `Unknown` takes it off its old domain, as QEMU does.
    pub left: Left,
    /// Whether every later request is refused as well.
    pub then_all: bool,
}

impl Refusal {
    /// One request fails with `Io`, and its endpoint ends on no domain.
    pub const ONCE: Self = Self { error: AttachError::Io, left: Left::Unknown, then_all: false };
    /// Every request from there on fails.
    pub const FOREVER: Self = Self { error: AttachError::Io, left: Left::Unknown, then_all: true };
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
        self.unit().plan(n, refusal);
    }

    /// Ends the plan of [`refuse`](Self::refuse) and returns how many requests it refused.
    pub fn refuse_none(&self) -> u64 {
        self.unit().end_plan()
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

impl Driver for SimDriver {
    fn geometry(&self) -> Geometry {
        let SimConfig { page_sizes, aperture, .. } = self.sim.config;
        Geometry { page_sizes, aperture }
    }

    fn capabilities(&self) -> Capabilities {
        self.sim.config.capabilities
    }

    fn probe(&self, endpoint: EndpointId) -> Result<ReservedRegions, ProbeError> {
        let mut unit = self.sim.unit();
        unit.request(Call::Probe { endpoint }).map_err(|_| ProbeError::Io)?;
        Ok(self.sim.config.reserved.clone())
    }

    fn blocked(&self) -> DomainId {
        BLOCKED
    }

    fn alloc_domain(&self) -> Result<DomainId, DomainError> {
        self.sim.unit().alloc(self.sim.config.domains)
    }

    fn free_domain(&self, id: DomainId) {
        self.sim.unit().ids.remove(&id);
    }

    fn compatible(&self, domain: &DomainView<'_>, endpoint: EndpointId) -> Result<(), AttachError> {
        let lonely = self.sim.unit().loners.contains(&endpoint);
        if lonely && domain.endpoints > 0 { Err(AttachError::Incompatible) } else { Ok(()) }
    }

    fn attach(
        &self,
        endpoints: &[EndpointId],
        new: &DomainView<'_>,
        _old: Option<DomainId>,
    ) -> Result<(), AttachFailure> {
        let mut unit = self.sim.unit();
        unit.counters.notifies += 1;
        for (index, endpoint) in endpoints.iter().enumerate() {
            if let Err(refusal) = unit.attach(*endpoint, new.id) {
                let touched = index + usize::from(refusal.left != Left::Unchanged);
                let Refusal { error, left, .. } = refusal;
                return Err(AttachFailure { error, refused: index, left, touched });
            }
        }
        if new.endpoints > 0 {
            return Ok(());
        }
        for (range, target) in new.mappings.iter() {
            let run = Run { range, phys: target.phys, prot: target.prot };
            if unit.map(new.id, run).is_err() {
                let (left, touched) = (Left::Unknown, endpoints.len());
                return Err(AttachFailure { error: AttachError::Io, refused: 0, left, touched });
            }
        }
        Ok(())
    }

    fn map(&self, domain: &DomainView<'_>, runs: &[Run]) -> Result<(), MapError> {
        if domain.endpoints == 0 {
            return Ok(());
        }
        let mut unit = self.sim.unit();
        unit.counters.notifies += 1;
        for (done, run) in runs.iter().enumerate() {
            if unit.map(domain.id, *run).is_err() {
                let undone = runs.iter().take(done).all(|r| unit.unmap(domain.id, r.range).is_ok());
                unit.broken |= !undone;
                return Err(MapError::Io);
            }
        }
        Ok(())
    }

    fn unmap(
        &self,
        domain: &DomainView<'_>,
        ranges: &[IovaRange],
        gather: &mut Gather,
    ) -> Result<(), UnmapError> {
        if domain.endpoints == 0 {
            return Ok(());
        }
        let mut unit = self.sim.unit();
        unit.counters.notifies += 1;
        for range in ranges {
            if unit.unmap(domain.id, *range).is_err() {
                unit.broken = true;
                return Err(UnmapError::Io);
            }
            gather.add(*range);
        }
        Ok(())
    }

    fn sync(&self, _domain: &DomainView<'_>, gather: &mut Gather) -> Result<(), UnmapError> {
        gather.clear();
        Ok(())
    }

    fn take_faults(&self, sink: &mut dyn FnMut(DriverFault)) -> u64 {
        let mut unit = self.sim.unit();
        core::mem::take(&mut unit.faults).into_iter().for_each(sink);
        0
    }

    fn counters(&self) -> Counters {
        self.sim.unit().counters
    }

    fn health(&self) -> Health {
        if self.sim.unit().broken { Health::Poisoned } else { Health::Good }
    }
}
