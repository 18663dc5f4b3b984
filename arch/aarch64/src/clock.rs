//! The clock: the generic timer's virtual count.

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTVCT_EL0, Readable};
use spin::Once;

/// Nanoseconds since the machine started.
#[must_use]
pub fn now_ns() -> u64 {
    /// Nanoseconds per tick, times 2^32: a multiplication is cheap, a division is not.
    static SCALE: Once<u64> = Once::new();
    let scale = SCALE.call_once(|| (1_000_000_000 << 32) / CNTFRQ_EL0.get().max(1));
    ((u128::from(CNTVCT_EL0.get()) * u128::from(*scale)) >> 32) as u64
}

defmt::timestamp!("{=u64:us}", now_ns() / 1000);
