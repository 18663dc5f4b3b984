//! Several buffers in one mapping: a scatter list (rule C-224).
#![expect(unsafe_code, reason = "turns buffers into addresses and back")]

use core::fmt;
use core::iter;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use super::layout::Place;
use super::record::Direction;
use super::{DmaBuffer, DmaDevice, DmaOptions};
use crate::addr::Iova;
use crate::error::DmaError;
use crate::platform::Platform;
use crate::sync::{RawLock, SpinLock};

/// What goes into a device's descriptor: `len` bytes at `iova`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Where the device finds the first byte.
    pub iova: Iova,
    /// How many bytes.
    pub len: u64,
}

/// A list that was refused, with its buffers.
pub struct ListRefused<B, const N: usize> {
    /// Why.
    pub error: DmaError,
    /// As they were; `None` after [`DmaError::Unconfirmed`]: the device may reach them, so they are
    /// leaked.
    pub buffers: Option<[B; N]>,
}

/// Buffers that a device has, one behind another in its address space, until
/// [`unmap`](Self::unmap).
///
/// Dropping it unmaps too, as for [`Mapping`](super::Mapping).
#[must_use = "dropping it unmaps the buffers"]
pub struct MappedList<B: DmaBuffer, const N: usize, P: Platform, R: RawLock = SpinLock> {
    dma: DmaDevice<P, R>,
    iova: Iova,
    raw: [NonNull<[u8]>; N],
    owns: PhantomData<B>,
}

// SAFETY: it owns the buffers, which may be sent.
unsafe impl<B: DmaBuffer + Send, const N: usize, P: Platform, R: RawLock> Send
    for MappedList<B, N, P, R>
{
}

impl<P: Platform, R: RawLock> DmaDevice<P, R> {
    /// Gives several buffers to the device, in one run of addresses and with one exchange with the
    /// unit (Linux: `dma_map_sg`). Each lies in granules of its own; those that follow one another
    /// without a gap are one [`Segment`].
    ///
    #[cfg_attr(feature = "sim", doc = "```")]
    #[cfg_attr(not(feature = "sim"), doc = "```ignore")]
    /// # use iommu::{device::DeviceId, dma::*, driver::EndpointId, pool::Pool, registry::*};
    /// # use iommu::sim::{Sim, SimPlatform};
    /// # static POOL: Pool = Pool::heap();
    /// # static MACHINE: SimPlatform = SimPlatform::new();
    /// # let registry = Registry::new(&POOL);
    /// # let iommu = registry.add_instance(Sim::new().driver())?;
    /// # let info = DeviceInfo { id: DeviceId(1), endpoints: &[EndpointId(8)], with: None };
    /// # let group = registry.add_device(&iommu, &info)?;
    /// # let dma = DmaDevice::new(&group, &MACHINE, &DmaOptions::default())?;
    /// let buffers: [Box<[u8]>; 3] = [100, 5000, 64].map(|len| vec![0; len].into());
    /// let list = dma.map_list(buffers, Direction::ToDevice)?;
    /// for segment in list.segments() {
    ///     assert!(segment.len <= dma.options().max_segment); // a descriptor of the device
    /// }
    /// let buffers = list.unmap()?;
    /// # assert_eq!(buffers[1].len(), 5000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map), for any buffer; `InvalidArg` also for an empty list. All of them come
    /// back, or none.
    pub fn map_list<B: DmaBuffer + 'static, const N: usize>(
        &self,
        buffers: [B; N],
        direction: Direction,
    ) -> Result<MappedList<B, N, P, R>, ListRefused<B, N>> {
        // SAFETY: buffers that live for ever may be forgotten.
        unsafe { self.map_borrowed_list(buffers, direction) }
    }

    /// As [`map_list`](Self::map_list), for borrows that end.
    ///
    /// # Errors
    ///
    /// As [`map_list`](Self::map_list).
    ///
    /// # Safety
    ///
    /// As [`map_borrowed`](Self::map_borrowed).
    pub unsafe fn map_borrowed_list<B: DmaBuffer, const N: usize>(
        &self,
        buffers: [B; N],
        direction: Direction,
    ) -> Result<MappedList<B, N, P, R>, ListRefused<B, N>> {
        if N == 0 || direction.writes() && !B::WRITABLE {
            return Err(ListRefused { error: DmaError::InvalidArg, buffers: Some(buffers) });
        }
        let raw = buffers.map(B::into_raw);
        let places = raw.map(|raw| (raw, Place::Ask));
        // SAFETY: the promise of `DmaBuffer`, and that the value lives as long as the mapping.
        match unsafe { self.inner.map(&places, direction) } {
            Ok(iova) => Ok(MappedList { dma: self.clone(), iova, raw, owns: PhantomData }),
            Err(error @ DmaError::Unconfirmed) => Err(ListRefused { error, buffers: None }),
            Err(error) => {
                // SAFETY: they came from `into_raw`, and nothing was mapped.
                let buffers = Some(raw.map(|raw| unsafe { B::from_raw(raw) }));
                Err(ListRefused { error, buffers })
            }
        }
    }

    /// Maps several buffers by address, as [`map_list`](Self::map_list), and hands each segment to
    /// `each`. What it returns is the address for [`unmap_raw`](Self::unmap_raw) and the syncs,
    /// which are for all of them.
    ///
    /// # Errors
    ///
    /// As [`map_raw`](Self::map_raw).
    ///
    /// # Safety
    ///
    /// As [`map_raw`](Self::map_raw), for each.
    pub unsafe fn map_raw_list<const N: usize>(
        &self,
        buffers: [NonNull<[u8]>; N],
        direction: Direction,
        each: impl FnMut(Segment),
    ) -> Result<Iova, DmaError> {
        if N == 0 {
            return Err(DmaError::InvalidArg);
        }
        let places = buffers.map(|raw| (raw, Place::Ask));
        // SAFETY: the caller's promise.
        let iova = unsafe { self.inner.map(&places, direction) }?;
        segments(self.inner.granule, &self.inner.options, iova, &buffers).for_each(each);
        Ok(iova)
    }
}

/// The segments of buffers that were mapped one behind another, each in granules of its own.
fn segments<'b>(
    granule: u64,
    options: &DmaOptions,
    iova: Iova,
    buffers: &'b [NonNull<[u8]>],
) -> impl Iterator<Item = Segment> + use<'b> {
    let low = granule - 1;
    let offset = move |buffer: &NonNull<[u8]>| buffer.addr().get() as u64 & low;
    let mut window = iova.0 - buffers.first().map_or(0, offset);
    let mut spans = buffers.iter().map(move |buffer| {
        let span = (window + offset(buffer), buffer.len() as u64);
        window += (offset(buffer) + span.1 + low) & !low; // it was mapped, so nothing wraps
        span
    });
    let mut next = spans.next();
    let joined = iter::from_fn(move || {
        let (start, mut len) = next.take()?;
        next = spans.next();
        while let Some(span) = next.filter(|span| span.0 == start + len) {
            len += span.1;
            next = spans.next();
        }
        Some((start, len))
    });
    let (most, boundary) = (options.max_segment.max(1), options.segment_boundary);
    joined.flat_map(move |(start, len)| {
        let mut done = 0;
        iter::from_fn(move || {
            let at = start + done;
            let to_boundary = (boundary - (at & boundary)).saturating_add(1);
            let len = (len - done).min(most).min(to_boundary);
            done += len;
            (len > 0).then_some(Segment { iova: Iova(at), len })
        })
    })
}

impl<B: DmaBuffer, const N: usize, P: Platform, R: RawLock> MappedList<B, N, P, R> {
    /// What goes into the device's descriptors, in order: no segment longer than
    /// [`DmaOptions::max_segment`], none across [`DmaOptions::segment_boundary`].
    pub fn segments(&self) -> impl Iterator<Item = Segment> {
        segments(self.dma.inner.granule, &self.dma.inner.options, self.iova, &self.raw)
    }

    /// Takes the buffers back: the device does not reach them any more, and what it wrote is there.
    ///
    /// # Errors
    ///
    /// `Io`: the unit did not confirm. The buffers are leaked, because the device may still reach
    /// them.
    pub fn unmap(self) -> Result<[B; N], DmaError> {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is not used after this, nor dropped.
        let dma = unsafe { core::ptr::read(&raw const this.dma) };
        // SAFETY: the buffers are still given up.
        unsafe { dma.inner.unmap(this.iova) }?;
        // SAFETY: they came from `into_raw`, and the device is cut off.
        Ok(this.raw.map(|raw| unsafe { B::from_raw(raw) }))
    }
}

impl<B: DmaBuffer, const N: usize, P: Platform, R: RawLock> Drop for MappedList<B, N, P, R> {
    fn drop(&mut self) {
        // SAFETY: the buffers are still given up.
        if unsafe { self.dma.inner.unmap(self.iova) }.is_ok() {
            for raw in self.raw {
                // SAFETY: it came from `into_raw`, and the device is cut off.
                drop(unsafe { B::from_raw(raw) });
            }
        }
    }
}

impl<B: DmaBuffer, const N: usize, P: Platform, R: RawLock> fmt::Debug for MappedList<B, N, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.segments()).finish()
    }
}

impl<B, const N: usize> fmt::Debug for ListRefused<B, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListRefused").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<B, const N: usize> fmt::Display for ListRefused<B, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl<B, const N: usize> core::error::Error for ListRefused<B, N> {}
