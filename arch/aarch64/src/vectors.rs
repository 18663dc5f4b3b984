//! Exceptions: none is expected, so each tells what happened and ends the image.

use aarch64_cpu::registers::{ELR_EL1, ESR_EL1, FAR_EL1, Readable};
use aarch64_rt::{ExceptionHandlers, RegisterStateRef, exception_handlers};

use crate::exit;

/// The exit code of an image that took an exception.
const EXCEPTION: u8 = 102;

struct Handlers;

impl ExceptionHandlers for Handlers {
    extern "C" fn sync_current(_: RegisterStateRef<'_>) {
        report("synchronous exception");
    }

    extern "C" fn irq_current(_: RegisterStateRef<'_>) {
        report("interrupt");
    }

    extern "C" fn fiq_current(_: RegisterStateRef<'_>) {
        report("fast interrupt");
    }

    extern "C" fn serror_current(_: RegisterStateRef<'_>) {
        report("system error");
    }
}

exception_handlers!(Handlers);

fn report(what: &str) -> ! {
    let (cause, at, address) = (ESR_EL1.get(), ELR_EL1.get(), FAR_EL1.get());
    defmt::error!(
        "panicked: {=str}, ESR {=u64:#x}, at {=u64:#x}, address {=u64:#x}",
        what,
        cause,
        at,
        address
    );
    exit(EXCEPTION)
}
