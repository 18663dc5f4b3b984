//! The matrix of refused DMA on the bare machine: situations times kinds of devices.
#![no_std]
#![no_main]

iommu_boot::test_entry!();

// A function per case, which the build script makes from the table in `iommu-cases`.
include!(concat!(env!("OUT_DIR"), "/matrix.rs"));
