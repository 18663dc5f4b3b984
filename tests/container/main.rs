//! The type1 container against software IOMMUs.

mod attach;
mod dma;
mod fixture;
mod hotplug;
mod shortfalls;
mod threads;
