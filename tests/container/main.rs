//! The type1 container against software IOMMUs.

mod attach;
mod dirty;
mod dma;
mod fixture;
mod hotplug;
mod kinds;
mod model;
mod msi;
mod pins;
mod rules;
mod shortfalls;
mod sweep;
mod threads;
mod unconfirmed;
