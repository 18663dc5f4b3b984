//! The bytes: pages to bounce through, and the copies between them and the host's buffers.
//!
//! All unsafe code of `dma` that touches memory is here. No reference to memory that a device may
//! write ever exists, and every copy reads each byte once. No lock.
#![expect(
    unsafe_code,
    reason = "copies between buffers of the host and pages that a device writes"
)]

use core::num::NonZeroUsize;
use core::ptr::NonNull;

use crate::addr::PhysAddr;
use crate::error::OutOfMemory;
use crate::platform::{DmaPages, PAGE_SIZE, Platform};

/// Whole granules of the platform's memory. Plain data: dropping it leaks them, which is what
/// happens to memory that a device may still reach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    base: NonNull<u8>,
    phys: PhysAddr,
    pages: NonZeroUsize,
    /// From `base` to the first whole granule.
    skip: u32,
    /// How many bytes of whole granules are used.
    len: usize,
}

// SAFETY: a piece is the only handle on its pages, which aren't tied to a thread.
unsafe impl Send for Piece {}

impl Piece {
    /// Takes `len` zeroed bytes, a multiple of `granule`.
    pub(super) fn new<P: Platform>(
        platform: &P,
        len: usize,
        granule: u64,
    ) -> Result<Self, OutOfMemory> {
        // The platform aligns to its pages only; a larger granule needs room to align in.
        let slack = usize::try_from(granule).map_err(|_| OutOfMemory)?.saturating_sub(PAGE_SIZE);
        let bytes = len.checked_add(slack).ok_or(OutOfMemory)?;
        let pages = NonZeroUsize::new(bytes.div_ceil(PAGE_SIZE)).ok_or(OutOfMemory)?;
        let DmaPages { cpu: base, device: phys, pages } = platform.alloc_dma(pages)?;
        let skip = phys.0.wrapping_neg() & (granule - 1);
        let piece = Self { base, phys, pages, skip: skip as u32, len };
        if skip > slack as u64 {
            // SAFETY: it was just taken, and nobody was told of it.
            unsafe { piece.free(platform) };
            return Err(OutOfMemory); // it is not aligned as the platform promised
        }
        Ok(piece)
    }

    /// Gives the memory back.
    ///
    /// # Safety
    ///
    /// `new` took it from this platform, no device reaches it, and it is not used again.
    pub(super) unsafe fn free<P: Platform>(self, platform: &P) {
        let pages = DmaPages { cpu: self.base, device: self.phys, pages: self.pages };
        // SAFETY: the caller's promise.
        unsafe { platform.free_dma(pages) };
    }

    /// Where the CPU finds it.
    pub(super) fn cpu(&self) -> NonNull<u8> {
        // SAFETY: `new` asked for `skip` bytes more than it uses.
        unsafe { self.base.add(self.skip as usize) }
    }

    /// Where the unit finds it.
    pub(super) fn phys(&self) -> PhysAddr {
        PhysAddr(self.phys.0.wrapping_add(u64::from(self.skip)))
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Fills it: zeros, but for `len` bytes from `at` on, which come from `source`. So a device
    /// that reads beside a buffer finds nothing that was there before.
    ///
    /// # Safety
    ///
    /// `source` can be read for `len` bytes.
    pub(super) unsafe fn fill(&self, at: usize, source: NonNull<u8>, len: usize) {
        let len = len.min(self.len.saturating_sub(at));
        let at = at.min(self.len);
        // SAFETY: `at` is inside the piece, which is this value's alone until it is mapped.
        unsafe { self.cpu().write_bytes(0, at) };
        // SAFETY: `at + len` is inside the piece, and pages of the platform overlap no buffer; the
        // source is the caller's promise.
        unsafe { self.copy_in(at, source, len) };
        // SAFETY: `at + len` is inside the piece.
        let rest = unsafe { self.cpu().add(at + len) };
        // SAFETY: the rest of the piece.
        unsafe { rest.write_bytes(0, self.len - at - len) };
    }

    /// Copies `len` bytes from `source` to `at`.
    ///
    /// # Safety
    ///
    /// `source` can be read for `len` bytes, and `at + len` is inside.
    pub(super) unsafe fn copy_in(&self, at: usize, source: NonNull<u8>, len: usize) {
        // SAFETY: inside the piece, by the caller's promise.
        let to = unsafe { self.cpu().add(at) };
        // SAFETY: the caller's promise; pages of the platform overlap no buffer.
        unsafe { copy(source, to, len) };
    }

    /// Copies `len` bytes from `at` to `target`.
    ///
    /// # Safety
    ///
    /// `target` can be written for `len` bytes, and `at + len` is inside.
    pub(super) unsafe fn copy_out(&self, at: usize, target: NonNull<u8>, len: usize) {
        // SAFETY: inside the piece, by the caller's promise.
        let from = unsafe { self.cpu().add(at) };
        // SAFETY: the caller's promise; pages of the platform overlap no buffer.
        unsafe { copy(from, target, len) };
    }
}

/// Copies, reading each byte once and writing it once, in words where both sides are aligned: a
/// device may write the source, or read the target, at any moment.
///
/// # Safety
///
/// `from` can be read and `to` written for `len` bytes, and they don't overlap.
pub(super) unsafe fn copy(from: NonNull<u8>, to: NonNull<u8>, len: usize) {
    const WORD: usize = size_of::<usize>();
    let mut done = 0;
    while done < len {
        // SAFETY: `done` is less than `len`.
        let source = unsafe { from.add(done) };
        // SAFETY: as above.
        let target = unsafe { to.add(done) };
        let (wide, wide_to) = (source.cast::<usize>(), target.cast::<usize>());
        if len - done >= WORD && wide.is_aligned() && wide_to.is_aligned() {
            // SAFETY: a whole aligned word is inside.
            let word = unsafe { wide.read_volatile() };
            // SAFETY: as above.
            unsafe { wide_to.write_volatile(word) };
            done += WORD;
        } else {
            // SAFETY: a byte is inside.
            let byte = unsafe { source.read_volatile() };
            // SAFETY: as above.
            unsafe { target.write_volatile(byte) };
            done += 1;
        }
    }
}

/// The address `offset` bytes from `cpu` on.
///
/// # Safety
///
/// It is in the same buffer, or right behind it.
pub(super) unsafe fn at(cpu: NonNull<u8>, offset: usize) -> NonNull<u8> {
    // SAFETY: the caller's promise.
    unsafe { cpu.add(offset) }
}
