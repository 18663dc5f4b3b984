//! The cases: one function each, by topic. Each gets the bench with every device blocked, and
//! leaves it so; a case that fails panics with what it saw.

pub(crate) mod attaching;
pub(crate) mod blocking;
pub(crate) mod containers;
pub(crate) mod faults;
pub(crate) mod mapping;
pub(crate) mod modes;
pub(crate) mod places;
pub(crate) mod refused;
pub(crate) mod requests;
pub(crate) mod rights;
pub(crate) mod sharing;
