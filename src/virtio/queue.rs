//! Split virtqueue, for a device that is not trusted. virtio 1.2 §2.7.
//!
//! A queue is cut into *chains* of one or two direct descriptors; chain `n` always uses the same
//! descriptors and shows the same buffers, so its descriptors are written once (`SplitQueue::lay`)
//! and its number is also the place of its buffers in the memory of whoever drives the queue. (A
//! device that writes over a descriptor only misleads itself.) Everything we need to know is in our
//! own memory: which chains are in flight, both indexes. Descriptors and available ring are only
//! written; of the used ring every field is checked (virtio-iommu rules 11.1 to 11.3) and the first
//! lie breaks the queue for good.
//!
//! Who pushes chooses the chain: one that it took with `SplitQueue::reserve` and gives back, or,
//! while nothing is in flight, any.
//!
//! The lengths that the device reports are data; the caller judges them (rule 11.4).
//!
//! Notification suppression by the device (`VIRTQ_USED_F_NO_NOTIFY`) is not looked at: a needless
//! notify is harmless (virtio 1.2 §2.7.10), a missing one would stall us. No lock: the owner's.

use heapless::Vec;

use super::Quiet;
use super::dma::DmaBuffer;
use super::transport::QueueSetup;
use crate::addr::PhysAddr;
use crate::error::OutOfMemory;
use crate::platform::Platform;

/// The largest queue we set up, in descriptors. What QEMU, crosvm and cloud-hypervisor offer.
pub const MAX_QUEUE_SIZE: u16 = 256;

const DESC_LEN: usize = 16;
/// Where the available ring is: flags, index, ring. The places are those of the largest queue, so
/// that they are known when this is compiled, and so is that each access is aligned.
const AVAIL_AT: usize = MAX_QUEUE_SIZE as usize * DESC_LEN;
/// Where the used ring is: flags, index, ring. After the available ring and its event index, aligned
/// to 4, and so that its entries are aligned to 8: one is read at once.
const USED_AT: usize = (AVAIL_AT + 6 + MAX_QUEUE_SIZE as usize * 2).next_multiple_of(8) + 4;

const DESC_F_NEXT: u16 = 1;
const DESC_F_WRITE: u16 = 2;
const AVAIL_F_NO_INTERRUPT: u16 = 1;

/// A piece of memory for the device: where it finds it, and how many bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) at: PhysAddr,
    pub(crate) len: u32,
}

/// How many descriptors a chain has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ChainKind {
    /// One, which the device writes.
    Writable,
    /// Two: one that the device reads, one that it writes.
    ReadableWritable,
}

/// A chain that the device is done with. `len` is its word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Used {
    pub(crate) chain: u16,
    pub(crate) len: u32,
}

/// What we know of a chain.
#[derive(Clone, Copy)]
struct Chain {
    /// The device has it.
    in_flight: bool,
    /// The bytes that its descriptors show the device to read.
    readable: u16,
}

/// The device broke the rules of the ring; nothing it says about this queue counts any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) enum RingViolation {
    /// The used index moved by more than what is in flight.
    Index { seen: u16, expected_at_most: u16 },
    /// A used id that is no chain in flight: out of range, inside a chain, or done already.
    Id(u32),
    /// An earlier violation.
    Broken,
}

/// A split virtqueue and our own record of it.
pub(crate) struct SplitQueue {
    ring: DmaBuffer,
    size: u16,
    /// log2 of the descriptors of a chain: 1 if it has a part that the device reads.
    shift: u16,
    /// The flags that the available ring shows.
    flags: u16,
    /// Chains that nobody has reserved; the last one is handed out first.
    free: Vec<u16, { MAX_QUEUE_SIZE as usize }>,
    chains: [Chain; MAX_QUEUE_SIZE as usize],
    in_flight: u16,
    /// The next available index; what the device sees of it is `published`.
    avail: u16,
    published: u16,
    /// The used index up to which completions were taken.
    used: u16,
    /// The used index that the device showed last; checked.
    used_seen: u16,
    broken: bool,
}

impl SplitQueue {
    /// The largest size we use for a device that offers `max` descriptors: a power of two, 0 if the
    /// device has no such queue.
    pub(crate) fn size_for(max: u16) -> u16 {
        match max.min(MAX_QUEUE_SIZE).checked_ilog2() {
            Some(lg2) => 1 << lg2,
            None => 0,
        }
    }

    /// Takes memory for a queue of `size` descriptors, a power of two up to [`MAX_QUEUE_SIZE`].
    ///
    /// With `interrupts` off the device is asked for none (`VIRTQ_AVAIL_F_NO_INTERRUPT`).
    pub(crate) fn new<P: Platform>(
        platform: &P,
        size: u16,
        kind: ChainKind,
        interrupts: bool,
    ) -> Result<Self, OutOfMemory> {
        let size = Self::size_for(size);
        let mut free = Vec::new();
        for chain in (0..size / kind.descriptors()).rev() {
            let _ = free.push(chain); // the row has a place for each descriptor of the largest size
        }
        let len = USED_AT + 6 + usize::from(size) * 8;
        let mut ring = DmaBuffer::new(platform, len)?;
        let flags = if interrupts { 0 } else { AVAIL_F_NO_INTERRUPT };
        ring.write_u16(AVAIL_AT, flags);
        Ok(Self {
            ring,
            size,
            shift: kind.descriptors().trailing_zeros() as u16,
            flags,
            free,
            chains: [Chain { in_flight: false, readable: 0 }; MAX_QUEUE_SIZE as usize],
            in_flight: 0,
            avail: 0,
            published: 0,
            used: 0,
            used_seen: 0,
            broken: false,
        })
    }

    /// What the transport must tell the device.
    pub(crate) fn setup(&self) -> QueueSetup {
        QueueSetup {
            size: self.size,
            descriptors: self.ring.device(0),
            available: self.ring.device(AVAIL_AT),
            used: self.ring.device(USED_AT),
        }
    }

    /// How many chains there are.
    #[inline]
    pub(crate) fn chains(&self) -> u16 {
        self.size >> self.shift
    }

    /// How many chains can be reserved.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        self.free.len()
    }

    /// Asks the device for an interrupt when it is done with a chain, or for none. It knows at the
    /// next notify.
    pub(crate) fn ask_for_interrupts(&mut self, ask: bool) {
        let flags = if ask { 0 } else { AVAIL_F_NO_INTERRUPT };
        if flags != self.flags {
            self.flags = flags;
            self.ring.write_u16(AVAIL_AT, flags);
        }
    }

    /// Takes a free chain; its buffers are the caller's until [`push`](Self::push).
    #[inline]
    pub(crate) fn reserve(&mut self) -> Option<u16> {
        self.free.pop()
    }

    /// Gives a reserved chain back that is not in flight.
    #[inline]
    pub(crate) fn give_back(&mut self, chain: u16) {
        let _ = self.free.push(chain); // there is a place for each chain
    }

    /// Says where the buffers of a chain are. `readable` counts only for chains that have such a part.
    pub(crate) fn lay(&mut self, chain: u16, readable: Option<Segment>, writable: Segment) {
        let Some(own) = self.chains.get_mut(usize::from(chain)) else { return };
        let head = chain << self.shift;
        let mut last = head;
        if let (1, Some(readable)) = (self.shift, readable) {
            own.readable = readable.len as u16; // what we show is shorter than that
            last = head + 1;
            self.write_descriptor(head, readable, DESC_F_NEXT, last);
        }
        self.write_descriptor(last, writable, DESC_F_WRITE, 0);
    }

    /// Puts a chain into the available ring, of which the device shall read `readable` bytes (0 if it
    /// has no such part). The device sees it at the next [`publish`](Self::publish).
    ///
    /// One that is in flight breaks the queue: nobody could tell its two answers apart.
    #[inline]
    pub(crate) fn push(&mut self, chain: u16, readable: u16) {
        let Some(own) = self.chains.get_mut(usize::from(chain)) else { return };
        if core::mem::replace(&mut own.in_flight, true) {
            self.broken = true;
            return;
        }
        self.in_flight += 1;
        let head = chain << self.shift;
        if core::mem::replace(&mut own.readable, readable) != readable {
            let rest = descriptor_rest(u32::from(readable), DESC_F_NEXT, head + 1);
            self.ring.write_u64(usize::from(head) * DESC_LEN + 8, rest);
        }
        let place = usize::from(self.avail & (self.size - 1));
        self.ring.write_u16(AVAIL_AT + 4 + place * 2, head);
        self.avail = self.avail.wrapping_add(1);
    }

    /// Shows the device what was pushed. Returns whether there was something, so that a notify is
    /// due.
    #[inline]
    pub(crate) fn publish<P: Platform>(&mut self, platform: &P) -> bool {
        if self.published == self.avail {
            return false;
        }
        platform.release_to_device();
        self.ring.write_u16(AVAIL_AT + 2, self.avail);
        self.published = self.avail;
        platform.release_to_device(); // the index before the notify
        true
    }

    /// Takes the next chain that the device is done with. It may be pushed again, or given back.
    #[inline(always)] // inside the loop over a batch: 30 instructions less per request
    pub(crate) fn pop<P: Platform>(&mut self, platform: &P) -> Result<Option<Used>, RingViolation> {
        if self.broken {
            return Err(RingViolation::Broken);
        }
        if self.used == self.used_seen {
            let seen = self.ring.read_u16(USED_AT + 2);
            let advance = seen.wrapping_sub(self.used);
            if advance == 0 {
                return Ok(None);
            }
            if advance > self.in_flight {
                self.broken = true;
                let expected_at_most = self.used.wrapping_add(self.in_flight);
                return Err(RingViolation::Index { seen, expected_at_most });
            }
            self.used_seen = seen;
            platform.acquire_from_device();
        }
        let place = usize::from(self.used & (self.size - 1));
        let entry = self.ring.read_u64(USED_AT + 4 + place * 8);
        let (id, len) = (entry as u32, (entry >> 32) as u32); // virtio 1.2 §2.7.8
        let Some(chain) = self.take_in_flight(id) else {
            self.broken = true;
            return Err(RingViolation::Id(id));
        };
        self.used = self.used.wrapping_add(1);
        Ok(Some(Used { chain, len }))
    }

    /// Gives the memory back after a reset; the queue takes nothing any more.
    pub(crate) fn release<P: Platform>(&mut self, platform: &P, quiet: &Quiet) {
        self.broken = true;
        self.free.clear();
        self.ring.release(platform, quiet);
    }

    /// The chain with this used id, if the device has it; it has it no more from here on.
    #[inline(always)]
    fn take_in_flight(&mut self, id: u32) -> Option<u16> {
        let chain = id >> self.shift; // all 32 bits count
        let own = self.chains.get_mut(chain as usize)?;
        if chain << self.shift != id || !core::mem::take(&mut own.in_flight) {
            return None;
        }
        self.in_flight -= 1;
        Some(chain as u16)
    }

    fn write_descriptor(&mut self, index: u16, segment: Segment, flags: u16, next: u16) {
        let at = usize::from(index) * DESC_LEN;
        self.ring.write_u64(at, segment.at.0);
        self.ring.write_u64(at + 8, descriptor_rest(segment.len, flags, next));
    }
}

/// The second half of a descriptor (virtio 1.2 §2.7.5).
const fn descriptor_rest(len: u32, flags: u16, next: u16) -> u64 {
    len as u64 | (flags as u64) << 32 | (next as u64) << 48
}

impl ChainKind {
    const fn descriptors(self) -> u16 {
        match self {
            Self::Writable => 1,
            Self::ReadableWritable => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::transport::fake::{FakeConfig, FakeMachine};

    #[test]
    fn sizes_are_powers_of_two_up_to_ours() {
        let sizes = [0, 1, 2, 3, 255, 256, 257, u16::MAX].map(SplitQueue::size_for);
        assert_eq!(sizes, [0, 1, 2, 2, 128, 256, 256, 256]);
    }

    #[test]
    fn the_parts_of_a_queue_are_aligned_and_apart() {
        // virtio 1.2 §2.7: alignment 16, 2 and 4; sizes 16n, 6 + 2n and 6 + 8n
        let machine = FakeMachine::new(FakeConfig::default());
        for size in [1, 2, 4, 64, 256] {
            let queue = SplitQueue::new(&machine, size, ChainKind::Writable, true).unwrap();
            let setup = queue.setup();
            let (n, at) = (u64::from(size), [setup.descriptors.0, setup.available.0, setup.used.0]);
            assert_eq!((at[0] % 16, at[1] % 2, at[2] % 4), (0, 0, 0), "size {size}");
            assert!(at[0] + 16 * n <= at[1] && at[1] + 6 + 2 * n <= at[2], "size {size}");
        }
    }

    #[test]
    fn nothing_is_published_twice() {
        let machine = FakeMachine::new(FakeConfig::default());
        let mut queue = SplitQueue::new(&machine, 4, ChainKind::Writable, true).unwrap();
        assert!(!queue.publish(&machine));
        let chain = queue.reserve().unwrap();
        queue.lay(chain, None, Segment { at: PhysAddr(0), len: 1 });
        queue.push(chain, 0);
        assert!(queue.publish(&machine));
        assert!(!queue.publish(&machine));
        assert_eq!(queue.pop(&machine), Ok(None));
        assert_eq!((0..4).filter_map(|_| queue.reserve()).count(), 3, "one is in flight");
    }

    #[test]
    fn a_chain_that_is_in_flight_breaks_the_queue_when_it_is_pushed_again() {
        let machine = FakeMachine::new(FakeConfig::default());
        let mut queue = SplitQueue::new(&machine, 4, ChainKind::Writable, true).unwrap();
        queue.push(1, 0);
        queue.push(2, 0);
        assert_eq!(queue.pop(&machine), Ok(None));
        queue.push(1, 0);
        assert_eq!(queue.pop(&machine), Err(RingViolation::Broken));
    }
}
