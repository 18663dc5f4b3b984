//! Which machines a test image runs on, by its name, and which of them a QEMU has.

use super::Machine;
use crate::cli::Variant;
use crate::load;
use crate::setup::qemu::{MIN_VERSION, Qemu, Version};

/// A machine that a test image wants, and the versions of QEMU that have it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Which devices.
    pub variant: Variant,
    /// The oldest version.
    pub(super) since: Version,
    /// The first version that has it no more.
    before: Option<Version>,
    /// The only image that is run on it; none: each.
    pub(super) only: Option<&'static str>,
}

impl Wanted {
    /// One that every version has.
    pub const fn any(variant: Variant) -> Self {
        Self { variant, since: MIN_VERSION, before: None, only: None }
    }

    pub(super) const fn since(variant: Variant, since: Version) -> Self {
        Self { variant, since, before: None, only: None }
    }

    pub(super) const fn only(variant: Variant, image: &'static str) -> Self {
        Self { variant, since: MIN_VERSION, before: None, only: Some(image) }
    }

    /// Why this QEMU can't play it on this architecture, if it can't.
    pub fn lacks(&self, machine: &Machine, qemu: &Qemu) -> Option<String> {
        let have = qemu.version;
        match self.before {
            _ if (machine.options)(self.variant).is_none() => {
                Some(format!("{} has no such machine", machine.name))
            }
            _ if have < self.since => Some(format!("needs QEMU {} or newer", self.since)),
            Some(before) if have >= before => Some(format!("needs QEMU older than {before}")),
            _ if machine.has_firmware(self.variant) => qemu.lacks_firmware.clone(),
            _ => None,
        }
    }
}

/// Tells whether a test image asks for machines of its own.
pub fn asks(image: &str) -> bool {
    !own_machines(image).is_empty()
}

/// The machines that a test image asks for, by its name; none for one that runs on those that all
/// others run on.
pub(super) fn own_machines(image: &str) -> &'static [Wanted] {
    match image {
        load::IMAGE => const { &[Wanted::any(Variant::Load)] },
        "bypass_off" => const { &[Wanted::any(Variant::BypassOff)] },
        "reserved" => {
            const {
                &[
                    Wanted {
                        variant: Variant::ReservedRegions,
                        since: MIN_VERSION,
                        before: Some(Version(8, 2)),
                        only: None,
                    },
                    // Between the two nobody has looked which words are understood.
                    Wanted::since(Variant::ReservedRegionsJson, Version(10, 0)),
                ]
            }
        }
        "narrow" => {
            const {
                &[
                    Wanted::since(Variant::AwBits32, Version(9, 0)),
                    Wanted::since(Variant::AwBits39, Version(9, 0)),
                ]
            }
        }
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{AARCH64, RISCV64, X86_64, all};

    #[test]
    fn an_image_runs_on_the_machines_that_this_qemu_has() {
        let on = |machine: &Machine, image, version| {
            let wanted = machine.wanted_by(image);
            let qemu = Qemu { path: "qemu".into(), version, lacks_firmware: None };
            let fits = wanted.iter().filter(|wanted| wanted.lacks(machine, &qemu).is_none());
            fits.map(|wanted| wanted.variant).collect::<Vec<_>>()
        };
        let old = MIN_VERSION;
        assert_eq!(on(&AARCH64, "boot", old), [Variant::TwoIommus, Variant::MmioIommu]);
        assert_eq!(on(&X86_64, "boot", old), [Variant::OneIommu, Variant::TwoIommus]);
        assert_eq!(on(&RISCV64, "boot", old), [Variant::MmioIommu, Variant::SupervisorMode]);
        assert_eq!(on(&RISCV64, "unit", Version(9, 2)), [Variant::MmioIommu]);
        assert_eq!(on(&RISCV64, "unit", Version(10, 0)), [Variant::MmioIommu, Variant::OneIommu]);
        assert_eq!(on(&RISCV64, "boot", Version(10, 0)).len(), 3);
        for machine in all() {
            assert_eq!(on(machine, "bypass_off", old), [Variant::BypassOff]);
            assert_eq!(on(machine, "load", old), [Variant::Load]);
            assert_eq!(on(machine, "narrow", old), []);
            let new = Version(10, 0);
            assert_eq!(on(machine, "narrow", new), [Variant::AwBits32, Variant::AwBits39]);
        }
        assert_eq!(on(&AARCH64, "reserved", old), [Variant::ReservedRegions]);
        assert_eq!(on(&AARCH64, "reserved", Version(10, 0)), [Variant::ReservedRegionsJson]);
        assert_eq!(on(&X86_64, "reserved", old), []);
        let why = |machine: &Machine, image: &str| {
            let lacks_firmware = Some("no firmware".to_owned());
            let qemu = Qemu { path: "qemu".into(), version: old, lacks_firmware };
            let wanted = machine.wanted_by(image);
            wanted.iter().filter_map(|wanted| wanted.lacks(machine, &qemu)).collect::<Vec<_>>()
        };
        assert_eq!(why(&AARCH64, "narrow"), ["needs QEMU 9.0 or newer"; 2]);
        assert_eq!(why(&RISCV64, "reserved"), ["riscv64 has no such machine"; 2]);
        assert_eq!(why(&RISCV64, "boot"), ["needs QEMU 10.0 or newer", "no firmware"]);
        assert_eq!(why(&AARCH64, "boot"), [""; 0]);
    }
}
