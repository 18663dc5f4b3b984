//! Drivers of the kernel and their buffers: what the device reaches, and what lies beside.

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec;

use iommu::addr::{Iova, PhysAddr};
use iommu::dma::{Direction, DmaDevice, DmaOptions, Invalidation};
use iommu::error::{DmaError, DoorbellError};
use iommu::platform::Platform;
use iommu::reserved::ReservedKind;

use crate::bench::{Bench, Outcome, Who};
use crate::steps::*;

type Dma = DmaDevice<&'static dyn Platform>;

/// What lies beside the buffers.
const SECRET: u8 = 0x5e;

fn handle(bench: &dyn Bench, who: Who, options: &DmaOptions) -> Dma {
    DmaDevice::new(&bench.group(who), bench.platform(), options).expect("nobody owns the group")
}

fn plain(bench: &dyn Bench, who: Who) -> Dma {
    handle(bench, who, &DmaOptions::default())
}

/// Memory of the kernel, whole pages of it full of secrets, and a buffer somewhere inside.
struct Kernel {
    all: Box<[u8]>,
    start: usize,
    len: usize,
}

impl Kernel {
    /// A buffer of `len` bytes, `offset` bytes into a page.
    fn new(offset: usize, len: usize, fill: impl Fn(usize) -> u8) -> Self {
        let page = PAGE as usize;
        let mut all = vec![SECRET; offset + len + 3 * page].into_boxed_slice();
        let start = (all.as_ptr().addr().next_multiple_of(page) - all.as_ptr().addr()) + offset;
        for (at, byte) in all.iter_mut().skip(start).take(len).enumerate() {
            *byte = fill(at);
        }
        Self { all, start, len }
    }

    fn buffer(&mut self) -> &mut [u8] {
        &mut self.all[self.start..self.start + self.len]
    }

    /// Whether each byte beside the buffer is what it was.
    fn is_whole_beside(&self) -> bool {
        let (before, rest) = self.all.split_at(self.start);
        before.iter().chain(&rest[self.len..]).all(|byte| *byte == SECRET)
    }
}

fn pattern(at: usize) -> u8 {
    1 + (at * 7 + (at >> 8) * 3) as u8 % 80
}

#[track_caller]
fn copies(bench: &dyn Bench, who: Who, from: u64, to: u64, len: usize) {
    let outcomes = bench.copy(who, from, to, len);
    assert!(outcomes == [Outcome::Arrived; 2], "{who:?} {from:#x} to {to:#x}: {outcomes:?}");
}

/// Neither is read nor written there.
#[track_caller]
fn copies_nothing(bench: &dyn Bench, who: Who, from: u64, to: u64) {
    let [read, write] = bench.copy(who, from, to, 4);
    assert!(read.is_refused_at(from), "{who:?} reads {from:#x}: {read:?}");
    assert!(write.is_refused_at(to), "{who:?} writes {to:#x}: {write:?}");
}

/// C-222, C-223: a buffer is reached while it is mapped, in the middle of pages or not, and not after.
pub(crate) fn a_buffer_is_lent_and_taken_back(bench: &dyn Bench) {
    const LEN: usize = 3000;
    for who in kinds(bench) {
        let dma = plain(bench, who);
        for offset in [0, 0x734] {
            let mut source = Kernel::new(offset, LEN, pattern);
            let mut target = Kernel::new(offset, LEN, |_| 0xee);
            let mut at = [0; 2];
            let lent = dma.with_mapped(source.buffer(), Direction::ToDevice, |from| {
                dma.with_mapped(target.buffer(), Direction::FromDevice, |to| {
                    at = [from.0, to.0];
                    copies(bench, who, from.0, to.0, LEN);
                    // Rights: neither the other way round.
                    copies_nothing(bench, who, to.0, from.0);
                })
            });
            assert_eq!(lent, Ok(Ok(())));
            assert!(target.buffer().iter().enumerate().all(|(n, byte)| *byte == pattern(n)));
            assert!(source.is_whole_beside() && target.is_whole_beside());
            copies_nothing(bench, who, at[0], at[1]);
        }
    }
}

/// A device finds zeros beside a buffer, and what it writes there reaches no memory of the kernel.
pub(crate) fn the_neighbours_of_a_buffer_are_out_of_reach(bench: &dyn Bench) {
    const LEN: usize = 64;
    for who in kinds(bench) {
        let dma = plain(bench, who);
        let mut buffer = Kernel::new(0x400, LEN, pattern);
        // The control: such a page, mapped as it is, shows the secrets.
        let mut landing = Kernel::new(0, PAGE as usize, |_| 0xee);
        let page = bench.platform().phys_of(core::ptr::NonNull::from(buffer.buffer()).cast());
        let page = PhysAddr(page.expect("the machine knows").0 & !0xfff);
        let open = dma.map_pages_raw(page, PAGE, Direction::ToDevice).expect("there is room");
        let lent = dma.with_mapped(landing.buffer(), Direction::FromDevice, |to| {
            copies(bench, who, open.0, to.0, 0x100);
        });
        assert_eq!(lent, Ok(()));
        assert!(landing.buffer()[..0x100].iter().all(|byte| *byte == SECRET));

        let mut landing = Kernel::new(0, PAGE as usize, |_| 0xee);
        let lent = dma.with_mapped(landing.buffer(), Direction::Bidirectional, |to| {
            dma.with_mapped(buffer.buffer(), Direction::Bidirectional, |iova| {
                let first = iova.0 & !0xfff;
                // It reads all of the page but the last byte: a transfer has 4095 at most.
                copies(bench, who, first, to.0, 0xfff);
                // And writes below and behind the buffer.
                for beside in [first, iova.0 - 4, iova.0 + LEN as u64, first + 0xff0] {
                    copies(bench, who, to.0, beside, 4);
                }
                copies_nothing(bench, who, first - PAGE, first - PAGE);
            })
        });
        assert_eq!(lent, Ok(Ok(())));
        let seen = landing.buffer();
        let (front, rest) = seen[..0xfff].split_at(0x400);
        let (middle, back) = rest.split_at(LEN);
        assert!(front.iter().chain(back).all(|byte| *byte == 0), "it saw something beside");
        assert!(middle.iter().enumerate().all(|(n, byte)| *byte == pattern(n)));
        assert!(buffer.is_whole_beside(), "it wrote something beside");
        assert!(buffer.buffer().iter().enumerate().all(|(n, byte)| *byte == pattern(n)));
    }
}

/// Only the ends of a long buffer are bounced; the device sees one run of addresses.
pub(crate) fn the_middle_of_a_buffer_is_mapped_where_it_is(bench: &dyn Bench) {
    let len = 2 * PAGE as usize + 0x300;
    for who in kinds(bench) {
        let dma = plain(bench, who);
        let mut buffer = Kernel::new(0xf00, len, pattern);
        let mut landing = Kernel::new(0, 0x800, |_| 0xee);
        let mut spent = None;
        let lent = dma.with_mapped(landing.buffer(), Direction::FromDevice, |to| {
            let mut lent = Ok(());
            let cost = cost_of(bench, who, || {
                lent = dma.with_mapped(buffer.buffer(), Direction::ToDevice, |iova| {
                    // Over the border between what is bounced and what is not.
                    copies(bench, who, iova.0 + 0x80, to.0, 0x800);
                });
            });
            spent = Some(cost);
            lent
        });
        assert_eq!(lent, Ok(Ok(())));
        assert!(landing.buffer().iter().enumerate().all(|(n, byte)| *byte == pattern(n + 0x80)));
        let spent = spent.expect("it ran");
        assert_eq!((spent.map, spent.unmap, spent.notifies), (3, 1, 2), "one exchange each way");
    }
}

/// C-224: a list is one run of addresses, neighbours one request, all of it one exchange.
pub(crate) fn a_list_costs_one_exchange(bench: &dyn Bench) {
    for who in kinds(bench) {
        let dma = plain(bench, who);
        let page = PAGE as usize;
        let (mut one, mut two) = (Kernel::new(0, 3 * page, pattern), Kernel::new(0, 100, pattern));
        let mut landing = Kernel::new(0, page, |_| 0xee);
        let (a, rest) = one.buffer().split_at_mut(page);
        let (b, c) = rest.split_at_mut(page);
        let buffers = [a, b, c, two.buffer()];
        let mut list = None;
        let cost = cost_of(bench, who, || {
            // SAFETY: the list is taken back below, before the borrows end.
            #[expect(unsafe_code, reason = "borrows")]
            let mapped = unsafe { dma.map_borrowed_list(buffers, Direction::ToDevice) };
            list = mapped.ok();
        });
        let list = list.expect("there is room");
        assert_eq!((cost.map, cost.notifies), (2, 1), "three neighbours and one more");
        let segment = list.segments().next().expect("there is one");
        assert_eq!((list.segments().count(), segment.len), (1, 3 * PAGE + 100));
        let lent = dma.with_mapped(landing.buffer(), Direction::FromDevice, |to| {
            copies(bench, who, segment.iova.0 + 3 * PAGE - 50, to.0, 150);
        });
        assert_eq!(lent, Ok(()));
        let mut gone = None;
        let cost = cost_of(bench, who, || gone = list.unmap().ok());
        assert!(gone.is_some());
        assert_eq!((cost.unmap, cost.notifies), (1, 1));
        let expected = |n: usize| if n < 50 { pattern(3 * page - 50 + n) } else { pattern(n - 50) };
        assert!((0..150).all(|n| landing.buffer()[n] == expected(n)));
        copies_nothing(bench, who, segment.iova.0, segment.iova.0);
    }
}

/// C-190, C-191: with deferred invalidation the device reaches the memory until the flush. Nobody
/// else has it or its address before.
pub(crate) fn a_deferred_unmap_ends_with_the_flush(bench: &dyn Bench) {
    for who in [Who::One, Who::Pair] {
        let invalidation = Invalidation::Deferred { limit: 8 };
        let dma = handle(bench, who, &DmaOptions { invalidation, ..DmaOptions::default() });
        let buffer = || vec![3_u8; 256].into_boxed_slice();
        let source = dma.map(buffer(), Direction::ToDevice).expect("there is room");
        let late = dma.map(buffer(), Direction::Bidirectional).expect("there is room");
        let at = late.iova();
        let mut late_value = None;
        let cost = cost_of(bench, who, || late_value = late.defer().ok());
        assert_eq!(cost.notifies, 0, "nobody was told");
        let late = late_value.expect("it waits").take().expect_err("it is not free");
        copies(bench, who, source.iova().0, at.0, 4);
        let other = dma.map(buffer(), Direction::ToDevice).expect("there is room");
        assert_ne!(other.iova().0 & !0xfff, at.0 & !0xfff, "not before the flush");
        dma.flush().expect("the unit confirms");
        let [read, write] = bench.copy(who, source.iova().0, at.0, 4);
        assert!(read == Outcome::Arrived && write.is_refused_at(at.0), "{read:?} {write:?}");
        assert!(late.take().is_ok(), "the buffer is back");
        // The control: a strict handle's ends at once.
        let strict = plain(bench, who);
        let mapped = strict.map(buffer(), Direction::Bidirectional).expect("there is room");
        let at = mapped.iova().0;
        copies(bench, who, source.iova().0, at, 4);
        drop(mapped.defer().expect("the unit confirms"));
        let [_, write] = bench.copy(who, source.iova().0, at, 4);
        assert!(write.is_refused_at(at), "{write:?}");
    }
}

/// C-225: a ring that both sides use, below the device's mask.
pub(crate) fn coherent_memory_is_seen_by_both(bench: &dyn Bench) {
    for who in kinds(bench) {
        let options = DmaOptions { coherent_mask: 0xfff_ffff, ..DmaOptions::default() };
        let dma = handle(bench, who, &options);
        let mut ring = dma.alloc_coherent(2 * PAGE as usize).expect("there is room");
        let at = ring.iova().0;
        assert!(at + 2 * PAGE <= 0x1000_0000 && at != 0);
        ring.write(0x10, b"request!").expect("it is inside");
        dma.platform().release_to_device();
        copies(bench, who, at + 0x10, at + PAGE, 8);
        let mut seen = [0; 12];
        ring.read(PAGE as usize - 2, &mut seen).expect("it is inside");
        assert_eq!(&seen, b"\0\0request!\0\0");
        drop(ring);
        copies_nothing(bench, who, at, at + PAGE);
    }
}

/// C-228: two drivers of one group share its domain, each with the limits of its device.
pub(crate) fn two_drivers_share_a_group(bench: &dyn Bench) {
    let narrow = handle(bench, Who::Pair, &DmaOptions { mask: 0xff_ffff, ..Default::default() });
    let wide = plain(bench, Who::Twin);
    let buffer = || vec![9_u8; 128].into_boxed_slice();
    let low = narrow.map(buffer(), Direction::ToDevice).expect("there is room");
    let high = wide.map(buffer(), Direction::Bidirectional).expect("there is room");
    assert!(low.iova().0 <= 0xff_ffff && high.iova().0 > 0xff_ffff);
    for who in [Who::Pair, Who::Twin] {
        copies(bench, who, low.iova().0, high.iova().0, 4);
    }
    let at = low.iova().0;
    drop((low, narrow));
    let [read, write] = bench.copy(Who::Twin, at, high.iova().0, 4);
    assert!(read.is_refused_at(at) && write == Outcome::Arrived, "{read:?} {write:?}");
    let at = high.iova().0;
    drop((high, wide));
    copies_nothing(bench, Who::Twin, at, at);
}

/// C-039, C-040, C-043: where the group's interrupts pass by, the doorbell is its own address; where they
/// are translated, its page is mapped.
pub(crate) fn a_doorbell_has_an_address_for_the_device(bench: &dyn Bench) {
    for who in kinds(bench) {
        let dma = plain(bench, who);
        let regions = bench.group(who).reserved();
        let memory = Memory::new(bench, 1);
        if let Some(window) = regions.software_msi() {
            let address = dma.map_doorbell(memory.at(0x40)).expect("the window has room");
            assert!(window.contains(address));
            arrives(bench, who, address.0, &memory, 0x40);
            continue;
        }
        assert_eq!(dma.map_doorbell(memory.at(0)), Err(DoorbellError::Unsupported));
        let own = regions.as_slice().iter().find(|region| region.kind == ReservedKind::Msi);
        let bell = own.expect("there is a doorbell").range.first();
        assert_eq!(dma.map_doorbell(PhysAddr(bell.0)), Ok(bell));
        // And no buffer is put where the device's writes are interrupts.
        let top = bell.0 + 0xfff;
        let low = DmaOptions { mask: top, coherent_mask: top, ..DmaOptions::default() };
        let low = handle(bench, who, &low);
        let mapped = low.map_pages_raw(memory.phys(), PAGE, Direction::FromDevice);
        let mapped = mapped.expect("there is room");
        assert!(mapped < bell, "below the region");
        arrives(bench, who, mapped.0, &memory, 0);
    }
}

/// A buffer of 100 bytes that lies in one page.
fn in_one_page() -> Box<[u8]> {
    let mut tried = vec![];
    loop {
        let buffer = vec![1_u8; 100].into_boxed_slice();
        if buffer.as_ptr().addr() % PAGE as usize <= PAGE as usize - 100 {
            return buffer;
        }
        tried.push(buffer); // kept, or it would come again
    }
}

/// A call that fails leaves nothing behind, and the buffer comes back.
pub(crate) fn a_refused_buffer_comes_back(bench: &dyn Bench) {
    let dma = handle(bench, Who::One, &DmaOptions { mask: 0x1fff, ..DmaOptions::default() });
    let only = dma.map(in_one_page(), Direction::ToDevice).expect("there is one page");
    assert_eq!(only.iova().0 & !0xfff, 0x1000);
    let mut back = None;
    let cost =
        cost_of(bench, Who::One, || back = dma.map(in_one_page(), Direction::ToDevice).err());
    let back = back.expect("there is no room");
    assert_eq!((back.error, cost.notifies), (DmaError::NoSpace, 0));
    let buffer = back.buffer.expect("nothing was sent, so it comes back");
    assert_eq!(buffer.len(), 100);
    let [read, _] = bench.copy(Who::One, only.iova().0, 0x2000, 4);
    assert_eq!(read, Outcome::Arrived, "what was there stays");
    drop(only);
    let _: Iova = dma.map(buffer, Direction::ToDevice).expect("there is room again").iova();
}
