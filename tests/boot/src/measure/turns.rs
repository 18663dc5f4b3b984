//! Two CPUs in step, though one processor of the host plays them one after the other.
//!
//! Each CPU has a clock that counts its own instructions. What the CPUs can see of each other are locks:
//! before a CPU takes or releases one, it lets the other run until that one's clock is not behind. So
//! locks are taken and released in the order of the clocks, as if both CPUs ran at the same time at one
//! instruction per tick. A CPU that finds a lock taken goes on when the clock of the other one says that
//! it was released. What the lock itself executes is not counted, nor is what a cache would cost.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::arch::counter;

static CPUS: [Cpu; 2] = [const { Cpu::new() }; 2];
/// Whether clocks run at all.
static IS_ON: AtomicBool = AtomicBool::new(false);

struct Cpu {
    clock: AtomicU64,
    /// The counter when the code under measurement went on.
    since: AtomicU32,
    is_at_work: AtomicBool,
    /// It waits for a lock.
    is_blocked: AtomicBool,
}

impl Cpu {
    const fn new() -> Self {
        Self {
            clock: AtomicU64::new(0),
            since: AtomicU32::new(0),
            is_at_work: AtomicBool::new(false),
            is_blocked: AtomicBool::new(false),
        }
    }
}

/// Puts the clocks of the first `count` CPUs to 0. They run from [`enter`] on.
pub fn on(count: usize) {
    for cpu in CPUS.iter().take(count) {
        cpu.clock.store(0, Ordering::Relaxed);
        cpu.is_at_work.store(true, Ordering::Relaxed);
    }
    IS_ON.store(true, Ordering::Release);
}

/// Stops the clocks, and returns the later one: when all the work was done.
pub fn off() -> u64 {
    IS_ON.store(false, Ordering::Release);
    CPUS.iter().map(|cpu| cpu.clock.swap(0, Ordering::Relaxed)).max().unwrap_or(0)
}

/// The work of this CPU begins.
pub fn enter() {
    counter::start();
    go_on(this());
}

/// The work of this CPU has ended: the other one need not wait for it.
pub fn leave() {
    stop();
    CPUS[this()].is_at_work.store(false, Ordering::Release);
}

/// Stops the clock of this CPU, if clocks run, and returns which CPU it is.
pub fn stop() -> Option<usize> {
    let now = counter::instructions();
    if !IS_ON.load(Ordering::Acquire) {
        return None;
    }
    let index = this();
    let cpu = &CPUS[index];
    let spent = now.wrapping_sub(cpu.since.load(Ordering::Relaxed));
    cpu.clock.fetch_add(spent.into(), Ordering::Release);
    Some(index)
}

/// Lets the clock of a CPU run again.
pub fn go_on(index: usize) {
    CPUS[index].since.store(counter::instructions(), Ordering::Relaxed);
}

/// Waits until the other CPU is not behind; returns the time.
pub fn in_turn(index: usize) -> u64 {
    let (mine, other) = (&CPUS[index], &CPUS[1 - index]);
    let now = mine.clock.load(Ordering::Relaxed);
    let is_behind = || {
        other.is_at_work.load(Ordering::Acquire)
            && !other.is_blocked.load(Ordering::Acquire)
            && other.clock.load(Ordering::Acquire) < now
    };
    while is_behind() {
        give_way();
    }
    now
}

/// Waits until `take` has a lock that the other CPU holds, which then says when it was free.
pub fn blocked(index: usize, take: impl Fn() -> bool, free_since: impl Fn() -> u64) {
    let cpu = &CPUS[index];
    cpu.is_blocked.store(true, Ordering::Release);
    while !take() {
        give_way();
    }
    cpu.clock.fetch_max(free_since(), Ordering::Relaxed);
    cpu.is_blocked.store(false, Ordering::Release);
}

/// Lets the other CPU have what it waits for, if it does.
pub fn hand_over(index: usize) {
    if CPUS[1 - index].is_blocked.load(Ordering::Acquire) {
        give_way();
    }
}

/// Lets the other CPU run.
#[cfg(target_arch = "aarch64")]
pub fn give_way() {
    crate::arch::second::give_way();
}

/// There is no other CPU.
#[cfg(not(target_arch = "aarch64"))]
pub fn give_way() {
    core::hint::spin_loop();
}

/// Which CPU this is.
#[cfg(target_arch = "aarch64")]
fn this() -> usize {
    usize::from(crate::arch::second::is_here())
}

/// Which CPU this is.
#[cfg(not(target_arch = "aarch64"))]
fn this() -> usize {
    0
}
