//! One DMA, and what must have come of it.
//!
//! A refusal counts only if everything is seen: memory untouched, a fault of the right endpoint,
//! address, access and reason. Its control, the same access while it is allowed, is the caller's.

use iommu::addr::Iova;
use iommu::driver::EndpointId;
use iommu::fault::DriverFault;
use iommu::instance::Instance;
use iommu::platform::Platform;
pub use iommu_cases::Outcome;
use iommu_runtime::dma::Buffer;
use iommu_runtime::edu::Direction;

use crate::machine::{PLATFORM, TestDevice};
use crate::tally;

/// How long a device may take, and the record of what it was refused. Much, because disks and networks
/// are the host's: where the clock of the machine runs with its instructions, a second of it is a
/// moment for the host.
pub const LIMIT_NS: u64 = 20_000_000_000;

/// Lets `device` write 4 bytes to `iova` at once, and looks whether they came to `offset` of
/// `target`.
#[must_use]
pub fn poke(
    unit: &Instance,
    device: &TestDevice,
    iova: u64,
    target: &Buffer,
    offset: usize,
) -> Outcome {
    const VALUE: u16 = 0x5aa5;
    target.fill(0xee);
    if device.edu.poke(iova, VALUE).is_err() {
        return Outcome::Wrong("the device has no MSI");
    }
    let expected = u32::from(VALUE).to_le_bytes();
    let arrived = expected.iter().enumerate().all(|(at, byte)| target.read(offset + at) == *byte);
    tally::judged(match (arrived, target.is_filled(0xee)) {
        (true, _) => match unit.next_fault() {
            None => Outcome::Arrived,
            Some(_) => Outcome::Wrong("the write arrived, and raised a fault"),
        },
        (false, true) => refusal(unit, device.endpoint),
        (false, false) => Outcome::Wrong("something else was written"),
    })
}

/// Lets `device` write 4 bytes to `iova`, where nothing is known to be.
#[must_use]
pub fn poke_nowhere(unit: &Instance, device: &TestDevice, iova: u64) -> Outcome {
    match device.edu.poke(iova, 0x5aa5) {
        Ok(()) => tally::judged(refusal(unit, device.endpoint)),
        Err(_) => Outcome::Wrong("the device has no MSI"),
    }
}

/// Runs one transfer on every device at the same time and waits for all of them.
///
/// # Panics
///
/// When a device does not finish.
pub fn transfer<'a>(
    devices: impl Iterator<Item = (&'a TestDevice, u64)> + Clone,
    direction: Direction,
    len: usize,
) {
    for (device, address) in devices.clone() {
        device.edu.start(direction, address, len).expect("the length fits the device");
    }
    let deadline = PLATFORM.now_ns() + LIMIT_NS;
    for (device, _) in devices {
        device.edu.finish(|| PLATFORM.now_ns(), deadline).expect("the device finishes");
    }
}

/// The refusal that the next fault record of `unit` tells, which must be of `endpoint`.
#[must_use]
pub fn refusal(unit: &Instance, endpoint: EndpointId) -> Outcome {
    match wait_for_fault(unit) {
        Some(first) => refusal_from(first, unit, endpoint),
        None => Outcome::Wrong("nothing arrived, and no fault was reported"),
    }
}

/// The refusal that begins with the record `first` of `unit`, which must be of `endpoint`.
#[must_use]
pub fn refusal_from(first: DriverFault, unit: &Instance, endpoint: EndpointId) -> Outcome {
    // One record per 4 bytes of the access: the others say the same.
    while let Some(other) = unit.next_fault() {
        if other.endpoint != first.endpoint || other.reason != first.reason {
            let both = (first, other);
            defmt::warn!("the records are {}", defmt::Debug2Format(&both));
            return Outcome::Wrong("the fault records contradict each other");
        }
    }
    if first.endpoint != endpoint {
        return Outcome::Wrong("the fault record names another endpoint");
    }
    outcome(first)
}

/// What a record says.
#[must_use]
pub fn outcome(record: DriverFault) -> Outcome {
    match record {
        DriverFault { address: Some(Iova(address)), access, reason, .. } => {
            Outcome::Refused { address, reason, access: access.bits() }
        }
        _ => Outcome::Wrong("the fault record has no address"),
    }
}

fn wait_for_fault(unit: &Instance) -> Option<DriverFault> {
    let deadline = PLATFORM.now_ns() + LIMIT_NS;
    loop {
        if let Some(fault) = unit.next_fault() {
            return Some(fault);
        }
        if PLATFORM.now_ns() > deadline {
            return None;
        }
        core::hint::spin_loop();
    }
}
