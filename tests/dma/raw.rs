//! By address: what adapters of other crates use.
#![expect(unsafe_code, reason = "maps by address")]

use core::ptr::NonNull;

use iommu::addr::{Iova, PhysAddr};
use iommu::dma::{Direction, DmaDevice, DmaOptions};
use iommu::driver::Health;
use iommu::error::DmaError;
use iommu::fault::Access;
use iommu::sim::Refusal;

use crate::fixture::{Dma, ME, PAGE, World, aligned, deferred};

/// Maps a buffer that lives for ever.
fn map(dma: &Dma, buffer: &mut [u8]) -> Iova {
    // SAFETY: the tests' buffers live for ever, and are not touched while they are mapped.
    unsafe { dma.map_raw(NonNull::from(buffer), Direction::Bidirectional) }.unwrap()
}

fn unmap(dma: &Dma, iova: Iova) -> Result<(), DmaError> {
    // SAFETY: as in `map`.
    unsafe { dma.unmap_raw(iova) }
}

#[test]
fn an_unmap_finds_the_record_by_the_address_alone() {
    let world = World::new();
    let dma = world.plain();
    let before = world.usage();
    let memory = aligned(PAGE);
    let iova = map(&dma, &mut memory[0x80..0x90]);
    assert_eq!(iova.0 % 0x1000, 0x80);
    assert!(world.write(ME, iova.0, &[9; 16]));
    for wrong in [iova.0 - 1, iova.0 + 1, iova.0 & !0xfff, iova.0 + 0x1000, 0] {
        assert_eq!(unmap(&dma, Iova(wrong)), Err(DmaError::NotMapped), "{wrong:#x}");
    }
    assert_eq!(unmap(&dma, iova), Ok(()));
    assert_eq!(memory[0x7f..0x91], [&[0][..], &[9; 16], &[0]].concat());
    assert_eq!(unmap(&dma, iova), Err(DmaError::NotMapped), "twice");
    let after = world.usage_of(&dma);
    assert_eq!((after.0, after.2), (before.0, before.2));
}

#[test]
fn a_handle_unmaps_nothing_of_another_one() {
    let world = World::new();
    let one = world.plain();
    let group = world.join(9, Some(ME));
    let two = DmaDevice::new(&group, world.machine, &DmaOptions::default()).unwrap();
    let iova = map(&one, aligned(PAGE));
    assert_eq!(unmap(&two, iova), Err(DmaError::NotMapped));
    assert!(world.reaches(iova.0, Access::READ));
    assert_eq!(unmap(&one.clone(), iova), Ok(()), "a clone is the same handle");
}

#[test]
fn memory_in_one_piece_needs_no_platform_to_be_found() {
    let world = World::new();
    let dma = world.plain();
    world.machine.know_addresses(false);
    let memory = aligned(3 * PAGE);
    memory.fill(3);
    let phys = PhysAddr(memory.as_ptr().expose_provenance() as u64);
    let buffer = NonNull::from(&mut memory[0x10..0x2010]);
    let phys = PhysAddr(phys.0 + 0x10);
    // SAFETY: the buffer lives for ever, and is where it says.
    let iova = unsafe { dma.map_raw_at(buffer, phys, Direction::Bidirectional) }.unwrap();
    assert_eq!(world.machine.pages(), 2, "head and tail");
    assert_eq!(world.leads_to(iova.0 + 0xff0), Some(PhysAddr(phys.0 + 0xff0)));
    assert_eq!(world.read(ME, iova.0, 0x2000), Some(vec![3; 0x2000]));
    unmap(&dma, iova).unwrap();
    // Its place in the page is that of the memory, whatever the CPU's address is.
    let buffer = NonNull::from(&mut memory[0x11..0x20]);
    // SAFETY: as above; a buffer inside one granule is bounced, wherever it is.
    let iova = unsafe { dma.map_raw_at(buffer, PhysAddr(0x4_0123), Direction::ToDevice) }.unwrap();
    assert_eq!((iova.0 % 0x1000, world.read(ME, iova.0, 15)), (0x123, Some(vec![3; 15])));
    unmap(&dma, iova).unwrap();
    // SAFETY: refused before anything is touched.
    let wraps = unsafe { dma.map_raw_at(buffer, PhysAddr(u64::MAX - 3), Direction::ToDevice) };
    assert_eq!(wraps, Err(DmaError::Overflow));
}

#[test]
fn syncs_by_address() {
    let world = World::new();
    let dma = world.plain();
    let memory = aligned(PAGE);
    let iova = map(&dma, &mut memory[0x100..0x180]);
    assert!(world.write(ME, iova.0, b"device"));
    assert_eq!(memory[0x100], 0);
    // SAFETY: the buffer lives for ever.
    unsafe { dma.sync_for_cpu(iova) }.unwrap();
    assert_eq!(&memory[0x100..0x106], b"device");
    memory[0x100] = b'D';
    // SAFETY: as above.
    unsafe { dma.sync_for_device(iova) }.unwrap();
    assert_eq!(world.read(ME, iova.0, 6).unwrap(), b"Device");
    // SAFETY: nothing is mapped there.
    assert_eq!(unsafe { dma.sync_for_cpu(Iova(0x1000)) }, Err(DmaError::NotMapped));
    unmap(&dma, iova).unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { dma.sync_for_device(iova) }, Err(DmaError::NotMapped));
}

#[test]
fn a_list_by_address_has_its_segments_handed_out() {
    let world = World::new();
    let dma = world.plain();
    let (one, two) = (aligned(2 * PAGE), aligned(PAGE));
    two.fill(2);
    let buffers = [NonNull::from(&mut one[..]), NonNull::from(&mut two[..10])];
    let mut segments = Vec::new();
    // SAFETY: the buffers live for ever.
    let iova =
        unsafe { dma.map_raw_list(buffers, Direction::ToDevice, |segment| segments.push(segment)) };
    let iova = iova.unwrap();
    assert_eq!((segments.len(), segments[0].len), (1, 0x200a));
    assert_eq!(world.read(ME, iova.0 + 0x2000, 1), Some(vec![2]));
    unmap(&dma, iova).unwrap();
    // SAFETY: nothing is mapped.
    let none = unsafe { dma.map_raw_list([], Direction::ToDevice, |_| {}) };
    assert_eq!(none, Err(DmaError::InvalidArg));
}

#[test]
fn what_was_forgotten_ends_with_the_last_handle() {
    let world = World::lazy();
    let group = world.join(ME, None);
    let before = world.usage();
    let one = DmaDevice::new(&group, world.machine, &deferred(100)).unwrap();
    let two = DmaDevice::new(&group, world.machine, &DmaOptions::default()).unwrap();
    let other = map(&two, &mut aligned(PAGE)[1..]);
    let forgotten = [map(&one, &mut aligned(PAGE)[1..]), map(&one, aligned(2 * PAGE))];
    let waiting = map(&one, &mut aligned(PAGE)[1..]);
    // SAFETY: the buffer lives for ever.
    let ticket = unsafe { one.defer_raw(waiting) }.unwrap();
    assert!(!one.is_flushed(ticket));
    drop(one);
    for iova in forgotten.into_iter().chain([waiting]) {
        assert!(!world.reaches(iova.0, Access::READ));
    }
    assert!(world.reaches(other.0, Access::READ), "the other handle's is its own");
    assert_eq!(two.mapping_count(), 1);
    drop(two);
    assert!(!world.reaches(other.0, Access::READ));
    assert_eq!(world.usage(), before);
}

#[test]
fn an_unmap_that_is_not_confirmed_leaks_on_purpose() {
    let world = World::new();
    let dma = world.plain();
    let memory: &'static mut [u8] = &mut aligned(PAGE)[1..];
    let iova = map(&dma, memory);
    let held = world.machine.pages();
    world.sim.refuse(0, Refusal::ONCE);
    assert_eq!(unmap(&dma, iova), Err(DmaError::Io));
    assert_eq!((world.sim.refuse_none(), world.instance.health()), (1, Health::Poisoned));
    assert_eq!(unmap(&dma, iova), Err(DmaError::NotMapped), "it is out of use");
    assert_eq!((dma.mapping_count(), world.machine.pages()), (1, held), "and stays so");
    let next = dma.map(&mut aligned(PAGE)[1..], Direction::ToDevice);
    if let Ok(next) = next {
        assert_ne!(next.iova().0 & !0xfff, iova.0 & !0xfff);
        assert!(world.machine.pages() > held, "through another page");
    }
    drop(dma);
    assert!(world.machine.pages() >= held);
}

#[test]
fn a_mapping_whose_unmap_is_not_confirmed_gives_no_buffer_back() {
    struct Tracked(Box<[u8]>, &'static core::sync::atomic::AtomicUsize);
    impl Drop for Tracked {
        fn drop(&mut self) {
            self.1.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        }
    }
    // SAFETY: a box that is taken apart, and put together at the end.
    unsafe impl iommu::dma::DmaBuffer for Tracked {
        const WRITABLE: bool = true;
        fn into_raw(self) -> NonNull<[u8]> {
            let mut this = core::mem::ManuallyDrop::new(self);
            NonNull::from(Box::leak(core::mem::take(&mut this.0)))
        }
        unsafe fn from_raw(raw: NonNull<[u8]>) -> Self {
            // SAFETY: the caller's promise.
            Self(unsafe { Box::from_raw(raw.as_ptr()) }, &DROPPED)
        }
    }
    static DROPPED: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);
    let dropped = || DROPPED.load(core::sync::atomic::Ordering::Relaxed);
    let world = World::new();
    let dma = world.plain();
    let buffer = || Tracked(vec![0; 64].into(), &DROPPED);
    drop(dma.map(buffer(), Direction::ToDevice).unwrap());
    assert_eq!(dropped(), 1, "the control");
    for by_drop in [false, true] {
        let mapped = dma.map(buffer(), Direction::ToDevice).unwrap();
        world.sim.refuse(0, Refusal::ONCE);
        if by_drop {
            drop(mapped);
        } else {
            assert_eq!(mapped.unmap().err(), Some(DmaError::Io));
        }
        assert_eq!((world.sim.refuse_none(), dropped()), (1, 1), "leaked");
    }
}
