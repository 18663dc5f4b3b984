//! A buffer in a device's hands, as a value: it can't be touched meanwhile, and comes back by the
//! unmap. While it is mapped only its address exists, no reference and no box.
#![expect(unsafe_code, reason = "turns buffers into addresses and back")]

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use super::DmaDevice;
use super::deferred::Ticket;
use super::layout::Place;
use super::memory;
use super::record::Direction;
use crate::addr::Iova;
use crate::error::DmaError;
use crate::platform::Platform;
use crate::sync::{RawLock, SpinLock};

/// Bytes that can be given to a device.
///
/// # Safety
///
/// Between `into_raw` and `from_raw` the bytes stay where they are, are reached by nobody but
/// through the pointer (they may be read by others if not `WRITABLE`), and can be written if
/// `WRITABLE`; also if the pointer never comes back, then for as long as the type itself would have
/// lived.
pub unsafe trait DmaBuffer: Sized {
    /// Whether the device may write to it.
    const WRITABLE: bool;

    /// Gives the bytes up.
    fn into_raw(self) -> NonNull<[u8]>;

    /// Takes them back.
    ///
    /// # Safety
    ///
    /// `raw` came from `into_raw`, is passed here once, and no device reaches it any more.
    unsafe fn from_raw(raw: NonNull<[u8]>) -> Self;
}

// SAFETY: a unique borrow: nobody else reaches the bytes as long as it lives.
unsafe impl<'a> DmaBuffer for &'a mut [u8] {
    const WRITABLE: bool = true;

    fn into_raw(self) -> NonNull<[u8]> {
        NonNull::from(self)
    }

    unsafe fn from_raw(mut raw: NonNull<[u8]>) -> &'a mut [u8] {
        // SAFETY: it was one before, and the caller says that nobody uses it.
        unsafe { raw.as_mut() }
    }
}

// SAFETY: a shared borrow: nobody writes to the bytes as long as it lives, nor does the device.
unsafe impl<'a> DmaBuffer for &'a [u8] {
    const WRITABLE: bool = false;

    fn into_raw(self) -> NonNull<[u8]> {
        NonNull::from(self)
    }

    unsafe fn from_raw(raw: NonNull<[u8]>) -> &'a [u8] {
        // SAFETY: it was one before.
        unsafe { raw.as_ref() }
    }
}

// SAFETY: the box is taken apart, so only the pointer is left.
#[cfg(any(test, feature = "alloc"))]
unsafe impl DmaBuffer for alloc::boxed::Box<[u8]> {
    const WRITABLE: bool = true;

    fn into_raw(self) -> NonNull<[u8]> {
        NonNull::from(Self::leak(self))
    }

    unsafe fn from_raw(raw: NonNull<[u8]>) -> Self {
        // SAFETY: `into_raw` leaked this box, and the caller says that it comes back once.
        unsafe { Self::from_raw(raw.as_ptr()) }
    }
}

/// A map that was refused, with the buffer.
pub struct Refused<B> {
    /// Why.
    pub error: DmaError,
    /// As it was; `None` after [`DmaError::Unconfirmed`]: the device may reach it, so it is leaked.
    pub buffer: Option<B>,
}

/// A buffer that a device has, until [`unmap`](Self::unmap).
///
/// Dropping it unmaps too, and drops the buffer. Where the unit does not confirm, the buffer is
/// leaked. Forgetting it (`mem::forget`) leaves it mapped for good, and the group in use.
#[must_use = "dropping it unmaps the buffer"]
pub struct Mapping<B: DmaBuffer, P: Platform, R: RawLock = SpinLock> {
    dma: DmaDevice<P, R>,
    iova: Iova,
    raw: NonNull<[u8]>,
    direction: Direction,
    owns: PhantomData<B>,
}

// SAFETY: it owns the buffer, which may be sent.
unsafe impl<B: DmaBuffer + Send, P: Platform, R: RawLock> Send for Mapping<B, P, R> {}
// SAFETY: a shared one gives out no access to the bytes.
unsafe impl<B: DmaBuffer + Send, P: Platform, R: RawLock> Sync for Mapping<B, P, R> {}

/// A buffer that its driver is done with, and the device is not cut off from yet
/// ([`Invalidation::Deferred`](super::Invalidation::Deferred)).
///
/// The buffer comes out when that is so. Dropping it ends the wait by a flush, and drops the
/// buffer.
#[must_use = "dropping it flushes"]
pub struct Unmapped<B: DmaBuffer, P: Platform, R: RawLock = SpinLock> {
    dma: DmaDevice<P, R>,
    ticket: Ticket,
    raw: NonNull<[u8]>,
    owns: PhantomData<B>,
}

// SAFETY: as for `Mapping`.
unsafe impl<B: DmaBuffer + Send, P: Platform, R: RawLock> Send for Unmapped<B, P, R> {}
// SAFETY: as for `Mapping`.
unsafe impl<B: DmaBuffer + Send, P: Platform, R: RawLock> Sync for Unmapped<B, P, R> {}

impl<P: Platform, R: RawLock> DmaDevice<P, R> {
    /// Gives a buffer to the device: a box, or a borrow that never ends.
    ///
    /// # Errors
    ///
    /// With the buffer back. `InvalidArg`: it is empty, or may not be written. `OutOfMemory`: no
    /// node, or no page to bounce through. `NoSpace`: no addresses. `Io`. Without the buffer, which is
    /// leaked: `Unconfirmed`.
    pub fn map<B: DmaBuffer + 'static>(
        &self,
        buffer: B,
        direction: Direction,
    ) -> Result<Mapping<B, P, R>, Refused<B>> {
        // SAFETY: a buffer that lives for ever may be forgotten.
        unsafe { self.map_borrowed(buffer, direction) }
    }

    /// As [`map`](Self::map), for a borrow that ends.
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map).
    ///
    /// # Safety
    ///
    /// After `Unconfirmed`, or an `Io` of the unmap, the bytes are not used when the borrow ends, because
    /// the device may reach them. The mapping, or the [`Unmapped`] that it becomes, is dropped or used up
    /// before that: not leaked, by `mem::forget` or otherwise. For one call
    /// [`with_mapped`](Self::with_mapped) sees to that.
    pub unsafe fn map_borrowed<B: DmaBuffer>(
        &self,
        buffer: B,
        direction: Direction,
    ) -> Result<Mapping<B, P, R>, Refused<B>> {
        if direction.writes() && !B::WRITABLE {
            return Err(Refused { error: DmaError::InvalidArg, buffer: Some(buffer) });
        }
        let raw = buffer.into_raw();
        // SAFETY: the promise of `DmaBuffer`, and that the value lives as long as the mapping.
        match unsafe { self.inner.map(&[(raw, Place::Ask)], direction) } {
            Ok(iova) => Ok(Mapping { dma: self.clone(), iova, raw, direction, owns: PhantomData }),
            Err(error @ DmaError::Unconfirmed) => Err(Refused { error, buffer: None }),
            Err(error) => {
                // SAFETY: it came from `into_raw`, and nothing was mapped.
                let buffer = Some(unsafe { B::from_raw(raw) });
                Err(Refused { error, buffer })
            }
        }
    }

    /// Lets the device have a borrowed buffer while `run` runs, which gets its address.
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map): `run` did not run. `Io` also if it ran and the unit did not confirm
    /// the unmap. Then, and after `Unconfirmed`, the instance is poisoned, and unless the unit broke its
    /// word, all DMA is blocked; to be safe from one that did, keep the buffer out of use.
    pub fn with_mapped<T>(
        &self,
        buffer: &mut [u8],
        direction: Direction,
        run: impl FnOnce(Iova) -> T,
    ) -> Result<T, DmaError> {
        // SAFETY: the mapping stays here, and is used up or dropped before the borrow ends.
        let mapped = unsafe { self.map_borrowed(buffer, direction) };
        let mapped = mapped.map_err(|refused| refused.error)?;
        let result = run(mapped.iova());
        mapped.unmap()?;
        Ok(result)
    }
}

impl<B: DmaBuffer, P: Platform, R: RawLock> Mapping<B, P, R> {
    /// What the device uses as the address of the first byte.
    #[must_use]
    pub fn iova(&self) -> Iova {
        self.iova
    }

    /// The length in bytes; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a buffer is never empty")]
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Who writes and who reads.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Takes the buffer back: the device does not reach it any more, and what it wrote is there.
    ///
    /// # Errors
    ///
    /// `Io`: the unit did not confirm. The buffer is leaked, because the device may still reach it.
    pub fn unmap(self) -> Result<B, DmaError> {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is not used after this, nor dropped.
        let dma = unsafe { core::ptr::read(&raw const this.dma) };
        // SAFETY: the buffer is still given up.
        unsafe { dma.inner.unmap(this.iova) }?;
        // SAFETY: it came from `into_raw`, and the device is cut off.
        Ok(unsafe { B::from_raw(this.raw) })
    }

    /// As [`unmap`](Self::unmap), but with
    /// [`Invalidation::Deferred`](super::Invalidation::Deferred) the device may reach the buffer
    /// until a flush, so it comes back only then.
    ///
    /// # Errors
    ///
    /// As [`unmap`](Self::unmap).
    pub fn defer(self) -> Result<Unmapped<B, P, R>, DmaError> {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is not used after this, nor dropped.
        let dma = unsafe { core::ptr::read(&raw const this.dma) };
        // SAFETY: the buffer is still given up, and `Unmapped` keeps it so.
        let ticket = unsafe { dma.inner.defer(this.iova) }?;
        Ok(Unmapped { dma, ticket, raw: this.raw, owns: PhantomData })
    }

    /// Reads `out.len()` bytes from `offset` on, as the device left them by now. It may write
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// `InvalidArg`: they are not all inside.
    pub fn read(&mut self, offset: usize, out: &mut [u8]) -> Result<(), DmaError> {
        let (len, out) = (out.len(), NonNull::from(out).cast());
        let from = self.inside(offset, len)?;
        if self.direction.writes() {
            // SAFETY: the buffer is still given up, and may be written.
            unsafe { self.dma.inner.sync(self.iova, offset..offset + len, false) }?;
        }
        // SAFETY: `inside` looked; no reference to the buffer exists, so `out` is elsewhere.
        unsafe { memory::copy(from, out, len) };
        Ok(())
    }

    /// Writes bytes from `offset` on, for the device to read.
    ///
    /// # Errors
    ///
    /// `InvalidArg`: they don't all fit inside, or the buffer may not be written.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), DmaError> {
        let to = self.inside(offset, bytes.len())?;
        if !B::WRITABLE {
            return Err(DmaError::InvalidArg);
        }
        // SAFETY: `inside` looked; no reference to the buffer exists, and it may be written.
        unsafe { memory::copy(NonNull::from(bytes).cast(), to, bytes.len()) };
        // SAFETY: the buffer is still given up.
        unsafe { self.dma.inner.sync(self.iova, offset..offset + bytes.len(), true) }
    }

    /// Where the CPU finds the bytes; see [`sync_for_cpu`](Self::sync_for_cpu).
    #[must_use]
    pub fn as_ptr(&self) -> NonNull<[u8]> {
        self.raw
    }

    /// Brings what the device wrote so far to where [`as_ptr`](Self::as_ptr) points, as far as it
    /// is bounced. Nothing to do if the device only reads.
    ///
    /// # Errors
    ///
    /// None that a mapping can meet.
    pub fn sync_for_cpu(&mut self) -> Result<(), DmaError> {
        // SAFETY: the buffer is still given up; it is written only if the direction says so.
        unsafe { self.dma.inner.sync(self.iova, 0..self.raw.len(), false) }
    }

    /// Brings what the CPU wrote so far to the device, as far as it is bounced.
    ///
    /// # Errors
    ///
    /// None that a mapping can meet.
    pub fn sync_for_device(&mut self) -> Result<(), DmaError> {
        // SAFETY: the buffer is still given up.
        unsafe { self.dma.inner.sync(self.iova, 0..self.raw.len(), true) }
    }

    fn inside(&self, offset: usize, len: usize) -> Result<NonNull<u8>, DmaError> {
        let end = offset.checked_add(len).filter(|end| *end <= self.raw.len());
        end.ok_or(DmaError::InvalidArg)?;
        // SAFETY: the offset is inside the buffer, or right behind it.
        Ok(unsafe { memory::at(self.raw.cast(), offset) })
    }
}

impl<B: DmaBuffer, P: Platform, R: RawLock> Drop for Mapping<B, P, R> {
    fn drop(&mut self) {
        // SAFETY: the buffer is still given up.
        if unsafe { self.dma.inner.unmap(self.iova) }.is_ok() {
            // SAFETY: it came from `into_raw`, and the device is cut off.
            drop(unsafe { B::from_raw(self.raw) });
        }
    }
}

impl<B: DmaBuffer, P: Platform, R: RawLock> Unmapped<B, P, R> {
    /// Whether the device is cut off, so that the buffer can be taken.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.dma.is_flushed(self.ticket)
    }

    /// Takes the buffer if the device is cut off.
    ///
    /// # Errors
    ///
    /// The value again, if it is not.
    pub fn take(self) -> Result<B, Self> {
        if !self.is_ready() {
            return Err(self);
        }
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is not used after this, nor dropped.
        drop(unsafe { core::ptr::read(&raw const this.dma) });
        // SAFETY: it came from `into_raw`, and the device is cut off.
        Ok(unsafe { B::from_raw(this.raw) })
    }

    /// Takes the buffer; flushes first if the device is not cut off.
    ///
    /// # Errors
    ///
    /// `Io`: the unit did not confirm. The buffer is leaked.
    pub fn flush(self) -> Result<B, DmaError> {
        if !self.is_ready() {
            self.dma.flush()?; // on failure the drop tries again, and leaks
        }
        self.take().map_err(|_| DmaError::Io)
    }
}

impl<B: DmaBuffer, P: Platform, R: RawLock> Drop for Unmapped<B, P, R> {
    fn drop(&mut self) {
        if self.is_ready() || self.dma.flush().is_ok() {
            // SAFETY: it came from `into_raw`, and the device is cut off.
            drop(unsafe { B::from_raw(self.raw) });
        }
    }
}

impl<B: DmaBuffer, P: Platform, R: RawLock> fmt::Debug for Mapping<B, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("iova", &self.iova)
            .field("len", &self.raw.len())
            .field("direction", &self.direction)
            .finish_non_exhaustive()
    }
}

impl<B: DmaBuffer, P: Platform, R: RawLock> fmt::Debug for Unmapped<B, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unmapped")
            .field("len", &self.raw.len())
            .field("is_ready", &self.is_ready())
            .finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for Refused<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<B> fmt::Display for Refused<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl<B> core::error::Error for Refused<B> {}

impl<B> From<Refused<B>> for DmaError {
    /// Drops the buffer.
    fn from(refused: Refused<B>) -> Self {
        refused.error
    }
}
