//! What came of a self-test: an outcome for each step, and a reason for each that did not hold.

use core::fmt;

use super::Broken;
use crate::addr::Iova;
use crate::driver::EndpointId;
use crate::error::{AttachError, ClaimError, DomainError, MapError, UnmapError};

/// What is tried, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Step {
    /// A device that is on no domain of a user reaches nothing.
    Blocked,
    /// What is mapped is reached, and no other byte changes.
    Mapped,
    /// What is mapped is read.
    Read,
    /// A page that is mapped to read refuses a write.
    ReadOnly,
    /// The page beside is not reached.
    Outside,
    /// What is unmapped is reached no more.
    Unmapped,
    /// What is mapped is reached no more after detach.
    Detached,
    /// Every refused write was reported, with the device, the address and the kind of access.
    Faults,
}

/// What came of one step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// It holds on this machine.
    Held,
    /// The probe can't try it.
    Skipped,
    /// It does not hold, or could not be tried.
    Failed(Reason),
}

/// Why a step did not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// An earlier step ended the run.
    NotTried,
    /// A refused write arrived.
    Arrived,
    /// A write that is allowed did not arrive.
    NotArrived,
    /// A write changed other bytes than those it was for.
    Elsewhere,
    /// What was read is not what was in memory.
    OtherData,
    /// No record told of a refused write.
    NoFault,
    /// A record told of a write that was allowed.
    FaultForNothing,
    /// The record has no address.
    NoAddress,
    /// The record names another address.
    OtherAddress {
        /// Where the device wrote.
        expected: Iova,
        /// What the record says.
        seen: Iova,
    },
    /// The record says that the device read.
    OtherAccess,
    /// The record names another endpoint: the requester id is wrong.
    OtherEndpoint {
        /// What `run` was told.
        expected: EndpointId,
        /// What the record says.
        seen: EndpointId,
    },
    /// The device did not do what it was told.
    Probe(Broken),
    /// The group could not be claimed.
    Claim(ClaimError),
    /// No memory for the test.
    OutOfMemory,
    /// No three free pages that both the IOMMU and the device can address.
    NoWindow,
    /// No domain.
    Domain(DomainError),
    /// The group could not be attached.
    Attach(AttachError),
    /// Memory could not be mapped.
    Map(MapError),
    /// Memory could not be unmapped.
    Unmap(UnmapError),
}

/// The outcome of each step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    outcomes: [Outcome; Step::ALL.len()],
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Self; 8] = [
        Self::Blocked,
        Self::Mapped,
        Self::Read,
        Self::ReadOnly,
        Self::Outside,
        Self::Unmapped,
        Self::Detached,
        Self::Faults,
    ];
}

impl Outcome {
    /// Whether it is [`Held`](Self::Held).
    #[must_use]
    pub const fn is_held(self) -> bool {
        matches!(self, Self::Held)
    }
}

impl From<Result<(), Reason>> for Outcome {
    fn from(result: Result<(), Reason>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Held)
    }
}

impl Report {
    /// What came of a step.
    #[must_use]
    pub fn outcome(&self, step: Step) -> Outcome {
        let outcome = self.outcomes.get(step as usize);
        outcome.copied().unwrap_or(Outcome::Failed(Reason::NotTried))
    }

    /// Whether no step failed. One that the probe can't try does not count.
    #[must_use]
    pub fn has_held(&self) -> bool {
        !self.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Failed(_)))
    }

    /// The steps with their outcomes, in order.
    pub fn steps(&self) -> impl Iterator<Item = (Step, Outcome)> + use<> {
        let this = *self;
        Step::ALL.into_iter().map(move |step| (step, this.outcome(step)))
    }

    pub(super) fn set(&mut self, step: Step, outcome: Outcome) {
        if let Some(place) = self.outcomes.get_mut(step as usize) {
            *place = outcome;
        }
    }

    /// The first step that was not tried failed for this reason.
    pub(super) fn stop(&mut self, reason: Reason) {
        let not_tried = Outcome::Failed(Reason::NotTried);
        let next = self.outcomes.iter_mut().find(|outcome| **outcome == not_tried);
        if let Some(next) = next {
            *next = Outcome::Failed(reason);
        }
    }
}

impl Default for Report {
    /// Nothing was tried.
    fn default() -> Self {
        Self { outcomes: [Outcome::Failed(Reason::NotTried); Step::ALL.len()] }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blocked => "a blocked device reaches nothing",
            Self::Mapped => "what is mapped is written, and nothing else",
            Self::Read => "what is mapped is read",
            Self::ReadOnly => "a read-only page refuses a write",
            Self::Outside => "the page beside is not reached",
            Self::Unmapped => "what is unmapped is not reached",
            Self::Detached => "after detach nothing is reached",
            Self::Faults => "every refused write is reported",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("ok"),
            Self::Skipped => f.write_str("skipped (the probe can't)"),
            Self::Failed(reason) => write!(f, "FAILED: {reason}"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTried => f.write_str("not tried, because of what failed before"),
            Self::Arrived => f.write_str(
                "the write arrived: the device is not behind this IOMMU, or the IOMMU lets it pass; \
                 don't give it to anybody",
            ),
            Self::NotArrived => f.write_str(
                "the write did not arrive: is the device's bus mastering on, is its requester id the \
                 one that was added, and does it see memory coherently?",
            ),
            Self::Elsewhere => f.write_str("the write changed other bytes"),
            Self::OtherData => f.write_str("the device read something else: is memory coherent?"),
            Self::NoFault => f.write_str("no record told of a refused write"),
            Self::FaultForNothing => f.write_str("a record told of a write that was allowed"),
            Self::NoAddress => f.write_str("the record has no address"),
            Self::OtherAddress { expected, seen } => write!(
                f,
                "the record says address {:#x}, the device wrote to {:#x}: does it emit all bits?",
                seen.0, expected.0
            ),
            Self::OtherAccess => f.write_str("the record says read, but the device wrote"),
            Self::OtherEndpoint { expected, seen } => write!(
                f,
                "wrong requester id: the device was added as endpoint {:#x}, its DMA arrives as \
                 {:#x}; take the ids from the firmware (iommu-map, VIOT), and a bridge's where one \
                 stands in for the device",
                expected.0, seen.0
            ),
            Self::Probe(broken) => write!(f, "the device does no DMA: {broken}"),
            Self::Claim(error) => write!(f, "the group can't be had: {error}"),
            Self::OutOfMemory => f.write_str("no memory for the test: Platform::alloc_dma has none"),
            Self::NoWindow => {
                f.write_str("no three free pages that both IOMMU and device can address")
            }
            Self::Domain(error) => write!(f, "no domain: {error}"),
            Self::Attach(error) => write!(f, "attach: {error}"),
            Self::Map(error) => write!(f, "map: {error}"),
            Self::Unmap(error) => write!(f, "unmap: {error}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (step, outcome)) in self.steps().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{step} ... {outcome}")?;
        }
        Ok(())
    }
}
