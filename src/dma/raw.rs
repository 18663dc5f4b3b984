//! Map, unmap and sync by address: what the values are made of, and what adapters of other crates
//! need. Nothing here keeps a buffer alive.
#![expect(unsafe_code, reason = "reads and writes buffers that are given by address")]

use core::ops::Range;
use core::ptr::NonNull;

use super::deferred::Ticket;
use super::layout::{Draft, Place};
use super::memory;
use super::record::{Direction, Parts, State};
use super::space::Wish;
use super::{DmaDevice, Inner};
use crate::addr::{Iova, IovaRange, PhysAddr};
use crate::domain::Chunk;
use crate::driver::Capabilities;
use crate::error::DmaError;
use crate::platform::Platform;
use crate::prot::Prot;
use crate::sync::RawLock;

impl<P: Platform, R: RawLock> DmaDevice<P, R> {
    /// Maps a buffer and returns the address of its first byte for the device (Linux:
    /// `dma_map_single`; rule C-222). The platform is asked where its pages are.
    ///
    /// The buffer's content is there for the device when this returns; later writes of the CPU need
    /// [`sync_for_device`](Self::sync_for_device).
    ///
    /// # Errors
    ///
    /// `InvalidArg`: it is empty. `Overflow`, `OutOfMemory`, `NoSpace`, `Io`. Nothing is mapped.
    /// `Unconfirmed`: it may be; the promise below holds for good.
    ///
    /// # Safety
    ///
    /// Until [`unmap_raw`](Self::unmap_raw) has returned `Ok` for the address, or a deferred unmap
    /// of it was flushed, or the last clone of the handle is gone: the buffer can be read, and
    /// written unless the direction is [`ToDevice`](Direction::ToDevice); what
    /// [`Platform::phys_of`] says of it holds; and no reference to it is used, a shared one
    /// excepted if the device only reads.
    pub unsafe fn map_raw(
        &self,
        buffer: NonNull<[u8]>,
        direction: Direction,
    ) -> Result<Iova, DmaError> {
        // SAFETY: the caller's promise.
        unsafe { self.inner.map(&[(buffer, Place::Ask)], direction) }
    }

    /// As [`map_raw`](Self::map_raw), for a buffer of which the caller knows that its memory lies
    /// in one piece from `phys` on.
    ///
    /// # Errors
    ///
    /// As [`map_raw`](Self::map_raw).
    ///
    /// # Safety
    ///
    /// As [`map_raw`](Self::map_raw), with `phys` in place of what the platform says.
    pub unsafe fn map_raw_at(
        &self,
        buffer: NonNull<[u8]>,
        phys: PhysAddr,
        direction: Direction,
    ) -> Result<Iova, DmaError> {
        // SAFETY: the caller's promise.
        unsafe { self.inner.map(&[(buffer, Place::At(phys))], direction) }
    }

    /// Unmaps what [`map_raw`](Self::map_raw) or [`map_pages_raw`](Self::map_pages_raw) mapped at
    /// `iova`, and copies what the device wrote to bounce pages back. When this returns `Ok` the
    /// device reaches nothing of it any more (rule C-223), whatever the mode of the handle.
    ///
    /// # Errors
    ///
    /// `NotMapped`: nothing that this handle mapped begins there. `Io`: the unit did not confirm;
    /// the memory and the addresses must be kept out of use, and are, here.
    ///
    /// # Safety
    ///
    /// The promise of the map still holds.
    pub unsafe fn unmap_raw(&self, iova: Iova) -> Result<(), DmaError> {
        // SAFETY: the caller's promise.
        unsafe { self.inner.unmap(iova) }
    }

    /// As [`unmap_raw`](Self::unmap_raw); with
    /// [`Invalidation::Deferred`](super::Invalidation::Deferred) the device may reach the memory
    /// until [`is_flushed`](Self::is_flushed) says otherwise of the ticket.
    ///
    /// # Errors
    ///
    /// As [`unmap_raw`](Self::unmap_raw). `Io` also of the flush, if the queue was full.
    ///
    /// # Safety
    ///
    /// As [`unmap_raw`](Self::unmap_raw), until the ticket is flushed.
    pub unsafe fn defer_raw(&self, iova: Iova) -> Result<Ticket, DmaError> {
        // SAFETY: the caller's promise.
        unsafe { self.inner.defer(iova) }
    }

    /// Brings what the device wrote to the buffer mapped at `iova`, as far as it is bounced.
    ///
    /// # Errors
    ///
    /// `NotMapped`.
    ///
    /// # Safety
    ///
    /// The promise of the map still holds, and the buffer can be written.
    pub unsafe fn sync_for_cpu(&self, iova: Iova) -> Result<(), DmaError> {
        // SAFETY: the caller's promise.
        unsafe { self.inner.sync(iova, 0..usize::MAX, false) }
    }

    /// Brings what the CPU wrote to the buffer mapped at `iova` to the device, as far as it is
    /// bounced.
    ///
    /// # Errors
    ///
    /// `NotMapped`.
    ///
    /// # Safety
    ///
    /// The promise of the map still holds.
    pub unsafe fn sync_for_device(&self, iova: Iova) -> Result<(), DmaError> {
        // SAFETY: the caller's promise.
        unsafe { self.inner.sync(iova, 0..usize::MAX, true) }
    }

    /// Maps `len` bytes of physical memory from `phys` on, whole granules, below
    /// [`DmaOptions::coherent_mask`](super::DmaOptions::coherent_mask), and returns their address.
    /// Nothing is bounced, nothing is synchronised: for memory that another allocator gives out to
    /// be shared with devices. As [`PagingDomain::map`](crate::domain::PagingDomain::map) it takes
    /// no reference: keeping the memory until it is unmapped is the caller's duty.
    ///
    /// # Errors
    ///
    /// `InvalidArg`: no whole granules. `Overflow`, `OutOfMemory`, `NoSpace`, `Io`. `Unconfirmed`: they
    /// may be mapped; keep them for good.
    pub fn map_pages_raw(
        &self,
        phys: PhysAddr,
        len: u64,
        direction: Direction,
    ) -> Result<Iova, DmaError> {
        self.inner.map_pages(phys, len, direction, self.inner.attributes())
    }
}

impl<P: Platform, R: RawLock> Inner<P, R> {
    /// Maps buffers, one behind another, each in granules of its own.
    ///
    /// # Safety
    ///
    /// As [`DmaDevice::map_raw`], for each.
    pub(super) unsafe fn map(
        &self,
        buffers: &[(NonNull<[u8]>, Place)],
        direction: Direction,
    ) -> Result<Iova, DmaError> {
        // SAFETY: the caller's promise.
        let mut draft = unsafe { self.draft(buffers) };
        if matches!(draft, Err(DmaError::OutOfMemory)) && self.space.trim() {
            // SAFETY: as above.
            draft = unsafe { self.draft(buffers) };
        }
        let mut draft = draft?;
        let at = draft.parts.iter().next().map_or(0, |part| part.at);
        self.platform.release_to_device();
        let prot = direction.prot() | self.attributes();
        let Draft { len, ref chunks, ref mut parts, .. } = draft;
        let range =
            self.place(len, direction, prot, self.options.mask, chunks.as_slice(), parts)?;
        range.first().checked_add(at).ok_or(DmaError::Overflow)
    }

    /// # Safety
    ///
    /// As [`DmaDevice::map_raw`], for each.
    unsafe fn draft(
        &self,
        buffers: &[(NonNull<[u8]>, Place)],
    ) -> Result<Draft<'_, P, R>, DmaError> {
        let mut draft = Draft::new(self);
        for (buffer, place) in buffers {
            // SAFETY: the caller's promise.
            unsafe { draft.push(buffer.cast(), buffer.len(), *place) }?;
        }
        Ok(draft)
    }

    pub(super) fn map_pages(
        &self,
        phys: PhysAddr,
        len: u64,
        direction: Direction,
        attributes: Prot,
    ) -> Result<Iova, DmaError> {
        let low = self.granule - 1;
        if len == 0 || (phys.0 | len) & low != 0 {
            return Err(DmaError::InvalidArg);
        }
        let prot = direction.prot() | attributes;
        let (mask, mut parts) = (self.options.coherent_mask, Parts::new(self.used.pool()));
        let chunks = [Chunk { phys, len }];
        self.place(len, direction, prot, mask, &chunks, &mut parts).map(IovaRange::first)
    }

    /// Finds addresses and maps `chunks` there; the parts stay if that fails. Where none are free, the
    /// unmaps that wait end first: they have some.
    fn place(
        &self,
        len: u64,
        direction: Direction,
        prot: Prot,
        mask: u64,
        chunks: &[Chunk],
        parts: &mut Parts,
    ) -> Result<IovaRange, DmaError> {
        let wish = Wish { owner: self.owner, len, direction, prot, limits: self.limits(mask) };
        let mut mapped = self.space.map(self.domain(), &wish, chunks, parts);
        if mapped == Err(DmaError::NoSpace) && self.defers() && self.flush().is_ok() {
            mapped = self.space.map(self.domain(), &wish, chunks, parts);
        }
        let range = mapped?;
        self.learn_from(&wish.limits, range);
        self.space.set_state(range.first(), State::Mapped);
        Ok(range)
    }

    /// What `MMIO` adds to a mapping, where the unit can express it (rule C-262).
    pub(super) fn mmio(&self) -> Prot {
        let able = self.domain().instance().capabilities().contains(Capabilities::MMIO);
        if able { Prot::MMIO } else { Prot::empty() }
    }

    /// Takes the mapping whose first byte is at `iova` out of the device's hands, to work on it.
    fn check_out(&self, iova: Iova, parts: &mut Parts) -> Result<(IovaRange, Direction), DmaError> {
        let found = self.space.check_out(self.owner, iova, parts, |range, record| {
            let at = record.parts.iter().next().map_or(0, |part| part.at);
            record.state == State::Mapped && range.first().checked_add(at) == Some(iova)
        });
        found.ok_or(DmaError::NotMapped)
    }

    /// # Safety
    ///
    /// As [`DmaDevice::unmap_raw`].
    pub(super) unsafe fn unmap(&self, iova: Iova) -> Result<(), DmaError> {
        let mut parts = Parts::new(self.used.pool());
        let (range, direction) = self.check_out(iova, &mut parts)?;
        if self.domain().unmap(range).is_err() {
            self.space.check_in(range.first(), &mut parts, State::Lost);
            return Err(DmaError::Io);
        }
        // SAFETY: the caller's promise; the device is cut off, so what is copied is final.
        unsafe { self.copy_out(direction, &parts, 0..usize::MAX) };
        self.space.release(range.first());
        self.free_parts(&parts);
        Ok(())
    }

    /// # Safety
    ///
    /// As [`DmaDevice::defer_raw`].
    pub(super) unsafe fn defer(&self, iova: Iova) -> Result<Ticket, DmaError> {
        if !self.defers() {
            // SAFETY: the caller's promise.
            return unsafe { self.unmap(iova) }.map(|()| Ticket::ENDED);
        }
        let mut parts = Parts::new(self.used.pool());
        let (range, direction) = self.check_out(iova, &mut parts)?;
        // The device may still write to the bounce pages; what it writes from here on goes nowhere.
        // SAFETY: the caller's promise.
        unsafe { self.copy_out(direction, &parts, 0..usize::MAX) };
        self.enqueue(range.first(), &mut parts)
    }

    /// Of every buffer of the mapping, the bytes in `range`.
    ///
    /// # Safety
    ///
    /// As [`DmaDevice::sync_for_cpu`] or [`DmaDevice::sync_for_device`].
    pub(super) unsafe fn sync(
        &self,
        iova: Iova,
        range: Range<usize>,
        to_device: bool,
    ) -> Result<(), DmaError> {
        let mut parts = Parts::new(self.used.pool());
        let (place, direction) = self.check_out(iova, &mut parts)?;
        if to_device {
            // SAFETY: the caller's promise.
            unsafe { self.copy_in(&parts, range) };
        } else {
            // SAFETY: the caller's promise.
            unsafe { self.copy_out(direction, &parts, range) };
        }
        self.space.check_in(place.first(), &mut parts, State::Mapped);
        Ok(())
    }

    /// Copies what is bounced to where the device finds it.
    ///
    /// # Safety
    ///
    /// The buffers can be read.
    unsafe fn copy_in(&self, parts: &Parts, range: Range<usize>) {
        for part in parts.iter() {
            for bounced in part.bounced_in(self.granule, range.clone()) {
                // SAFETY: what is bounced lies in the buffer, which the caller lets us read.
                let source = unsafe { memory::at(part.cpu, bounced.from) };
                // SAFETY: as above, and inside the piece.
                unsafe { bounced.piece.copy_in(bounced.at, source, bounced.len) };
            }
        }
        self.platform.release_to_device();
    }

    /// Copies what a device wrote to bounce pages to the buffers, and no byte beside them.
    ///
    /// # Safety
    ///
    /// The buffers can be written, if the direction says that the device writes.
    unsafe fn copy_out(&self, direction: Direction, parts: &Parts, range: Range<usize>) {
        if !direction.writes() {
            return;
        }
        self.platform.acquire_from_device();
        for part in parts.iter() {
            for bounced in part.bounced_in(self.granule, range.clone()) {
                // SAFETY: what is bounced lies in the buffer, which the caller lets us write.
                let target = unsafe { memory::at(part.cpu, bounced.from) };
                // SAFETY: as above, and inside the piece.
                unsafe { bounced.piece.copy_out(bounced.at, target, bounced.len) };
            }
        }
    }
}
