//! Moving endpoints between domains: all of them or none, and what to do when the undo fails.
//!
//! Every function here is called with the group's lock held, and takes the locks of the paging
//! domains it names for the whole move: a mapping made meanwhile waits, and then finds the
//! endpoints where they are. Two domains are locked in the order of their ids. The undo allocates
//! nothing (design rule "strong guarantee"; rules C-132 to C-137, D-16).

use lock_api::MutexGuard;

use crate::domain::{DomainState, PagingDomain, lock_both};
use crate::driver::{AttachFailure, DomainId, DomainView, EndpointId, Left};
use crate::error::{AttachError, ProbeError};
use crate::instance::{Blocked, Instance};
use crate::reserved::{ReservedKind, ReservedRegions};
use crate::sync::RawLock;
use crate::trace::emit;

/// A move that did not happen.
pub(super) enum Failed {
    /// Everything is as it was.
    Undone(AttachError),
    /// The undo failed as well: what obeyed is on the blocking domain, the rest is counted on
    /// both domains, so that their unmaps are still sent.
    Stuck(AttachError),
}

/// Some endpoint is not on the blocking domain.
pub(super) struct NotBlocked;

/// One end of a move, locked.
enum Side<'a, R: RawLock> {
    Blocked(&'a Blocked),
    Paging(DomainId, MutexGuard<'a, R, DomainState>),
}

impl<R: RawLock> Side<'_, R> {
    fn id(&self) -> DomainId {
        match self {
            Self::Blocked(blocked) => blocked.id(),
            Self::Paging(id, _) => *id,
        }
    }

    fn view(&self) -> DomainView<'_> {
        match self {
            Self::Blocked(blocked) => blocked.view(),
            Self::Paging(id, state) => state.view(*id),
        }
    }

    fn joined(&mut self, endpoints: usize) {
        match self {
            Self::Blocked(blocked) => blocked.joined(endpoints),
            Self::Paging(_, state) => state.endpoints = state.endpoints.saturating_add(endpoints),
        }
    }

    fn left(&mut self, endpoints: usize) {
        match self {
            Self::Blocked(blocked) => blocked.left(endpoints),
            Self::Paging(_, state) => state.endpoints = state.endpoints.saturating_sub(endpoints),
        }
    }
}

/// Moves `endpoints` from `from` (`None`: the blocking domain) to `to`.
pub(super) fn switch<R: RawLock>(
    instance: &Instance<R>,
    endpoints: &[EndpointId],
    from: Option<&PagingDomain<R>>,
    to: &PagingDomain<R>,
    reserved: &ReservedRegions,
) -> Result<(), Failed> {
    let (mut from, mut to) = match from {
        Some(from) => {
            let (from_state, to_state) = lock_both(from, to);
            (Side::Paging(from.id(), from_state), Side::Paging(to.id(), to_state))
        }
        None => (Side::Blocked(instance.blocked()), Side::Paging(to.id(), to.lock())),
    };
    let driver = instance.driver();
    for endpoint in endpoints {
        driver.compatible(&to.view(), *endpoint).map_err(Failed::Undone)?;
    }
    if conflicts(&to.view(), reserved) {
        return Err(Failed::Undone(AttachError::AddrInUse));
    }
    let Err(failure) = driver.attach(endpoints, &to.view(), Some(from.id())) else {
        from.left(endpoints.len());
        to.joined(endpoints.len());
        return Ok(());
    };
    let touched = endpoints.get(..touched(&failure, endpoints.len())).unwrap_or(endpoints);
    let lost = touched.len() - put_back(instance, touched, &mut from, to.id());
    if lost == 0 {
        return Err(Failed::Undone(failure.error));
    }
    emit!(warn, "iommu: undo of an attach failed, blocking {} endpoints", endpoints.len());
    // The first `lost` may be on either domain: they count on both until they are proven blocked.
    to.joined(lost);
    let at_risk = match from {
        // The others are on the blocking domain already. An ATTACH to the domain that an endpoint
        // is on must not be sent: a device may refuse it, or empty the domain.
        Side::Blocked(_) => endpoints.get(..lost).unwrap_or(endpoints),
        Side::Paging(..) => endpoints,
    };
    for (index, endpoint) in at_risk.iter().enumerate() {
        if block_one(instance, *endpoint) {
            from.left(1);
            to.left(usize::from(index < lost));
        }
    }
    Err(Failed::Stuck(failure.error))
}

/// Moves `endpoints` from `from` to the blocking domain. What does not obey stays counted on
/// `from`, so that its unmaps are still sent.
pub(super) fn block<R: RawLock>(
    instance: &Instance<R>,
    endpoints: &[EndpointId],
    from: &PagingDomain<R>,
) -> Result<(), NotBlocked> {
    let mut from = Side::<R>::Paging(from.id(), from.lock());
    let blocked = instance.blocked();
    if instance.driver().attach(endpoints, &blocked.view(), Some(from.id())).is_ok() {
        from.left(endpoints.len());
        blocked.joined(endpoints.len());
        return Ok(());
    }
    let mut obeyed = 0;
    for endpoint in endpoints {
        obeyed += usize::from(block_one(instance, *endpoint));
    }
    from.left(obeyed);
    if obeyed == endpoints.len() { Ok(()) } else { Err(NotBlocked) }
}

/// Puts endpoints that were never attached where their group is; on failure they are blocked.
pub(super) fn arrive<R: RawLock>(
    instance: &Instance<R>,
    endpoints: &[EndpointId],
    current: Option<&PagingDomain<R>>,
    reserved: &ReservedRegions,
) -> Result<(), ProbeError> {
    let driver = instance.driver();
    let mut to = match current {
        Some(current) => Side::<R>::Paging(current.id(), current.lock()),
        None => Side::Blocked(instance.blocked()),
    };
    let refuse = |error| {
        for endpoint in endpoints {
            block_one(instance, *endpoint);
        }
        Err(error)
    };
    if let Side::Paging(..) = to {
        let direct = |kind| kind == ReservedKind::Direct;
        if reserved.as_slice().iter().any(|region| direct(region.kind)) {
            return refuse(ProbeError::InvalidArg); // rule C-153
        }
        if conflicts(&to.view(), reserved) {
            return refuse(ProbeError::AddrInUse); // rule C-151
        }
    }
    let fits = endpoints.iter().all(|one| driver.compatible(&to.view(), *one).is_ok());
    if !fits {
        return refuse(ProbeError::InvalidArg);
    }
    match driver.attach(endpoints, &to.view(), None) {
        Ok(()) => {
            to.joined(endpoints.len());
            Ok(())
        }
        Err(failure) => refuse(match failure.error {
            AttachError::NoDevice => ProbeError::NoDevice,
            AttachError::OutOfMemory => ProbeError::OutOfMemory,
            AttachError::NoSpace => ProbeError::NoSpace,
            _ => ProbeError::Io,
        }),
    }
}

/// Re-attaches `touched` to `from`, newest first, until one is refused; how many are there again.
fn put_back<R: RawLock>(
    instance: &Instance<R>,
    touched: &[EndpointId],
    from: &mut Side<'_, R>,
    to: DomainId,
) -> usize {
    from.left(touched.len());
    let mut back = 0;
    for endpoint in touched.iter().rev() {
        let driver = instance.driver();
        if driver.attach(core::slice::from_ref(endpoint), &from.view(), Some(to)).is_err() {
            break;
        }
        from.joined(1);
        back += 1;
    }
    from.joined(touched.len() - back); // counted there until they are proven elsewhere
    back
}

fn block_one<R: RawLock>(instance: &Instance<R>, endpoint: EndpointId) -> bool {
    let blocked = instance.blocked();
    let obeyed = instance.driver().attach(&[endpoint], &blocked.view(), None).is_ok();
    blocked.joined(usize::from(obeyed));
    obeyed
}

fn touched(failure: &AttachFailure, endpoints: usize) -> usize {
    let refused = usize::from(failure.left != Left::Unchanged);
    failure.touched.max(failure.refused.saturating_add(refused)).min(endpoints)
}

/// Whether the domain maps something where the group may not have a mapping (rule D-28).
fn conflicts(domain: &DomainView<'_>, reserved: &ReservedRegions) -> bool {
    let real = |kind| kind != ReservedKind::DirectRelaxable;
    reserved
        .as_slice()
        .iter()
        .any(|region| real(region.kind) && domain.mappings.overlaps(region.range))
}
