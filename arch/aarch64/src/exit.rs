//! How an image ends: with a code, by semihosting.

use core::panic::PanicInfo;

/// The exit code of an image that panicked.
const PANICKED: i32 = 101;

/// Ends the machine; QEMU's exit status is `code`, 0 for "all held".
pub fn exit(code: u8) -> ! {
    semihosting::process::exit(code.into())
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    defmt::error!("panicked: {}", defmt::Display2Format(info));
    semihosting::process::exit(PANICKED)
}
