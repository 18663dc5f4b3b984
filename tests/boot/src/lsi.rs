//! A DMA engine for machines without message-signalled interrupts, where `edu` can't be: the SCSI
//! controller LSI53C895A (1000:0012). It runs scripts, and one of their instructions copies memory.
//!
//! The script is fetched through the IOMMU as well, so it has to be mapped, below 4 GiB.

use iommu::virtio::transport::MmioRegion;
use iommu_runtime::dma::Buffer;

/// PCI vendor and device id.
pub const IDS: (u16, u16) = (0x1000, 0x0012);
/// The BAR with the registers, in memory.
pub const BAR: usize = 1;

/// DMA status, in byte 0; reading it clears the interrupt.
const DSTAT: usize = 0x0c;
const DSTAT_SCRIPT_INTERRUPT: u32 = 1 << 2;
/// Interrupt status, in byte 0.
const ISTAT: usize = 0x14;
const ISTAT_DMA_PENDING: u32 = 1;
/// Where the script goes on; writing its last byte starts it.
const DSP: usize = 0x2c;

const MOVE_MEMORY: u32 = 0xc000_0000;
const INTERRUPT: u32 = 0x9808_0000;

/// One controller.
#[derive(Clone, Copy, Debug)]
pub struct Lsi {
    registers: MmioRegion,
}

impl Lsi {
    /// Takes the controller with these registers.
    #[must_use]
    pub fn new(registers: MmioRegion) -> Self {
        Self { registers }
    }

    /// Copies `len` bytes from bus address `from` to bus address `to`, with a script in `script`,
    /// which the device finds at `at`. True if the script came to its end by `deadline_ns`.
    #[must_use]
    pub fn copy(
        &self,
        (script, at): (&Buffer, u32),
        from: u32,
        to: u32,
        len: u16,
        clock: impl Fn() -> u64,
        deadline_ns: u64,
    ) -> bool {
        let words = [MOVE_MEMORY | u32::from(len), from, to, INTERRUPT, 0];
        for (index, byte) in words.iter().flat_map(|word| word.to_le_bytes()).enumerate() {
            script.write(index, byte);
        }
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        self.registers.write_u32(DSP, at);
        while self.registers.read_u32(ISTAT) & ISTAT_DMA_PENDING == 0 {
            if clock() > deadline_ns {
                return false;
            }
            core::hint::spin_loop();
        }
        let status = self.registers.read_u32(DSTAT);
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        status & DSTAT_SCRIPT_INTERRUPT != 0
    }
}
