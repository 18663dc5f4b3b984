//! How an image ends: with a code, by `isa-debug-exit`.
#![expect(unsafe_code, reason = "writes a port")]

use core::panic::PanicInfo;

use x86_64::instructions::hlt;
use x86_64::instructions::port::Port;

use crate::board;

/// The exit code of an image that panicked.
const PANICKED: u8 = 101;
/// What stands for the code 0: the device can't make QEMU's exit status 0, nor an even number.
const SUCCESS: u32 = 0x10;
/// What stands for codes that would look like another one.
const OTHER: u32 = 0x7f;

/// Ends the machine. QEMU's exit status is twice `code` plus one, and 33 for "all held".
pub fn exit(code: u8) -> ! {
    let value = match u32::from(code) {
        0 => SUCCESS,
        SUCCESS | 0x80.. => OTHER,
        code => code,
    };
    let mut port = Port::<u32>::new(board::EXIT);
    // SAFETY: the port of the device that ends the machine; nothing runs after it.
    unsafe { port.write(value) };
    loop {
        hlt(); // a machine without the device
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    defmt::error!("panicked: {}", defmt::Display2Format(info));
    exit(PANICKED)
}
