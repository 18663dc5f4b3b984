//! Marks in the code where the mutation check breaks it; `sabotage.rs` says when they exist. In every
//! other build they are the honest code, and nothing else.

/// Runs a statement if this is broken: `sabotage!(SkipUnmap => return Ok(()));`
macro_rules! sabotage {
    ($which:ident => $broken:expr) => {
        #[cfg(iommu_sabotage)]
        if crate::sabotage::is_on(crate::sabotage::Sabotage::$which) {
            $broken;
        }
    };
}

/// The first value, or the second if this is broken: `sabotaged!(MapTooLong, last, last + 1)`.
#[cfg(iommu_sabotage)]
macro_rules! sabotaged {
    ($which:ident, $honest:expr, $broken:expr) => {
        if crate::sabotage::is_on(crate::sabotage::Sabotage::$which) { $broken } else { $honest }
    };
}
#[cfg(not(iommu_sabotage))]
macro_rules! sabotaged {
    ($which:ident, $honest:expr, $broken:expr) => {{ $honest }}; // a block, or clippy sees `let x = x;`
}

pub(crate) use {sabotage, sabotaged};
