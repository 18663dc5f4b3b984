//! The structures as they lie in user memory (rules T1-540 to T1-549). No algorithm.
//!
//! Offsets are checked by hand-written bytes in `tests/abi`, sizes at the end of this file. Padding
//! is spelled out, so that a structure is all bytes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// GET_INFO: the page sizes are valid (rule T1-521).
pub(super) const INFO_PGSIZES: u32 = 1 << 0;
/// GET_INFO: there is a capability chain (rule T1-522).
pub(super) const INFO_CAPS: u32 = 1 << 1;

/// Capability: ranges of usable IOVAs.
pub(super) const CAP_IOVA_RANGE: u16 = 1;
/// Capability: dirty tracking.
pub(super) const CAP_MIGRATION: u16 = 2;
/// Capability: how many mappings may still be made.
pub(super) const CAP_DMA_AVAIL: u16 = 3;
/// The version of all three.
pub(super) const CAP_VERSION: u16 = 1;

/// MAP: the device may read.
pub(super) const MAP_READ: u32 = 1 << 0;
/// MAP: the device may write.
pub(super) const MAP_WRITE: u32 = 1 << 1;
/// MAP: a new address for a mapping whose old one is invalid.
pub(super) const MAP_VADDR: u32 = 1 << 2;

/// UNMAP: hands the dirty bits out.
pub(super) const UNMAP_GET_DIRTY: u32 = 1 << 0;
/// UNMAP: every mapping.
pub(super) const UNMAP_ALL: u32 = 1 << 1;
/// UNMAP: makes addresses invalid, unmaps nothing.
pub(super) const UNMAP_VADDR: u32 = 1 << 2;

/// DIRTY_PAGES: tracking on.
pub(super) const DIRTY_START: u32 = 1 << 0;
/// DIRTY_PAGES: tracking off.
pub(super) const DIRTY_STOP: u32 = 1 << 1;
/// DIRTY_PAGES: reads the bits of a range.
pub(super) const DIRTY_GET: u32 = 1 << 2;

/// The part of `info` that must be there (rule T1-520).
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct InfoHead {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) iova_pgsizes: u64,
}

/// `info` (rule T1-540).
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct InfoStruct {
    pub(super) head: InfoHead,
    pub(super) cap_offset: u32,
    pub(super) pad: u32,
}

/// Capability header (rule T1-541).
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct CapHead {
    pub(super) id: u16,
    pub(super) version: u16,
    /// From the start of `info`; 0 ends the chain.
    pub(super) next: u32,
}

/// The fixed part of the IOVA range capability (rule T1-542).
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct CapIovaRange {
    pub(super) head: CapHead,
    pub(super) nr_iovas: u32,
    pub(super) reserved: u32,
}

/// One range of the IOVA range capability (rule T1-542).
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct RangeStruct {
    pub(super) start: u64,
    /// Inclusive.
    pub(super) end: u64,
}

/// The migration capability (rule T1-543).
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct CapMigration {
    pub(super) head: CapHead,
    pub(super) flags: u32,
    pub(super) pad: u32,
    pub(super) pgsize_bitmap: u64,
    pub(super) max_dirty_bitmap_size: u64,
}

/// The capability of free mappings (rule T1-544), padded to 8 bytes (rule T1-523).
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct CapDmaAvail {
    pub(super) head: CapHead,
    pub(super) avail: u32,
    pub(super) pad: u32,
}

/// `dma_map` (rule T1-545).
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct MapStruct {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) vaddr: u64,
    pub(super) iova: u64,
    pub(super) size: u64,
}

/// `dma_unmap` without its data (rule T1-546).
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct UnmapStruct {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) iova: u64,
    pub(super) size: u64,
}

/// `bitmap` (rule T1-547).
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct BitmapStruct {
    pub(super) pgsize: u64,
    pub(super) size: u64,
    pub(super) data: u64,
}

/// `dirty_bitmap` without its data (rule T1-548).
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct DirtyStruct {
    pub(super) argsz: u32,
    pub(super) flags: u32,
}

/// `dirty_bitmap_get` (rule T1-549).
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct DirtyGetStruct {
    pub(super) iova: u64,
    pub(super) size: u64,
    pub(super) bitmap: BitmapStruct,
}

/// The size of a structure, for comparing with `argsz`.
pub(super) const fn size<T>() -> u32 {
    size_of::<T>() as u32
}

/// Where the part of `dma_unmap` and `dirty_bitmap` that depends on the flags begins.
pub(super) const UNMAP_DATA: u64 = size_of::<UnmapStruct>() as u64;
/// As [`UNMAP_DATA`], for `dirty_bitmap`.
pub(super) const DIRTY_DATA: u64 = size_of::<DirtyStruct>() as u64;
/// Where `size` lies in `dma_unmap`.
pub(super) const UNMAP_SIZE_AT: u64 = core::mem::offset_of!(UnmapStruct, size) as u64;

const _: () = assert!(
    size::<InfoHead>() == 16
        && size::<InfoStruct>() == 24
        && size::<CapHead>() == 8
        && size::<CapIovaRange>() == 16
        && size::<RangeStruct>() == 16
        && size::<CapMigration>() == 32
        && size::<CapDmaAvail>() == 16
        && size::<MapStruct>() == 32
        && size::<UnmapStruct>() == 24
        && size::<BitmapStruct>() == 24
        && size::<DirtyStruct>() == 8
        && size::<DirtyGetStruct>() == 40
);
