//! Faults built in on purpose, one at a time, for the mutation check of the boot tests: a sabotage
//! that no case notices is a hole in the tests.
//!
//! Not a feature, so nothing that depends on the crate can turn it on: the marks in the code are
//! compiled only with `--cfg iommu_sabotage`, which `cargo qemu test --mutants` passes, only for
//! targets without an operating system, and only with debug assertions. Even then all is well until
//! `choose` is called, as the boot images do for the argument `sabotage=NAME`. The marks are the
//! macros of `mark.rs`. No lock: one atomic.
//!
//! The tool includes this file for the list.

/// Defines the list: a variant, its name in the argument, and what it breaks.
macro_rules! sabotages {
    ($($variant:ident $name:literal $what:literal,)+) => {
        /// What can be broken.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Sabotage {
            $(#[doc = $what] $variant,)+
        }

        /// All of it, with the names and what is broken.
        pub const ALL: &[(Sabotage, &str, &str)] = &[$((Sabotage::$variant, $name, $what),)+];
    };
}

sabotages! {
    SkipUnmap "skip_unmap" "no UNMAP is sent",
    UnmapFirstOfBatch "unmap_first_of_batch" "only the first range of a batch is unmapped",
    ForgetSomeUnmaps "forget_some_unmaps" "each thousandth UNMAP names another place",
    UnmapTooShort "unmap_too_short" "an UNMAP of several pages leaves the last one out",
    SkipReplay "skip_replay" "a domain that the device forgot is not filled again",
    ReplayAllRights "replay_all_rights" "what is replayed can be read and written",
    DropReadOnly "drop_read_only" "a MAP for reading allows writing",
    DropWriteOnly "drop_write_only" "a MAP for writing allows reading",
    MapTooLong "map_too_long" "a MAP has one page too many at its end",
    MapTooShort "map_too_short" "a MAP lacks the last byte",
    LaterMapsAstray "later_maps_astray" "after 30 000 of them, a MAP leads one page too far",
    CrowdedMapsAstray "crowded_maps_astray" "a MAP leads one page too far in a domain that maps 65 536 times",
    LeaveBypass "leave_bypass" "start-up leaves the bypass byte as it is",
    DetachToBlock "detach_to_block" "an endpoint is blocked by DETACH",
    KeepAtDetach "keep_at_detach" "an endpoint that should be blocked stays where it is",
    KeepAtReplace "keep_at_replace" "an endpoint that should change domains stays where it is",
    ForgetSecondEndpoint "forget_second_endpoint" "only the first endpoint of a group is attached",
    IgnoreStatus "ignore_status" "a status byte that refuses an ATTACH or a MAP is ignored",
    WrongEndpoint "wrong_endpoint" "a fault record names another endpoint",
    WrongAddress "wrong_address" "a fault record names the page, not the address",
    LoseFaults "lose_faults" "fault records are dropped",
    FreeIdInUse "free_id_in_use" "the id of a domain that lives is handed out again",
    IgnoreReservedAtMap "ignore_reserved_at_map" "a map may go into a reserved region",
    IgnoreReservedAtAttach "ignore_reserved_at_attach" "a domain that maps there is attached",
    NoUndoOfRuns "no_undo_of_runs" "a list of runs that fails stays half recorded",
    IgnoreInstance "ignore_instance" "a domain of another unit is not refused",
    ClaimTwice "claim_twice" "a group that is owned can be claimed",
    ForgetHotAdded "forget_hot_added" "a device that joins an attached group is not attached",
    IgnoreHotAddedRegions "ignore_hot_added_regions" "what a device reserves that joins a group is not kept free",
    KeepRemoved "keep_removed" "a device that is removed stays on its domain",
    MapFirstDomainOnly "map_first_domain_only" "a container maps into its first domain alone",
    UnmapNewestDomainOnly "unmap_newest_domain_only" "a container unmaps from its newest domain alone",
    NoUndoAcrossDomains "no_undo_across_domains" "what one domain refused stays in the others",
    ShortUnmapUnsent "short_unmap_unsent" "a container's short way to unmap sends nothing",
    MissMemberChanges "miss_member_changes" "a container misses that a group's devices changed",
    SkipFill "skip_fill" "a container's new domain is not given the mappings",
    WindowsWithRegions "windows_with_regions" "a container's windows keep reserved regions",
}

/// The chosen one, as its place in the list plus one; 0: none.
#[cfg(iommu_sabotage)]
static CHOSEN: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);

/// Breaks what has this name, from now on. False if there is no such name.
#[cfg(iommu_sabotage)]
pub fn choose(name: &str) -> bool {
    let found = ALL.iter().position(|(_, known, _)| *known == name);
    if let Some(index) = found {
        CHOSEN.store(index + 1, core::sync::atomic::Ordering::Relaxed);
    }
    found.is_some()
}

/// Whether this is broken.
#[cfg(iommu_sabotage)]
pub(crate) fn is_on(which: Sabotage) -> bool {
    CHOSEN.load(core::sync::atomic::Ordering::Relaxed) == which as usize + 1
}
