//! The event queue: keeps it full of buffers, decodes fault records. virtio 1.2 §5.13.6.9.
//!
//! Lock: [`Events`] is what the lock of the event queue guards. It is never held together with
//! the lock of the request queue, nor while a record is handed out.

use zerocopy::FromBytes;

use super::request::Unit;
use super::wire::{
    FAULT_F_ADDRESS, FAULT_F_READ, FAULT_F_WRITE, FAULT_R_DOMAIN, FAULT_R_MAPPING, FaultEvent,
};
use crate::addr::Iova;
use crate::driver::EndpointId;
use crate::error::OutOfMemory;
use crate::fault::{Access, DriverFault, FaultReason};
use crate::mark::sabotaged;
use crate::platform::Platform;
use crate::trace::emit;
use crate::virtio::Quiet;
use crate::virtio::dma::DmaBuffer;
use crate::virtio::queue::{ChainKind, RingViolation, Segment, SplitQueue};
use crate::virtio::transport::{QueueSetup, Transport};

/// The number of the event queue.
pub(super) const EVENT_QUEUE: u16 = 1;

/// Bytes per buffer; QEMU breaks on a smaller one than a record.
const EVENT_LEN: usize = size_of::<FaultEvent>();
/// Bytes from one buffer to the next.
const STRIDE: usize = 32;
const _: () = assert!(EVENT_LEN <= STRIDE);

/// The event queue and its buffers.
pub(super) struct Events {
    queue: SplitQueue,
    buffers: DmaBuffer,
    pub(super) faults: u64,
    pub(super) bad_faults: u64,
    pub(super) notifies: u64,
}

/// What one look at the event queue brought.
pub(super) enum Event {
    Fault(DriverFault),
    /// A record that makes no sense; it is dropped, and its buffer is back in the ring.
    Malformed,
}

impl Events {
    /// Takes memory for a queue of `size` buffers and fills the ring with them.
    pub(super) fn new<P: Platform>(
        platform: &P,
        size: u16,
        interrupts: bool,
        quiet: &Quiet,
    ) -> Result<Self, OutOfMemory> {
        let mut queue = SplitQueue::new(platform, size, ChainKind::Writable, interrupts)?;
        let buffers = DmaBuffer::new(platform, usize::from(queue.chains()) * STRIDE);
        let buffers = buffers.inspect_err(|_| queue.release(platform, quiet))?;
        let mut events = Self { queue, buffers, faults: 0, bad_faults: 0, notifies: 0 };
        while let Some(chain) = events.queue.reserve() {
            let at = events.buffers.device(usize::from(chain) * STRIDE);
            events.queue.lay(chain, None, Segment { at, len: EVENT_LEN as u32 });
            events.queue.push(chain, 0);
        }
        Ok(events)
    }

    pub(super) fn setup(&self) -> QueueSetup {
        self.queue.setup()
    }

    /// How many records one drain takes at most.
    pub(super) fn capacity(&self) -> u16 {
        self.queue.chains()
    }

    /// Shows the device the buffers that were posted.
    pub(super) fn publish<P: Platform, T: Transport>(&mut self, unit: &Unit<'_, P, T>) {
        if self.queue.publish(unit.platform) {
            unit.transport.notify(EVENT_QUEUE);
            self.notifies += 1;
        }
    }

    /// Takes the next record; its buffer goes back, and the device sees that at the next
    /// [`publish`](Self::publish).
    pub(super) fn take<P: Platform>(
        &mut self,
        platform: &P,
    ) -> Result<Option<Event>, RingViolation> {
        let Some(used) = self.queue.pop(platform)? else { return Ok(None) };
        let mut bytes = [0; EVENT_LEN];
        self.buffers.read_bytes(usize::from(used.chain) * STRIDE, &mut bytes);
        self.queue.push(used.chain, 0);
        let fault = if used.len as usize == EVENT_LEN { decode(&bytes) } else { None };
        Ok(Some(match fault {
            Some(fault) => {
                self.faults += 1;
                Event::Fault(fault)
            }
            None => {
                self.bad_faults += 1;
                emit!(warn, "iommu: malformed fault record of {} bytes", used.len);
                Event::Malformed
            }
        }))
    }

    /// Gives the memory back after a reset.
    pub(super) fn release<P: Platform>(&mut self, platform: &P, quiet: &Quiet) {
        self.queue.release(platform, quiet);
        self.buffers.release(platform, quiet);
    }
}

/// Decodes a record, or `None` if its reserved bytes are set (rule C-278). Unknown flags are
/// ignored, an unknown reason is "unknown".
fn decode(bytes: &[u8; EVENT_LEN]) -> Option<DriverFault> {
    let event = FaultEvent::read_from_bytes(bytes).ok()?;
    if event.reserved != [0; 3] {
        return None;
    }
    let flags = event.flags.get();
    let mut access = Access::empty();
    access.set(Access::READ, flags & FAULT_F_READ != 0);
    access.set(Access::WRITE, flags & FAULT_F_WRITE != 0);
    let (endpoint, address) = (event.endpoint.get(), event.address.get());
    let endpoint = sabotaged!(WrongEndpoint, endpoint, endpoint ^ 8);
    let address = sabotaged!(WrongAddress, address, address & !0xfff);
    Some(DriverFault {
        endpoint: EndpointId(endpoint),
        address: (flags & FAULT_F_ADDRESS != 0).then_some(Iova(address)),
        access,
        reason: match event.reason {
            FAULT_R_DOMAIN => FaultReason::Domain,
            FAULT_R_MAPPING => FaultReason::Mapping,
            _ => FaultReason::Unknown,
        },
    })
}
