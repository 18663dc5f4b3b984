//! The machines on which Linux is measured: those of our own benchmark image, with the devices that
//! Linux has drivers for.

use std::ffi::OsString;
use std::path::Path;

use crate::cmd::Cmd;

/// What is known about one architecture.
#[derive(Debug)]
pub struct Row {
    /// Its name, as that of the tool's own machines.
    pub name: &'static str,
    /// Debian's name for it.
    pub debian: &'static str,
    /// The machine.
    board: &'static [&'static str],
    /// Linux's name of the console.
    console: &'static str,
    /// QEMU's name of the device at 00:00.0, in whose registers the program writes its marks.
    pub bridge: &'static str,
    /// Parameters of `vfio_iommu_type1`.
    pub type1_parameters: &'static str,
}

/// All rows.
pub const ALL: [&Row; 2] = [
    &Row {
        name: "aarch64",
        debian: "arm64",
        board: &["-machine", "virt,gic-version=3", "-cpu", "cortex-a72"],
        console: "ttyAMA0",
        bridge: "gpex-root",
        type1_parameters: "dma_entry_limit=2000000",
    },
    &Row {
        name: "x86_64",
        debian: "amd64",
        board: &["-machine", "q35", "-cpu", "max"],
        console: "ttyS0",
        bridge: "mch",
        // The machine can't keep the interrupt messages of devices apart, and Linux asks for a word.
        type1_parameters: "dma_entry_limit=2000000 allow_unsafe_interrupts=1",
    },
];

/// Returns the row of an architecture, if Linux can be measured there.
pub fn find(name: &str) -> Option<&'static Row> {
    ALL.into_iter().find(|row| row.name == name)
}

/// How the kernel is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// As the distribution ships it.
    Default,
    /// Without what a kernel does for safety alone: zeroing what it allocates, and mitigations.
    Lean,
}

impl Setup {
    /// What stands behind the version in results.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Default => "",
            Self::Lean => ", lean",
        }
    }

    fn arguments(self) -> &'static str {
        match self {
            Self::Default => "",
            Self::Lean => " init_on_alloc=0 mitigations=off",
        }
    }
}

/// Returns the command line that boots Linux: console on standard output, trace on standard error.
pub fn command_line(qemu: &Path, row: &Row, setup: Setup, image: &Path, archive: &Path) -> Cmd {
    let mut cmd = Cmd::new(qemu).args(COMMON).args(row.board);
    for slot in FIRST_SLOT..FIRST_SLOT + DEVICES {
        cmd = cmd.arg("-device").arg(format!("edu,addr={slot:#x}"));
    }
    for event in EVENTS {
        cmd = cmd.args(["-trace", event]);
    }
    let path = |path: &Path| OsString::from(path);
    cmd.args([OsString::from("-kernel"), path(image)])
        .args([OsString::from("-initrd"), path(archive)])
        .arg("-append")
        .arg(arguments(row, setup))
}

/// Returns what the kernel is told.
pub fn arguments(row: &Row, setup: Setup) -> String {
    // A panic ends the machine, and a page of 1 GiB can only be set aside early.
    let (console, more) = (row.console, setup.arguments());
    format!("console={console} quiet panic=-1 hugepagesz=1G hugepages=1{more}")
}

#[rustfmt::skip] // one option with its value per line
const COMMON: &[&str] = &[
    "-nodefaults", "-no-user-config", "-no-reboot",
    "-display", "none",
    "-serial", "stdio",
    "-smp", "1",
    "-m", "4G",
    "-accel", "tcg",
    "-icount", "shift=0",
    "-device", "virtio-iommu-pci,addr=0x2",
];
/// As in the program: `qemu/peer/src/devices.rs`.
const FIRST_SLOT: u32 = 4;
const DEVICES: u32 = 8;
/// What is counted, and the marks.
const EVENTS: [&str; 6] = [
    "virtio_iommu_attach",
    "virtio_iommu_detach",
    "virtio_iommu_map",
    "virtio_iommu_unmap",
    "virtio_queue_notify",
    "pci_cfg_write",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lean_kernel_differs_in_its_arguments_only() {
        for row in ALL {
            let line = |setup| {
                command_line(Path::new("q"), row, setup, Path::new("k"), Path::new("a")).to_string()
            };
            let (plain, lean) = (line(Setup::Default), line(Setup::Lean));
            assert_eq!(plain.matches("-device edu,addr=0x").count(), 8);
            assert!(plain.contains("-icount shift=0") && plain.contains("-kernel k -initrd a"));
            let more = " init_on_alloc=0 mitigations=off";
            assert_eq!(lean.replace(more, ""), plain, "{lean}");
        }
    }
}
