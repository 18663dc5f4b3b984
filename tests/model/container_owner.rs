//! The container: pins, copies, dirty bits and addresses against unmaps and groups.

use std::sync::Arc;

use iommu::addr::IovaRange;
use iommu::container::{
    DirtyRange, DmaCopyError, PinHolder, PinPagesError, UnmapDma, UnmapDmaError, UpdateVaddr,
};
use iommu::prot::Prot;

use crate::owner::{Container, EMULATED, Session, place};
use crate::world::*;

/// Lets go of what it is told.
struct LetsGo(std::sync::Weak<Container>);

impl PinHolder for LetsGo {
    fn dma_unmap(&self, range: IovaRange) {
        if let Some(container) = self.0.upgrade() {
            container.unpin_pages(range.first().0, 1);
        }
    }
}

/// An emulated group, and a device that lets go.
fn emulate(session: &Session) {
    session.container.attach_emulated(EMULATED).unwrap();
    session.container.register_device(LetsGo(Arc::downgrade(&session.container))).unwrap();
}

fn pin(session: &Session) -> Result<(), PinPagesError> {
    let mut out = [None];
    let pinned = session.container.pin_pages(EMULATED, PAGE, Prot::RW, &mut out);
    assert_eq!(out[0], pinned.is_ok().then(|| place(PAGE)));
    pinned
}

#[test]
fn pin_against_unmap() {
    // T1-370, T1-469: the holder is told, or the pin comes too late.
    for attached in [true, false] {
        explore(&format!("container: pin, unmap ({attached})"), move |world| {
            let session = Session::open(world, false);
            emulate(&session);
            if attached {
                session.attach(&world.device(1));
            }
            session.map(PAGE);
            let pinner = session.spawn(pin);
            assert_eq!(session.try_unmap(PAGE), Some(0x1000));
            let pinned = pinner.join().unwrap();
            let late = [PinPagesError::InvalidArg, PinPagesError::Busy];
            assert!(pinned.is_ok() || late.contains(&pinned.unwrap_err()));
            assert_eq!(session.container.pinned_pages(), 0, "no pin without its mapping");
            session.check(&[], if attached { &[1] } else { &[] }, &[]);
            session.close();
        });
    }
}

#[test]
fn pin_and_unpin_against_the_first_attach_and_the_last_detach() {
    // T1-252, T1-255: who is charged for the page changes hands; it is charged once.
    for unpins in [false, true] {
        let name = format!("container: pin and unpin ({unpins}), attach and detach");
        explore_within(4, &name, move |world| {
            let (session, group) = (Session::open(world, false), world.device(1));
            emulate(&session);
            session.map(PAGE);
            let pinner = session.spawn(move |session| {
                let pinned = pin(session);
                if pinned.is_ok() && unpins {
                    assert_eq!(session.container.unpin_pages(PAGE, 1), 1);
                }
                pinned
            });
            let id = session.attach(&group);
            session.detach(id);
            let pinned = pinner.join().unwrap();
            assert!(matches!(pinned, Ok(()) | Err(PinPagesError::Busy)));
            let held = usize::from(pinned.is_ok() && !unpins);
            assert_eq!(session.container.pinned_pages(), held);
            session.check(&[PAGE], &[], &[]);
            session.close();
        });
    }
}

#[test]
fn two_pins_of_one_page() {
    // T1-471: two references, one pin.
    explore_within(2, "container: pin, pin, map", |world| {
        let session = Session::open(world, true);
        emulate(&session);
        session.attach(&world.device(1));
        session.map(PAGE);
        let (one, other) = (session.spawn(pin), session.spawn(pin));
        session.map(OTHER);
        let both = join(one, other);
        assert_eq!(both, (Ok(()), Ok(())));
        session.check(&[PAGE, OTHER], &[1], &[]);
        assert_eq!(session.container.unpin_pages(PAGE, 1), 1);
        assert_eq!(session.container.pinned_pages(), 1);
        assert_eq!(session.container.unpin_pages(PAGE, 1), 1);
        session.check(&[PAGE, OTHER], &[1], &[]);
        session.close();
    });
}

#[test]
fn registering_against_an_unmap_that_tells() {
    // T1-493: the list changes while its members are called; nobody is called after it is gone.
    explore("container: register, unregister, unmap of a held page", |world| {
        let session = Session::open(world, false);
        emulate(&session);
        session.map(PAGE);
        pin(&session).unwrap();
        let other = session.spawn(|session| {
            let holder = LetsGo(Arc::downgrade(&session.container));
            let id = session.container.register_device(holder).unwrap();
            assert!(session.container.unregister_device(id));
        });
        session.unmap(PAGE);
        other.join().unwrap();
        session.check(&[], &[], &[]);
        session.close();
    });
}

#[test]
fn a_copy_against_unmap_and_detach() {
    // T1-507: a copy has its mapping until it ends.
    explore("container: copy, unmap, detach", |world| {
        let session = Session::open(world, false);
        let group = session.attach(&world.device(1));
        session.map(PAGE);
        let copier = session.spawn(|session| session.container.dma_write(PAGE, &[1; 4]));
        let gone = session.try_unmap(PAGE);
        session.detach(group);
        let copied = copier.join().unwrap();
        assert!(matches!(copied, Ok(()) | Err(DmaCopyError::InvalidArg)), "{copied:?}");
        if gone.is_none() {
            assert_eq!(copied, Ok(()), "it was in the way");
        }
        assert_eq!(session.container.mapping_count(), 0);
        session.close();
    });
}

fn bits(session: &Session) -> Option<u64> {
    let range = DirtyRange { iova: PAGE, size: 0x8000, page_size: 0x1000 };
    let mut words = [0];
    session.container.read_dirty(&range, &mut words[..]).ok().map(|()| u64::from_le(words[0]))
}

#[test]
fn dirty_bits_against_copies_maps_and_unmaps() {
    // T1-439, T1-511: a write is told by one look or the other, and never by both.
    explore_within(3, "container: dirty GET; copy; map and unmap", |world| {
        let session = Session::open(world, false);
        session.map(PAGE);
        session.container.start_dirty_tracking().unwrap();
        let writer = session.spawn(|session| {
            session.container.dma_write(PAGE, &[1]).unwrap();
        });
        let mapper = session.spawn(|session| {
            session.map(OTHER);
            session.unmap(OTHER);
        });
        let first = bits(&session).expect("tracking is on");
        join(writer, mapper);
        let second = bits(&session).expect("tracking is on");
        assert_eq!((first | second, first & second), (1, 0));
        session.check(&[PAGE], &[], &[]);
        session.close();
    });
}

#[test]
fn dirty_bits_against_a_group_that_leaves() {
    // T1-236: what it wrote is told by the look that comes after.
    explore("container: dirty GET, detach with an emulated group", |world| {
        let session = Session::open(world, false);
        emulate(&session);
        let group = session.attach(&world.device(1));
        session.map(PAGE);
        session.container.start_dirty_tracking().unwrap();
        let leaver = session.spawn(move |session| session.detach(group));
        let first = bits(&session).expect("tracking is on");
        leaver.join().unwrap();
        let second = bits(&session).expect("tracking is on");
        assert_eq!(first | second, 1, "a look may have come before, but not both");
        assert_eq!(bits(&session), Some(0));
        session.check(&[PAGE], &[], &[]);
        session.close();
    });
}

#[test]
fn tracking_begins_and_ends_while_memory_is_mapped() {
    // T1-040, T1-275: every mapping has bits, or none has.
    explore("container: start, map, unmap, stop", |world| {
        let session = Session::open(world, false);
        session.attach(&world.device(1));
        session.map(OTHER);
        let mapper = session.spawn(|session| {
            session.map(PAGE);
            session.unmap(OTHER);
        });
        session.container.start_dirty_tracking().unwrap();
        let seen = bits(&session).expect("tracking is on");
        assert_eq!(seen & !0x81, 0, "only what was mapped");
        mapper.join().unwrap();
        session.check(&[PAGE], &[1], &[]);
        assert_eq!(bits(&session), Some(1));
        session.container.stop_dirty_tracking().unwrap();
        session.check(&[PAGE], &[1], &[]);
        session.close();
    });
}

#[test]
fn a_look_against_the_end_of_tracking() {
    explore_within(3, "container: dirty GET, stop, unmap with bits", |world| {
        let session = Session::open(world, false);
        session.attach(&world.device(1));
        session.map(PAGE);
        session.container.start_dirty_tracking().unwrap();
        let stopper = session.spawn(|session| session.container.stop_dirty_tracking().unwrap());
        let unmapper = session.spawn(|session| {
            let range = DirtyRange { iova: PAGE, size: 0x1000, page_size: 0x1000 };
            let mut words = [0];
            let gone = session.container.unmap_dma_dirty(&range, &mut words[..]);
            gone.map(|gone| gone.bytes).map_err(|failed| failed.error)
        });
        assert!(matches!(bits(&session), None | Some(0 | 1)));
        stopper.join().unwrap();
        match unmapper.join().unwrap() {
            Ok(0x1000) => session.check(&[], &[1], &[]),
            Err(UnmapDmaError::InvalidArg) => session.check(&[PAGE], &[1], &[]),
            other => panic!("{other:?}"),
        }
        session.close();
    });
}

#[test]
fn addresses_move_while_a_group_comes() {
    // T1-150, T1-403: one of them is first.
    explore("container: invalidate and update, attach", |world| {
        let (session, group) = (Session::open(world, false), world.device(1));
        session.map(PAGE);
        let mover =
            session.spawn(|session| match session.container.invalidate_vaddr(&UnmapDma::All) {
                Ok(void) => {
                    assert_eq!(void.bytes, 0x1000);
                    let update = UpdateVaddr { iova: PAGE, vaddr: PAGE, size: 0x1000 };
                    session.container.update_vaddr(&update).unwrap();
                }
                Err(failed) => assert_eq!(failed.error, UnmapDmaError::Busy),
            });
        let refused = session.container.attach_group(claim(&group)).err();
        mover.join().unwrap();
        if let Some(refused) = refused {
            assert_eq!(refused.error.errno(), 16);
            session.container.attach_group(refused.ownership).unwrap();
        }
        session.check(&[PAGE], &[1], &[]);
        session.close();
    });
}
