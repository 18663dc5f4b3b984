//! The cases: one function each, by topic. Each gets the bench with every device blocked, and
//! leaves it so; a case that fails panics with what it saw.

pub(crate) mod attaching;
pub(crate) mod blocking;
pub(crate) mod container_dirty;
pub(crate) mod container_groups;
pub(crate) mod container_maps;
pub(crate) mod container_owners;
pub(crate) mod container_unmaps;
pub(crate) mod containers;
pub(crate) mod drivers;
pub(crate) mod faults;
pub(crate) mod mapping;
pub(crate) mod modes;
pub(crate) mod places;
pub(crate) mod refused;
pub(crate) mod requests;
pub(crate) mod rights;
pub(crate) mod sharing;
