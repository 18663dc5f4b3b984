//! Fault records: what a device tried and was refused.

use bitflags::bitflags;

use crate::addr::Iova;
use crate::driver::EndpointId;

bitflags! {
    /// What the refused access was, as far as the unit says. Empty: it did not say.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Access: u32 {
        /// A read of memory.
        const READ = 1;
        /// A write to memory.
        const WRITE = 2;
    }
}

/// Why an access was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum FaultReason {
    /// The unit did not say, or said something unknown.
    Unknown,
    /// The endpoint is on no domain.
    Domain,
    /// Nothing is mapped at the address, or not with this permission.
    Mapping,
}

/// A fault as a driver reports it. Endpoint and address are the device's words: text, not an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DriverFault {
    /// Who tried.
    pub endpoint: EndpointId,
    /// Where; `None` if the unit did not say.
    pub address: Option<Iova>,
    /// What.
    pub access: Access,
    /// Why not.
    pub reason: FaultReason,
}
