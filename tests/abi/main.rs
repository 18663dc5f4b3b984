//! The Linux ABI of the container: decoding, answers, and the way to the backend.

mod bitmap;
#[cfg(feature = "sim")]
mod busy;
mod container;
mod dirty;
mod dispatch;
#[cfg(feature = "sim")]
mod errnos;
mod fake;
#[cfg(feature = "sim")]
#[path = "../container/fixture.rs"]
#[expect(dead_code, reason = "the container's own tests need more of it")]
mod fixture;
#[cfg(feature = "sim")]
mod front;
mod info;
mod map;
mod memory;
#[cfg(feature = "sim")]
mod order;
#[cfg(feature = "sim")]
mod route;
#[cfg(feature = "sim")]
mod sim;
mod unmap;
#[cfg(feature = "sim")]
mod worlds;
