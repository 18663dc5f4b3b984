//! Boot support for riscv64, for QEMU's `virt` board: in machine mode (`-bios none`), or in supervisor
//! mode under OpenSBI (`-bios default`). One image runs in both and finds out in which it is.
//!
//! An image names its main function with [`entry!`], which runs with every address standing for itself,
//! interrupts masked, and exceptions reported.
#![no_std]

mod board;
mod clock;
pub mod counter;
mod entry;
mod exit;
mod firmware;
mod logger;
mod translation;
mod traps;

pub use board::{IMAGE_END, MAPPED_END};
pub use clock::now_ns;
pub use exit::exit;
pub use firmware::describe;

/// Names the main function of an image: `fn(u64, u64, u64, u64) -> !`. The first two arguments are
/// the number of the hart and the address of the device tree, the others are 0.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(export_name = "image_main")]
        extern "C" fn __image_main(hart: u64, tree: u64) -> ! {
            let main: fn(u64, u64, u64, u64) -> ! = $main;
            main(hart, tree, 0, 0)
        }
    };
}
