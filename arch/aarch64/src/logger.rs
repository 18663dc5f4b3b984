//! defmt frames to the UART. One CPU, interrupts masked: a frame is never interrupted but by an
//! exception, which then ends the image.
#![expect(
    unsafe_code,
    reason = "the logger's contract is unsafe, and the UART is at a fixed address"
)]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use arm_pl011_uart::{PL011Registers, Uart, UniqueMmioPointer};
use defmt::Encoder;
use spin::Mutex;

use crate::board;

#[defmt::global_logger]
struct Frames;

static ENCODER: Mutex<Encoder> = Mutex::new(Encoder::new());
/// Whether a frame is open. An exception in the middle of one drops it and begins its own.
static OPEN: AtomicBool = AtomicBool::new(false);

// SAFETY: there is one CPU and interrupts stay masked, so `acquire` is never entered while a frame
// is open, except from an exception, which `OPEN` tells and which does not return.
unsafe impl defmt::Logger for Frames {
    fn acquire() {
        if OPEN.swap(true, Ordering::Relaxed) {
            ENCODER.lock().end_frame(send);
        }
        ENCODER.lock().start_frame(send);
    }

    unsafe fn flush() {}

    unsafe fn release() {
        ENCODER.lock().end_frame(send);
        OPEN.store(false, Ordering::Relaxed);
    }

    unsafe fn write(bytes: &[u8]) {
        ENCODER.lock().write(bytes, send);
    }
}

fn send(bytes: &[u8]) {
    let Some(registers) = NonNull::new(core::ptr::with_exposed_provenance_mut(board::UART)) else {
        return;
    };
    // SAFETY: the UART's registers are mapped as device memory from the entry on, and this function
    // is the only one that uses them; its callers don't overlap, see `Frames`.
    let registers = unsafe { UniqueMmioPointer::<PL011Registers>::new(registers) };
    let mut uart = Uart::new(registers);
    for byte in bytes {
        while uart.is_tx_fifo_full() {
            core::hint::spin_loop();
        }
        uart.write_word(*byte);
    }
}
