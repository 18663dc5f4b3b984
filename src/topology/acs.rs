//! Access Control Services: does a function keep peer-to-peer requests from going round the IOMMU?

use bitflags::bitflags;

use super::function::{Function, Kind};

bitflags! {
    /// Bits that the ACS Capability and the ACS Control register have in common. PCIe base
    /// specification, "ACS Extended Capability"; Linux: `PCI_ACS_SV` and its siblings.
    ///
    /// Make one with `from_bits_retain`: bits without a name here then survive a write-back.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct AcsBits: u16 {
        /// ACS Source Validation (V).
        const SOURCE_VALIDATION = 1 << 0;
        /// ACS Translation Blocking (B).
        const TRANSLATION_BLOCKING = 1 << 1;
        /// ACS P2P Request Redirect (R).
        const P2P_REQUEST_REDIRECT = 1 << 2;
        /// ACS P2P Completion Redirect (C).
        const P2P_COMPLETION_REDIRECT = 1 << 3;
        /// ACS Upstream Forwarding (U).
        const UPSTREAM_FORWARDING = 1 << 4;
        /// ACS P2P Egress Control (E).
        const P2P_EGRESS_CONTROL = 1 << 5;
        /// ACS Direct Translated P2P (T).
        const DIRECT_TRANSLATED_P2P = 1 << 6;
    }
}

impl AcsBits {
    /// What isolation needs: the set that the rules call REQ. Linux: `REQ_ACS_FLAGS`.
    pub const REQ: Self = Self::SOURCE_VALIDATION
        .union(Self::P2P_REQUEST_REDIRECT)
        .union(Self::P2P_COMPLETION_REDIRECT)
        .union(Self::UPSTREAM_FORWARDING);
}

/// The two registers of an ACS extended capability.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Acs {
    /// ACS Capability register: what can be turned on.
    pub capability: AcsBits,
    /// ACS Control register: what is on. 0 after reset; write [`acs_to_enable`] to it first.
    pub control: AcsBits,
}

impl Acs {
    /// Whether `required` holds (rule C-052): a bit that is not advertised is hard-wired on, egress
    /// control excepted, and the others must be set.
    ///
    /// Linux: `pci_acs_flags_enabled`.
    #[must_use]
    pub const fn enabled(self, required: AcsBits) -> bool {
        let switchable = self.capability.union(AcsBits::P2P_EGRESS_CONTROL);
        self.control.contains(required.intersection(switchable))
    }
}

/// Whether `function` by itself honours `required` (rules C-051, C-052, C-062).
///
/// Believes [`Function::multifunction`]; [`Topology::acs_enabled`](super::Topology::acs_enabled)
/// looks at the neighbours too. Linux: `pci_acs_enabled`.
#[must_use]
pub const fn acs_enabled(function: &Function, required: AcsBits) -> bool {
    use Kind::*;
    if let Some(known) = function.quirks.acs {
        return known.contains(required);
    }
    let by_register = match function.acs {
        Some(acs) => acs.enabled(required),
        None => false,
    };
    match function.kind {
        ConventionalDevice | ConventionalBridge => false,
        PcieToPciBridge | PciToPcieBridge | EventCollector => false,
        RootPort | DownstreamPort => by_register,
        Endpoint | LegacyEndpoint | RcIntegratedEndpoint | UpstreamPort => {
            let single = !function.multifunction || function.virtual_function;
            single || by_register
        }
    }
}

/// What to write to the ACS Control register before groups are computed; `None` without the
/// capability (rule C-054).
///
/// The bits that are on stay on; [`AcsBits::REQ`] comes in as far as advertised, and Translation
/// Blocking for a function that is [`untrusted`](Function::untrusted). Read the register back into
/// [`Acs::control`] before describing the function: the device is not believed. Linux:
/// `pci_enable_acs`.
#[must_use]
pub const fn acs_to_enable(function: &Function) -> Option<AcsBits> {
    let Some(acs) = function.acs else { return None };
    let wanted = match function.untrusted {
        true => AcsBits::REQ.union(AcsBits::TRANSLATION_BLOCKING),
        false => AcsBits::REQ,
    };
    Some(acs.control.union(acs.capability.intersection(wanted)))
}
