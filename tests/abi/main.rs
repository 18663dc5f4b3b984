//! The Linux ABI of the container: decoding, answers, and the way to the backend.

mod bitmap;
mod container;
mod dirty;
mod dispatch;
mod fake;
mod info;
mod map;
mod memory;
#[cfg(feature = "sim")]
mod sim;
mod unmap;
