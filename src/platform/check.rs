//! Whether a [`Platform`] keeps its word, as far as it shows: the usual mistakes of a new port.
#![expect(unsafe_code, reason = "looks into memory that the platform hands out")]

use core::fmt;
use core::num::NonZeroUsize;

use super::{DmaPages, PAGE_SIZE, Platform};
use crate::error::{OutOfMemory, errno};

/// What a platform does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum PlatformError {
    /// `now_ns` gave one value [`CLOCK_READS`] times. `EINVAL`.
    ClockStands {
        /// The value.
        now_ns: u64,
    },
    /// `now_ns` gave a smaller value than before. `EINVAL`.
    ClockGoesBack,
    /// `alloc_dma` gave memory that does not begin at a page. `EINVAL`.
    Misaligned {
        /// Where the CPU finds it.
        cpu: usize,
        /// Where the device finds it.
        device: u64,
    },
    /// `alloc_dma` gave fewer or more pages than it was asked for. `EINVAL`.
    WrongPages {
        /// How many it was asked for.
        asked: usize,
        /// How many it gave.
        given: usize,
    },
    /// `alloc_dma` gave memory that is not zeroed. `EINVAL`.
    NotZeroed {
        /// The first byte that is not 0, counted from the start.
        offset: usize,
    },
    /// `alloc_dma` gave memory twice. `EINVAL`.
    GivenTwice,
    /// `alloc_dma` had no memory. `ENOMEM`.
    OutOfMemory,
}

/// How often the clock is read before it is taken to stand still: enough for a timer of 100 Hz.
pub const CLOCK_READS: u32 = 1 << 24;

/// Pages of the two pieces that are tried.
const PIECES: [NonZeroUsize; 2] = [NonZeroUsize::MIN, NonZeroUsize::new(3).unwrap()];

/// Tries the clock, and the memory for devices: asks for some, looks at it, writes to it, gives it
/// back, and asks again. `VirtioIommu::new` does
/// this first; a port can do it before there is an IOMMU.
///
/// What can't be seen from here is whether a device sees the memory, and sees it coherently:
/// [`selftest`](crate::selftest) shows that.
///
/// # Errors
///
/// [`PlatformError`] names the method and what is wrong with it. All memory went back.
pub fn check<P: Platform + ?Sized>(platform: &P) -> Result<(), PlatformError> {
    check_clock(platform)?;
    check_memory(platform)
}

/// The first half: a driver needs the clock before it may touch memory.
pub(crate) fn check_clock<P: Platform + ?Sized>(platform: &P) -> Result<(), PlatformError> {
    let first = platform.now_ns();
    for _ in 0..CLOCK_READS {
        let now = platform.now_ns();
        if now < first {
            return Err(PlatformError::ClockGoesBack);
        }
        if now > first {
            return Ok(());
        }
        core::hint::spin_loop();
    }
    Err(PlatformError::ClockStands { now_ns: first })
}

/// The second half. Memory goes back, so no device of an earlier driver may still run.
pub(crate) fn check_memory<P: Platform + ?Sized>(platform: &P) -> Result<(), PlatformError> {
    for _ in 0..2 {
        try_memory(platform)?; // pages that were used come back zeroed too
    }
    Ok(())
}

fn try_memory<P: Platform + ?Sized>(platform: &P) -> Result<(), PlatformError> {
    let [one, other] = PIECES;
    let first = Piece::take(platform, one)?;
    let second = Piece::take(platform, other)?;
    first.check(one)?;
    second.check(other)?;
    if first.overlaps(&second) {
        return Err(PlatformError::GivenTwice);
    }
    first.soil();
    second.soil();
    Ok(())
}

/// Memory that goes back when it is dropped.
struct Piece<'p, P: Platform + ?Sized> {
    platform: &'p P,
    pages: Option<DmaPages>,
}

impl<'p, P: Platform + ?Sized> Piece<'p, P> {
    fn take(platform: &'p P, pages: NonZeroUsize) -> Result<Self, OutOfMemory> {
        Ok(Self { platform, pages: Some(platform.alloc_dma(pages)?) })
    }

    fn check(&self, asked: NonZeroUsize) -> Result<(), PlatformError> {
        let Some(DmaPages { cpu, device, pages }) = &self.pages else { return Ok(()) };
        if *pages != asked {
            return Err(PlatformError::WrongPages { asked: asked.get(), given: pages.get() });
        }
        let at = cpu.addr().get();
        if at % PAGE_SIZE != 0 || device.0 % PAGE_SIZE as u64 != 0 {
            return Err(PlatformError::Misaligned { cpu: at, device: device.0 });
        }
        for offset in 0..asked.get() * PAGE_SIZE {
            // SAFETY: the platform's promise: so many pages are there, and nothing else uses them.
            let place = unsafe { cpu.add(offset) };
            // SAFETY: as above; a byte has no alignment.
            if unsafe { place.read_volatile() } != 0 {
                return Err(PlatformError::NotZeroed { offset });
            }
        }
        Ok(())
    }

    fn overlaps(&self, other: &Self) -> bool {
        let span = |piece: &Self| {
            let pages = piece.pages.as_ref()?;
            let first = pages.cpu.addr().get();
            Some((first, first.saturating_add(pages.pages.get().saturating_mul(PAGE_SIZE))))
        };
        let (Some(one), Some(other)) = (span(self), span(other)) else { return false };
        one.0 < other.1 && other.0 < one.1
    }

    /// Leaves traces; `check` held, so the pages are there.
    fn soil(&self) {
        if let Some(DmaPages { cpu, pages, .. }) = &self.pages {
            // SAFETY: the platform's promise, as in `check`.
            unsafe { cpu.write_bytes(0xa5, pages.get() * PAGE_SIZE) };
        }
    }
}

impl<P: Platform + ?Sized> Drop for Piece<'_, P> {
    fn drop(&mut self) {
        if let Some(pages) = self.pages.take() {
            // SAFETY: the pages came from this platform; no device was ever told of them.
            unsafe { self.platform.free_dma(pages) };
        }
    }
}

impl PlatformError {
    /// The stable errno of this variant (a positive number).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::OutOfMemory => errno::ENOMEM,
            _ => errno::EINVAL,
        }
    }
}

impl From<OutOfMemory> for PlatformError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl fmt::Display for PlatformError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClockStands { now_ns } => write!(
                f,
                "Platform::now_ns stands still at {now_ns}: start the timer before the IOMMU; a \
                 tick that is counted by an interrupt needs interrupts on, a hardware counter does not"
            ),
            Self::ClockGoesBack => f.write_str(
                "Platform::now_ns goes back: use one counter for all CPUs, and 64-bit arithmetic",
            ),
            Self::Misaligned { cpu, device } => write!(
                f,
                "Platform::alloc_dma gave misaligned memory (CPU {cpu:#x}, device {device:#x}): both \
                 addresses must be multiples of {PAGE_SIZE}; take whole pages, not heap blocks"
            ),
            Self::WrongPages { asked, given } => write!(
                f,
                "Platform::alloc_dma was asked for {asked} pages and says it gave {given}: \
                 `DmaPages::pages` counts pages of {PAGE_SIZE} bytes"
            ),
            Self::NotZeroed { offset } => write!(
                f,
                "Platform::alloc_dma gave memory with something in it at offset {offset:#x}: zero \
                 the pages each time they are handed out"
            ),
            Self::GivenTwice => f.write_str(
                "Platform::alloc_dma gave the same memory twice: mark pages as taken, all of them",
            ),
            Self::OutOfMemory => f.write_str(
                "Platform::alloc_dma has no memory: give it contiguous pages before the IOMMU starts",
            ),
        }
    }
}

impl core::error::Error for PlatformError {}
