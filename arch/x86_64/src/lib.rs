//! Boot support for x86_64, for QEMU's PC boards (`q35`), entered by PVH.
//!
//! An image names its main function with [`entry!`], which runs in 64-bit mode with the low 4 GiB
//! mapped one to one, interrupts masked, and exceptions reported.
#![no_std]

mod board;
mod clock;
pub mod counter;
mod entry;
mod exceptions;
mod exit;
mod logger;
mod pvh;

pub use board::{IMAGE_END, MAPPED_END};
pub use clock::now_ns;
pub use exit::exit;
pub use pvh::describe;

/// Names the main function of an image: `fn(u64, u64, u64, u64) -> !`. The first argument is the
/// address of the PVH start info, the others are 0.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(export_name = "image_main")]
        extern "C" fn __image_main(info: u64) -> ! {
            let main: fn(u64, u64, u64, u64) -> ! = $main;
            main(info, 0, 0, 0)
        }
    };
}
