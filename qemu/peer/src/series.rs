//! Samples of one operation, and the marks around each in QEMU's trace.
//!
//! A mark is a write to a register of the host bridge that has no effect but a line in QEMU's trace.
//! Its value tells the series, so that the tool can count the requests of each sample.

use core::sync::atomic::{AtomicU8, Ordering};

use syscalls::Errno;

use crate::console;
use crate::counter::ticks;
use crate::failure::Failure;
use crate::sys::{File, READ_WRITE};

/// Writes marks.
pub struct Marks {
    config: File,
    /// Ticks between two looks at the counter with nothing between them.
    empty: u64,
}

impl Marks {
    /// The value behind a sample; series are numbered from 1.
    const END: u8 = 0xff;
    /// Values that begin the measurement. Firmware writes the same register, but not these in a row.
    const BEGIN: [u8; 4] = [0xfe, 0xfd, 0xfe, 0xfc];
    /// The interrupt line: a byte that only software reads.
    const REGISTER: usize = 0x3c;

    /// Opens the host bridge's registers, and marks the beginning.
    pub fn begin() -> Result<Self, Failure> {
        let config = File::open(c"/sys/bus/pci/devices/0000:00:00.0/config", READ_WRITE);
        let config = config.map_err(Failure::of("open the registers of the host bridge"))?;
        let nothing = || {
            let start = ticks();
            ticks().wrapping_sub(start)
        };
        let empty = (0..64).map(|_| nothing()).min().unwrap_or(0);
        let marks = Self { config, empty };
        Self::BEGIN.into_iter().try_for_each(|value| marks.put(value))?;
        Ok(marks)
    }

    fn put(&self, value: u8) -> Result<(), Failure> {
        self.config.put(value, Self::REGISTER).map_err(Failure::of("mark the trace"))
    }
}

/// Samples of one operation; they are told when the series ends.
pub struct Series<'a> {
    name: &'static str,
    number: u8,
    marks: &'a Marks,
    samples: [u64; MOST],
    count: usize,
}

impl<'a> Series<'a> {
    /// Begins a series. The name is the tool's.
    pub fn new(marks: &'a Marks, name: &'static str) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(number < Marks::BEGIN[3], "too many series");
        Self { name, number, marks, samples: [0; MOST], count: 0 }
    }

    /// Measures `work` once.
    pub fn sample<T>(&mut self, work: impl FnOnce() -> Result<T, Errno>) -> Result<T, Failure> {
        self.marks.put(self.number)?;
        let start = ticks();
        let result = work();
        let end = ticks();
        self.marks.put(Marks::END)?;
        *self.samples.get_mut(self.count).expect("too many samples") =
            end.wrapping_sub(start).saturating_sub(self.marks.empty);
        self.count += 1;
        result.map_err(Failure::of(self.name))
    }

    /// Tells what was measured.
    pub fn tell(self) {
        console::line(format_args!(
            "series {} {} {}",
            self.number,
            self.name,
            Samples(&self.samples[..self.count])
        ));
        console::drain();
    }
}

/// The most samples of a series.
pub const MOST: usize = 101;

struct Samples<'a>(&'a [u64]);

impl core::fmt::Display for Samples<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut samples = self.0.iter();
        if let Some(first) = samples.next() {
            write!(f, "{first}")?;
        }
        samples.try_for_each(|sample| write!(f, " {sample}"))
    }
}
