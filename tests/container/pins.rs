//! Emulated groups, external pins, who is charged, who is told, and copies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use iommu::addr::{IovaRange, PhysAddr};
use iommu::container::*;
use iommu::prot::Prot;
use iommu::sim::Refusal;

use crate::fixture::{AT, PAGE, Script, World, request, shape};

const GROUP: EmulatedId = EmulatedId(7);

type Shared = &'static Container<&'static Script>;

/// A holder that drops what it is told to drop, after so many refusals, and counts.
struct Holder {
    container: Shared,
    refusals: AtomicU64,
    told: Arc<Mutex<Vec<IovaRange>>>,
}

impl PinHolder for Holder {
    fn dma_unmap(&self, range: IovaRange) {
        self.told.lock().unwrap().push(range);
        let left = self.refusals.load(Ordering::Relaxed);
        if left > 0 {
            self.refusals.store(left - 1, Ordering::Relaxed);
            return;
        }
        let pages = range.len().unwrap() / PAGE;
        while self.container.unpin_pages(range.first().0, pages) > 0 {}
    }
}

/// A world that lives for ever, so that a holder can call its container.
fn world(units: usize) -> (&'static World, Shared) {
    let world: &'static World = Box::leak(Box::new(World::new(units)));
    (world, &world.container)
}

fn holder(container: Shared, refusals: u64) -> (HolderId, Arc<Mutex<Vec<IovaRange>>>) {
    let told = Arc::new(Mutex::new(vec![]));
    let holder = Holder { container, refusals: refusals.into(), told: told.clone() };
    (container.register_device(holder).unwrap(), told)
}

fn pin(container: Shared, iova: u64, pages: usize) -> Result<Vec<u64>, PinPagesError> {
    let mut out = vec![Some(PhysAddr(1)); pages];
    let pinned = container.pin_pages(GROUP, iova, Prot::RW, &mut out);
    if pinned.is_err() {
        // T1-477: those before, and the failing one; the others are the caller's.
        let gone = out.iter().take_while(|place| place.is_none()).count();
        assert!(out[gone..].iter().all(|place| *place == Some(PhysAddr(1))));
    }
    pinned.map(|()| out.into_iter().map(|place| place.unwrap().0).collect())
}

#[test]
fn emulated_groups_cost_no_iommu_operation() {
    // T1-103, T1-151, T1-153, T1-201, T1-225
    let (world, container) = world(1);
    let before = world.digest();
    let cost = world.cost(|| {
        world.pool.refuse_nth(0, true);
        assert_eq!(container.attach_emulated(GROUP), Err(AttachGroupError::OutOfMemory), "T1-152");
        assert_eq!(world.pool.refuse_none(), 1);
        assert_eq!(world.digest(), before);
        container.attach_emulated(GROUP).unwrap();
        assert_eq!(container.attach_emulated(GROUP), Err(AttachGroupError::InvalidArg), "T1-151");
        container.map_dma(&request(AT, 4)).unwrap();
        assert!(!container.detach_emulated(EmulatedId(8)), "T1-226");
        assert_eq!(container.mapping_count(), 1);
        container.attach_emulated(EmulatedId(8)).unwrap();
        assert!(container.detach_emulated(GROUP));
        assert_eq!(container.mapping_count(), 1, "another group is left");
        assert!(container.detach_emulated(EmulatedId(8)));
    });
    assert_eq!((shape(cost), cost.dom_map, cost.dom_unmap), ([0; 5], 0, 0));
    assert_eq!(world.digest(), before);
    assert_eq!(container.free_mappings(), 65_535);
}

#[test]
fn a_page_is_charged_once_whoever_pins_it() {
    // T1-250 to T1-257 (T1-045, T1-212, T1-233, T1-319, T1-327, T1-482)
    let (world, container) = world(1);
    holder(container, 0);
    let now = || (container.pinned_pages(), world.memory.charged());
    container.attach_emulated(GROUP).unwrap();
    container.map_dma(&request(AT, 16)).unwrap();
    assert_eq!(now(), (0, 0), "T1-250");
    pin(container, AT, 3).unwrap();
    assert_eq!(now(), (3, 3), "T1-251");

    world.memory.limit(15);
    let (ownership, _) = world.group(0);
    let before = world.digest();
    let refused = container.attach_group(ownership).unwrap_err();
    assert_eq!((refused.error, now()), (AttachGroupError::OutOfMemory, (3, 3)), "T1-257");
    assert_eq!(world.digest(), before);

    world.memory.limit(16);
    let id = refused.ownership.group().id();
    container.attach_group(refused.ownership).unwrap();
    assert_eq!(now(), (3, 16), "T1-252");
    assert_eq!(world.memory.pins(), 19, "pinned again, not charged again");
    pin(container, AT + 8 * PAGE, 2).unwrap();
    assert_eq!(now(), (5, 16), "T1-253");
    assert_eq!(container.unpin_pages(AT + PAGE, 1), 1);
    assert_eq!(now(), (4, 16), "T1-254");
    drop(container.detach_group(id));
    assert_eq!(now(), (4, 4), "T1-255");
    assert_eq!((world.memory.pins(), container.mapping_count()), (4, 1), "T1-233");
    assert_eq!(container.unpin_pages(AT, 1) + container.unpin_pages(AT + 2 * PAGE, 14), 4);
    assert_eq!((now(), world.memory.pins()), ((0, 0), 0), "T1-256");
}

#[test]
fn every_failure_of_an_attach_leaves_pins_and_charges_as_they_were() {
    // T1-169, T1-214, T1-323: each pin, each charge, each allocation, each request
    for kind in 0..3 {
        let mut failures = 0;
        for nth in 0.. {
            let (world, container) = world(1);
            world.memory.scatter();
            holder(container, 0);
            container.attach_emulated(GROUP).unwrap();
            container.map_dma(&request(AT, 70)).unwrap();
            container.map_dma(&request(2 * AT, 3)).unwrap();
            for n in [0, 40, 66] {
                pin(container, AT + n * PAGE, 2).unwrap();
            }
            pin(container, 2 * AT, 3).unwrap();
            let (ownership, _) = world.group(0);
            let before = world.digest();
            match kind {
                0 => world.memory.refuse(nth, PinError::Fault),
                1 => world.memory.limit(9 + nth),
                _ => world.units[0].0.refuse(nth, Refusal::ONCE),
            }
            let attached = container.attach_group(ownership);
            world.memory.refuse_none();
            world.units[0].0.refuse_none();
            world.memory.limit(1 << 40);
            let Err(refused) = attached else { break };
            failures += 1;
            assert_eq!(world.digest(), before, "kind {kind}, point {nth}");
            container.attach_group(refused.ownership).expect("the retry succeeds");
            assert_eq!((world.memory.charged(), world.memory.pins()), (73, 82));
        }
        assert_eq!(failures, [73, 64, 74][kind], "kind {kind}");
    }
}

#[test]
fn pin_checks_come_in_their_order_and_leave_nothing() {
    // T1-460 to T1-470, T1-477, T1-478
    let (world, container) = world(0);
    let max = (PAGE / 8) as usize;
    container.map_dma(&request(AT, 2)).unwrap();
    container.map_dma(&MapDma { prot: Prot::READ, ..request(AT + 2 * PAGE, 1) }).unwrap();
    let before = world.digest();
    assert_eq!(pin(container, !0, 0), Err(PinPagesError::InvalidArg), "T1-460");
    assert_eq!(pin(container, !0, max + 1), Err(PinPagesError::TooBig), "T1-461");
    assert_eq!(pin(container, !0, max), Err(PinPagesError::Overflow), "T1-465");
    assert_eq!(pin(container, AT, 1), Err(PinPagesError::InvalidArg), "T1-467, T1-468");
    let (id, _) = holder(container, 0);
    assert_eq!(pin(container, AT, 1), Err(PinPagesError::InvalidArg), "T1-468");
    container.attach_emulated(GROUP).unwrap();
    assert!(container.unregister_device(id) && !container.unregister_device(id));
    assert_eq!(pin(container, AT, 1), Err(PinPagesError::InvalidArg), "T1-467");
    holder(container, 0);
    assert_eq!(pin(container, AT - PAGE, 1), Err(PinPagesError::InvalidArg), "T1-469");
    assert_eq!(pin(container, AT, 3), Err(PinPagesError::NotPermitted), "T1-470");
    assert_eq!(pin(container, AT + PAGE, 3).map_err(PinPagesError::errno), Err(1), "T1-470");
    container.unmap_dma(&UnmapDma::Range { iova: AT + 2 * PAGE, size: PAGE }).unwrap();
    assert_eq!(pin(container, AT, 3).map_err(PinPagesError::errno), Err(22), "T1-469");
    assert_eq!((container.pinned_pages(), world.memory.pins(), world.memory.charged()), (0, 0, 0));
    container.map_dma(&MapDma { prot: Prot::READ, ..request(AT + 2 * PAGE, 1) }).unwrap();
    container.detach_emulated(GROUP);
    container.unmap_dma(&UnmapDma::All).unwrap();
    let _ = before;

    // Pages of several mappings, an address inside a page, and references (T1-471, T1-478, T1-479).
    container.attach_emulated(GROUP).unwrap();
    container.map_dma(&request(AT, 2)).unwrap();
    container.map_dma(&request(AT + 2 * PAGE, 2)).unwrap();
    let frames = pin(container, AT + PAGE + 5, 2).unwrap();
    assert_eq!(frames, [0x4000_0000 + AT + PAGE, 0x4000_0000 + AT + 2 * PAGE]);
    assert_eq!(pin(container, AT + 0xfff + PAGE, 1).unwrap(), frames[..1]);
    assert_eq!((container.pinned_pages(), world.memory.pins(), world.memory.charged()), (2, 2, 2));
    assert_eq!(container.unpin_pages(AT, 4), 2, "T1-481: pages without a pin are skipped");
    assert_eq!(container.pinned_pages(), 1);
    assert_eq!(container.unpin_pages(AT - PAGE, 4), 0, "T1-481: ends where nothing is mapped");
    assert_eq!(container.unpin_pages(AT + PAGE + 9, 1), 1);
    assert_eq!(container.unpin_pages(!0, 9), 0, "T1-480");
    assert_eq!((container.pinned_pages(), world.memory.pins(), world.memory.charged()), (0, 0, 0));
}

#[test]
fn a_failed_pin_leaves_nothing_whatever_failed() {
    // T1-472 to T1-474, T1-477
    for kind in 0..3 {
        let mut failures = 0;
        for nth in 0.. {
            let (world, container) = world(0);
            holder(container, 0);
            container.attach_emulated(GROUP).unwrap();
            container.map_dma(&request(AT, 40)).unwrap();
            pin(container, AT + 3 * PAGE, 2).unwrap();
            let before = world.digest();
            match kind {
                0 => world.memory.refuse(nth, PinError::NoOwner),
                1 => world.memory.limit(2 + nth),
                _ => world.pool.refuse_nth(nth, true),
            }
            let pinned = pin(container, AT, 36);
            let met = world.memory.refuse_none() + world.pool.refuse_none();
            world.memory.limit(1 << 40);
            let Err(error) = pinned else {
                assert_eq!(met, 0);
                break;
            };
            failures += 1;
            assert_eq!(error.errno(), [19, 12, 12][kind]);
            let now = (container.pinned_pages(), world.memory.pins(), world.memory.charged());
            assert_eq!(now, (2, 2, 2), "kind {kind}, point {nth}");
            if kind != 2 {
                continue;
            }
            container.unpin_pages(AT, 40);
            pin(container, AT + 3 * PAGE, 2).unwrap();
            assert_eq!(world.digest(), before);
        }
        assert!(failures > 1, "kind {kind}");
    }
}

#[test]
fn frames_that_are_not_ordinary_are_mapped_and_not_charged() {
    // T1-310, T1-315, T1-473
    let (world, container) = world(1);
    world.memory.frame_at(AT + PAGE, Frame::Reserved);
    world.memory.frame_at(AT + 2 * PAGE, Frame::Device);
    holder(container, 0);
    container.attach_emulated(GROUP).unwrap();
    container.map_dma(&request(AT, 4)).unwrap();
    assert_eq!(pin(container, AT, 3), Err(PinPagesError::InvalidArg), "T1-473");
    assert_eq!((world.memory.pins(), world.memory.charged()), (0, 0));
    pin(container, AT, 2).unwrap();
    assert_eq!((world.memory.pins(), world.memory.charged()), (1, 1), "T1-045");
    let before = world.units[0].1.counters();
    let (id, endpoint) = world.attached(0);
    let sent = world.units[0].1.counters().since(&before);
    assert_eq!(sent.map, 4, "a run ends where the kind of frame changes");
    assert_eq!((world.memory.pins(), world.memory.charged()), (3, 2));
    assert_eq!(world.reaches(0, endpoint, AT + 2 * PAGE), Some(0x4000_0000 + AT + 2 * PAGE));
    drop(container.detach_group(id));
    assert_eq!((world.memory.pins(), world.memory.charged()), (1, 1));
    container.unpin_pages(AT, 2);
    container.unmap_dma(&UnmapDma::All).unwrap();
    assert_eq!((world.memory.pins(), world.memory.charged()), (0, 0));
}

#[test]
fn holders_are_told_about_the_whole_mapping_and_let_go() {
    // T1-041, T1-370, T1-491, T1-492: others before it are gone, the pinned one goes after
    let (world, container) = world(1);
    world.attached(0);
    container.attach_emulated(GROUP).unwrap();
    let (_, told) = holder(container, 0);
    let (_, told_too) = holder(container, 0);
    for n in 0..4 {
        container.map_dma(&request(AT + n * 4 * PAGE, 4)).unwrap();
    }
    pin(container, AT + 5 * PAGE, 1).unwrap();
    pin(container, AT + 13 * PAGE, 1).unwrap();
    let gone = container.unmap_dma(&UnmapDma::Range { iova: AT, size: 12 * PAGE }).unwrap();
    assert_eq!(gone.bytes, 12 * PAGE);
    let whole = |n: u64| IovaRange::from_len(iommu::addr::Iova(AT + n * PAGE), 4 * PAGE).unwrap();
    assert_eq!(*told.lock().unwrap(), [whole(4)], "the mapping, not the request");
    assert_eq!(*told_too.lock().unwrap(), [whole(4)], "every one is told");
    assert_eq!(container.unmap_dma(&UnmapDma::All).unwrap().bytes, 4 * PAGE, "T1-496");
    assert_eq!(*told.lock().unwrap(), [whole(4), whole(12)]);
    assert_eq!((world.memory.pins(), world.memory.charged(), container.pinned_pages()), (0, 0, 0));
}

#[test]
fn a_holder_that_does_not_let_go_is_told_eleven_times() {
    // T1-371, T1-373, W-12, W-13
    for (refusals, ends) in [(10, true), (11, false)] {
        let (world, container) = world(0);
        container.attach_emulated(GROUP).unwrap();
        let (id, told) = holder(container, refusals);
        container.map_dma(&request(AT, 2)).unwrap();
        container.map_dma(&request(AT + 2 * PAGE, 2)).unwrap();
        container.map_dma(&request(AT + 4 * PAGE, 2)).unwrap();
        pin(container, AT + 3 * PAGE, 1).unwrap();
        let result = container.unmap_dma(&UnmapDma::All);
        assert_eq!(told.lock().unwrap().len(), 11);
        if ends {
            assert_eq!(result.unwrap().bytes, 6 * PAGE);
            continue;
        }
        let unmapped = Unmapped { bytes: 2 * PAGE };
        assert_eq!(result, Err(UnmapFailed { error: UnmapDmaError::Busy, unmapped }));
        assert_eq!((container.mapping_count(), container.pinned_pages()), (2, 1));
        container.unregister_device(id);
        let alone = container.unmap_dma(&UnmapDma::All).unwrap_err();
        assert_eq!((alone.error, alone.unmapped.bytes), (UnmapDmaError::Busy, 0), "T1-373");
        assert_eq!(told.lock().unwrap().len(), 11);
        container.unpin_pages(AT + 3 * PAGE, 1);
        assert_eq!(container.unmap_dma(&UnmapDma::All).unwrap().bytes, 4 * PAGE);
        assert_eq!((world.memory.pins(), world.memory.charged()), (0, 0));
    }
}

/// A holder with any code.
struct Calls<F>(F);

impl<F: Fn(IovaRange) + Send + Sync> PinHolder for Calls<F> {
    fn dma_unmap(&self, range: IovaRange) {
        (self.0)(range);
    }
}

#[test]
fn a_mapping_made_by_a_holder_can_cut_the_request() {
    // T1-372, T1-495, W-13: the request is looked at again after each notification
    let (_, container) = world(0);
    container.attach_emulated(GROUP).unwrap();
    container
        .register_device(Calls(move |range: IovaRange| {
            container.unpin_pages(range.first().0, 4);
            container.map_dma(&request(AT - PAGE, 2)).unwrap();
        }))
        .unwrap();
    container.map_dma(&request(AT, 1)).unwrap();
    container.map_dma(&request(AT + 2 * PAGE, 1)).unwrap();
    pin(container, AT + 2 * PAGE, 1).unwrap();
    let failed = container.unmap_dma(&UnmapDma::Range { iova: AT, size: 4 * PAGE }).unwrap_err();
    assert_eq!((failed.error, failed.unmapped.bytes), (UnmapDmaError::InvalidArg, PAGE));
}

#[test]
fn a_holder_may_call_everything_of_the_container() {
    // T1-493, T1-495, T1-582, W-14: no lock is held, not even that of the list it is on
    let (world, container) = world(1);
    container.attach_emulated(GROUP).unwrap();
    let own = Arc::new(Mutex::new(None));
    let mine = own.clone();
    let id = container
        .register_device(Calls(move |range: IovaRange| {
            let first = range.first().0;
            container.map_dma(&request(8 * AT, 1)).unwrap();
            let (group, _) = world.attached(0);
            assert!(pin(container, 8 * AT, 1).is_ok());
            container.dma_write(8 * AT, &[1, 2]).unwrap();
            container.attach_emulated(EmulatedId(9)).unwrap();
            assert!(container.detach_emulated(EmulatedId(9)));
            drop(container.detach_group(group).unwrap());
            container.unpin_pages(8 * AT, 1);
            container.unmap_dma(&UnmapDma::Range { iova: 8 * AT, size: PAGE }).unwrap();
            let other = container.register_device(Calls(|_| {})).unwrap();
            assert!(container.unregister_device(other));
            container.unpin_pages(first, 1);
            let me: Option<HolderId> = mine.lock().unwrap().take();
            assert!(container.unregister_device(me.expect("called once")));
        }))
        .unwrap();
    *own.lock().unwrap() = Some(id);
    container.map_dma(&request(AT, 1)).unwrap();
    pin(container, AT, 1).unwrap();
    assert_eq!(container.unmap_dma(&UnmapDma::All).unwrap().bytes, PAGE);
    assert_eq!((world.memory.pins(), world.memory.charged()), (0, 0));
}

#[test]
fn what_is_left_pinned_when_the_last_group_goes_is_released() {
    // T1-068, T1-227, W-25
    for real in [false, true] {
        let (world, container) = world(1);
        holder(container, 0);
        container.attach_emulated(GROUP).unwrap();
        container.map_dma(&request(AT, 4)).unwrap();
        pin(container, AT, 2).unwrap();
        if real {
            let (id, _) = world.attached(0);
            assert!(container.detach_emulated(GROUP));
            assert_eq!(container.pinned_pages(), 2, "T1-225, T1-482");
            drop(container.detach_group(id));
        } else {
            assert!(container.detach_emulated(GROUP));
        }
        assert_eq!((container.mapping_count(), container.pinned_pages()), (0, 0));
        assert_eq!((world.memory.pins(), world.memory.charged()), (0, 0));
    }
    let world = World::new(0);
    let World { container, memory, pool, .. } = world;
    container.register_device(Calls(|_| {})).unwrap();
    container.attach_emulated(GROUP).unwrap();
    container.map_dma(&request(AT, 4)).unwrap();
    container.pin_pages(GROUP, AT, Prot::READ, &mut [None; 3]).unwrap();
    drop(container);
    assert_eq!((memory.pins(), memory.charged(), pool.usage().nodes), (0, 0, 0));
}

#[test]
fn copies_go_by_mapping_and_permission() {
    // T1-506 to T1-510, T1-512, W-15
    let (world, container) = world(0);
    container.map_dma(&MapDma { prot: Prot::WRITE, ..request(AT, 1) }).unwrap();
    container.map_dma(&request(AT + PAGE, 1)).unwrap();
    container.map_dma(&MapDma { prot: Prot::READ, ..request(AT + 2 * PAGE, 1) }).unwrap();
    container.dma_write(AT + PAGE - 2, &[1, 2, 3, 4]).expect("WRITE is enough to write");
    let mut bytes = [9; 2];
    container.dma_read(AT + PAGE, &mut bytes).unwrap();
    assert_eq!(bytes, [3, 4]);
    let read = |iova, len| container.dma_read(iova, &mut vec![0; len]);
    assert_eq!(read(AT, 0), Err(DmaCopyError::InvalidArg), "T1-506");
    assert_eq!(container.dma_write(AT, &[]), Err(DmaCopyError::InvalidArg));
    assert_eq!(read(AT, 1), Err(DmaCopyError::NotPermitted), "READ is needed to read");
    assert_eq!(read(AT + 2 * PAGE, 0x1001), Err(DmaCopyError::InvalidArg), "T1-507");
    let past = container.dma_write(AT + 2 * PAGE - 1, &[7, 7]);
    assert_eq!(past, Err(DmaCopyError::NotPermitted), "T1-508");
    container.dma_read(AT + 2 * PAGE - 1, &mut bytes).unwrap();
    assert_eq!(bytes, [7, 0], "T1-510: the first chunk stays done");
    world.memory.frame_at(AT + PAGE, Frame::Device);
    assert_eq!(read(AT + PAGE, 8).unwrap_err().errno(), 14, "T1-510");
    assert_eq!((world.memory.pins(), world.memory.charged()), (0, 0), "T1-512");
}

#[test]
fn a_copy_under_way_keeps_its_mapping() {
    // T1-582: an unmap that comes in between answers EBUSY; other mappings are free to go
    let (world, container) = world(0);
    container.map_dma(&request(AT, 1)).unwrap();
    container.map_dma(&request(2 * AT, 1)).unwrap();
    world.memory.hook(move || {
        let failed = container.unmap_dma(&UnmapDma::All).unwrap_err();
        assert_eq!((failed.error, failed.unmapped.bytes), (UnmapDmaError::Busy, 0));
        let _ = container.unmap_dma(&UnmapDma::Range { iova: 2 * AT, size: PAGE }).unwrap();
    });
    container.dma_write(AT, &[5]).unwrap();
    world.memory.unhook();
    assert_eq!(container.unmap_dma(&UnmapDma::All).unwrap().bytes, PAGE);
}

#[test]
fn a_provider_that_calls_back_can_not_deadlock_the_container() {
    // T1-582, T1-583, W-14: from every pin and every charge of a map, a pin and an attach
    let (world, container) = world(1);
    world.memory.scatter();
    holder(container, 0);
    container.attach_emulated(GROUP).unwrap();
    container.map_dma(&request(AT, 3)).unwrap();
    let depth = AtomicU64::new(0);
    let calls = Arc::new(AtomicU64::new(0));
    let count = calls.clone();
    world.memory.hook(move || {
        if depth.fetch_add(1, Ordering::Relaxed) == 0 {
            count.fetch_add(1, Ordering::Relaxed);
            container.map_dma(&request(8 * AT, 1)).unwrap();
            pin(container, 8 * AT, 1).unwrap();
            container.dma_read(8 * AT, &mut [0; 4]).unwrap();
            container.unpin_pages(8 * AT, 1);
            container.unmap_dma(&UnmapDma::Range { iova: 8 * AT, size: PAGE }).unwrap();
            container.for_each_window(drop);
            // What is being worked on answers EBUSY, or is there; it never waits.
            let _ = pin(container, AT, 1).map(|_| container.unpin_pages(AT, 1));
            let _ = container.unmap_dma(&UnmapDma::Range { iova: 4 * AT, size: 2 * PAGE });
        }
        depth.fetch_sub(1, Ordering::Relaxed);
    });
    pin(container, AT, 2).unwrap();
    let (id, _) = world.attached(0);
    container.map_dma(&request(4 * AT, 2)).unwrap();
    world.memory.unhook();
    // Two pages pinned and charged; three pinned, of which one is charged; two pinned and charged.
    assert_eq!(calls.load(Ordering::Relaxed), 4 + 4 + 4);
    drop(container.detach_group(id));
    container.unpin_pages(AT, 3);
    container.unmap_dma(&UnmapDma::All).unwrap();
    assert_eq!((world.memory.pins(), world.memory.charged()), (0, 0));
}

/// A holder that does nothing.
pub fn nobody() -> impl PinHolder + 'static {
    Calls(|_| {})
}
