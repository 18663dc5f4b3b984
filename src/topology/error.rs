//! What is wrong with a description of a topology.

use core::fmt;

use super::function::RequesterId;
use crate::error::{ProbeError, errno};

/// Why a topology can't be described, or a question about it can't be answered.
///
/// Every variant but `TooMany` is a mistake of the host, or of the firmware that it believed.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum TopologyError {
    /// The table is full; a larger capacity is the caller's decision. Linux: `ENOSPC`.
    TooMany,
    /// Two functions have this id. Linux: `EINVAL`.
    Duplicate(RequesterId),
    /// This function is referred to and not described. Linux: `EINVAL`.
    Unknown(RequesterId),
    /// This function's parent is not the bridge that its bus is below, or two bridges say that
    /// they have that bus below. Linux: `EINVAL`.
    Misplaced(RequesterId),
    /// The way up from this function doesn't end. Linux: `EINVAL`.
    Loop(RequesterId),
}

impl TopologyError {
    /// The stable errno of this variant (a positive number).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::TooMany => errno::ENOSPC,
            _ => errno::EINVAL,
        }
    }
}

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "more than the table holds"),
            Self::Duplicate(id) => write!(f, "{id} is described twice"),
            Self::Unknown(id) => write!(f, "{id} is not described"),
            Self::Misplaced(id) => write!(f, "{id} is not below the bridge of its bus"),
            Self::Loop(id) => write!(f, "the way up from {id} does not end"),
        }
    }
}

impl core::error::Error for TopologyError {}

impl From<TopologyError> for ProbeError {
    fn from(error: TopologyError) -> Self {
        match error {
            TopologyError::TooMany => Self::NoSpace,
            _ => Self::InvalidArg,
        }
    }
}
