//! The request queue: builds requests, sends a batch under one notify, waits, collects answers.
//!
//! Lock: [`Requests`] is what the lock of the request queue guards; it is held while the device
//! works, for at most the wait limit per batch. Each chain of the queue owns one slot of DMA memory,
//! so a request needs no allocation, and no memory of a caller is ever shown to the device.
//!
//! Two ways to send: [`Requests::send`] waits for its batch; [`Requests::start`] does not, and
//! [`Requests::look`] takes in what has come back since. Whoever waits first sees everything that
//! was started before to its end, so requests never overtake each other across calls.

use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::tickets::Tickets;
use super::wire::{
    ATTACH_F_BYPASS, AttachReq, MAP_F_MMIO, MAP_F_READ, MAP_F_WRITE, MapReq, ProbeReq, ReqHead,
    ReqTail, RequestType, Status, UnmapReq,
};
use super::{Config, Options};
use crate::addr::{Iova, IovaRange, PhysAddr};
use crate::driver::{Counters, DomainId, EndpointId, Run, Ticket};
use crate::error::OutOfMemory;
use crate::mark::sabotaged;
use crate::platform::Platform;
use crate::prot::Prot;
use crate::trace::emit;
use crate::virtio::dma::DmaBuffer;
use crate::virtio::queue::{ChainKind, MAX_QUEUE_SIZE, RingViolation, Segment, SplitQueue, Used};
use crate::virtio::transport::{QueueSetup, Transport};
use crate::virtio::{Deadline, DeviceStatus, Quiet};

/// The number of the request queue.
pub(super) const REQUEST_QUEUE: u16 = 0;

/// The most requests of one batch: two descriptors each.
pub(super) const MAX_BATCH: usize = MAX_QUEUE_SIZE as usize / 2;

/// Bytes per slot: a cache line.
const SLOT_LEN: usize = 64;
const _: () = assert!(size_of::<Slot<MapReq>>() <= SLOT_LEN);
/// A slot is written by words of 8 bytes.
const _: () = assert!(size_of::<Slot<MapReq>>().is_multiple_of(8));
const _: () = assert!(size_of::<Slot<UnmapReq>>().is_multiple_of(8));
const _: () = assert!(size_of::<Slot<AttachReq>>().is_multiple_of(8));
/// Where the readable part of a slot starts; the writable one is before it.
const REQUEST_OFFSET: usize = core::mem::offset_of!(Slot<MapReq>, request);

const TAIL_LEN: u32 = size_of::<ReqTail>() as u32;

/// Where the writable part of the PROBE buffer starts.
const PROBE_REPLY: usize = size_of::<ProbeReq>();

/// The chain that a PROBE goes into.
const PROBE_CHAIN: u16 = 0;

/// How long a batch takes before the device is asked whether it gave up; doubled each time, because
/// asking is an exit.
const FIRST_STATUS_CHECK_NS: u64 = 1_000_000;

/// A request with what its answer overwrites, written in one go.
#[derive(Clone, Copy, Immutable, IntoBytes)]
#[repr(C)]
struct Slot<T: Unaligned> {
    tail: ReqTail,
    /// The request is aligned to 8.
    unused: [u8; 4],
    request: T,
    /// Each request is half a word short of whole ones.
    end: [u8; 4],
}

/// A request of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request {
    Attach {
        domain: DomainId,
        endpoint: EndpointId,
        bypass: bool,
    },
    Map {
        domain: DomainId,
        run: Run,
    },
    Unmap {
        domain: DomainId,
        range: IovaRange,
    },
    #[cfg(iommu_sabotage)]
    Detach {
        domain: DomainId,
        endpoint: EndpointId,
    },
}

/// What the device made of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) enum Answer {
    Done,
    /// Not done.
    Refused(Status),
    /// Done or not: the device did not say (rule 11.4), or not in words that we know.
    Unclear,
}

/// A batch that was sent and answered. [`Requests::answers`] has the answers until the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(super) struct Sent {
    /// How many requests.
    pub(super) count: usize,
    /// Whether each was answered with [`Answer::Done`].
    pub(super) clean: bool,
    /// Whether there may be further requests, for which the ring had no room.
    pub(super) more: bool,
}

/// Why the device can't be used any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) enum Dead {
    TimedOut,
    NeedsReset,
    Ring(RingViolation),
    /// The device did not confirm an UNMAP: it may still reach the memory.
    UnmapRefused,
}

/// What a queue needs to reach its device.
pub(super) struct Unit<'a, P, T> {
    pub(super) platform: &'a P,
    pub(super) transport: &'a T,
    /// How long one batch may take.
    pub(super) limit_ns: u64,
    /// Whether the device raises an interrupt when something that was started is done.
    pub(super) interrupts: bool,
}

/// The request queue, its slots, and what was sent.
pub(super) struct Requests {
    queue: SplitQueue,
    slots: DmaBuffer,
    /// For PROBE, which is sent alone (QEMU before 7.2.5 garbles what follows it in a batch).
    probe: DmaBuffer,
    probe_size: u32,
    /// The answers of the last batch that was waited for, in the order of its requests. Here, so
    /// that nobody copies them.
    answers: [Answer; MAX_BATCH],
    /// For each chain, the batch that it belongs to if nobody waits for it.
    owners: [Option<Ticket>; MAX_BATCH],
    pub(super) tickets: Tickets,
    /// How many requests of such batches are in the ring.
    out: usize,
    pub(super) counters: Counters,
}

/// The wait for one batch. The limit counts from the first look that found nothing, and is not
/// extended by completions: a device that trickles them can't hold the lock longer.
pub(super) struct Wait {
    deadline: Option<Deadline>,
    next_check_ns: u64,
}

impl Answer {
    /// Reads an answer: 0 bytes are a failure whatever the status says, and only the exact length
    /// counts (virtio 1.2 §5.13.6; rules 11.4 and 11.5).
    fn new(used: u32, expected: u32, status: Status) -> Self {
        if used != expected {
            emit!(
                warn,
                "iommu: {} bytes answered, {} expected, status {}",
                used,
                expected,
                status.0
            );
            return Self::Unclear;
        }
        match status {
            Status::OK => Self::Done,
            Status(1..=8) => Self::Refused(status),
            Status(unknown) => {
                emit!(warn, "iommu: unknown status {}", unknown);
                Self::Unclear
            }
        }
    }
}

impl Requests {
    /// Takes memory for a queue of `size` descriptors and for the PROBE answers of the device.
    pub(super) fn new<P: Platform>(
        platform: &P,
        size: u16,
        config: &Config,
        options: &Options,
        quiet: &Quiet,
    ) -> Result<Self, OutOfMemory> {
        let (kind, probe_size) = (ChainKind::ReadableWritable, config.probe_size);
        let mut queue = SplitQueue::new(platform, size, kind, options.request_interrupts)?;
        let slots = DmaBuffer::new(platform, usize::from(queue.chains()) * SLOT_LEN);
        let mut slots = slots.inspect_err(|_| queue.release(platform, quiet))?;
        let probe_len = PROBE_REPLY + probe_size as usize + size_of::<ReqTail>();
        let probe = DmaBuffer::new(platform, probe_len).inspect_err(|_| {
            slots.release(platform, quiet);
            queue.release(platform, quiet);
        })?;
        let mut requests = Self {
            queue,
            slots,
            probe,
            probe_size,
            answers: [Answer::Unclear; MAX_BATCH],
            owners: [None; MAX_BATCH],
            tickets: Tickets::default(),
            out: 0,
            counters: Counters::default(),
        };
        for chain in 0..requests.queue.chains() {
            requests.lay(chain);
        }
        Ok(requests)
    }

    /// Shows the device the slot of a chain.
    fn lay(&mut self, chain: u16) {
        let slot = usize::from(chain) * SLOT_LEN;
        let readable = Segment { at: self.slots.device(slot + REQUEST_OFFSET), len: 0 };
        let writable = Segment { at: self.slots.device(slot), len: TAIL_LEN };
        self.queue.lay(chain, Some(readable), writable);
    }

    pub(super) fn setup(&self) -> QueueSetup {
        self.queue.setup()
    }

    /// Gives the memory back after a reset.
    pub(super) fn release<P: Platform>(&mut self, platform: &P, quiet: &Quiet) {
        self.queue.release(platform, quiet);
        self.slots.release(platform, quiet);
        self.probe.release(platform, quiet);
    }

    /// Sends the next requests of `requests`, as many as the ring holds, under one notify, and
    /// waits for all of them.
    #[inline(always)]
    pub(super) fn send<P: Platform, T: Transport>(
        &mut self,
        unit: &Unit<'_, P, T>,
        requests: &mut impl Iterator<Item = Request>,
    ) -> Result<Sent, Dead> {
        if self.out > 0 {
            self.finish_started(unit)?;
        }
        // Nothing is in flight: the n-th request goes into the n-th chain.
        let (mut count, mut more) = (0, true);
        for chain in 0..self.queue.chains() {
            let Some(request) = requests.next() else {
                more = false;
                break;
            };
            self.put(chain, &request);
            count += 1;
        }
        self.publish(unit, false);
        let clean = self.collect(unit, count)?;
        Ok(Sent { count, clean, more })
    }

    /// The answers of a batch, in the order of its requests.
    pub(super) fn answers(&self, sent: &Sent) -> &[Answer] {
        self.answers.get(..sent.count).unwrap_or_default()
    }

    /// Sends the next requests of `requests`, as many as there is room for, under one notify, and
    /// does not wait. `None`: there is no room at all.
    pub(super) fn start<P: Platform, T: Transport>(
        &mut self,
        unit: &Unit<'_, P, T>,
        requests: &mut impl Iterator<Item = Request>,
        unmap: bool,
    ) -> Result<Option<(Ticket, usize)>, Dead> {
        self.look(unit)?;
        let ticket = self.tickets.open(Wait::started(unit), unmap);
        let Some(ticket) = ticket else { return Ok(None) };
        let mut sent = 0;
        for _ in 0..self.queue.room() {
            let Some(request) = requests.next() else { break };
            let Some(chain) = self.queue.reserve() else { break }; // there is room
            if let Some(owner) = self.owners.get_mut(usize::from(chain)) {
                *owner = Some(ticket);
            }
            self.tickets.sent(ticket);
            self.put(chain, &request);
            sent += 1;
        }
        if sent == 0 {
            self.tickets.close(ticket);
            return Ok(None);
        }
        self.publish(unit, true);
        self.out += sent;
        Ok(Some((ticket, sent)))
    }

    /// Takes in what has come back of started batches. Doesn't wait.
    pub(super) fn look<P: Platform, T: Transport>(
        &mut self,
        unit: &Unit<'_, P, T>,
    ) -> Result<(), Dead> {
        let verdict = self.tickets.look(unit);
        // After the clock, so that a CPU that slept past the deadline still looks once more.
        while let Some(used) = self.queue.pop(unit.platform).map_err(Dead::Ring)? {
            self.take_in(used)?;
        }
        match verdict {
            Err((ticket, dead)) if self.tickets.is_out(ticket) => Err(dead),
            _ => Ok(()),
        }
    }

    /// Waits until no started request is out.
    #[cold]
    fn finish_started<P: Platform, T: Transport>(
        &mut self,
        unit: &Unit<'_, P, T>,
    ) -> Result<(), Dead> {
        let mut wait = Wait::new();
        while self.out > 0 {
            let used = self.wait(unit, &mut wait)?;
            self.take_in(used)?;
        }
        Ok(())
    }

    /// Books the answer to a started request.
    fn take_in(&mut self, used: Used) -> Result<(), Dead> {
        let answer = self.answer(used);
        self.out = self.out.saturating_sub(1);
        self.queue.give_back(used.chain);
        let owner = self.owners.get_mut(usize::from(used.chain)).and_then(Option::take);
        owner.map_or(Ok(()), |ticket| self.tickets.answered(ticket, answer))
    }

    /// Reads the answer to a request and counts refusals.
    #[inline]
    fn answer(&mut self, used: Used) -> Answer {
        let tail = usize::from(used.chain) * SLOT_LEN; // the status comes first
        let answer = Answer::new(used.len, TAIL_LEN, Status(self.slots.read_u8(tail)));
        self.counters.refused += u64::from(answer != Answer::Done);
        answer
    }

    /// Waits for the answers of the `sent` requests in the ring; whether all are done.
    ///
    /// The n-th is that of the n-th chain, and the queue takes each chain once: so all are new.
    #[inline(always)]
    fn collect<P: Platform, T: Transport>(
        &mut self,
        unit: &Unit<'_, P, T>,
        sent: usize,
    ) -> Result<bool, Dead> {
        let mut wait = Wait::new();
        let mut clean = true;
        for _ in 0..sent {
            let used = self.wait(unit, &mut wait)?;
            let answer = self.answer(used);
            clean &= answer == Answer::Done;
            if let Some(slot) = self.answers.get_mut(usize::from(used.chain)) {
                *slot = answer;
            }
        }
        Ok(clean)
    }

    /// Asks for the properties of an endpoint; on [`Answer::Done`], [`properties`](Self::properties)
    /// has them.
    pub(super) fn probe<P: Platform, T: Transport>(
        &mut self,
        unit: &Unit<'_, P, T>,
        endpoint: EndpointId,
    ) -> Result<Answer, Dead> {
        if self.out > 0 {
            self.finish_started(unit)?;
        }
        let tail = PROBE_REPLY + self.probe_size as usize;
        for byte in PROBE_REPLY..tail {
            self.probe.write_u8(byte, 0); // what the device leaves out ends the list
        }
        self.probe.write_u8(tail, Status::UNWRITTEN.0);
        let head = ReqHead::new(RequestType::PROBE);
        let request = ProbeReq { head, endpoint: endpoint.0.into(), reserved: [0; 64] };
        self.probe.write_bytes(0, request.as_bytes());
        self.counters.probe += 1;
        let readable = Segment { at: self.probe.device(0), len: PROBE_REPLY as u32 };
        let len = self.probe_size + TAIL_LEN;
        let writable = Segment { at: self.probe.device(PROBE_REPLY), len };
        // Nothing is in flight: a chain shows this buffer, and its own slot again afterwards.
        self.queue.lay(PROBE_CHAIN, Some(readable), writable);
        self.queue.push(PROBE_CHAIN, PROBE_REPLY as u16);
        self.publish(unit, false);
        let used = self.wait(unit, &mut Wait::new())?;
        self.lay(PROBE_CHAIN);
        let answer = Answer::new(used.len, len, Status(self.probe.read_u8(tail)));
        self.counters.refused += u64::from(answer != Answer::Done);
        Ok(answer)
    }

    /// How many bytes of properties the last PROBE brought, and a way to copy some of them.
    pub(super) fn properties(&self) -> (usize, impl Fn(usize, &mut [u8])) {
        let read = |at: usize, out: &mut [u8]| self.probe.read_bytes(PROBE_REPLY + at, out);
        (self.probe_size as usize, read)
    }

    /// Shows the device what was pushed. It is asked for interrupts only if nobody waits.
    fn publish<P: Platform, T: Transport>(&mut self, unit: &Unit<'_, P, T>, started: bool) {
        self.queue.ask_for_interrupts(started && unit.interrupts);
        if self.queue.publish(unit.platform) {
            unit.transport.notify(REQUEST_QUEUE);
            self.counters.notifies += 1;
        }
    }

    /// Writes a request into the slot of a chain, and puts the chain into the ring.
    #[inline]
    fn put(&mut self, chain: u16, request: &Request) {
        let len = self.write_request(usize::from(chain) * SLOT_LEN, request);
        self.queue.push(chain, len);
    }

    /// Writes a request and its unwritten answer, and returns the length of the readable part.
    #[inline]
    fn write_request(&mut self, slot: usize, request: &Request) -> u16 {
        match *request {
            Request::Attach { domain, endpoint, bypass } => {
                emit!(trace, "iommu: attach endpoint {} to domain {}", endpoint.0, domain.0);
                self.counters.attach += 1;
                let head = ReqHead::new(RequestType::ATTACH);
                let (domain, endpoint) = (domain.0.into(), endpoint.0.into());
                let flags = if bypass { ATTACH_F_BYPASS } else { 0 }.into();
                self.write_slot(slot, AttachReq { head, domain, endpoint, flags, reserved: [0; 4] })
            }
            Request::Map { domain, run } => {
                let (first, last) = (run.range.first().0, run.range.last().0);
                emit!(trace, "iommu: map domain {} {:#x}..={:#x}", domain.0, first, last);
                self.counters.map += 1;
                let last = sabotaged!(MapTooLong, last, last.saturating_add(0x1000));
                let last = sabotaged!(MapTooShort, last, last - 1);
                let prot = sabotaged!(DropReadOnly, run.prot, run.prot | Prot::WRITE);
                let prot = sabotaged!(DropWriteOnly, prot, prot | Prot::READ);
                let phys = run.phys.0;
                let phys = sabotaged!(LaterMapsAstray, phys, {
                    phys + (u64::from(self.counters.map > 30_000) << 12)
                });
                let request = MapReq {
                    head: ReqHead::new(RequestType::MAP),
                    domain: domain.0.into(),
                    virt_start: first.into(),
                    virt_end: last.into(),
                    phys_start: phys.into(),
                    flags: map_flags(prot).into(),
                };
                self.write_slot(slot, request)
            }
            Request::Unmap { domain, range } => {
                let (first, last) = (range.first().0, range.last().0);
                emit!(trace, "iommu: unmap domain {} {:#x}..={:#x}", domain.0, first, last);
                self.counters.unmap += 1;
                let (first, last) = sabotaged!(ForgetSomeUnmaps, (first, last), {
                    let away = u64::from(self.counters.unmap.is_multiple_of(1000)) << 40;
                    (first ^ away, last ^ away)
                });
                let last = sabotaged!(UnmapTooShort, last, first.max(last - 0x1000) | 0xfff);
                let request = UnmapReq {
                    head: ReqHead::new(RequestType::UNMAP),
                    domain: domain.0.into(),
                    virt_start: first.into(),
                    virt_end: last.into(),
                    reserved: [0; 4],
                };
                self.write_slot(slot, request)
            }
            #[cfg(iommu_sabotage)]
            Request::Detach { domain, endpoint } => {
                // An ATTACH without flags, but for its type (virtio 1.2 §5.13.6.4).
                let head = ReqHead::new(RequestType::DETACH);
                let (domain, endpoint, flags) = (domain.0.into(), endpoint.0.into(), 0.into());
                self.write_slot(slot, AttachReq { head, domain, endpoint, flags, reserved: [0; 4] })
            }
        }
    }

    #[inline(always)]
    fn write_slot<T: IntoBytes + Immutable + Unaligned>(&mut self, slot: usize, request: T) -> u16 {
        let tail = ReqTail { status: Status::UNWRITTEN.0, reserved: [0; 3] };
        let written = Slot { tail, unused: [0; 4], request, end: [0; 4] };
        self.slots.write_words(slot, written.as_bytes());
        size_of::<T>() as u16
    }

    /// Takes the next completion of a batch. Mostly it is there: of one notify the first one is looked
    /// for after the device has worked, and the others have come with it.
    #[inline(always)]
    fn wait<P: Platform, T: Transport>(
        &mut self,
        unit: &Unit<'_, P, T>,
        wait: &mut Wait,
    ) -> Result<Used, Dead> {
        match self.queue.pop(unit.platform) {
            Ok(Some(used)) => Ok(used),
            Ok(None) => self.wait_on(unit, wait),
            Err(violation) => Err(Dead::Ring(violation)),
        }
    }

    #[cold]
    fn wait_on<P: Platform, T: Transport>(
        &mut self,
        unit: &Unit<'_, P, T>,
        wait: &mut Wait,
    ) -> Result<Used, Dead> {
        loop {
            let verdict = wait.look(unit);
            // After the clock, so that a CPU that slept past the deadline still looks once more.
            if let Some(used) = self.queue.pop(unit.platform).map_err(Dead::Ring)? {
                return Ok(used);
            }
            verdict?;
            core::hint::spin_loop();
        }
    }
}

impl Wait {
    const fn new() -> Self {
        Self { deadline: None, next_check_ns: FIRST_STATUS_CHECK_NS }
    }

    /// A wait whose limit counts from now.
    fn started<P: Platform, T: Transport>(unit: &Unit<'_, P, T>) -> Self {
        Self { deadline: Some(Deadline::start(unit.platform, unit.limit_ns)), ..Self::new() }
    }

    /// Whether there is hope: the limit is not over, and the device did not give up.
    pub(super) fn look<P: Platform, T: Transport>(
        &mut self,
        unit: &Unit<'_, P, T>,
    ) -> Result<(), Dead> {
        let start = || Deadline::start(unit.platform, unit.limit_ns);
        let elapsed_ns = self.deadline.get_or_insert_with(start).elapsed_ns(unit.platform);
        if elapsed_ns.is_none_or(|elapsed_ns| elapsed_ns >= self.next_check_ns) {
            self.next_check_ns = self.next_check_ns.saturating_mul(2);
            if unit.transport.status().contains(DeviceStatus::DEVICE_NEEDS_RESET) {
                return Err(Dead::NeedsReset);
            }
        }
        elapsed_ns.map(drop).ok_or(Dead::TimedOut)
    }
}

/// The flags of a MAP. CACHE and NOEXEC have no bit and are dropped (rule C-262).
fn map_flags(prot: Prot) -> u32 {
    let bit = |flag, bit| if prot.contains(flag) { bit } else { 0 };
    bit(Prot::READ, MAP_F_READ) | bit(Prot::WRITE, MAP_F_WRITE) | bit(Prot::MMIO, MAP_F_MMIO)
}

/// The half of the 64-bit space: no request names the whole of it, because only QEMU takes one
/// (rule 7.4).
const HALF: u64 = 1 << 63;

/// A range as requests carry it: as it is, or in two halves.
pub(super) fn halves(range: IovaRange) -> impl Iterator<Item = IovaRange> + Clone {
    let low = IovaRange::new(Iova(0), Iova(HALF - 1));
    let high = IovaRange::new(Iova(HALF), Iova(u64::MAX));
    let parts = if range == IovaRange::ALL { [low, high] } else { [Some(range), None] };
    parts.into_iter().flatten()
}

/// A run as MAPs carry it: as it is, or in two halves.
pub(super) fn run_halves(run: Run) -> impl Iterator<Item = Run> + Clone {
    halves(run.range).map(move |range| {
        let phys = PhysAddr(run.phys.0.wrapping_add(range.first().0 - run.range.first().0));
        Run { range, phys, ..run }
    })
}
