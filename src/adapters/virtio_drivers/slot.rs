//! Where the handle of a device is found by type. Lock: `Slot::device`, a leaf, held to copy the handle.

use core::fmt;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::dma::DmaDevice;
use crate::platform::Platform;
use crate::sync::{Mutex, RawLock, SpinLock};

/// The place of one device: empty, or with its handle.
///
/// `P` is the host's platform; the default takes any. `R` is the raw lock, as elsewhere: one that masks
/// interrupts if drivers run in their handlers.
pub struct Slot<P: Platform + 'static = &'static dyn Platform, R: RawLock = SpinLock> {
    device: Mutex<R, Option<DmaDevice<P, R>>>,
    /// How many allocations of the driver are mapped: none, once it is gone.
    allocations: AtomicUsize,
    refused: AtomicU64,
}

/// Which device a driver drives, as a type. Made by [`virtio_devices!`](crate::virtio_devices), or by
/// hand for another platform or lock.
pub trait Identity: 'static {
    /// The platform of its handle.
    type Platform: Platform + 'static;
    /// The lock of its handle.
    type Lock: RawLock;

    /// The slot of the device: the same one each time.
    fn slot() -> &'static Slot<Self::Platform, Self::Lock>;
}

/// The slot holds another handle; this is the one that found no room.
pub struct Occupied<P: Platform + 'static, R: RawLock>(pub DmaDevice<P, R>);

/// The slot can't be emptied: a driver still has this many allocations, its queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InUse(pub usize);

impl<P: Platform + 'static, R: RawLock> Slot<P, R> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            device: Mutex::const_new(R::INIT, None),
            allocations: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Puts the handle of a device in: from here on its driver works.
    ///
    /// # Errors
    ///
    /// [`Occupied`], with the handle.
    pub fn fill(&self, device: DmaDevice<P, R>) -> Result<(), Occupied<P, R>> {
        let mut place = self.device.lock();
        if place.is_some() {
            return Err(Occupied(device));
        }
        *place = Some(device);
        Ok(())
    }

    /// Drops the handle, when the driver is gone. Unless the host has a clone of it, all that the driver
    /// shared and never took back is unmapped with it: those of `virtio-drivers` forget the buffers
    /// that the device had in its hands when they were dropped. Always do this after a driver.
    ///
    /// # Errors
    ///
    /// [`InUse`]: the driver is there still; nothing is done. Drop it first.
    pub fn empty(&self) -> Result<(), InUse> {
        let taken = {
            let mut place = self.device.lock();
            match self.allocations.load(Ordering::Acquire) {
                0 => place.take(),
                allocations => return Err(InUse(allocations)),
            }
        };
        drop(taken); // without the lock: it talks to the unit
        Ok(())
    }

    /// How often a driver was refused what it wanted to share or allocate.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many allocations of the driver are mapped.
    #[must_use]
    pub fn allocations(&self) -> usize {
        self.allocations.load(Ordering::Acquire)
    }

    /// The handle, if there is one: to look at what is mapped, or to keep addresses free. A clone of it
    /// keeps what the driver forgot mapped; see [`empty`](Self::empty).
    #[must_use]
    pub fn device(&self) -> Option<DmaDevice<P, R>> {
        self.device.lock().clone()
    }

    /// The handle, for an allocation: it stays until [`freed`](Self::freed).
    pub(super) fn device_to_allocate(&self) -> Option<DmaDevice<P, R>> {
        let place = self.device.lock();
        let device = place.clone()?;
        self.allocations.fetch_add(1, Ordering::AcqRel); // under the lock, so that `empty` sees it
        Some(device)
    }

    /// An allocation has ended, or did not come about.
    pub(super) fn freed(&self) {
        self.allocations.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn count_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

impl<P: Platform + 'static, R: RawLock> Default for Slot<P, R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Platform + 'static, R: RawLock> fmt::Debug for Slot<P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("allocations", &self.allocations())
            .field("refused", &self.refused())
            .finish_non_exhaustive()
    }
}

impl<P: Platform + 'static, R: RawLock> fmt::Debug for Occupied<P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the slot holds another device")
    }
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} allocations of a driver are left; drop the driver first", self.0)
    }
}

impl core::error::Error for InUse {}

/// Makes [identities](crate::adapters::virtio_drivers::Identity) with their slots: types for single
/// devices, and types with a number for several of a kind.
///
/// ```
/// # mod devices {
/// iommu::virtio_devices! {
///     /// One device.
///     pub Disk;
///     /// Up to four: `Card<0>` to `Card<3>`.
///     pub Card[4];
/// }
/// # }
/// # use devices::*;
/// # use iommu::adapters::virtio_drivers::Identity;
/// assert_eq!(Disk::slot().allocations(), 0);
/// assert!(!core::ptr::eq(Card::<0>::slot(), Card::<1>::slot()));
/// ```
#[macro_export]
macro_rules! virtio_devices {
    () => {};
    ($(#[$about:meta])* $visible:vis $name:ident; $($rest:tt)*) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug)]
        $visible enum $name {}

        impl $crate::adapters::virtio_drivers::Identity for $name {
            type Platform = &'static dyn $crate::platform::Platform;
            type Lock = $crate::sync::SpinLock;

            fn slot() -> &'static $crate::adapters::virtio_drivers::Slot {
                static SLOT: $crate::adapters::virtio_drivers::Slot =
                    $crate::adapters::virtio_drivers::Slot::new();
                &SLOT
            }
        }

        $crate::virtio_devices! { $($rest)* }
    };
    ($(#[$about:meta])* $visible:vis $name:ident[$count:literal]; $($rest:tt)*) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug)]
        $visible enum $name<const N: usize> {}

        impl<const N: usize> $crate::adapters::virtio_drivers::Identity for $name<N> {
            type Platform = &'static dyn $crate::platform::Platform;
            type Lock = $crate::sync::SpinLock;

            fn slot() -> &'static $crate::adapters::virtio_drivers::Slot {
                static SLOTS: [$crate::adapters::virtio_drivers::Slot; $count] =
                    [const { $crate::adapters::virtio_drivers::Slot::new() }; $count];
                const { assert!(N < $count, "there are fewer devices of this kind") };
                &SLOTS[N]
            }
        }

        $crate::virtio_devices! { $($rest)* }
    };
}
