//! What is on the disks of the boot images: written by the host before a boot, read and in part
//! replaced by the image, and looked at by the host afterwards.
//!
//! The tool in `qemu/` has this file as a module of its own, so that both sides have one definition;
//! it names nothing but `core`.

use core::ops::Range;

/// Bytes of a sector.
pub const SECTOR: usize = 512;
/// Sectors of a disk.
pub const SECTORS: u64 = SCRATCH.end;
/// What nobody writes.
pub const KEPT: Range<u64> = 0..512;
/// What the image of the device drivers replaces, all of it.
pub const REPLACED: Range<u64> = 512..1024;
/// Where an image may leave what it likes.
pub const SCRATCH: Range<u64> = 1024..2048;

/// Which disk, and when: each has bytes of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// The disk of the virtio-blk, as the host makes it.
    Blk,
    /// The disk of the NVMe, as the host makes it.
    Nvme,
    /// What the image puts into [`REPLACED`] of the virtio-blk.
    NewBlk,
    /// What the image puts into [`REPLACED`] of the NVMe.
    NewNvme,
}

impl Content {
    /// The byte at `at` of a sector. Never 0 and never 0xee, which memory is filled with.
    #[must_use]
    pub fn byte(self, sector: u64, at: usize) -> u8 {
        let seed = match self {
            Self::Blk => 3,
            Self::Nvme => 59,
            Self::NewBlk => 101,
            Self::NewNvme => 157,
        };
        (1 + (sector * 37 + at as u64 * 31 + (at as u64 >> 8) + seed) % 200) as u8
    }
}
