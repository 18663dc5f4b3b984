//! A model of the crate's locking: a few threads, in every order in which they can take the locks.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --features sim --test model -- --show-output
//! ```
//!
//! The code is the crate's own: every public type takes the host's raw lock, and here that is one
//! built on loom. Each test is one scenario, run once per interleaving; what must hold is asserted
//! when a call returns, at every call of the driver (`unit.rs`), and when all threads are done
//! (`world.rs`).
//!
//! Explored are the orders of lock acquisitions, the unit's own lock included, and with them every
//! deadlock. Not explored: the weak memory effects of the few atomics, which stand alone.
#![cfg(loom)]

mod container;
mod container_owner;
mod devices;
mod dma;
mod lock;
mod mapping;
mod moving;
mod owner;
mod unit;
mod world;
