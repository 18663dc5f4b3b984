//! A program that is linked and never run: `cargo qemu bench` reads the sizes of its sections.
//!
//! Without features it is what a kernel has anyway ([`host`]): an allocator, a console that formatted
//! text goes to, a panic that is told there. Each feature adds the library's calls that belong to it
//! ([`api`], [`user`], [`drivers`]), with every error told. What the linker then takes in is what a
//! kernel gains that makes these calls; what nobody calls is not in it.
#![no_std]
#![no_main]

#[cfg(feature = "virtio-iommu")]
mod api;
#[cfg(feature = "dma")]
mod drivers;
mod host;
#[cfg(feature = "container")]
mod user;

/// All of it, in an order that nobody minds.
fn all() {
    #[cfg(feature = "virtio-iommu")]
    api::all();
}
