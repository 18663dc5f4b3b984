//! The machines: for each architecture a row with its target, its QEMU and its command lines.
//!
//! Data first; the one function at the end joins the pieces. A new architecture is a new row, a new
//! kind of machine is a new list of options.

use std::env::consts;
use std::ffi::OsString;
use std::path::Path;

use crate::cli::{Accel, Arch, Variant};
use crate::cmd::Cmd;
use crate::error::Error;

/// What the tool knows about one architecture.
#[derive(Debug)]
pub struct Machine {
    /// Its name on the command line, and as QEMU and the host's `consts::ARCH` spell it.
    pub name: &'static str,
    /// The Rust target of its images.
    pub target: &'static str,
    /// The package with its start-up code.
    pub package: &'static str,
    /// The QEMU program.
    pub qemu: &'static str,
    /// Debian's package with that program.
    pub qemu_package: &'static str,
    /// Board, memory, console: what every variant has.
    board: &'static [&'static str],
    /// Devices by variant, in the order in which QEMU must see them.
    devices: fn(Variant) -> &'static [&'static str],
    /// Processor under TCG; KVM takes the host's.
    cpu: &'static str,
}

/// Returns the rows that can be built and booted now.
pub fn all() -> &'static [Machine] {
    const { &[AARCH64] }
}

/// Returns the row of `arch`; without a choice, aarch64.
pub fn find(arch: Option<Arch>) -> Result<&'static Machine, Error> {
    let name = match arch.unwrap_or(Arch::Aarch64) {
        Arch::Aarch64 => "aarch64",
        Arch::X86_64 => "x86_64",
        Arch::Riscv64 => "riscv64",
    };
    all().iter().find(|machine| machine.name == name).ok_or_else(|| {
        let have: Vec<_> = all().iter().map(|machine| machine.name).collect();
        Error::Usage(format!("--arch {name} is not built yet; there is: {}", have.join(", ")))
    })
}

/// Returns the row whose `e_machine` number an ELF file has.
pub fn of_elf(e_machine: u16) -> Option<&'static Machine> {
    let name = match e_machine {
        object::elf::EM_AARCH64 => "aarch64",
        object::elf::EM_X86_64 => "x86_64",
        object::elf::EM_RISCV => "riscv64",
        _ => return None,
    };
    all().iter().find(|machine| machine.name == name)
}

/// How a machine is run, apart from its image.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Which devices.
    pub variant: Variant,
    /// How guest code runs.
    pub accel: Accel,
    /// Whether instructions are counted.
    pub icount: bool,
}

impl Setting {
    /// Refuses what can't work on this host.
    pub fn check(&self, machine: &Machine) -> Result<(), Error> {
        self.check_on(machine, consts::ARCH, Path::new("/dev/kvm").exists())
    }

    fn check_on(&self, machine: &Machine, host: &str, has_kvm: bool) -> Result<(), Error> {
        if self.accel == Accel::Tcg {
            return Ok(());
        }
        if machine.name != host {
            return Err(Error::Usage(format!(
                "--accel kvm can't run {} code on this {host} host; use --accel tcg",
                machine.name
            )));
        }
        if self.icount {
            return Err(Error::Usage(
                "--icount counts translated code: it needs --accel tcg".into(),
            ));
        }
        if !has_kvm {
            return Err(Error::Missing {
                what: "--accel kvm needs /dev/kvm, which is not there".into(),
                command: "sudo modprobe kvm (or use --accel tcg)".into(),
            });
        }
        Ok(())
    }
}

/// Returns the command line that boots `image`.
pub fn command_line(qemu: &Path, machine: &Machine, setting: Setting, image: &Path) -> Cmd {
    let cpu: &[&str] = match setting.accel {
        Accel::Tcg => &["-accel", "tcg", "-cpu", machine.cpu],
        Accel::Kvm => &["-accel", "kvm", "-cpu", "host"],
    };
    let icount: &[&str] = if setting.icount { &["-icount", "shift=0"] } else { &[] };
    Cmd::new(qemu)
        .args(machine.board)
        .args(cpu)
        .args(icount)
        .args((machine.devices)(setting.variant))
        .args([OsString::from("-kernel"), image.into()])
}

const AARCH64: Machine = Machine {
    name: "aarch64",
    target: "aarch64-unknown-none",
    package: "iommu-aarch64",
    qemu: "qemu-system-aarch64",
    qemu_package: "qemu-system-arm",
    #[rustfmt::skip] // one option with its value per line
    board: &[
        "-M", "virt",
        "-m", "256",
        "-nodefaults",
        "-display", "none",
        "-no-reboot",
        "-serial", "stdio",
        "-semihosting",
        // virtio-mmio starts in legacy mode, and then the IOMMU never answers.
        "-global", "virtio-mmio.force-legacy=false",
        // Takes QEMU's event loop out of the completion of requests over MMIO.
        "-global", "virtio-mmio.ioeventfd=off",
        // A second root bus. It takes bridges only, hence the root port below.
        "-device", "pxb-pcie,id=px,bus=pcie.0,bus_nr=10,addr=5",
    ],
    devices: |variant| match variant {
        Variant::TwoIommus => AARCH64_TWO_IOMMUS,
        Variant::OneIommu => AARCH64_ONE_IOMMU,
        Variant::NoIommu => AARCH64_NO_IOMMU,
        Variant::LargeGranule => AARCH64_LARGE_GRANULE,
    },
    cpu: "cortex-a72",
};

/// Joins lists of options in a constant.
macro_rules! options {
    ($name:ident, $len:ident, $($list:ident),+) => {
        const $len: usize = 0 $(+ $list.len())+;
        const $name: &[&str] = &{
            let mut all = [""; $len];
            let mut at = 0;
            $(
                let mut from = 0;
                while from < $list.len() {
                    all[at] = $list[from];
                    at += 1;
                    from += 1;
                }
            )+
            assert!(at == $len);
            all
        };
    };
}

const PCI_IOMMU: &[&str] = &["-device", "virtio-iommu-pci,addr=1,bus=pcie.0"];
const COARSE_IOMMU: &[&str] = &["-device", "virtio-iommu-pci,addr=1,bus=pcie.0,granule=64k"];
const MMIO_IOMMU: &[&str] = &["-device", "virtio-iommu-device,primary-bus=px"];
/// The device tree does not tell which root bus an instance on MMIO serves, so we do:
/// `iommu.mmio=REGISTERS:BUS`. The first device takes the highest of the 32 slots.
const MMIO_BOOTARGS: &[&str] = &["-append", "iommu.mmio=0x0a003e00:10"];
/// Five DMA engines: two alone on the first root bus, two behind a bridge to conventional PCI that
/// share one endpoint id, and one on the second root bus.
#[rustfmt::skip]
const EDUS: &[&str] = &[
    "-device", "pcie-root-port,id=rp,bus=px,chassis=1",
    "-device", "edu,bus=pcie.0,addr=2,dma_mask=0xffffffffffffffff",
    "-device", "edu,bus=pcie.0,addr=3,dma_mask=0xffffffffffffffff",
    "-device", "pcie-pci-bridge,id=br,bus=pcie.0,addr=4",
    "-device", "edu,bus=br,addr=1,dma_mask=0xffffffffffffffff",
    "-device", "edu,bus=br,addr=2,dma_mask=0xffffffffffffffff",
    "-device", "edu,bus=rp,addr=0,dma_mask=0xffffffffffffffff",
];

options!(AARCH64_TWO_IOMMUS, TWO_LEN, PCI_IOMMU, MMIO_IOMMU, EDUS, MMIO_BOOTARGS);
options!(AARCH64_ONE_IOMMU, ONE_LEN, PCI_IOMMU, EDUS);
options!(AARCH64_LARGE_GRANULE, LARGE_LEN, COARSE_IOMMU, EDUS);
const AARCH64_NO_IOMMU: &[&str] = EDUS;

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Setting =
        Setting { variant: Variant::TwoIommus, accel: Accel::Tcg, icount: false };

    fn line(setting: Setting) -> String {
        command_line(Path::new("qemu"), &AARCH64, setting, Path::new("image.elf")).to_string()
    }

    #[test]
    fn the_variants_differ_only_in_their_iommus() {
        let count = |variant| {
            let line = line(Setting { variant, ..PLAIN });
            assert_eq!(line.matches("-device edu,").count(), 5, "{line}");
            line.matches("-device virtio-iommu-").count()
        };
        assert_eq!(count(Variant::TwoIommus), 2);
        assert_eq!(count(Variant::OneIommu), 1);
        assert_eq!(count(Variant::NoIommu), 0);
    }

    #[test]
    fn only_an_instance_on_mmio_is_announced() {
        let announced = |variant| line(Setting { variant, ..PLAIN }).contains("iommu.mmio=");
        assert!(announced(Variant::TwoIommus));
        assert!(!announced(Variant::OneIommu));
        assert!(!announced(Variant::NoIommu));
    }

    #[test]
    fn icount_and_kvm_change_the_line() {
        assert!(!line(PLAIN).contains("-icount"));
        assert!(line(Setting { icount: true, ..PLAIN }).contains("-icount shift=0"));
        assert!(line(Setting { accel: Accel::Kvm, ..PLAIN }).contains("-accel kvm -cpu host"));
    }

    #[test]
    fn kvm_is_refused_where_it_cannot_work() {
        let kvm = Setting { accel: Accel::Kvm, ..PLAIN };
        let foreign = kvm.check_on(&AARCH64, "x86_64", true).unwrap_err();
        assert_eq!(foreign.exit_code(), 2);
        assert!(foreign.to_string().contains("use --accel tcg"), "{foreign}");
        let counted = Setting { icount: true, ..kvm };
        assert_eq!(counted.check_on(&AARCH64, "aarch64", true).unwrap_err().exit_code(), 2);
        assert_eq!(kvm.check_on(&AARCH64, "aarch64", false).unwrap_err().exit_code(), 3);
        assert!(kvm.check_on(&AARCH64, "aarch64", true).is_ok());
        assert!(PLAIN.check_on(&AARCH64, "x86_64", false).is_ok());
    }

    #[test]
    fn an_architecture_that_is_not_built_yet_is_wrong_usage() {
        for arch in [Arch::X86_64, Arch::Riscv64] {
            let error = find(Some(arch)).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("not built yet"), "{error}");
        }
        assert_eq!(find(None).expect("there is a default").name, "aarch64");
    }
}
