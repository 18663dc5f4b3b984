//! A `Hal` that maps what a driver shares for the driver's device, and nothing else. No lock but the
//! slot's, to find the device.
#![expect(unsafe_code, reason = "implements the contract of `virtio_drivers::Hal`")]

use core::marker::PhantomData;
use core::ptr::NonNull;

use ::virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr as Address};

use super::slot::Identity;
use crate::addr::{Iova, PhysAddr};
use crate::dma::{Direction, DmaDevice};
use crate::error::{DmaError, errno};
use crate::platform::Platform;
use crate::sync::RawLock;

/// What a driver gets where nothing could be mapped: the allocator of addresses never hands it out
/// (rule C-211), so a device that is sent there is refused.
const NOWHERE: Address = 0;

/// `H` for the driver of the device that `I` names. See the [module](super).
#[derive(Debug)]
pub struct Behind<H: Hal, I: Identity> {
    never_made: PhantomData<(H, I)>,
}

// SAFETY: memory comes from `H`, which keeps the promises; what is handed out as the device's address
// is not used by the CPU.
unsafe impl<H: Hal, I: Identity> Hal for Behind<H, I> {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (Address, NonNull<u8>) {
        let (phys, cpu) = H::dma_alloc(pages, BufferDirection::Both);
        if phys == NOWHERE {
            return (NOWHERE, cpu);
        }
        let slot = I::slot();
        let mut leaks = false;
        if let Some(dma) = slot.device_to_allocate() {
            let len = (pages as u64).saturating_mul(PAGE_SIZE as u64);
            // Both ways: a device may read what it wrote, and some do.
            match dma.map_pages_raw(PhysAddr(phys), len, Direction::Bidirectional) {
                Ok(Iova(at)) => return (at, cpu),
                Err(error) => leaks = error == DmaError::Unconfirmed,
            }
            slot.freed();
        }
        slot.count_refusal();
        if leaks {
            return (NOWHERE, cpu); // the device may reach it, so nobody else gets it
        }
        // SAFETY: it came from `H` with these values, and no device knows of it.
        let _ = unsafe { H::dma_dealloc(phys, cpu, pages) };
        (NOWHERE, cpu)
    }

    unsafe fn dma_dealloc(at: Address, cpu: NonNull<u8>, pages: usize) -> i32 {
        let slot = I::slot();
        let Some(dma) = slot.device() else { return -errno::EINVAL };
        let Some(PhysAddr(phys)) = dma.used().domain().iova_to_phys(Iova(at)) else {
            return -errno::EINVAL;
        };
        // SAFETY: `dma_alloc` mapped it, and the driver is done with it.
        let unmapped = unsafe { dma.unmap_raw(Iova(at)) };
        slot.freed();
        match unmapped {
            // SAFETY: the caller's promise: it came from `dma_alloc`, so from `H`, with these values.
            Ok(()) => unsafe { H::dma_dealloc(phys, cpu, pages) },
            // The device may still reach it: leaked, so that nobody else gets it.
            Err(_) => 0,
        }
    }

    unsafe fn mmio_phys_to_virt(at: Address, size: usize) -> NonNull<u8> {
        // SAFETY: the caller's promise.
        unsafe { H::mmio_phys_to_virt(at, size) }
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> Address {
        // `H` knows where the buffer is, and that is all it is asked for.
        // SAFETY: the caller's promise.
        let phys = unsafe { H::share(buffer, direction) };
        // SAFETY: as above, with what `share` returned.
        unsafe { H::unshare(phys, buffer, direction) };
        let slot = I::slot();
        // SAFETY: the driver keeps the buffer until `unshare`, and leaves it alone until then; `H` says
        // that its memory is there.
        let map = |dma: &_| unsafe { map_at(dma, buffer, phys, direction) };
        if let Some(at) = slot.device().as_ref().and_then(map) {
            return at;
        }
        slot.count_refusal();
        NOWHERE
    }

    unsafe fn unshare(at: Address, _: NonNull<[u8]>, _: BufferDirection) {
        if at != NOWHERE
            && let Some(dma) = I::slot().device()
        {
            // Where the unit does not confirm, it is given up and reset, which blocks its devices; bounce
            // pages and addresses stay out of use.
            // SAFETY: the driver still has the buffer that it shared.
            let _ = unsafe { dma.unmap_raw(Iova(at)) };
        }
    }
}

/// # Safety
///
/// As [`DmaDevice::map_raw_at`].
unsafe fn map_at<P: Platform, R: RawLock>(
    dma: &DmaDevice<P, R>,
    buffer: NonNull<[u8]>,
    phys: Address,
    direction: BufferDirection,
) -> Option<Address> {
    // SAFETY: the caller's promise.
    let mapped = unsafe { dma.map_raw_at(buffer, PhysAddr(phys), way(direction)) };
    mapped.ok().map(|Iova(at)| at)
}

fn way(direction: BufferDirection) -> Direction {
    match direction {
        BufferDirection::DriverToDevice => Direction::ToDevice,
        BufferDirection::DeviceToDriver => Direction::FromDevice,
        BufferDirection::Both => Direction::Bidirectional,
    }
}
