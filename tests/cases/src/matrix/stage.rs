//! What situations are made of: the steps of all cases, for one kind of device.

use iommu::container::{Container, IdentityMemory, MapDma, Options};
use iommu::domain::PagingDomain;
use iommu::fault::{Access, FaultReason};
use iommu::group::{Attachment, GroupId};
use iommu::pool::Shared;
use iommu::prot::Prot;

use super::{Aim, Kind, Matrix};
use crate::bench::{Outcome, Who};
use crate::steps::{self, Memory, PAGE, range};

/// One kind of device on its bench.
pub struct Stage<'a> {
    /// The bench.
    pub bench: &'a mut dyn Matrix,
    kind: Kind,
}

impl<'a> Stage<'a> {
    pub(super) fn new(bench: &'a mut dyn Matrix, kind: Kind) -> Self {
        Self { bench, kind }
    }

    /// Which device it is.
    #[must_use]
    pub fn who(&self) -> Who {
        self.kind.who()
    }

    /// Another device, alone in its group, at the same unit.
    #[must_use]
    pub fn partner(&self) -> Who {
        if self.who() == Who::Two { Who::One } else { Who::Two }
    }

    /// The right that the accesses need.
    #[must_use]
    pub fn right(&self) -> Prot {
        if self.kind.access() == Access::READ { Prot::READ } else { Prot::WRITE }
    }

    /// How many bytes an access has.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "every access has bytes")]
    pub fn len(&self) -> u64 {
        self.kind.len()
    }

    /// Memory of the case.
    #[must_use]
    pub fn memory(&self, pages: u64) -> Memory {
        Memory::new(self.bench, pages)
    }

    /// A new domain in which the device works.
    #[track_caller]
    pub fn domain(&self) -> Shared<PagingDomain> {
        let domain = steps::domain_for(self.bench, self.who());
        self.bench.needs(self.kind, &mut |need| {
            let range = range(need.iova, need.pages);
            domain.map(range, need.phys, need.prot).expect("a new domain is empty");
        });
        domain
    }

    /// Claims and attaches the group of the device.
    #[track_caller]
    pub fn attach(&self, domain: &Shared<PagingDomain>) -> Attachment {
        steps::attach(self.bench, self.who(), domain)
    }

    /// A new container in which the device works, once it is attached.
    #[track_caller]
    pub fn container(&self) -> Container<IdentityMemory> {
        let options = Options { allow_unsafe_interrupts: true, ..Options::default() };
        let container = Container::new(self.bench.registry().pool(), IdentityMemory, options);
        self.bench.needs(self.kind, &mut |need| {
            let (iova, vaddr, size) = (need.iova, need.phys.0, need.pages * PAGE);
            let request = MapDma { iova, vaddr, size, prot: need.prot };
            container.map_dma(&request).expect("a new container is empty");
        });
        container
    }

    /// Attaches the group of a device to a container.
    #[track_caller]
    pub fn join(&self, container: &Container<IdentityMemory>, who: Who) -> GroupId {
        let ownership = steps::claim(self.bench, who);
        let group = ownership.group().id();
        container.attach_group(ownership).expect("attaches");
        group
    }

    /// The access at `iova` arrives, at `offset` of `memory`. Before, the device shows that it has
    /// read nothing while it was refused.
    #[track_caller]
    pub fn arrives(&self, iova: u64, memory: &Memory, offset: u64) {
        let kind = self.kind;
        assert!(!self.bench.tells(kind), "{kind:?} shows what it was not to read");
        let outcome = self.bench.access(kind, iova, Aim::Memory(memory.at(offset)));
        assert!(outcome == Outcome::Arrived, "{kind:?} at {iova:#x}: {outcome:?}");
    }

    /// The device works, and the access at `iova` is refused.
    #[track_caller]
    pub fn refused(&self, iova: u64) {
        let outcome = self.bench.access(self.kind, iova, Aim::Nothing);
        assert!(outcome.is_refused_at(iova), "{:?} at {iova:#x}: {outcome:?}", self.kind);
    }

    /// As [`refused`](Self::refused), and for what the access wanted: something is mapped there, with
    /// the other right.
    #[track_caller]
    pub fn denied(&self, iova: u64) {
        let outcome = self.bench.access(self.kind, iova, Aim::Nothing);
        let named = outcome.is_refused_for(iova, self.kind.access());
        assert!(named, "{:?} at {iova:#x}: {outcome:?}", self.kind);
    }

    /// The first `inside` bytes are mapped to `memory`; the rest is refused.
    #[track_caller]
    pub fn refused_after(&self, iova: u64, memory: &Memory, offset: u64, inside: u64) {
        let outcome = self.bench.access(self.kind, iova, Aim::Part(memory.at(offset), inside));
        let at = iova + inside;
        assert!(outcome.is_refused_at(at), "{:?} at {at:#x}: {outcome:?}", self.kind);
    }

    /// The device reaches nothing at all: what it reaches for first is refused, be it the memory or
    /// the queue in which it would find the order.
    #[track_caller]
    pub fn blocked(&self, iova: u64) {
        let first = self.bench.first(self.kind, iova);
        let outcome = self.bench.access(self.kind, iova, Aim::Nothing);
        let found = matches!(
            outcome,
            Outcome::Refused { address, reason: FaultReason::Mapping, .. } if address == first
        );
        assert!(found, "{:?} at {iova:#x}, first at {first:#x}: {outcome:?}", self.kind);
    }

    /// The device reaches nothing at all, and nobody is there to record it.
    #[track_caller]
    pub fn gets_nowhere(&self, iova: u64) {
        let kind = self.kind;
        assert!(self.bench.tries_in_vain(kind, iova), "{kind:?} at {iova:#x} reached memory");
    }
}
