//! The machines: for each architecture a row with its target, its QEMU and its command lines.
//!
//! - `rows`: the rows;
//! - `lines`: the lists of options that they are made of;
//! - `wanted`: which machines a test image runs on, and which of them a QEMU has;
//! - `setting`: how a machine is run, and the command line that comes of it.

mod lines;
mod rows;
mod setting;
mod wanted;

use crate::cli::{Arch, Variant};
use crate::setup::qemu::{MIN_VERSION, Version};

use lines::RISCV_VIRT_FIRMWARE;
use rows::{AARCH64, RISCV64, X86_64};
pub use setting::{Setting, command_line};
pub use wanted::{Wanted, asks};

/// What the tool knows about one architecture.
#[derive(Debug)]
pub struct Machine {
    /// Its name on the command line, and as QEMU and the host's `consts::ARCH` spell it.
    pub name: &'static str,
    /// The Rust target of its images.
    pub target: &'static str,
    /// The packages that are built for it alone: its start-up code, a test harness.
    pub packages: &'static [&'static str],
    /// The QEMU program.
    pub qemu: &'static str,
    /// Debian's package with that program.
    pub qemu_package: &'static str,
    /// The file with the board's firmware, which QEMU looks for in its folders of data, and Debian's
    /// packages with it: the older and the newer one. For architectures where a machine wants it.
    pub firmware: Option<(&'static str, &'static [&'static str])>,
    /// The machines that a test image runs on which asks for no other, and what they are; the demo
    /// runs on the first, which every QEMU has.
    pub tested: &'static [(Wanted, &'static str)],
    /// The command line of a variant, in the order in which QEMU must see it; none: there is no such
    /// machine.
    options: fn(Variant) -> Option<Options>,
    /// Processor under TCG.
    cpu: &'static str,
    /// Processor under KVM.
    kvm_cpu: &'static str,
    /// The exit code of the image that QEMU's exit status stands for; `None`: the image gave none,
    /// QEMU ended by itself.
    exit_code: fn(i32) -> Option<i32>,
}

/// Lists of options, joined to a command line.
type Options = &'static [&'static [&'static str]];

impl Machine {
    /// Returns the variant that is taken without a choice.
    pub fn variant(&self) -> Variant {
        self.tested.first().map_or(Variant::OneIommu, |(wanted, _)| wanted.variant)
    }

    /// Returns the variant with the most IOMMUs: what the examples run on.
    pub fn richest(&self) -> Variant {
        let mut tested = self.tested.iter().map(|(wanted, _)| wanted.variant);
        tested.find(|variant| *variant == Variant::TwoIommus).unwrap_or_else(|| self.variant())
    }

    /// Returns the machines that a test image runs on, by its name.
    pub fn wanted_by(&self, image: &str) -> Vec<Wanted> {
        let own = wanted::own_machines(image);
        if !own.is_empty() {
            return own.into();
        }
        let wanted = self.tested.iter().map(|(wanted, _)| *wanted);
        wanted.filter(|one| one.only.is_none_or(|only| only == image)).collect()
    }

    /// The oldest QEMU that leaves none of the machines out that are tested.
    pub fn whole_since(&self) -> Version {
        self.tested.iter().map(|(wanted, _)| wanted.since).max().unwrap_or(MIN_VERSION)
    }

    /// Whether a variant starts with the board's firmware.
    pub fn has_firmware(&self, variant: Variant) -> bool {
        let options = (self.options)(variant).unwrap_or_default();
        options.contains(&RISCV_VIRT_FIRMWARE)
    }

    /// Returns the exit code of the image behind the exit status of QEMU, if it is the image's.
    pub fn exit_code(&self, status: i32) -> Option<i32> {
        (self.exit_code)(status)
    }
}

/// Returns all rows, the default first.
pub fn all() -> [&'static Machine; 3] {
    [&AARCH64, &X86_64, &RISCV64]
}

/// Returns the row of `arch`; without a choice, aarch64.
pub fn find(arch: Option<Arch>) -> &'static Machine {
    match arch.unwrap_or(Arch::Aarch64) {
        Arch::Aarch64 => &AARCH64,
        Arch::X86_64 => &X86_64,
        Arch::Riscv64 => &RISCV64,
    }
}

/// Returns the row whose `e_machine` number an ELF file has.
pub fn of_elf(e_machine: u16) -> Option<&'static Machine> {
    match e_machine {
        object::elf::EM_AARCH64 => Some(&AARCH64),
        object::elf::EM_X86_64 => Some(&X86_64),
        object::elf::EM_RISCV => Some(&RISCV64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_of_a_pc_is_translated() {
        let code = |status| X86_64.exit_code(status);
        assert_eq!(code(33), Some(0));
        assert_eq!((code(3), code(203), code(255)), (Some(1), Some(101), Some(127)));
        for of_qemu in [-1, 0, 1, 2, 34] {
            assert_eq!(code(of_qemu), None);
        }
        assert_eq!(AARCH64.exit_code(0), Some(0));
    }

    #[test]
    fn aarch64_is_the_default_and_every_architecture_is_there() {
        let names = [Arch::Aarch64, Arch::X86_64, Arch::Riscv64].map(|arch| find(Some(arch)).name);
        assert_eq!(names, all().map(|machine| machine.name));
        assert_eq!(find(None).name, "aarch64");
    }
}
