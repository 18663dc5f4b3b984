//! The clock: the time stamp counter, measured against the interval timer of the PC at start.
#![expect(unsafe_code, reason = "reads and writes the ports of the interval timer")]

use spin::Once;
use x86_64::instructions::port::Port;

use crate::counter;

/// Counts of the interval timer per second.
const TIMER_HZ: u64 = 1_193_182;
/// For how many counts the measurement runs: 10 ms.
const MEASURED: u64 = TIMER_HZ / 100;
/// Channel 0, and the command register.
const CHANNEL_0: u16 = 0x40;
const COMMAND: u16 = 0x43;
/// Channel 0, low then high byte, mode 2 (counts down and starts again).
const RATE_GENERATOR: u8 = 0x34;
/// Keeps the count of channel 0 until it is read.
const LATCH: u8 = 0x00;
/// A timer that stands still is given up after so many reads.
const MOST_READS: u32 = 1_000_000;

#[derive(Clone, Copy)]
struct Clock {
    start: u64,
    /// Nanoseconds per count, times 2^32: a multiplication is cheap, a division is not.
    scale: u64,
}

static CLOCK: Once<Clock> = Once::new();

/// Measures the counter's rate, which takes 10 ms.
///
/// # Panics
///
/// When the interval timer stands still.
pub fn init() {
    write(COMMAND, RATE_GENERATOR);
    write(CHANNEL_0, 0); // 65536, low byte
    write(CHANNEL_0, 0);
    let start = counter::ticks();
    let (mut last, mut passed, mut reads) = (count(), 0, 0);
    let begin = counter::ticks();
    while passed < MEASURED {
        assert!(reads < MOST_READS, "the interval timer does not count");
        reads += 1;
        let now = count();
        passed += u64::from(last.wrapping_sub(now));
        last = now;
    }
    let hz = (counter::ticks() - begin) * TIMER_HZ / passed;
    CLOCK.call_once(|| Clock { start, scale: (1_000_000_000 << 32) / hz.max(1) });
}

/// Nanoseconds since the image started.
#[must_use]
pub fn now_ns() -> u64 {
    let Some(Clock { start, scale }) = CLOCK.get().copied() else { return 0 };
    let ticks = u128::from(counter::ticks().saturating_sub(start));
    ((ticks * u128::from(scale)) >> 32) as u64
}

defmt::timestamp!("{=u64:us}", now_ns() / 1000);

fn count() -> u16 {
    write(COMMAND, LATCH);
    u16::from_le_bytes([read(CHANNEL_0), read(CHANNEL_0)])
}

fn read(port: u16) -> u8 {
    // SAFETY: the interval timer, which only this module uses; reading it changes no memory.
    unsafe { Port::new(port).read() }
}

fn write(port: u16, value: u8) {
    // SAFETY: the interval timer, which only this module uses; its interrupt is masked.
    unsafe { Port::new(port).write(value) };
}
