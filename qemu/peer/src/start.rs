//! Where the kernel enters, and what happens when nothing else does.
#![expect(unsafe_code, reason = "the kernel enters with a stack and no return address")]

use core::panic::PanicInfo;

use crate::console;
use crate::sys;

/// The entry point. The kernel passes arguments on the stack; there are none that we want.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn _start() -> ! {
    #[cfg(target_arch = "x86_64")]
    core::arch::naked_asm!("xor ebp, ebp", "and rsp, -16", "call {main}", "ud2", main = sym entered);
    #[cfg(target_arch = "aarch64")]
    core::arch::naked_asm!("mov x29, xzr", "mov x30, xzr", "bl {main}", "brk 1", main = sym entered);
}

extern "C" fn entered() -> ! {
    crate::main();
    sys::restart()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    console::line(format_args!("failed: {info}"));
    sys::restart()
}
