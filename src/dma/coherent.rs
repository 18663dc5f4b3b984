//! Memory that both sides use at the same time, and memory of other devices.
#![expect(unsafe_code, reason = "reads and writes pages that a device shares, by raw pointer")]

use core::fmt;
use core::ptr::NonNull;

use super::DmaDevice;
use super::memory::{self, Piece};
use super::record::Direction;
use crate::addr::{Iova, PhysAddr};
use crate::error::DmaError;
use crate::platform::Platform;
use crate::sync::{RawLock, SpinLock};

/// Zeroed pages that the CPU and the device use at the same time: rings, tables, mailboxes (Linux:
/// `dma_alloc_coherent`).
///
/// Dropping it unmaps and frees them; where the unit does not confirm, they are leaked.
#[must_use = "dropping it frees the memory"]
pub struct Coherent<P: Platform, R: RawLock = SpinLock> {
    dma: DmaDevice<P, R>,
    iova: Iova,
    piece: Piece,
    len: usize,
}

// SAFETY: all access is by copies of bytes; `&self` only reads, and the device may write anyway.
unsafe impl<P: Platform, R: RawLock> Sync for Coherent<P, R> {}

/// Physical memory, not the host's own, that the device reaches (Linux: `dma_map_resource`).
///
/// Dropping it unmaps.
#[must_use = "dropping it unmaps"]
#[derive(Debug)]
pub struct MappedPages<P: Platform, R: RawLock = SpinLock> {
    dma: DmaDevice<P, R>,
    iova: Iova,
}

impl<P: Platform, R: RawLock> DmaDevice<P, R> {
    /// Takes at least `len` bytes from the platform, zeroed and coherent, and maps them for both to
    /// read and write (rule C-225). The device finds them below
    /// [`DmaOptions::coherent_mask`](super::DmaOptions::coherent_mask).
    ///
    /// # Errors
    ///
    /// `InvalidArg`: no length. `OutOfMemory`, `NoSpace`, `Io`. Nothing is kept. `Unconfirmed`: the pages
    /// are leaked.
    pub fn alloc_coherent(&self, len: usize) -> Result<Coherent<P, R>, DmaError> {
        if len == 0 {
            return Err(DmaError::InvalidArg);
        }
        let granule = usize::try_from(self.inner.granule).map_err(|_| DmaError::OutOfMemory)?;
        let whole = len.checked_next_multiple_of(granule).ok_or(DmaError::OutOfMemory)?;
        let piece = Piece::new(&self.inner.platform, whole, self.inner.granule)?;
        match self.map_pages_raw(piece.phys(), whole as u64, Direction::Bidirectional) {
            Ok(iova) => Ok(Coherent { dma: self.clone(), iova, piece, len }),
            Err(DmaError::Unconfirmed) => Err(DmaError::Unconfirmed), // the device may have the pages
            Err(error) => {
                // SAFETY: it came from this platform, and nothing was mapped.
                unsafe { piece.free(&self.inner.platform) };
                Err(error)
            }
        }
    }

    /// Maps registers or memory of another device, whole granules, so that this device reaches them
    /// (rule C-221: device memory, not cacheable).
    ///
    /// # Errors
    ///
    /// `InvalidArg`: no whole granules: beside them would be other registers. `Overflow`,
    /// `OutOfMemory`, `NoSpace`, `Io`, `Unconfirmed`.
    pub fn map_resource(
        &self,
        phys: PhysAddr,
        len: u64,
        direction: Direction,
    ) -> Result<MappedPages<P, R>, DmaError> {
        let iova = self.inner.map_pages(phys, len, direction, self.inner.mmio())?;
        Ok(MappedPages { dma: self.clone(), iova })
    }
}

impl<P: Platform, R: RawLock> Coherent<P, R> {
    /// Where the device finds the first byte.
    #[must_use]
    pub fn iova(&self) -> Iova {
        self.iova
    }

    /// The length in bytes, as asked for; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where the CPU finds the bytes. The device may write at any moment: follow it with volatile
    /// accesses only, and make no references.
    #[must_use]
    pub fn as_ptr(&self) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.piece.cpu(), self.len)
    }

    /// Reads `out.len()` bytes from `offset` on, each once. Orders nothing: between the read that
    /// sees the device's progress and this one call [`Platform::acquire_from_device`].
    ///
    /// # Errors
    ///
    /// `InvalidArg`: they are not all inside.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), DmaError> {
        let from = self.inside(offset, out.len())?;
        let len = out.len();
        // SAFETY: `inside` looked; no reference to the pages exists, so `out` is elsewhere.
        unsafe { memory::copy(from, NonNull::from(out).cast(), len) };
        Ok(())
    }

    /// Writes bytes from `offset` on. Orders nothing: before the device is told call
    /// [`Platform::release_to_device`].
    ///
    /// # Errors
    ///
    /// `InvalidArg`: they don't all fit inside.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), DmaError> {
        let to = self.inside(offset, bytes.len())?;
        // SAFETY: `inside` looked; no reference to the pages exists.
        unsafe { memory::copy(NonNull::from(bytes).cast(), to, bytes.len()) };
        Ok(())
    }

    fn inside(&self, offset: usize, len: usize) -> Result<NonNull<u8>, DmaError> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len);
        end.ok_or(DmaError::InvalidArg)?;
        // SAFETY: the offset is inside the piece, or right behind it.
        Ok(unsafe { memory::at(self.piece.cpu(), offset) })
    }
}

impl<P: Platform, R: RawLock> Drop for Coherent<P, R> {
    fn drop(&mut self) {
        // SAFETY: what was mapped has no buffer that would be copied to.
        if unsafe { self.dma.unmap_raw(self.iova) }.is_ok() {
            // SAFETY: it came from this platform, and the device is cut off.
            unsafe { self.piece.free(&self.dma.inner.platform) };
        }
    }
}

impl<P: Platform, R: RawLock> MappedPages<P, R> {
    /// Where the device finds the first byte.
    #[must_use]
    pub fn iova(&self) -> Iova {
        self.iova
    }
}

impl<P: Platform, R: RawLock> Drop for MappedPages<P, R> {
    fn drop(&mut self) {
        // SAFETY: what was mapped has no buffer that would be copied to.
        let _ = unsafe { self.dma.unmap_raw(self.iova) }; // not confirmed: the addresses are lost
    }
}

impl<P: Platform, R: RawLock> fmt::Debug for Coherent<P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coherent")
            .field("iova", &self.iova)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
