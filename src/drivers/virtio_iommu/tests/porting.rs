//! The usual mistakes of a port: found before the device is set up, and told with their fix.
#![expect(unsafe_code, reason = "a platform that breaks its promises on purpose")]

use core::num::NonZeroUsize;
use std::string::ToString;

use super::*;
use crate::error::OutOfMemory;
use crate::platform::{DmaPages, Platform};
use crate::virtio::DeviceStatus;

/// A platform whose clock stands, and whose memory is used: the two that no device shows.
struct BadPort {
    machine: FakeMachine,
    clock: bool,
}

// SAFETY: memory is the fake machine's; what it says is wrong, not what it gives.
unsafe impl Platform for BadPort {
    fn alloc_dma(&self, pages: NonZeroUsize) -> Result<DmaPages, OutOfMemory> {
        let mut memory = self.machine.alloc_dma(pages)?;
        if self.clock {
            memory.device = PhysAddr(memory.device.0 + 8);
        }
        Ok(memory)
    }

    unsafe fn free_dma(&self, mut memory: DmaPages) {
        if self.clock {
            memory.device = PhysAddr(memory.device.0 - 8);
        }
        // SAFETY: the memory came from the machine, at its own address again.
        unsafe { self.machine.free_dma(memory) };
    }

    fn now_ns(&self) -> u64 {
        if self.clock { self.machine.now_ns() } else { 7 }
    }
}

#[test]
fn a_port_with_a_mistake_is_refused_before_the_device_is_set_up() {
    for (clock, part) in [(false, "stands still at 7"), (true, "misaligned memory")] {
        let machine = FakeMachine::new(FakeConfig::default());
        let port = BadPort { machine: machine.clone(), clock };
        let before = machine.register_accesses();
        let unit = VirtioIommu::new(port, machine.transport(), &POOL, QUICK);
        let error = unit.expect_err("this port must be refused");
        assert!(matches!(error, InitError::Platform(_)), "{error:?}");
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!((error.errno(), machine.pages()), (22, 0));
        // Who it is; and the reset, after which memory may go back.
        let accesses = machine.register_accesses() - before;
        assert!(accesses <= if clock { 4 } else { 1 }, "{accesses} accesses");
        assert_eq!(machine.status(), DeviceStatus::empty());
    }
}

#[test]
fn what_a_porter_meets_is_told_with_what_to_do() {
    let told = [
        (InitError::NoAnswer, "bus mastering on"),
        (InitError::NoReset, "are these its registers"),
        (InitError::FeaturesRefused, "own_dma_is_identity"),
        (InitError::GranuleTooLarge { granule: 0x1_0000 }, "Platform::page_size"),
        (InitError::OutOfMemory, "give it contiguous pages"),
        (InitError::NotAnIommu { device_id: 4 }, "device 4 is not an IOMMU"),
        (InitError::BypassStuck, "can't block"),
    ];
    for (error, part) in told {
        assert!(error.to_string().contains(part), "{error}");
    }
}
