//! Ctrl-C, SIGTERM and SIGHUP as a flag that every wait looks at.
//!
//! The handler only stores a number. The wait then returns, guards drop, and children are killed on
//! the ordinary way out; nothing happens inside a signal handler.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::Error;

/// The last signal that asked the tool to stop, if any.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Installs the handlers.
    pub fn install() -> Result<Self, Error> {
        let flag = Self::default();
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            let value = usize::try_from(signal).unwrap_or(1);
            signal_hook::flag::register_usize(signal, Arc::clone(&flag.0), value)
                .map_err(Error::io("install a signal handler"))?;
        }
        Ok(flag)
    }

    /// Returns the signal that arrived.
    pub fn signal(&self) -> Option<i32> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => i32::try_from(signal).ok(),
        }
    }

    /// Acts as if `signal` had arrived.
    #[cfg(test)]
    pub fn raise(&self, signal: usize) {
        self.0.store(signal, Ordering::Relaxed);
    }
}
