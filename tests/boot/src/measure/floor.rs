//! The floor: one request, there and back, and nothing else. No lock, no record, no check of what the
//! device answers but its status; one chain of two descriptors that never changes.
//!
//! What the library adds to this is the price of everything it keeps and checks.
#![expect(unsafe_code, reason = "writes a ring of its own in DMA memory")]

use core::num::NonZeroUsize;
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, fence};

use iommu::platform::{DmaPages, Platform};
use iommu::virtio::transport::{QueueSetup, Transport};
use iommu::virtio::{DeviceStatus, F_VERSION_1};

use super::meter::{Cost, Costs, MOST, Name, instructions, overhead};
use crate::machine::PLATFORM;

const QUEUE: u16 = 0;
const SIZE: u16 = 64;
/// Where the parts are in the page.
const AVAILABLE: usize = 0x400;
const USED: usize = 0x800;
const REQUEST: usize = 0xc00;
const TAIL: usize = 0xc40;
const TAIL_LEN: u32 = 4;
const DOMAIN: u32 = 1;
const MAP_UNMAP: u64 = 1 << 2;

/// What each call sends.
const ONE: Cost = Cost { instructions: 0, requests: 1, notifies: 1, ns: 0 };
const ATTACH: u8 = 1;
const MAP: u8 = 3;
const UNMAP: u8 = 4;

/// A queue of one chain.
struct Bare<T> {
    transport: T,
    page: NonNull<u8>,
    index: u16,
}

/// Measures a MAP and an UNMAP on the bare device, and resets it.
///
/// # Panics
///
/// When the device does not take the requests.
pub fn measure<T: Transport>(transport: T, endpoint: u32) {
    let pages = PLATFORM.alloc_dma(NonZeroUsize::MIN).expect("there is a page");
    let DmaPages { cpu, device, .. } = pages;
    let mut bare = Bare { transport, page: cpu, index: 0 };
    bare.start(device.0);
    // Domain, endpoint, flags, reserved.
    bare.write(REQUEST, u32::from(ATTACH));
    bare.write(REQUEST + 4, DOMAIN);
    bare.write(REQUEST + 8, endpoint);
    bare.set_len(20);
    assert_eq!(bare.round_trip(), 0, "the bare ATTACH is refused");

    let (mut map, mut unmap) = (Costs::default(), Costs::default());
    let empty = overhead();
    for _ in 0..MOST {
        bare.set_len(36);
        let (status, count) = instructions(empty, || bare.map(0x10_0000, 0x10_0fff, 0x4000_0000));
        assert_eq!(status, 0, "the bare MAP is refused");
        map.push(Cost { instructions: count, ..ONE });
        bare.set_len(28);
        let (status, count) = instructions(empty, || bare.unmap(0x10_0000, 0x10_0fff));
        assert_eq!(status, 0, "the bare UNMAP is refused");
        unmap.push(Cost { instructions: count, ..ONE });
    }
    map.tell(Name::of("floor_map"));
    unmap.tell(Name::of("floor_unmap"));

    bare.transport.set_status(DeviceStatus::empty());
    while !bare.transport.status().is_empty() {
        core::hint::spin_loop();
    }
    // SAFETY: the device confirmed the reset, and `bare` is not used any more.
    unsafe { PLATFORM.free_dma(pages) };
}

impl<T: Transport> Bare<T> {
    fn start(&mut self, device: u64) {
        let status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        self.transport.set_status(DeviceStatus::empty());
        self.transport.set_status(status);
        self.transport.set_driver_features(F_VERSION_1 | MAP_UNMAP);
        self.transport.set_status(status | DeviceStatus::FEATURES_OK);
        let setup = QueueSetup {
            size: SIZE,
            descriptors: iommu::addr::PhysAddr(device),
            available: iommu::addr::PhysAddr(device + AVAILABLE as u64),
            used: iommu::addr::PhysAddr(device + USED as u64),
        };
        self.transport.enable_queue(QUEUE, &setup).expect("the device has a request queue");
        // Chain 0: a descriptor to be read, with a next one, to be written.
        self.write(0, device + REQUEST as u64);
        self.write(12, 1_u16);
        self.write(14, 1_u16);
        self.write(16, device + TAIL as u64);
        self.write(24, TAIL_LEN);
        self.write(28, 2_u16);
        self.write(AVAILABLE, 1_u16); // no interrupts
        self.transport.set_status(status | DeviceStatus::FEATURES_OK | DeviceStatus::DRIVER_OK);
    }

    fn set_len(&mut self, len: u32) {
        self.write(8, len);
    }

    #[inline(never)]
    fn map(&mut self, first: u64, last: u64, phys: u64) -> u8 {
        self.write(REQUEST, u32::from(MAP));
        self.write(REQUEST + 4, DOMAIN);
        self.write(REQUEST + 8, first);
        self.write(REQUEST + 16, last);
        self.write(REQUEST + 24, phys);
        self.write(REQUEST + 32, 3_u32); // read, write
        self.round_trip()
    }

    #[inline(never)]
    fn unmap(&mut self, first: u64, last: u64) -> u8 {
        self.write(REQUEST, u32::from(UNMAP));
        self.write(REQUEST + 4, DOMAIN);
        self.write(REQUEST + 8, first);
        self.write(REQUEST + 16, last);
        self.write(REQUEST + 24, 0_u32);
        self.round_trip()
    }

    /// Sends what is in the chain and returns the status.
    #[inline(always)]
    fn round_trip(&mut self) -> u8 {
        self.write(TAIL, 0xff_u8);
        self.write(AVAILABLE + 4 + usize::from(self.index % SIZE) * 2, 0_u16);
        self.index = self.index.wrapping_add(1);
        fence(Ordering::SeqCst);
        self.write(AVAILABLE + 2, self.index);
        fence(Ordering::SeqCst);
        self.transport.notify(QUEUE);
        while self.read::<u16>(USED + 2) != self.index {
            core::hint::spin_loop();
        }
        fence(Ordering::SeqCst);
        self.read(TAIL)
    }

    fn write<V>(&mut self, at: usize, value: V) {
        // SAFETY: the places above lie inside of the page, aligned for what is written there.
        let place = unsafe { self.page.add(at) };
        // SAFETY: as above; the page is ours, and the device only reads what it was shown.
        unsafe { place.cast::<V>().write_volatile(value) };
    }

    fn read<V: Copy>(&self, at: usize) -> V {
        // SAFETY: as in `write`.
        let place = unsafe { self.page.add(at) };
        // SAFETY: as above; every value of the numbers that are read here is one.
        unsafe { place.cast::<V>().read_volatile() }
    }
}
