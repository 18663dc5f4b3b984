//! Moving endpoints between domains: all of them or none, and what to do when the undo fails.
//!
//! Every function here is called with the group's lock held, and takes the locks of the paging
//! domains it names for the whole move: a mapping made meanwhile waits, and then finds the
//! endpoints where they are. Two domains are locked in the order of their ids. The undo allocates
//! nothing (design rule "strong guarantee"; rules C-132 to C-137, D-16).

use lock_api::MutexGuard;

use super::current::Current;
use crate::device::Device;
use crate::domain::{Admission, DomainState, lock_both};
use crate::driver::{AttachFailure, DomainId, DomainView, EndpointId, Left};
use crate::error::{AttachError, ProbeError};
use crate::instance::{Fixed, Instance};
use crate::list::List;
use crate::mark::sabotage;
use crate::pool::Shared;
use crate::reserved::ReservedRegions;
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

/// The members of a group, from its locked state.
#[derive(Clone, Copy)]
pub(super) struct Members<'a> {
    pub(super) devices: &'a List<Device>,
    /// The distinct endpoints that are to move.
    pub(super) endpoints: &'a [EndpointId],
    /// What the devices reserve, merged.
    pub(super) reserved: &'a ReservedRegions,
}

/// One end of a move, locked.
enum Side<'a, R: RawLock> {
    /// The blocking domain, or the identity domain.
    Fixed(&'a Fixed),
    Paging(DomainId, MutexGuard<'a, R, DomainState>),
}

impl<'a, R: RawLock> Side<'a, R> {
    fn lock(instance: &'a Instance<R>, place: &'a Current<R>) -> Self {
        match place {
            Current::Blocked => Self::Fixed(instance.blocked()),
            Current::Identity => Self::Fixed(instance.made_identity()),
            Current::Paging(domain) => {
                let mut state = domain.lock();
                domain.land_all(&mut state);
                Self::Paging(domain.id(), state)
            }
        }
    }

    fn lock_pair(instance: &'a Instance<R>, from: &'a Current<R>, to: &'a Current<R>) -> [Self; 2] {
        if let (Current::Paging(from), Current::Paging(to)) = (from, to) {
            let (mut from_state, mut to_state) = lock_both(from, to);
            from.land_all(&mut from_state);
            to.land_all(&mut to_state);
            return [Self::Paging(from.id(), from_state), Self::Paging(to.id(), to_state)];
        }
        [Self::lock(instance, from), Self::lock(instance, to)]
    }

    fn id(&self) -> DomainId {
        match self {
            Self::Fixed(fixed) => fixed.id(),
            Self::Paging(id, _) => *id,
        }
    }

    fn view(&self) -> DomainView<'_> {
        match self {
            Self::Fixed(fixed) => fixed.view(),
            Self::Paging(id, state) => state.view(*id),
        }
    }

    fn joined(&mut self, endpoints: usize) {
        match self {
            Self::Fixed(fixed) => fixed.joined(endpoints),
            Self::Paging(_, state) => state.endpoints = state.endpoints.saturating_add(endpoints),
        }
    }

    fn left(&mut self, endpoints: usize) {
        match self {
            Self::Fixed(fixed) => fixed.left(endpoints),
            Self::Paging(_, state) => state.endpoints = state.endpoints.saturating_sub(endpoints),
        }
    }

    /// Whether devices that reserve this may come; `None` for a domain that has no record.
    fn admit(
        &self,
        instance: &Instance<R>,
        reserved: &ReservedRegions,
    ) -> Result<Option<Admission>, AttachError> {
        match self {
            Self::Fixed(_) => Ok(None),
            Self::Paging(_, state) => state.admit(&instance.geometry(), reserved).map(Some),
        }
    }

    fn enter(&mut self, members: &Members<'_>, admission: Option<Admission>) {
        if let (Self::Paging(_, state), Some(admission)) = (self, admission) {
            state.enter(members.devices, members.reserved, admission);
        }
    }

    fn suspect(&mut self) {
        if let Self::Paging(_, state) = self {
            state.suspect();
        }
    }

    fn leave<'d>(&mut self, devices: impl Iterator<Item = &'d Device>) {
        if let Self::Paging(_, state) = self {
            state.leave(devices);
        }
    }
}

/// Moves the endpoints of a group from where they are to `to`.
pub(super) fn switch<R: RawLock>(
    instance: &Instance<R>,
    members: Members<'_>,
    from: &Current<R>,
    to: &Current<R>,
) -> Result<(), Failed> {
    let [mut from, mut to] = Side::lock_pair(instance, from, to);
    let endpoints = members.endpoints;
    let driver = instance.driver();
    for endpoint in endpoints {
        driver.compatible(&to.view(), *endpoint).map_err(Failed::Undone)?;
    }
    let admission = to.admit(instance, members.reserved).map_err(Failed::Undone)?;
    let Err(failure) = driver.attach(endpoints, &to.view(), Some(from.id())) else {
        from.left(endpoints.len());
        from.leave(members.devices.iter());
        to.joined(endpoints.len());
        to.enter(&members, admission);
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
    // Those that were put back to the blocking domain need no further move.
    let blocked_before = from.id() == instance.blocked().id();
    let at_risk = if blocked_before { endpoints.get(..lost) } else { None };
    for (index, endpoint) in at_risk.unwrap_or(endpoints).iter().enumerate() {
        if block_one(instance, *endpoint) {
            from.left(1);
            to.left(usize::from(index < lost));
        } else {
            from.suspect();
            to.suspect();
        }
    }
    from.leave(members.devices.iter());
    Err(Failed::Stuck(failure.error))
}

/// Moves `endpoints`, those of `devices`, from `from` to the blocking domain. What does not obey
/// stays counted on `from`, so that its unmaps are still sent.
pub(super) fn block<'d, R: RawLock>(
    instance: &Instance<R>,
    devices: impl Iterator<Item = &'d Device>,
    endpoints: &[EndpointId],
    from: &Current<R>,
) -> Result<(), NotBlocked> {
    if matches!(from, Current::Blocked) {
        return Ok(());
    }
    let mut from = Side::lock(instance, from);
    from.leave(devices);
    let blocked = instance.blocked();
    let failure = match instance.driver().attach(endpoints, &blocked.view(), Some(from.id())) {
        Ok(()) => {
            from.left(endpoints.len());
            blocked.joined(endpoints.len());
            return Ok(());
        }
        Err(failure) => failure,
    };
    // Those before the first refused one are there; each of the others gets a try of its own.
    let mut obeyed = failure.refused.min(endpoints.len());
    blocked.joined(obeyed);
    for endpoint in endpoints.iter().skip(obeyed) {
        obeyed += usize::from(block_one(instance, *endpoint));
    }
    from.left(obeyed);
    if obeyed == endpoints.len() {
        return Ok(());
    }
    from.suspect();
    Err(NotBlocked)
}

/// Puts a device whose `endpoints` were never attached where its group is. On failure they are
/// blocked; what does not obey stays counted where it may be, so that its unmaps are still sent.
pub(super) fn arrive<R: RawLock>(
    instance: &Instance<R>,
    device: &Shared<Device>,
    endpoints: &[EndpointId],
    current: &Current<R>,
) -> Result<(), ProbeError> {
    let driver = instance.driver();
    let mut to = Side::lock(instance, current);
    let fits = |one: &EndpointId| driver.compatible(&to.view(), *one).is_ok();
    let admission = match to.admit(instance, device.reserved()) {
        Ok(admission) if endpoints.iter().all(fits) => admission,
        refused => {
            keep_out(instance, endpoints.iter());
            return Err(match refused {
                // It is not the domain that is wrong here: the device can't be in this group now.
                Ok(_) | Err(AttachError::Incompatible) => ProbeError::InvalidArg,
                Err(error) => error.into(),
            });
        }
    };
    sabotage!(ForgetHotAdded => if matches!(current, Current::Paging(_)) { return Ok(()) });
    if !endpoints.is_empty() {
        let sent = driver.attach(endpoints, &to.view(), None);
        to.joined(endpoints.len());
        if let Err(failure) = sent {
            for endpoint in endpoints {
                if block_one(instance, *endpoint) {
                    to.left(1);
                } else {
                    to.suspect();
                }
            }
            return Err(failure.error.into());
        }
    }
    if let (Side::Paging(_, state), Some(admission)) = (&mut to, admission) {
        state.enter_one(device, admission);
    }
    Ok(())
}

/// Blocks endpoints whose device is not taken.
pub(super) fn keep_out<'e, R: RawLock>(
    instance: &Instance<R>,
    endpoints: impl Iterator<Item = &'e EndpointId>,
) {
    for endpoint in endpoints {
        block_one(instance, *endpoint);
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

/// Sends an endpoint, wherever it is, to the blocking domain; whether it obeyed.
pub(super) fn block_one<R: RawLock>(instance: &Instance<R>, endpoint: EndpointId) -> bool {
    let blocked = instance.blocked();
    let obeyed = instance.driver().attach(&[endpoint], &blocked.view(), None).is_ok();
    blocked.joined(usize::from(obeyed));
    obeyed
}

fn touched(failure: &AttachFailure, endpoints: usize) -> usize {
    let refused = usize::from(failure.left != Left::Unchanged);
    failure.touched.max(failure.refused.saturating_add(refused)).min(endpoints)
}
