//! A lock that counts: how often it is taken, how often it was found taken, and for how many
//! instructions it is held. The library takes any raw lock; here it takes this one. While two CPUs are
//! measured it keeps them in step ([`turns`]).
#![expect(unsafe_code, reason = "implements a raw lock")]

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use heapless::Vec;
use lock_api::{GuardSend, RawMutex};
use spin::Mutex;

use super::turns;
use crate::arch::counter;

/// The most locks that one call takes.
const MOST: usize = 16;

static TAKEN: AtomicU64 = AtomicU64::new(0);
static WAITS: AtomicU64 = AtomicU64::new(0);
static IS_NOTED: AtomicBool = AtomicBool::new(false);
static NOTES: Mutex<Vec<Note, MOST>> = Mutex::new(Vec::new());

/// The raw lock.
pub struct Watched {
    is_taken: AtomicBool,
    /// The counter when it was taken.
    since: AtomicU32,
    /// The clock of the CPU that released it last.
    free_since: AtomicU64,
}

/// A lock that a call took.
#[derive(Clone, Copy)]
pub struct Note {
    /// Where it is: which one it is.
    pub place: usize,
    /// For how many instructions it was held, together.
    pub held: u32,
    /// How often it was taken.
    pub count: u32,
}

/// Counts of all locks together.
#[derive(Clone, Copy)]
pub struct Counts {
    /// How often one was taken.
    pub taken: u64,
    /// How often one was found taken.
    pub waits: u64,
}

impl Counts {
    /// Counts until now.
    pub fn now() -> Self {
        Self { taken: TAKEN.load(Ordering::Relaxed), waits: WAITS.load(Ordering::Relaxed) }
    }

    /// What came since an earlier moment.
    pub fn since(self, before: Self) -> Self {
        Self { taken: self.taken - before.taken, waits: self.waits - before.waits }
    }
}

/// Runs `call` and tells which locks it took.
pub fn note(call: impl FnOnce()) -> Vec<Note, MOST> {
    NOTES.lock().clear();
    IS_NOTED.store(true, Ordering::Relaxed);
    call();
    IS_NOTED.store(false, Ordering::Relaxed);
    NOTES.lock().clone()
}

impl Watched {
    fn take(&self) -> bool {
        self.is_taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

/// Notes that the lock at `place` was held.
fn noted(place: usize, held: u32) {
    let mut notes = NOTES.lock();
    match notes.iter_mut().find(|note| note.place == place) {
        Some(note) => (note.held, note.count) = (note.held + held, note.count + 1),
        None => {
            let fits = notes.push(Note { place, held, count: 1 }).is_ok();
            assert!(fits, "a call took more than {MOST} locks");
        }
    }
}

// SAFETY: `take` succeeds for one caller at a time, until that one unlocks.
unsafe impl RawMutex for Watched {
    const INIT: Self = Self {
        is_taken: AtomicBool::new(false),
        since: AtomicU32::new(0),
        free_since: AtomicU64::new(0),
    };
    type GuardMarker = GuardSend;

    fn lock(&self) {
        TAKEN.fetch_add(1, Ordering::Relaxed);
        let cpu = turns::stop();
        if let Some(cpu) = cpu {
            turns::in_turn(cpu);
        }
        if !self.take() {
            WAITS.fetch_add(1, Ordering::Relaxed);
            let cpu = cpu.expect("only two CPUs in step can meet at a lock");
            turns::blocked(cpu, || self.take(), || self.free_since.load(Ordering::Relaxed));
        }
        cpu.inspect(|cpu| turns::go_on(*cpu));
        self.since.store(counter::instructions(), Ordering::Relaxed);
    }

    fn try_lock(&self) -> bool {
        let is_ours = self.take();
        if is_ours {
            TAKEN.fetch_add(1, Ordering::Relaxed);
            self.since.store(counter::instructions(), Ordering::Relaxed);
        }
        is_ours
    }

    unsafe fn unlock(&self) {
        if IS_NOTED.load(Ordering::Relaxed) {
            let held = counter::instructions().wrapping_sub(self.since.load(Ordering::Relaxed));
            noted(core::ptr::from_ref(self).addr(), held);
        }
        let cpu = turns::stop();
        if let Some(cpu) = cpu {
            self.free_since.store(turns::in_turn(cpu), Ordering::Relaxed);
        }
        self.is_taken.store(false, Ordering::Release);
        if let Some(cpu) = cpu {
            turns::hand_over(cpu);
            turns::go_on(cpu);
        }
    }
}
