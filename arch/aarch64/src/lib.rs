//! Boot support for aarch64, for QEMU's `virt` board at exception level 1.
//!
//! An image names its main function with [`entry!`](aarch64_rt::entry), which runs with the MMU on,
//! RAM cached, and devices mapped as device memory.
#![no_std]

mod board;
mod clock;
pub mod counter;
mod exit;
mod firmware;
mod fw_cfg;
mod level;
mod logger;
pub mod second;
mod vectors;

pub use aarch64_rt::entry;
pub use board::{IMAGE_END, MAPPED_END};
pub use clock::now_ns;
pub use exit::exit;
pub use firmware::describe;
pub use fw_cfg::viot;
