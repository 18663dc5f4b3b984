//! What a device may do with a mapping.

use bitflags::bitflags;

bitflags! {
    /// Permissions and attributes of a mapping, seen from the device (rule C-158).
    ///
    /// At least [`READ`](Self::READ) or [`WRITE`](Self::WRITE) is needed (rule C-159), and
    /// [`MMIO`](Self::MMIO) excludes [`CACHE`](Self::CACHE) (rule D-24); map calls check both.
    /// The bits are those of Linux `IOMMU_READ` and its siblings.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct Prot: u32 {
        /// The device may read.
        const READ = 1;
        /// The device may write.
        const WRITE = 2;
        /// Accesses are cache coherent. Dropped by drivers that can't express it.
        const CACHE = 4;
        /// Instruction fetch is refused; a promise only where the unit says it can.
        const NOEXEC = 8;
        /// The target is device memory: a doorbell, another device's registers.
        const MMIO = 16;
    }
}

impl Prot {
    /// READ and WRITE.
    pub const RW: Self = Self::READ.union(Self::WRITE);

    /// Whether a mapping may be made with these flags.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.intersects(Self::RW) && !self.contains(Self::MMIO.union(Self::CACHE))
    }
}
