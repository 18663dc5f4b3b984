//! The log macro: `defmt`, `log` or nothing (`defmt` wins if both are on).
//!
//! `warn`: the device misbehaved; `debug`: a state change; `trace`: each request. An answer that a
//! caller probes for (`Incompatible`) is never logged.

#[cfg(feature = "defmt")]
macro_rules! emit { ($level:ident, $($arg:tt)+) => { ::defmt::$level!($($arg)+) } }
#[cfg(all(feature = "log", not(feature = "defmt")))]
macro_rules! emit { ($level:ident, $($arg:tt)+) => { ::log::$level!($($arg)+) } }
#[cfg(not(any(feature = "log", feature = "defmt")))]
macro_rules! emit { ($level:ident, $fmt:literal $(, $arg:expr)* $(,)?) => {{ $( let _ = &$arg; )* }} }

pub(crate) use emit;
