//! The driver against the fake device, which walks the real rings. What the core does, [`Rig`] does.

mod attach;
mod batch;
mod core_moves;
mod documented;
mod events;
mod identity;
mod init;
mod leftovers;
mod lies;
mod porting;
mod probing;
mod recorded;
mod started;
mod wire;

use std::vec::Vec;

use super::{InitError, Options, VirtioIommu};
use crate::addr::{Iova, IovaRange, PhysAddr};
use crate::driver::{
    AttachFailure, DomainFeatures, DomainId, DomainView, Driver, EndpointId, Gather, Mappings, Run,
    Target,
};
use crate::error::{MapError, UnmapError};
use crate::pool::Pool;
use crate::prot::Prot;
use crate::virtio::transport::fake::{FakeConfig, FakeMachine, FakeMapping, FakeTransport};

static POOL: Pool = Pool::heap();

const ONE: EndpointId = EndpointId(8);
const TWO: EndpointId = EndpointId(16);
const THREE: EndpointId = EndpointId(24);
/// Not behind the fake device.
const STRANGER: EndpointId = EndpointId(99);

type FakeUnit = VirtioIommu<FakeMachine, FakeTransport>;

/// Four milliseconds of fake time, so that a dead device costs few looks at the clock.
const QUICK: Options = Options {
    wait_limit_ns: 4_000_000,
    interrupts: false,
    request_interrupts: false,
    own_dma_is_identity: false,
    empty_new_domains: false,
};

struct Rig {
    machine: FakeMachine,
    unit: FakeUnit,
}

/// A domain as the core keeps it.
struct Space {
    id: DomainId,
    endpoints: usize,
    mappings: Mappings,
}

impl Space {
    fn new(id: DomainId) -> Self {
        Self { id, endpoints: 0, mappings: Mappings::new(&POOL) }
    }

    fn view(&self) -> DomainView<'_> {
        DomainView {
            id: self.id,
            endpoints: self.endpoints,
            features: DomainFeatures::empty(),
            dirty: false,
            mappings: &self.mappings,
        }
    }
}

fn start(config: FakeConfig, options: Options) -> Result<Rig, InitError> {
    let machine = FakeMachine::new(config);
    let unit = VirtioIommu::new(machine.clone(), machine.transport(), &POOL, options)?;
    let _ = machine.take_log(); // what start-up asked: `leftovers.rs`
    Ok(Rig { machine, unit })
}

impl Rig {
    fn new() -> Self {
        start(FakeConfig::default(), QUICK).expect("the fake device is in order")
    }

    fn space(&self) -> Space {
        Space::new(self.unit.alloc_domain(DomainFeatures::empty()).unwrap())
    }

    fn blocking(&self) -> Space {
        Space::new(self.unit.blocked())
    }

    fn attach(&self, endpoints: &[EndpointId], to: &mut Space) -> Result<(), AttachFailure> {
        self.unit.attach(endpoints, &to.view(), None)?;
        to.endpoints += endpoints.len();
        Ok(())
    }

    fn map(&self, space: &mut Space, runs: &[Run]) -> Result<(), MapError> {
        for run in runs {
            let target = Target { phys: run.phys, prot: run.prot };
            space.mappings.insert(run.range, target).unwrap();
        }
        let mapped = self.unit.map(&space.view(), runs);
        if mapped.is_err() {
            for run in runs {
                space.mappings.remove(run.range.first());
            }
        }
        mapped
    }

    fn unmap(&self, space: &Space, ranges: &[IovaRange]) -> Result<(), UnmapError> {
        let mut gather = Gather::new();
        self.unit.unmap(&space.view(), ranges, &mut gather)?;
        assert_eq!(gather.range(), None, "an unmap is over when it returns");
        self.unit.sync(&space.view(), &mut gather)
    }

    /// The types of the requests since the last look, one byte each.
    fn kinds(&self) -> Vec<u8> {
        self.machine.take_log().iter().map(|request| request[0]).collect()
    }

    fn reads(&self, endpoint: EndpointId, iova: u64) -> Result<u64, u8> {
        self.machine.translate(endpoint, iova, false)
    }
}

fn range(first: u64, len: u64) -> IovaRange {
    IovaRange::from_len(Iova(first), len).unwrap()
}

fn page(iova: u64, phys: u64) -> Run {
    Run { range: range(iova, 0x1000), phys: PhysAddr(phys), prot: Prot::RW }
}

/// `count` pages that neither touch nor follow each other in memory.
fn scattered(count: u64) -> Vec<Run> {
    (0..count).map(|n| page(0x10_0000 + n * 0x2000, 0x8000_0000 + n * 0x5000)).collect()
}

fn in_device(runs: &[Run]) -> Vec<FakeMapping> {
    let one = |run: &Run| FakeMapping {
        first: run.range.first().0,
        last: run.range.last().0,
        phys: run.phys.0,
        flags: 3,
    };
    runs.iter().map(one).collect()
}
