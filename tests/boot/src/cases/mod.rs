//! The cases of these machines alone: rings, endpoints and restart of the units, what passes
//! without a driver, reserved regions of the command line, load, the library's self-test, interrupts that
//! arrive. All others are in the table of `iommu-cases`, which runs here through [`bench`](crate::bench).

pub mod bypass;
pub mod devices;
pub mod load;
#[cfg(target_arch = "aarch64")]
pub mod messages;
pub mod reserved;
pub mod selftest;
pub mod unit;
