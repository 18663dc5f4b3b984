//! defmt frames to the UART. One CPU, interrupts masked: a frame is never interrupted
//! but by an exception, which then ends the image.
#![expect(
    unsafe_code,
    reason = "the logger's contract is unsafe, and the UART is at a fixed address"
)]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use defmt::Encoder;
use spin::{Mutex, Once};
use uart_16550::backend::MmioBackend;
use uart_16550::{Config, Uart16550};

use crate::board;

#[defmt::global_logger]
struct Frames;

static ENCODER: Mutex<Encoder> = Mutex::new(Encoder::new());
static UART: Once<Mutex<Uart16550<MmioBackend>>> = Once::new();
/// Whether a frame is open. An exception in the middle of one drops it and begins its own.
static OPEN: AtomicBool = AtomicBool::new(false);

/// Sets the UART up. Frames from before are lost. After text of the firmware's, a frame separator ends
/// it, so that the first frame is one.
pub fn init(is_after_text: bool) {
    let address = NonNull::new(core::ptr::with_exposed_provenance_mut(board::UART));
    let Some(address) = address else { return };
    // SAFETY: the UART's registers, one byte each, which nothing else uses.
    let Ok(mut uart) = (unsafe { Uart16550::new_mmio(address, 1) }) else { return };
    if uart.init(Config::default()).is_ok() {
        UART.call_once(|| Mutex::new(uart));
    }
    if is_after_text {
        send(&[0]);
    }
}

/// Makes an exception's messages possible, whatever it interrupted: no lock is held for good.
///
/// # Safety
///
/// What was interrupted does not go on.
pub unsafe fn break_locks() {
    // SAFETY: there is one CPU, and the holder, if any, does not go on: the caller's promise.
    unsafe { ENCODER.force_unlock() };
    if let Some(uart) = UART.get() {
        // SAFETY: as above.
        unsafe { uart.force_unlock() };
    }
}

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
    if let Some(uart) = UART.get() {
        uart.lock().send_bytes_exact(bytes);
    }
}
