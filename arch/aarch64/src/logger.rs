//! defmt frames to the UART. A CPU waits until the other has ended its frame. Interrupts are masked: a
//! frame is never interrupted but by an exception, which then ends the image.
#![expect(
    unsafe_code,
    reason = "the logger's contract is unsafe, and the UART is at a fixed address"
)]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::registers::{MPIDR_EL1, Readable};
use arm_pl011_uart::{PL011Registers, Uart, UniqueMmioPointer};
use defmt::Encoder;
use spin::Mutex;

use crate::board;

#[defmt::global_logger]
struct Frames;

static ENCODER: Mutex<Encoder> = Mutex::new(Encoder::new());
/// The CPU whose frame is open, as [`this_cpu`] numbers them. An exception in the middle of a frame
/// drops it and begins its own.
static OPEN: AtomicU64 = AtomicU64::new(NOBODY);
const NOBODY: u64 = 0;

/// The number of the CPU, from 1 on.
fn this_cpu() -> u64 {
    MPIDR_EL1.read(MPIDR_EL1::Aff0) + 1
}

// SAFETY: `OPEN` admits one CPU at a time. Interrupts stay masked, so `acquire` is never entered while
// a frame of the same CPU is open, except from an exception, which does not return.
unsafe impl defmt::Logger for Frames {
    fn acquire() {
        let me = this_cpu();
        if OPEN.load(Ordering::Relaxed) == me {
            ENCODER.lock().end_frame(send);
        } else {
            let take = || OPEN.compare_exchange(NOBODY, me, Ordering::Acquire, Ordering::Relaxed);
            while take().is_err() {
                core::hint::spin_loop();
            }
        }
        ENCODER.lock().start_frame(send);
    }

    unsafe fn flush() {}

    unsafe fn release() {
        ENCODER.lock().end_frame(send);
        OPEN.store(NOBODY, Ordering::Release);
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
