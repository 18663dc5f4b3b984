//! What firmware tells about IOMMUs: pure parsers over bytes. They allocate nothing, never panic,
//! and trust nothing. No lock.

mod iommu_map;

pub use iommu_map::{IommuMap, MapEntry};
