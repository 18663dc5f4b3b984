//! The clock: the counter `time`, which the board feeds from its timer.

use riscv::register::time;

use crate::board;

/// Nanoseconds since the machine started.
#[must_use]
pub fn now_ns() -> u64 {
    const TICK_NS: u64 = 1_000_000_000 / board::CLOCK_HZ;
    time::read64() * TICK_NS
}

defmt::timestamp!("{=u64:us}", now_ns() / 1000);
