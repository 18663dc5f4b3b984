//! The Linux ABI of the container: decoding, answers, and the way to the backend.

mod bitmap;
mod dirty;
mod info;
mod map;
mod memory;
mod unmap;
