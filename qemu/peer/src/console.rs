//! Lines for the tool, on the console. Each begins with `peer: `, so that the kernel's own are told
//! apart.

use core::fmt::{self, Arguments, Write};

use crate::sys;

/// Writes a line.
pub fn line(text: Arguments<'_>) {
    // A console that is gone can't be told about either; the tool misses the last line.
    let _ = writeln!(Console, "peer: {text}");
}

/// Waits until all that was written is on its way: no interrupt of the console disturbs what comes.
pub fn drain() {
    sys::drain(OUTPUT);
}

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        sys::write(OUTPUT, text.as_bytes()).map_err(|_| fmt::Error)
    }
}

/// The kernel opens the console for its first program.
const OUTPUT: usize = 1;
