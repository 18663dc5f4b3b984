//! The glue between this machine and the drivers of the crate `virtio-drivers`: what a kernel that
//! uses them has, before any IOMMU.
#![expect(unsafe_code, reason = "implements the contract of `virtio_drivers::Hal`")]

use core::num::NonZeroUsize;
use core::ptr::NonNull;

use iommu::pci::PciConfig;
use iommu::platform::{DmaPages, Platform};
use iommu_runtime::pci::{Config, Function};
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

use crate::machine::{Machine, PLATFORM};

/// Memory and registers, mapped one to one.
#[derive(Debug)]
pub enum Ram {}

// SAFETY: memory is mapped one to one, and handed out once; so are registers.
unsafe impl Hal for Ram {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let none = (0, NonNull::dangling());
        let Some(pages) = NonZeroUsize::new(pages) else { return none };
        PLATFORM.alloc_dma(pages).map_or(none, |memory| (memory.device.0, memory.cpu))
    }

    unsafe fn dma_dealloc(phys: PhysAddr, cpu: NonNull<u8>, pages: usize) -> i32 {
        let Some(pages) = NonZeroUsize::new(pages) else { return -1 };
        // SAFETY: the caller's promise: `dma_alloc` gave it.
        unsafe { PLATFORM.free_dma(DmaPages { cpu, device: iommu::addr::PhysAddr(phys), pages }) };
        0
    }

    unsafe fn mmio_phys_to_virt(phys: PhysAddr, _: usize) -> NonNull<u8> {
        let place = core::ptr::with_exposed_provenance_mut(phys as usize);
        NonNull::new(place).expect("no BAR is at address 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr().expose_provenance() as u64
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// Configuration space of one function, whichever is asked for.
struct OneFunction(Config);

impl ConfigurationAccess for OneFunction {
    fn read_word(&self, _: DeviceFunction, register_offset: u8) -> u32 {
        self.0.read_u32(register_offset.into())
    }

    fn write_word(&mut self, _: DeviceFunction, register_offset: u8, data: u32) {
        self.0.write_u32(register_offset.into(), data);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self(self.0)
    }
}

/// The transport of a virtio device on PCI.
///
/// # Panics
///
/// When it is none.
#[must_use]
pub fn transport(machine: &Machine, function: &Function) -> PciTransport {
    let mut root = PciRoot::new(OneFunction(machine.pci.config(function)));
    let [number, bus] = function.id.to_le_bytes();
    let place = DeviceFunction { bus, device: number >> 3, function: number & 7 };
    PciTransport::new::<Ram, _>(&mut root, place).expect("it is a virtio device")
}
