//! The device drivers of the crate `virtio-drivers`, unchanged, behind an IOMMU. Feature
//! `virtio-drivers`.
//!
//! Three things stand between such a driver and its device:
//!
//! 1. [`Behind<H, I>`](Behind) is a `Hal` around yours: whatever the driver shares or allocates is
//!    mapped for the device, and unmapped when it is taken back. Buffers that don't fill their pages are
//!    bounced, so a device reaches no neighbour of a buffer.
//! 2. [`Translated`] is a transport around yours: it accepts `VIRTIO_F_ACCESS_PLATFORM`, which most
//!    drivers of that crate don't, and without which a device ignores the IOMMU. A device that
//!    does not offer it is refused.
//! 3. An [`Identity`] says which device it is.
//!
//! # Which device is it
//!
//! The functions of a `Hal` have no `self`: they know no device. So the device is a type, made by
//! [`virtio_devices!`](crate::virtio_devices), with a static [`Slot`] in which the host puts the
//! [`DmaDevice`](crate::dma::DmaDevice) of the device that it found:
//!
//! ```no_run
//! # use iommu::adapters::virtio_drivers::*;
//! # use iommu::{dma::*, group::Group, platform::Platform, pool::Shared};
//! # use virtio_drivers::{Hal, device::blk::VirtIOBlk, transport::Transport};
//! iommu::virtio_devices! {
//!     /// The disk.
//!     pub Disk;
//!     /// The network cards, by number.
//!     pub Card[4];
//! }
//!
//! fn disk<H: Hal, T: Transport>(
//!     group: &Shared<Group>,
//!     machine: &'static dyn Platform,
//!     transport: T,
//! ) -> Result<VirtIOBlk<Behind<H, Disk>, Translated<T>>, Box<dyn std::error::Error>> {
//!     let dma = DmaDevice::new(group, machine, &DmaOptions::default())?;
//!     Disk::slot().fill(dma).map_err(|_| "there is a disk already")?;
//!     let transport = Translated::new(transport).map_err(|_| "it ignores the IOMMU")?;
//!     Ok(VirtIOBlk::new(transport)?)
//! }
//! ```
//!
//! When a driver is dropped, [empty its slot](Slot::empty): only that ends the buffers which drivers of that
//! crate forget when they are dropped.
//!
//! A kernel with N devices has N types, or one numbered type and a `match` over the numbers where it
//! makes its drivers. Two devices may share a slot: then each reaches what was given to the other. A slot
//! is empty until it is filled, and a driver over an empty slot gets nothing: it fails closed.
//!
//! # What can't be told
//!
//! `Hal::share` can't fail. Where mapping fails (no memory, no addresses, no device in the slot) the
//! driver is handed address 0, which nothing is ever mapped at: the device is refused, and
//! [`Slot::refused`] counts. What the driver makes of that is its affair; those of `virtio-drivers` wait
//! for their device without an end. `Hal::dma_alloc` fails as it says.
//!
//! `Hal::unshare` can't fail either. Where the unit does not confirm that a buffer was unmapped, or say
//! whether it was mapped, the driver has the buffer back all the same, and what the device may do to it is what
//! [`Instance::health`](crate::instance::Instance::health) tells: the unit was given up and reset. Bounce
//! pages, addresses and allocations stay out of use.
//!
//! Allocations are mapped for both directions, whatever the driver asks for: devices read the flags of
//! rings that they are to write only (QEMU's virtio-blk does).
//!
//! # What your `Hal` must be like
//!
//! `H::share` is asked where a buffer is, and must answer with the place of the buffer itself, in one
//! piece. One that copies buffers to a place of its own makes no sense under this adapter, which bounces by
//! itself. `H::dma_alloc` gives memory that the device reaches at that address without an IOMMU.
//!
//! The driver of the IOMMU itself takes its memory from a [`Platform`](crate::platform::Platform),
//! never from here: its queue is not translated. [`HalPlatform`] makes one of your `Hal`.

mod hal;
mod platform;
mod slot;
mod transport;

pub use hal::Behind;
pub use platform::HalPlatform;
pub use slot::{Identity, InUse, Occupied, Slot};
pub use transport::{NotTranslated, Translated};
