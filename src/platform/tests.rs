//! The ready platform, and each mistake of a port that `check` has to find.
#![expect(unsafe_code, reason = "platforms that break their promises on purpose")]

use core::num::NonZeroUsize;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::alloc::{Layout, alloc, dealloc};
use std::string::ToString;

use super::*;

static TAKEN: AtomicUsize = AtomicUsize::new(0);
static NOW: AtomicU64 = AtomicU64::new(0);

fn layout(pages: NonZeroUsize) -> Layout {
    Layout::from_size_align(pages.get() * PAGE_SIZE, PAGE_SIZE).unwrap()
}

fn take(pages: NonZeroUsize) -> Option<NonNull<u8>> {
    if pages.get() > 16 {
        return None;
    }
    // SAFETY: the size is not 0.
    let start = NonNull::new(unsafe { alloc(layout(pages)) })?;
    // SAFETY: so many bytes were allocated. What the kernel hands out is dirty.
    unsafe { start.write_bytes(0x77, pages.get() * PAGE_SIZE) };
    TAKEN.fetch_add(pages.get(), Ordering::Relaxed);
    Some(start)
}

unsafe fn give_back(start: NonNull<u8>, pages: NonZeroUsize) {
    TAKEN.fetch_sub(pages.get(), Ordering::Relaxed);
    // SAFETY: the caller's promise: `take` gave it with this layout.
    unsafe { dealloc(start.as_ptr(), layout(pages)) };
}

// SAFETY: the heap gives memory once; there is no device.
static IDENTITY: IdentityPlatform =
    unsafe { IdentityPlatform::new(take, give_back, || NOW.fetch_add(1, Ordering::Relaxed)) };

#[test]
fn an_identity_platform_zeroes_and_tells_the_address() {
    let memory = IDENTITY.alloc_dma(NonZeroUsize::new(2).unwrap()).unwrap();
    assert_eq!(memory.device.0, memory.cpu.addr().get() as u64);
    assert_eq!(IDENTITY.phys_of(memory.cpu), Some(memory.device), "for buffers of drivers");
    // SAFETY: two pages were given, and nobody writes them.
    let bytes = unsafe { core::slice::from_raw_parts(memory.cpu.as_ptr(), 2 * PAGE_SIZE) };
    assert!(bytes.iter().all(|byte| *byte == 0));
    // SAFETY: given above, and not used below.
    unsafe { IDENTITY.free_dma(memory) };
    assert!(IDENTITY.alloc_dma(NonZeroUsize::new(17).unwrap()).is_err(), "what the kernel refuses");
    assert!(IDENTITY.alloc_dma(NonZeroUsize::MAX).is_err(), "more than there are addresses");
    assert_eq!(check(&IDENTITY), Ok(()));
    assert_eq!(TAKEN.load(Ordering::Relaxed), 0, "all of it went back");
}

/// A port with one mistake.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Mistake {
    None,
    ClockStands,
    ClockGoesBack,
    CpuMisaligned,
    DeviceMisaligned,
    OnePageOnly,
    NeverZeroed,
    ZeroedOnce,
    GivenTwice,
    NoMemory,
    NoMemoryLater,
}

struct Port {
    mistake: Mistake,
    now: AtomicU64,
    used: AtomicBool,
    calls: AtomicUsize,
    live: AtomicUsize,
    area: NonNull<u8>,
}

/// The area's pages; calls take theirs at the offsets 0 and 4, with a page to spare.
const AREA: NonZeroUsize = NonZeroUsize::new(8).unwrap();

// SAFETY: the pointer is to memory that isn't tied to a thread.
unsafe impl Sync for Port {}
// SAFETY: as above.
unsafe impl Send for Port {}

impl Port {
    fn new(mistake: Mistake) -> Self {
        // SAFETY: the size is not 0.
        let area = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout(AREA)) }).unwrap();
        let (now, used) = (AtomicU64::new(1 << 40), AtomicBool::new(false));
        Self { mistake, now, used, calls: AtomicUsize::new(0), live: AtomicUsize::new(0), area }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // SAFETY: `new` allocated it with this layout.
        unsafe { dealloc(self.area.as_ptr(), layout(AREA)) };
    }
}

// SAFETY: it breaks its promises on purpose, but what it gives lies inside the area.
unsafe impl Platform for Port {
    fn alloc_dma(&self, pages: NonZeroUsize) -> Result<DmaPages, OutOfMemory> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let refused = self.mistake == Mistake::NoMemory
            || (self.mistake == Mistake::NoMemoryLater && call == 3);
        if refused {
            return Err(OutOfMemory);
        }
        let place =
            if call.is_multiple_of(2) || self.mistake == Mistake::GivenTwice { 0 } else { 4 };
        let shift = if self.mistake == Mistake::CpuMisaligned { 8 } else { 0 };
        // SAFETY: at most 4 pages and 8 bytes from the offset 4 pages on: inside the area.
        let cpu = unsafe { self.area.add(place * PAGE_SIZE + shift) };
        let fill = (self.mistake == Mistake::NeverZeroed).then_some(1);
        let zero = self.mistake != Mistake::ZeroedOnce || !self.used.load(Ordering::Relaxed);
        if let Some(value) = fill.or(zero.then_some(0)) {
            // SAFETY: at most 3 pages, inside the area.
            unsafe { cpu.write_bytes(value, pages.get() * PAGE_SIZE) };
        }
        self.live.fetch_add(1, Ordering::Relaxed);
        let device = match self.mistake {
            Mistake::DeviceMisaligned => PhysAddr(0x1800),
            _ => PhysAddr(0x1000),
        };
        let one = self.mistake == Mistake::OnePageOnly;
        Ok(DmaPages { cpu, device, pages: if one { NonZeroUsize::MIN } else { pages } })
    }

    unsafe fn free_dma(&self, _: DmaPages) {
        self.used.store(true, Ordering::Relaxed);
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    fn now_ns(&self) -> u64 {
        match self.mistake {
            Mistake::ClockStands => 7,
            Mistake::ClockGoesBack => self.now.fetch_sub(1, Ordering::Relaxed),
            _ => self.now.fetch_add(1, Ordering::Relaxed),
        }
    }
}

#[test]
fn every_mistake_is_found_and_told_with_its_fix() {
    let cases = [
        (Mistake::ClockStands, 22, "now_ns stands still at 7: start the timer"),
        (Mistake::ClockGoesBack, 22, "now_ns goes back: use one counter"),
        (Mistake::CpuMisaligned, 22, "multiples of 4096; take whole pages"),
        (Mistake::DeviceMisaligned, 22, "device 0x1800): both addresses"),
        (Mistake::OnePageOnly, 22, "asked for 3 pages and says it gave 1"),
        (Mistake::NeverZeroed, 22, "at offset 0x0: zero the pages each time"),
        (Mistake::ZeroedOnce, 22, "at offset 0x0: zero the pages each time"),
        (Mistake::GivenTwice, 22, "the same memory twice: mark pages as taken"),
        (Mistake::NoMemory, 12, "has no memory: give it"),
        (Mistake::NoMemoryLater, 12, "has no memory: give it"),
    ];
    for (mistake, errno, part) in cases {
        let port = Port::new(mistake);
        let error = check(&port).expect_err("a mistake must be found");
        assert!(error.to_string().contains(part), "{mistake:?}: {error}");
        assert_eq!((error.errno(), port.live.load(Ordering::Relaxed)), (errno, 0), "{mistake:?}");
    }
    assert_eq!(check(&Port::new(Mistake::None)), Ok(()));
}
