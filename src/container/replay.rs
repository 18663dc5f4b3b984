//! Filling a new domain with the mappings there are, and emptying the last one (section 6).

use super::drain::{Runs, Whose};
use super::map::{Build, map_coherent};
use super::state::{Passing, Phase, State};
use super::{AttachGroupError, Container, Memory};
use crate::addr::{Iova, IovaRange};
use crate::domain::PagingDomain;
use crate::mark::sabotage;
use crate::pool::Shared;
use crate::prot::Prot;
use crate::sync::RawLock;
use crate::trace::emit;

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Pins every mapping and records it in the first domain. The state is not locked.
    pub(super) fn fill_from_memory(
        &self,
        domain: &Shared<PagingDomain<R>>,
    ) -> Result<(), AttachGroupError> {
        self.state.lock().passing = Some(Passing { domain: domain.clone(), joining: true });
        let mut next = Some(Iova(0));
        // New mappings behind `next` see the passing domain and are mapped by their own call.
        while let Some(at) = next {
            let raw = self.state.lock().next_raw(at);
            let Some(build) = raw else { return Ok(()) };
            let built = self.pin_and_map(&build);
            self.state.lock().set_phase(build.range, build.serial, Phase::Live);
            built?;
            next = build.range.last().checked_add(1);
        }
        Ok(())
    }

    /// Takes everything out of the passing domain and unpins it.
    pub(super) fn drain_all(&self) {
        if self.drain(IovaRange::ALL, Whose::Anyone).is_err() {
            // A leak is preferred to memory that a device still reaches (rule T1-383).
            emit!(warn, "iommu: the IOMMU did not confirm an unmap: memory stays pinned for good");
        }
    }
}

impl<R: RawLock> State<R> {
    /// The first mapping from `at` on whose pages are not pinned, now being built.
    fn next_raw(&mut self, at: Iova) -> Option<Build> {
        let mut found = None;
        let rest = IovaRange::new(at, IovaRange::ALL.last())?;
        self.for_each_in(rest, |range, mapping| {
            if mapping.mapped || mapping.phase != Phase::Live {
                return true;
            }
            mapping.phase = Phase::Building;
            mapping.mapped = true;
            found = Some((range, *mapping));
            false
        });
        let (range, mapping) = found?;
        Some(Build::new(range, &mapping, self.pins.overlaps(range)))
    }

    /// Rule T1-211: copies every run from a domain that has them. Nothing is pinned.
    pub(super) fn fill_from_source(
        &mut self,
        domain: &PagingDomain<R>,
    ) -> Result<(), AttachGroupError> {
        sabotage!(SkipFill => return Ok(()));
        let Some(source) = self.domains.iter().next() else { return Ok(()) };
        let mut runs = Runs::new();
        let mut at = Some(Iova(0));
        let mut count = 0;
        while let Some(rest) = at.and_then(|at| IovaRange::new(at, IovaRange::ALL.last())) {
            at = None;
            source.domain.for_each_mapping(rest, |mut run| {
                run.prot.remove(Prot::CACHE); // the source's; the new domain has its own
                if runs.push(run).is_err() {
                    at = Some(run.range.first());
                }
                at.is_none()
            });
            if !runs.is_empty() {
                let mapped = map_coherent(domain, &mut runs);
                mapped.map_err(super::MapDmaError::from)?;
                count += runs.len() as u64;
                runs.clear();
            }
        }
        self.operations.dom_map += count;
        Ok(())
    }

    /// No mapping counts as mapped any more: nobody adds to the passing domain from here on.
    pub(super) fn forget_mapped(&mut self) {
        self.for_each_in(IovaRange::ALL, |_, mapping| {
            mapping.mapped = false;
            true
        });
        if let Some(passing) = &mut self.passing {
            passing.joining = false;
        }
    }
}
