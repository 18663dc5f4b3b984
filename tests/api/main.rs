//! The IOMMU API against the software IOMMU. Every claim about reach is asked of the unit.

mod attach;
mod fixture;
mod groups;
mod map;
mod sweep;
