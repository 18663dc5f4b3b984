//! The second CPU (`-smp 2`): turned on for one piece of work at a time, and off again behind it.
//!
//! PSCI does it, by the hypervisor call that the board answers. The CPU runs with the page table and
//! the vectors of the first, on a stack of its own, with interrupts masked as there.
#![expect(unsafe_code, reason = "hands the second CPU its stack, and gives way in assembly")]

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_rt::{Stack, start_core};
use smccc::Hvc;
use smccc::psci::{self, AffinityState, LowestAffinityLevel};

/// The affinity of the second CPU on the board.
const MPIDR: u64 = 1;
/// As many as the first one has.
const STACK_PAGES: usize = 40;

static mut STACK: Stack<STACK_PAGES> = Stack::new();
/// Whether stack and CPU are in use. Set by [`start`], cleared by [`Working::join`].
static IS_TAKEN: AtomicBool = AtomicBool::new(false);
/// Whether the work that was started last is done.
static IS_DONE: AtomicBool = AtomicBool::new(false);

/// Why the second CPU did not start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, defmt::Format)]
pub enum NoSecond {
    /// It has work, or had some that nobody waited for.
    Busy,
    /// The machine has one CPU, or nothing that answers such calls.
    None,
}

/// The second CPU at work.
#[must_use = "without `join` it is never free again"]
#[derive(Debug)]
pub struct Working(());

/// Lets the second CPU run `work`, beside the first.
///
/// # Errors
///
/// [`NoSecond`]; then `work` is forgotten without being run or dropped.
pub fn start(work: impl FnOnce() + Send + 'static) -> Result<Working, NoSecond> {
    if IS_TAKEN.swap(true, Ordering::Acquire) {
        return Err(NoSecond::Busy);
    }
    IS_DONE.store(false, Ordering::Relaxed);
    let entry = || {
        work();
        IS_DONE.store(true, Ordering::Release);
        let _ = psci::cpu_off::<Hvc>(); // which comes back only if it was refused
        panic!("the second CPU can't be turned off");
    };
    let stack = &raw mut STACK;
    // SAFETY: `IS_TAKEN` was clear, so the CPU is off and nobody uses its stack; it is in RAM that both
    // CPUs map alike, for good, and stays taken until the CPU is off.
    let started = unsafe { start_core::<Hvc, _, STACK_PAGES>(MPIDR, stack, entry) };
    started.map(|()| Working(())).map_err(|_| {
        IS_TAKEN.store(false, Ordering::Release);
        NoSecond::None
    })
}

impl Working {
    /// Waits until the work is done and the CPU is off. What the work wrote can be read then.
    pub fn join(self) {
        let is_off = || {
            let state = psci::affinity_info::<Hvc>(MPIDR, LowestAffinityLevel::All);
            state == Ok(AffinityState::Off)
        };
        while !IS_DONE.load(Ordering::Acquire) || !is_off() {
            give_way();
        }
        IS_TAKEN.store(false, Ordering::Release);
    }
}

/// Whether the second CPU runs this.
#[must_use]
pub fn is_here() -> bool {
    let affinity: u64;
    // SAFETY: reads a constant.
    unsafe {
        asm!("mrs {}, mpidr_el1", out(reg) affinity, options(nostack, nomem, preserves_flags));
    };
    affinity & 0xff == MPIDR
}

/// For loops that wait for the other CPU: lets it run where both share one processor of the host, as
/// under `-icount`. `core::hint::spin_loop` does not.
pub fn give_way() {
    // SAFETY: a hint, without effect on registers or memory.
    unsafe { asm!("yield", options(nostack, preserves_flags)) };
}
