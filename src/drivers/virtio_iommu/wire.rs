//! What goes over the wire: layouts of requests, tails, properties and events, and their numbers.
//!
//! No algorithm, no lock. virtio 1.2 §5.13.6; byte offsets are in the tests.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `VIRTIO_IOMMU_T_*`: the type of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RequestType(pub u8);

impl RequestType {
    pub(super) const ATTACH: Self = Self(1);
    #[cfg(iommu_sabotage)]
    pub(super) const DETACH: Self = Self(2);
    pub(super) const MAP: Self = Self(3);
    pub(super) const UNMAP: Self = Self(4);
    pub(super) const PROBE: Self = Self(5);
}

/// `VIRTIO_IOMMU_S_*`: a status byte. Any value can come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Status(pub u8);

impl Status {
    pub(super) const OK: Self = Self(0);
    pub(super) const UNSUPP: Self = Self(2);
    pub(super) const NOENT: Self = Self(6);
    pub(super) const NOMEM: Self = Self(8);
    /// No status: what we put there before the device writes (rule 11.5).
    pub(super) const UNWRITTEN: Self = Self(0xff);
}

/// `VIRTIO_IOMMU_MAP_F_READ`.
pub(super) const MAP_F_READ: u32 = 1 << 0;
/// `VIRTIO_IOMMU_MAP_F_WRITE`.
pub(super) const MAP_F_WRITE: u32 = 1 << 1;
/// `VIRTIO_IOMMU_MAP_F_MMIO`.
pub(super) const MAP_F_MMIO: u32 = 1 << 2;

/// `VIRTIO_IOMMU_PROBE_T_RESV_MEM`.
pub(super) const PROBE_T_RESV_MEM: u16 = 1;
/// `VIRTIO_IOMMU_RESV_MEM_T_RESERVED`.
pub(super) const RESV_MEM_T_RESERVED: u8 = 0;
/// `VIRTIO_IOMMU_RESV_MEM_T_MSI`.
pub(super) const RESV_MEM_T_MSI: u8 = 1;

/// `VIRTIO_IOMMU_FAULT_R_DOMAIN`.
pub(super) const FAULT_R_DOMAIN: u8 = 1;
/// `VIRTIO_IOMMU_FAULT_R_MAPPING`.
pub(super) const FAULT_R_MAPPING: u8 = 2;
/// `VIRTIO_IOMMU_FAULT_F_READ`.
pub(super) const FAULT_F_READ: u32 = 1 << 0;
/// `VIRTIO_IOMMU_FAULT_F_WRITE`.
pub(super) const FAULT_F_WRITE: u32 = 1 << 1;
/// `VIRTIO_IOMMU_FAULT_F_ADDRESS`.
pub(super) const FAULT_F_ADDRESS: u32 = 1 << 8;

/// The head of each request. virtio 1.2 §5.13.6.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ReqHead {
    pub(super) kind: u8,
    pub(super) reserved: [u8; 3],
}

impl ReqHead {
    pub(super) const fn new(kind: RequestType) -> Self {
        Self { kind: kind.0, reserved: [0; 3] }
    }
}

/// The device-writable end of each request. virtio 1.2 §5.13.6.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ReqTail {
    pub(super) status: u8,
    pub(super) reserved: [u8; 3],
}
const _: () = assert!(size_of::<ReqTail>() == 4);

/// The endpoint reaches all memory. Needs `BYPASS_CONFIG`; a domain is made with it or without.
pub(super) const ATTACH_F_BYPASS: u32 = 1;

/// ATTACH, device-readable part. virtio 1.2 §5.13.6.3.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct AttachReq {
    pub(super) head: ReqHead,
    pub(super) domain: U32,
    pub(super) endpoint: U32,
    pub(super) flags: U32,
    pub(super) reserved: [u8; 4],
}
const _: () = assert!(size_of::<AttachReq>() == 20);

/// MAP, device-readable part. virtio 1.2 §5.13.6.5.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct MapReq {
    pub(super) head: ReqHead,
    pub(super) domain: U32,
    pub(super) virt_start: U64,
    /// The last byte of the range, not one past it.
    pub(super) virt_end: U64,
    pub(super) phys_start: U64,
    pub(super) flags: U32,
}
const _: () = assert!(size_of::<MapReq>() == 36);

/// UNMAP, device-readable part. virtio 1.2 §5.13.6.6.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct UnmapReq {
    pub(super) head: ReqHead,
    pub(super) domain: U32,
    pub(super) virt_start: U64,
    /// The last byte of the range, not one past it.
    pub(super) virt_end: U64,
    pub(super) reserved: [u8; 4],
}
const _: () = assert!(size_of::<UnmapReq>() == 28);

/// PROBE, device-readable part. virtio 1.2 §5.13.6.7.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ProbeReq {
    pub(super) head: ReqHead,
    pub(super) endpoint: U32,
    pub(super) reserved: [u8; 64],
}
const _: () = assert!(size_of::<ProbeReq>() == 72);

/// The head of a PROBE property. virtio 1.2 §5.13.6.7.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ProbeProperty {
    /// Bits 0 to 11: the type; the others are reserved.
    pub(super) kind: U16,
    /// Bytes of the value, this head not counted.
    pub(super) len: U16,
}
const _: () = assert!(size_of::<ProbeProperty>() == 4);

/// The value of a RESV_MEM property. virtio 1.2 §5.13.6.8.1.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ResvMem {
    pub(super) subtype: u8,
    pub(super) reserved: [u8; 3],
    pub(super) start: U64,
    /// The last byte of the region.
    pub(super) end: U64,
}
const _: () = assert!(size_of::<ResvMem>() == 20);

/// A fault record. virtio 1.2 §5.13.6.9.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct FaultEvent {
    pub(super) reason: u8,
    pub(super) reserved: [u8; 3],
    pub(super) flags: U32,
    pub(super) endpoint: U32,
    pub(super) reserved2: U32,
    pub(super) address: U64,
}
const _: () = assert!(size_of::<FaultEvent>() == 24);
