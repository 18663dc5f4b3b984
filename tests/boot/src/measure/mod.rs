//! What the library costs on this machine: the work of the benchmark image.
//!
//! Run under `-icount shift=0`, where counts of instructions are exact and the same in every run.
//! Nothing is judged here: each result is one line (`meter`) for the host tool, which has the targets.
//!
//! | file | measures |
//! |---|---|
//! | `floor.rs` | a request there and back, without a library |
//! | `groups.rs` | attach and detach |
//! | `mapping.rs` | map and unmap by size |
//! | `devices.rs` | pins, dirty pages, faults |
//! | `domains.rs` | attach to a container with many domains |
//! | `drivers.rs` | map and unmap with addresses handed out, for a driver of the kernel |
//! | `growth.rs` | map and unmap by what is there already, replay, heap per mapping |
//! | `heap.rs` | heap of a domain, of a container |
//! | `cpus.rs` | two CPUs at once, and which locks two containers, or the drivers of a group, share (`watched.rs` counts them, `turns.rs` keeps the CPUs in step) |

mod cpus;
mod devices;
mod domains;
mod drivers;
mod floor;
mod groups;
mod growth;
mod heap;
mod idle;
mod mapping;
mod memory;
mod meter;
mod rig;
pub(crate) mod slab;
mod turns;
mod watched;

#[cfg(target_arch = "aarch64")] // for the load from two CPUs
pub(crate) use growth::Random;
pub use rig::Rig;

use crate::machine::Machine;
use crate::world::NoWorld;

/// `bench.most=NUMBER`: no more mappings than that, for a shorter run.
fn most(arguments: &str) -> u64 {
    let mut words = arguments.split_ascii_whitespace();
    let number = words.find_map(|word| word.strip_prefix("bench.most=")?.parse().ok());
    number.unwrap_or(u64::MAX)
}

/// Measures everything and tells the host.
///
/// # Errors
///
/// [`NoWorld`] says why the machine can't be measured.
///
/// # Panics
///
/// When the library refuses what it should do.
pub fn run(machine: &Machine) -> Result<(), NoWorld> {
    slab::give(machine)?;
    rig::floor(machine)?;
    cpus::measure(machine)?;
    let rig = Rig::start(machine)?;
    heap::measure(&rig);
    mapping::measure(&rig);
    groups::measure(&rig);
    devices::measure(&rig);
    drivers::measure(&rig, most(machine.arguments));
    growth::measure(&rig, most(machine.arguments));
    domains::measure(&rig); // leaves units behind
    Ok(())
}
