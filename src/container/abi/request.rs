//! Request numbers of the ioctls (rules T1-555 to T1-557): type 0x3B, no size encoded.

/// Container: the version of the API, 0. No argument.
pub const GET_API_VERSION: u32 = 0x3B64;
/// Container: whether an [`Extension`](crate::container::Extension) is there; the argument is its number.
pub const CHECK_EXTENSION: u32 = 0x3B65;
/// Container: chooses the backend; the argument is the number of a [`Kind`](crate::container::Kind).
pub const SET_IOMMU: u32 = 0x3B66;
/// Group file: status. Not answered here.
pub const GROUP_GET_STATUS: u32 = 0x3B67;
/// Group file: joins a container. Not answered here.
pub const GROUP_SET_CONTAINER: u32 = 0x3B68;
/// Group file: leaves its container. Not answered here.
pub const GROUP_UNSET_CONTAINER: u32 = 0x3B69;
/// Group file: opens a device. Not answered here.
pub const GROUP_GET_DEVICE_FD: u32 = 0x3B6A;
/// Backend: page sizes, usable IOVAs, free mappings; the argument points to `info`.
pub const IOMMU_GET_INFO: u32 = 0x3B70;
/// Backend: maps memory, or moves it; the argument points to `dma_map`.
pub const IOMMU_MAP_DMA: u32 = 0x3B71;
/// Backend: unmaps memory; the argument points to `dma_unmap`, whose size is written back.
pub const IOMMU_UNMAP_DMA: u32 = 0x3B72;
/// Of other backends: type1 answers `ENOTTY` (rule T1-069).
pub const IOMMU_ENABLE: u32 = 0x3B73;
/// Of other backends: type1 answers `ENOTTY` (rule T1-069).
pub const IOMMU_DISABLE: u32 = 0x3B74;
/// Backend: dirty tracking on, off, read; the argument points to `dirty_bitmap`.
pub const IOMMU_DIRTY_PAGES: u32 = 0x3B75;
