//! What the boot images of all architectures share.
//!
//! An architecture crate (`arch/aarch64`, ...) gives entry, output, exit and a clock; this crate
//! gives the rest of a small kernel's glue: a heap (feature `heap`), memory for DMA and the `Platform` over it,
//! what the firmware tells (device tree or ACPI), PCI bring-up, and the driver of the test device `edu`.
#![no_std]

pub mod acpi;
pub mod devicetree;
pub mod dma;
pub mod edu;
pub mod firmware;
#[cfg(feature = "heap")]
pub mod heap;
pub mod pci;
