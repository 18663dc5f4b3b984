//! Where a group is.

use core::fmt;

use crate::domain::PagingDomain;
use crate::pool::Shared;
use crate::sync::{RawLock, SpinLock};

/// What the devices of a group reach now. A group always is on one of these (rule D-03).
pub enum Current<R: RawLock = SpinLock> {
    /// Nothing: the blocking domain of the instance.
    Blocked,
    /// All memory, untranslated: the identity domain.
    Identity,
    /// What this domain maps.
    Paging(Shared<PagingDomain<R>>),
}

impl<R: RawLock> Current<R> {
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Blocked, Self::Blocked) | (Self::Identity, Self::Identity) => true,
            (Self::Paging(one), Self::Paging(other)) => one.ptr_eq(other),
            _ => false,
        }
    }

    /// As the host sees it: a domain that the core filled 1:1 is the identity domain.
    pub(super) fn public(&self) -> Self {
        match self {
            Self::Paging(domain) if domain.is_identity() => Self::Identity,
            other => other.clone(),
        }
    }
}

impl<R: RawLock> Clone for Current<R> {
    fn clone(&self) -> Self {
        match self {
            Self::Blocked => Self::Blocked,
            Self::Identity => Self::Identity,
            Self::Paging(domain) => Self::Paging(domain.clone()),
        }
    }
}

impl<R: RawLock> fmt::Debug for Current<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocked => f.write_str("Blocked"),
            Self::Identity => f.write_str("Identity"),
            Self::Paging(domain) => f.debug_tuple("Paging").field(&domain.id()).finish(),
        }
    }
}
