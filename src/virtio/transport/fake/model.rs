//! What a virtio-iommu does with a request: the behaviour measured on QEMU. Under the machine's lock.
//!
//! Knows nothing of rings. Written from the measured tables, and on its own: it shares no layout
//! with the driver, so that a wrong offset in one of them shows.

use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

/// Status bytes.
pub(super) const S_OK: u8 = 0;
const S_UNSUPP: u8 = 2;
const S_INVAL: u8 = 4;
const S_RANGE: u8 = 5;
const S_NOENT: u8 = 6;

const F_BYPASS_CONFIG: u64 = 1 << 6;

/// One mapping inside a domain of the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FakeMapping {
    /// The lowest IOVA.
    pub first: u64,
    /// The highest IOVA, inclusive.
    pub last: u64,
    /// Where it leads.
    pub phys: u64,
    /// The flags of the MAP: 1 read, 2 write, 4 device memory.
    pub flags: u32,
}

#[derive(Default)]
struct Domain {
    bypass: bool,
    mappings: BTreeMap<u64, FakeMapping>,
}

/// Endpoints and domains of the device.
#[derive(Default)]
pub(super) struct Model {
    /// The endpoints that exist.
    pub(super) known: BTreeSet<u32>,
    attached: BTreeMap<u32, u32>,
    domains: BTreeMap<u32, Domain>,
    /// Properties that PROBE answers with.
    pub(super) properties: Vec<u8>,
}

impl Model {
    /// What a reset of the device drops.
    pub(super) fn reset(&mut self) {
        self.attached.clear();
        self.domains.clear();
    }

    pub(super) fn domain_of(&self, endpoint: u32) -> Option<u32> {
        self.attached.get(&endpoint).copied()
    }

    pub(super) fn mappings(&self, domain: u32) -> Vec<FakeMapping> {
        let found = self.domains.get(&domain);
        found.map_or(Vec::new(), |domain| domain.mappings.values().copied().collect())
    }

    pub(super) fn insert(&mut self, domain: u32, mapping: FakeMapping) {
        self.domains.entry(domain).or_default().mappings.insert(mapping.first, mapping);
    }

    /// Where an access arrives, or the reason of the fault.
    pub(super) fn translate(
        &self,
        endpoint: u32,
        iova: u64,
        write: bool,
        bypass: bool,
    ) -> Result<u64, u8> {
        let Some(domain) = self.attached.get(&endpoint).and_then(|id| self.domains.get(id)) else {
            return if bypass { Ok(iova) } else { Err(0) };
        };
        if domain.bypass {
            return Ok(iova);
        }
        let needed = if write { 2 } else { 1 };
        let entry = domain.mappings.range(..=iova).next_back();
        match entry {
            Some((_, m)) if iova <= m.last && m.flags & needed != 0 => {
                Ok(m.phys + (iova - m.first))
            }
            _ => Err(2),
        }
    }

    /// Does a request and returns its status. `probe` receives the properties.
    pub(super) fn execute(&mut self, request: &[u8], probe: &mut [u8]) -> u8 {
        let short = |needed: usize| request.len() < needed;
        match request.first() {
            Some(1) if short(20) => S_INVAL,
            Some(1) => self.attach(u32_at(request, 4), u32_at(request, 8), u32_at(request, 12)),
            Some(2) if short(20) => S_INVAL,
            Some(2) => self.detach(u32_at(request, 4), u32_at(request, 8)),
            Some(3) if short(36) => S_INVAL,
            Some(3) => self.map(
                u32_at(request, 4),
                FakeMapping {
                    first: u64_at(request, 8),
                    last: u64_at(request, 16),
                    phys: u64_at(request, 24),
                    flags: u32_at(request, 32),
                },
            ),
            Some(4) if short(28) => S_INVAL,
            Some(4) => self.unmap(u32_at(request, 4), u64_at(request, 8), u64_at(request, 16)),
            Some(5) if short(72) => S_INVAL,
            Some(5) => self.probe(u32_at(request, 4), probe),
            _ => S_UNSUPP,
        }
    }

    fn attach(&mut self, domain: u32, endpoint: u32, flags: u32) -> u8 {
        if !self.known.contains(&endpoint) {
            return S_NOENT;
        }
        if flags & !1 != 0 {
            return S_INVAL;
        }
        self.leave(endpoint); // before the next check, as QEMU does (rule C-271)
        let bypass = flags & 1 != 0;
        if self.domains.get(&domain).is_some_and(|found| found.bypass != bypass) {
            return S_INVAL;
        }
        self.domains.entry(domain).or_default().bypass = bypass;
        self.attached.insert(endpoint, domain);
        S_OK
    }

    fn detach(&mut self, domain: u32, endpoint: u32) -> u8 {
        match self.attached.get(&endpoint) {
            None => S_NOENT,
            Some(current) if *current != domain => S_INVAL,
            Some(_) => {
                self.leave(endpoint);
                S_OK
            }
        }
    }

    fn leave(&mut self, endpoint: u32) {
        if let Some(old) = self.attached.remove(&endpoint)
            && !self.attached.values().any(|domain| *domain == old)
        {
            self.domains.remove(&old); // and all its mappings
        }
    }

    fn map(&mut self, domain: u32, mapping: FakeMapping) -> u8 {
        if mapping.flags & !7 != 0 {
            return S_INVAL;
        }
        let Some(found) = self.domains.get_mut(&domain) else { return S_NOENT };
        let overlaps = |old: &FakeMapping| old.first <= mapping.last && mapping.first <= old.last;
        if found.bypass || found.mappings.values().any(overlaps) {
            return S_INVAL;
        }
        found.mappings.insert(mapping.first, mapping);
        S_OK
    }

    fn unmap(&mut self, domain: u32, first: u64, last: u64) -> u8 {
        let Some(found) = self.domains.get_mut(&domain) else { return S_NOENT };
        if found.bypass {
            return S_INVAL;
        }
        // In order, until one is cut: those before it are gone then (rule 7.4).
        let touched: Vec<_> = found
            .mappings
            .values()
            .filter(|m| m.first <= last && first <= m.last)
            .copied()
            .collect();
        for mapping in touched {
            if mapping.first < first || last < mapping.last {
                return S_RANGE;
            }
            found.mappings.remove(&mapping.first);
        }
        S_OK
    }

    fn probe(&self, endpoint: u32, reply: &mut [u8]) -> u8 {
        if !self.known.contains(&endpoint) {
            return S_NOENT;
        }
        if self.properties.len() > reply.len() {
            return S_INVAL;
        }
        for (to, from) in reply.iter_mut().zip(&self.properties) {
            *to = *from;
        }
        S_OK
    }
}

/// Whether a write to the bypass byte breaks the device: without the feature, or no truth value.
pub(super) fn bypass_write_breaks(features: u64, value: u8) -> bool {
    features & F_BYPASS_CONFIG == 0 || value > 1
}

/// A little-endian number inside a request; a request that is too short has zeros there.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u64_at(bytes, at) as u32
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let eight = bytes.iter().skip(at).take(8);
    eight.enumerate().fold(0, |sum, (n, byte)| sum | u64::from(*byte) << (8 * n))
}
