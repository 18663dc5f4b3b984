//! The lock type. The host may bring its own raw lock; the default spins.
//!
//! The order in which locks are taken is in `docs/locking.md`.

/// A raw lock that can guard the crate's state.
///
/// Implemented for every [`lock_api::RawMutex`] that may be shared. Bring one that masks interrupts
/// if the IOMMU API is called from interrupt handlers.
pub trait RawLock: lock_api::RawMutex + Send + Sync + 'static {}

impl<R: lock_api::RawMutex + Send + Sync + 'static> RawLock for R {}

/// The default raw lock: spins, does not touch interrupts.
pub type SpinLock = spin::mutex::SpinMutex<()>;

/// A mutex over raw lock `R`.
pub type Mutex<R, T> = lock_api::Mutex<R, T>;
