//! The clock: the generic timer's virtual count.

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTVCT_EL0, Readable};

/// Nanoseconds since the machine started.
#[must_use]
pub fn now_ns() -> u64 {
    let ticks = u128::from(CNTVCT_EL0.get());
    let per_second = u128::from(CNTFRQ_EL0.get()).max(1);
    (ticks * 1_000_000_000 / per_second) as u64
}

defmt::timestamp!("{=u64:us}", now_ns() / 1000);
