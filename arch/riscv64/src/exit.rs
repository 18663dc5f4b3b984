//! How an image ends: with a code, by the board's test device, which firmware leaves open to
//! supervisor mode.
#![expect(unsafe_code, reason = "writes a register at a fixed address")]

use core::panic::PanicInfo;

use riscv::asm::wfi;

use crate::board;

/// The exit code of an image that panicked.
const PANICKED: u8 = 101;
const PASS: u32 = 0x5555;
/// With the code in the upper half.
const FAIL: u32 = 0x3333;

/// Ends the machine; QEMU's exit status is `code`, 0 for "all held".
pub fn exit(code: u8) -> ! {
    let value = if code == 0 { PASS } else { u32::from(code) << 16 | FAIL };
    let register = core::ptr::with_exposed_provenance_mut::<u32>(board::EXIT);
    // SAFETY: the register of the device that ends the machine; nothing runs after it.
    unsafe { register.write_volatile(value) };
    loop {
        wfi(); // a machine without the device
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    defmt::error!("panicked: {}", defmt::Display2Format(info));
    exit(PANICKED)
}
