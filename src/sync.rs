//! The lock type. The host may bring its own raw lock; the default spins.
//!
//! The order in which locks are taken is in `docs/locking.md`.

pub use lock_api::{GuardNoSend, GuardSend, RawMutex};

/// A raw lock that can guard the crate's state.
///
/// Implemented for every [`RawMutex`] (of `lock_api`) that may be shared. Bring one that masks
/// interrupts if the IOMMU API is called from interrupt handlers:
///
/// ```
/// # #![allow(unsafe_code)]
/// use core::sync::atomic::{AtomicBool, Ordering};
/// use iommu::sync::{GuardNoSend, RawMutex, SpinLock};
/// # mod cpu {
/// #     pub fn mask_interrupts() -> bool { true }
/// #     pub fn unmask_interrupts() {}
/// # }
///
/// /// Spins with the interrupts of this CPU masked.
/// struct Masking {
///     lock: SpinLock,
///     /// Whether they were on; only for the holder.
///     were_on: AtomicBool,
/// }
///
/// // SAFETY: the inner lock excludes; masking adds to that.
/// unsafe impl RawMutex for Masking {
///     const INIT: Self = Self { lock: SpinLock::INIT, were_on: AtomicBool::new(false) };
///     type GuardMarker = GuardNoSend; // it is freed on the CPU that took it
///
///     fn lock(&self) {
///         while !self.try_lock() {
///             core::hint::spin_loop();
///         }
///     }
///
///     fn try_lock(&self) -> bool {
///         let were_on = cpu::mask_interrupts();
///         let taken = RawMutex::try_lock(&self.lock);
///         match taken {
///             true => self.were_on.store(were_on, Ordering::Relaxed),
///             false if were_on => cpu::unmask_interrupts(),
///             false => {}
///         }
///         taken
///     }
///
///     unsafe fn unlock(&self) {
///         let were_on = self.were_on.load(Ordering::Relaxed);
///         // SAFETY: the caller holds the lock.
///         unsafe { RawMutex::unlock(&self.lock) };
///         if were_on {
///             cpu::unmask_interrupts();
///         }
///     }
/// }
///
/// # use iommu::{pool::Pool, registry::Registry};
/// static POOL: Pool = Pool::heap();
/// let registry = Registry::<Masking>::with_lock(&POOL);
/// # assert_eq!(registry.group_count(), 0);
/// ```
///
/// The driver takes one too: `VirtioIommu::with_lock`.
pub trait RawLock: RawMutex + Send + Sync + 'static {}

impl<R: RawMutex + Send + Sync + 'static> RawLock for R {}

/// The default raw lock: spins, does not touch interrupts.
pub type SpinLock = spin::mutex::SpinMutex<()>;

/// A mutex over raw lock `R`.
pub type Mutex<R, T> = lock_api::Mutex<R, T>;
