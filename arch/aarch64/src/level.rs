//! The exception level: the entry code turns the MMU of level 1 on, and of no other.

use aarch64_cpu::registers::{CurrentEL, Readable};

/// Whether the image runs at exception level 1.
///
/// At level 2 (`-M virt,virtualization=on`) it would run uncached, unmapped, and without vectors.
#[must_use]
pub(crate) fn is_at_entry_level() -> bool {
    CurrentEL.read(CurrentEL::EL) == 1
}
