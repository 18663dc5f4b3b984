//! DMA for the host's own drivers: buffers of the kernel, given to one device and taken back.
//! `docs/dma.md` is the guide.
//!
//! A [`DmaDevice`] is a driver's handle on what its device may reach: the default domain of the
//! device's group ([`Group::use_default`]), which all drivers of the group share. It finds the I/O
//! virtual addresses, maps and unmaps, and sees to it that a device reaches the bytes that it was
//! given and no others: the IOMMU protects whole granules (pages), so what shares a granule with
//! something else is bounced through a page of its own.
//!
//! | you have | call | you get |
//! |---|---|---|
//! | a buffer that you own | [`DmaDevice::map`] | [`Mapping`]: a value; gives the buffer back |
//! | several of them, one request | [`DmaDevice::map_list`] | [`MappedList`] |
//! | a borrow, for one call | [`DmaDevice::with_mapped`] | it is unmapped when the closure ends |
//! | a ring, a table | [`DmaDevice::alloc_coherent`] | [`Coherent`]: pages for both sides |
//! | an interrupt doorbell | [`DmaDevice::map_doorbell`] | the address for the device's MSI table |
//! | registers of another device | [`DmaDevice::map_resource`] | [`MappedPages`] |
//! | an address, as in other kernels | [`DmaDevice::map_raw`], [`DmaDevice::unmap_raw`] | unsafe |
//!
#![cfg_attr(feature = "sim", doc = "```")]
#![cfg_attr(not(feature = "sim"), doc = "```ignore")]
//! # use iommu::{device::DeviceId, driver::EndpointId, pool::Pool, registry::*, sim::*};
//! use iommu::{addr::*, dma::*, fault::Access};
//! # static POOL: Pool = Pool::heap();
//! # static MACHINE: SimPlatform = SimPlatform::new();
//! # let registry = Registry::new(&POOL);
//! # let sim = Sim::new();
//! # let iommu = registry.add_instance(sim.driver())?;
//! # let info = DeviceInfo { id: DeviceId(1), endpoints: &[EndpointId(8)], with: None };
//! # let group = registry.add_device(&iommu, &info)?;
//! // `MACHINE` is your `Platform`, `group` that of the device. How many address bits has it?
//! let options = DmaOptions { mask: (1 << 40) - 1, ..DmaOptions::default() };
//! let dma = DmaDevice::new(&group, &MACHINE, &options)?;
//!
//! let packet: Box<[u8]> = vec![7; 1500].into();
//! let mapped = dma.map(packet, Direction::ToDevice)?;
//! // Tell the device: read `mapped.len()` bytes at `mapped.iova()`. When it is done:
//! # assert!(sim.reach(EndpointId(8), mapped.iova(), Access::READ).is_ok());
//! let packet = mapped.unmap()?;
//! assert_eq!(packet.len(), 1500); // and no device reaches it any more
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Strict and deferred invalidation
//!
//! **Strict**, the default: when an unmap returns, the device does not reach the memory any more.
//! It costs one exchange with the unit per unmap.
//!
//! **Deferred** ([`Invalidation::Deferred`]): [`Mapping::defer`] puts the unmap into a queue, and
//! one exchange ends all that wait. Until then **the device can still read and write the memory**.
//! That is tolerable for a device that you would trust without an IOMMU and want to protect from
//! its bugs; never for one that somebody may have plugged in, or whose firmware you doubt (rule
//! C-190). What holds in both modes:
//!
//! - addresses are not used again before the device was cut off from what they led to (C-191);
//! - memory comes back from an [`Unmapped`] only after that: it is a value without a buffer until
//!   then;
//! - the queue is bounded; when it is full, the unmap that filled it ends all of them;
//! - [`DmaDevice::flush`] ends all at once: call it from a timer (Linux: every 10 ms).
//!
//! # What is bounced
//!
//! The granules of a buffer that it does not fill: its first and last one, if it does not begin and
//! end at their borders. They are copied to pages of the [`Platform`] that hold nothing else: zeros
//! around the buffer's bytes. The granules in between are mapped where they are, whatever the
//! length: so at most two granules are copied, and a map costs at most three requests, which go out
//! together. Copying the middle too would cost time with the length and save two requests of a
//! batch that is sent anyway. A buffer in one or two granules is one piece.
//!
//! - The bytes are copied in for *every* direction. What a device does not overwrite is then what
//!   it was, as with a buffer that is mapped where it is; and no bytes of a former buffer come back.
//! - They are copied out at the unmap, if the device may write, after it was cut off (with deferred
//!   invalidation before: what it writes later is lost). Only the buffer's bytes: what a device
//!   wrote beside them goes nowhere.
//! - In between nothing is copied, unless you ask: `sync_for_cpu`, `sync_for_device`.
//! - A device that is not coherent with the caches ([`DmaOptions::coherent`]) gets nothing but
//!   bounce pages: [`Platform::alloc_dma`] gives coherent memory (C-226).
//!
//! # Failures
//!
//! [`DmaError`] says why; a call that fails leaves nothing behind, and gives the buffer back. With
//! one exception: where the unit does not confirm an **unmap**, or does not say whether it made a **map**
//! ([`DmaError::Unconfirmed`]), it is poisoned (it is reset, and blocks all DMA as far as it obeys), and
//! the device may reach the memory. Then buffer, bounce pages and addresses are leaked on purpose, so
//! that no one else gets them.
//!
//! # Addresses
//!
//! [`IovaAllocator`] hands them out from the top down, aligned to their size. A device with more
//! than 32 address bits gets addresses below 4 GiB as long as there are some, because devices with
//! defects above are common (C-215). What the devices of the group reserve is left out, also if
//! they come later (C-219).
//!
//! Addresses that were given back wait for the next mapping of their length, up to 32 granules, before
//! the allocator searches again (C-217); so a driver gets the address that it gave back last, and a
//! device that still uses an old address by mistake meets the new buffer, or is refused.
//! [`DmaDevice::trim`] gives what waits back. They belong to the group, not to a CPU: `docs/dma.md` has
//! what they save, counted, and why.
//!
//! # Locks
//!
//! The addresses of a group, and the queue of a handle, have a lock each, the first under the
//! second: they are held for a search, or to give back what waits, never while the unit works. So maps and unmaps of several
//! threads meet only in the domain's lock. Flushes of one handle wait for each other, while the unit
//! works. The [`Platform`] is called with none of them held. From interrupt handlers every call is
//! possible if the raw lock masks them, and if the platform's `alloc_dma` and `free_dma` can be
//! called there, which bounced buffers need.
//!
//! | file | what |
//! |---|---|
//! | `iova.rs`, `tree.rs` | the allocator of addresses |
//! | `addresses.rs` | runs that wait for the next mapping of their length, in front of the allocator |
//! | `space.rs` | one allocator per group, with the record of each mapping |
//! | `record.rs` | what is known of a mapping |
//! | `layout.rs` | which granules of a buffer are bounced |
//! | `memory.rs` | pages to bounce through, and the copies |
//! | `raw.rs` | map, unmap, sync by address |
//! | `deferred.rs` | the queue of unmaps |
//! | `buffer.rs`, `list.rs`, `coherent.rs` | the values that can't leak a mapping |

mod addresses;
mod buffer;
mod coherent;
mod deferred;
mod iova;
mod layout;
mod list;
#[cfg(test)]
mod marks;
mod memory;
mod raw;
mod record;
mod space;
mod tree;

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub use buffer::{DmaBuffer, Mapping, Refused, Unmapped};
pub use coherent::{Coherent, MappedPages};
pub use deferred::Ticket;
pub use iova::{IovaAllocator, IovaError};
pub use list::{ListRefused, MappedList, Segment};
pub use record::Direction;
pub(crate) use space::Space;

use crate::addr::{Iova, IovaRange, PhysAddr};
use crate::domain::PagingDomain;
use crate::error::{DmaError, DoorbellError, UseError};
use crate::group::{DmaUse, Group};
use crate::platform::Platform;
use crate::pool::Shared;
use crate::prot::Prot;
use crate::sync::{Mutex, RawLock, SpinLock};

/// The examples of the guide run.
#[cfg(all(doctest, feature = "sim"))]
#[doc = include_str!("../../docs/dma.md")]
struct Guide;

/// The highest address of 32 bits.
const LOW: u64 = 0xffff_ffff;

/// When an unmap ends. See the [module](self) for what it costs and what it risks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Invalidation {
    /// Before it returns.
    Strict,
    /// With a flush; by itself when this many unmaps wait.
    Deferred {
        /// At most so many; 0 is as 1.
        limit: usize,
    },
}

/// What a device can do, and how it is to be treated. [`Default`] is what is safe for any: 32
/// address bits, coherent, strict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DmaOptions {
    /// The highest address that the device emits for buffers, and that reaches the IOMMU: the lower
    /// of its own limit and that of the buses on the way (rule C-216; Linux: `dma_mask`).
    pub mask: u64,
    /// The same for coherent memory.
    pub coherent_mask: u64,
    /// Whether addresses below 4 GiB are tried first (rule C-215).
    pub prefer_32_bit: bool,
    /// Whether the device snoops the caches. If not, everything is bounced.
    pub coherent: bool,
    /// When unmaps end.
    pub invalidation: Invalidation,
    /// The most bytes in one segment of a list (Linux: `max_segment_size`).
    pub max_segment: u64,
    /// No segment of a list crosses a multiple of this plus one, a power of two (Linux:
    /// `segment_boundary_mask`).
    pub segment_boundary: u64,
}

impl Default for DmaOptions {
    fn default() -> Self {
        Self {
            mask: LOW,
            coherent_mask: LOW,
            prefer_32_bit: true,
            coherent: true,
            invalidation: Invalidation::Strict,
            max_segment: 0x1_0000,
            segment_boundary: LOW,
        }
    }
}

/// A driver's handle on the memory that its device reaches (Linux: the DMA API's side of a
/// `struct device`). See the [module](self).
///
/// A clone is the same handle. The group is used by a kernel driver, and can't be claimed, until
/// the last clone and the last mapping are gone. Then everything that was mapped by address and
/// forgotten is unmapped.
pub struct DmaDevice<P: Platform, R: RawLock = SpinLock> {
    inner: Shared<Inner<P, R>>,
}

struct Inner<P: Platform, R: RawLock> {
    used: DmaUse<R>,
    space: Shared<Space<R>>,
    platform: P,
    options: DmaOptions,
    /// The number by which records name this handle.
    owner: u32,
    granule: u64,
    /// Whether addresses below 4 GiB are still tried first.
    prefer_32_bit: AtomicBool,
    /// Deferred unmaps up to this number have ended.
    flushed: AtomicU64,
    state: Mutex<R, deferred::Queue>,
    /// One flush at a time.
    flushing: Mutex<R, ()>,
}

impl<P: Platform, R: RawLock> DmaDevice<P, R> {
    /// Makes the handle for a driver of a device of `group`, which moves to its default domain.
    ///
    /// # Errors
    ///
    /// As [`Group::use_default`]. `Range` also if nothing that the masks allow can be handed out
    /// (rule C-211; Linux: `EFAULT`).
    pub fn new(
        group: &Shared<Group<R>>,
        platform: P,
        options: &DmaOptions,
    ) -> Result<Self, UseError> {
        let used = Group::use_default(group)?;
        let space = used.space()?;
        let lowest = space.state.lock().addresses.span().first().0;
        let granule = used.domain().geometry().page_sizes.granule();
        let reachable = |mask: u64| mask.checked_sub(granule - 1).is_some_and(|top| top >= lowest);
        if !reachable(options.mask) || !reachable(options.coherent_mask) {
            return Err(UseError::Range);
        }
        let owner = space.new_owner()?;
        let pool = used.pool();
        let inner = Inner {
            used,
            space,
            platform,
            options: *options,
            owner,
            granule,
            prefer_32_bit: AtomicBool::new(options.prefer_32_bit),
            flushed: AtomicU64::new(0),
            state: Mutex::new(deferred::Queue::new()),
            flushing: Mutex::new(()),
        };
        Ok(Self { inner: Shared::new(pool, inner)? })
    }

    /// The use of the group that this handle stands for.
    #[must_use = "it is a reference"]
    pub fn used(&self) -> &DmaUse<R> {
        &self.inner.used
    }

    /// What it was made with.
    #[must_use]
    pub fn options(&self) -> &DmaOptions {
        &self.inner.options
    }

    /// The machine.
    #[must_use]
    pub fn platform(&self) -> &P {
        &self.inner.platform
    }

    /// The granule: a buffer that begins and ends at multiples of it is never bounced.
    #[must_use]
    pub fn granule(&self) -> u64 {
        self.inner.granule
    }

    /// Keeps addresses out of what is handed out to any driver of the group, until its last one is
    /// gone: windows of a PCI host bridge, which would be taken for transactions to other devices
    /// (rule C-218).
    ///
    /// # Errors
    ///
    /// `OutOfMemory`; nothing is kept out.
    pub fn reserve(&self, range: IovaRange) -> Result<(), DmaError> {
        Ok(self.inner.space.state.lock().addresses.reserve(range)?)
    }

    /// The length in bytes up to which addresses are kept for the next mapping: longer mappings are
    /// searched for each time (rule C-227; Linux: `dma_opt_mapping_size`).
    #[must_use]
    pub fn optimal_len(&self) -> u64 {
        addresses::LENGTHS as u64 * self.inner.granule
    }

    /// Gives the memory of addresses that wait for another mapping of their length back to the pool
    /// (Linux: `free_iova_rcaches`): for when memory is short, or the driver will map no more for a
    /// while. A map that gets no memory does it by itself.
    pub fn trim(&self) {
        self.inner.space.trim();
    }

    /// How many mappings the drivers of the group have, those included whose unmap has not ended.
    #[must_use]
    pub fn mapping_count(&self) -> usize {
        self.inner.space.state.lock().addresses.len()
    }

    /// The address that the device must write to, to ring the interrupt doorbell at physical
    /// address `doorbell`: what goes into its MSI table (rules C-039, C-043). The page stays mapped
    /// as long as the group's default domain lives.
    ///
    /// # Errors
    ///
    /// As [`PagingDomain::map_doorbell`].
    pub fn map_doorbell(&self, doorbell: PhysAddr) -> Result<Iova, DoorbellError> {
        self.inner.used.map_doorbell(doorbell)
    }
}

impl<P: Platform, R: RawLock> Inner<P, R> {
    fn domain(&self) -> &PagingDomain<R> {
        self.used.domain()
    }

    /// The limits to try for an address.
    fn limits(&self, mask: u64) -> [Option<Iova>; 2] {
        let low = mask > LOW && self.prefer_32_bit.load(Ordering::Relaxed);
        [low.then_some(Iova(LOW)), Some(Iova(mask))]
    }

    /// Looks whether the preference for low addresses found none: then it is over (rule C-215).
    fn learn_from(&self, limits: &[Option<Iova>; 2], range: IovaRange) {
        if limits[0].is_some_and(|low| range.last() > low) {
            self.prefer_32_bit.store(false, Ordering::Relaxed);
        }
    }

    /// Whether unmaps may wait.
    fn defers(&self) -> bool {
        self.options.invalidation != Invalidation::Strict
    }

    /// What memory is mapped with, beside the direction (rule C-221).
    fn attributes(&self) -> Prot {
        if self.options.coherent { Prot::CACHE } else { Prot::empty() }
    }
}

impl<P: Platform, R: RawLock> Drop for Inner<P, R> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<P: Platform, R: RawLock> Clone for DmaDevice<P, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<P: Platform, R: RawLock> fmt::Debug for DmaDevice<P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaDevice")
            .field("used", &self.inner.used)
            .field("options", &self.inner.options)
            .finish_non_exhaustive()
    }
}
