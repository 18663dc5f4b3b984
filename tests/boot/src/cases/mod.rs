//! The cases of this machine alone: its rings, its endpoints, its restart. All others are in the
//! table of `iommu-cases`, which runs here through [`bench`](crate::bench).

pub mod unit;
