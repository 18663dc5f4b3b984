//! Detach of groups.
//!
//! `Container::groups` is held throughout, `Container::state` except while the provider unpins.

use super::state::{Passing, Phase, State, forgotten};
use super::{Container, Memory};
use crate::addr::IovaRange;
use crate::group::{GroupId, Ownership};
use crate::sync::RawLock;
use crate::trace::emit;

impl<M: Memory, R: RawLock> Container<M, R> {
    /// Detaches a group and returns its ownership; `None` if it is not in the container. Can't
    /// fail, and never allocates but for the list of usable IOVAs when a domain goes; it stays if it
    /// can't.
    ///
    /// The group is blocked before anything is unmapped or unpinned (rule T1-230). With the last
    /// group of a domain the domain goes. With the last group all mappings go (rule T1-232); while
    /// emulated groups are left they stay, unpinned but for what emulated devices hold (rule T1-233).
    pub fn detach_group(&self, group: GroupId) -> Option<Ownership<R>> {
        let _one_at_a_time = self.groups.lock();
        let mut state = self.state.lock();
        let entry = state.domains.find(|entry| entry.groups.lock().iter().any(|g| g.is(group)))?;
        let gone = entry.groups.lock().remove(|one| one.is(group))?;
        let attachment = gone.attachment.lock().take()?;
        let ownership = attachment.detach();
        state.operations.detach += 1;
        if !gone.is_pinned() {
            state.mark_dirty(IovaRange::ALL); // rule T1-236: it may have written anywhere
        }
        // An endpoint that the unit refused to block counts on the domain still: then the domain stays,
        // without a group, so that unmaps reach it and nothing is unpinned under it (rule C-137).
        if entry.groups.lock().is_empty() && entry.domain.endpoint_count() == 0 {
            state.domains.remove(|one| one.domain.ptr_eq(&entry.domain));
            if state.domains.is_empty() {
                state.passing = Some(Passing { domain: entry.domain.clone(), joining: false });
                state.forget_mapped();
                let keep = !state.emulated.is_empty(); // rule T1-233
                let drain = || if keep { self.drain_all() } else { self.forget_all() };
                lock_api::MutexGuard::unlocked(&mut state, drain);
                state.passing = None;
            }
            state.operations.dom_free += 1;
            state.page_sizes = self.common_sizes(&state, None).unwrap_or(state.page_sizes);
            state.windows_at = None;
            if self.refresh(&mut state).is_err() {
                emit!(debug, "iommu: usable IOVAs not widened"); // rule T1-200: the old list stays
            }
        } else {
            // Only what the group reserved is usable again: who reads the list, or is refused because
            // of it, makes it anew (rule T1-199). So a detach does not ask every other group.
            state.windows_narrow = true;
        }
        Some(ownership)
    }

    /// Removes every mapping there is at this moment that nobody builds: unmaps and unpins what is
    /// mapped, releases external pins (rules T1-225, T1-227, T1-232).
    pub(super) fn forget_all(&self) {
        let serials = {
            let mut state = self.state.lock();
            state.for_each_in(IovaRange::ALL, |_, mapping| {
                if mapping.phase == Phase::Live {
                    mapping.phase = Phase::Removing; // no pin comes from here on
                }
                true
            });
            state.next_serial
        };
        self.drain_all();
        self.release_pins();
        self.state.lock().remove_before(serials);
    }
}

impl<R: RawLock> State<R> {
    /// Forgets every mapping made before `serial` that nobody is building, nodes included.
    fn remove_before(&mut self, serial: u64) {
        let Self { mappings, free_mappings, invalid_vaddrs, dirty, .. } = self;
        mappings.remove_if(IovaRange::ALL, |range, mapping| {
            let goes = mapping.serial < serial && mapping.phase != Phase::Building;
            if goes {
                forgotten(range, mapping, free_mappings, invalid_vaddrs, dirty);
            }
            goes
        });
        self.mappings.shed();
    }
}
