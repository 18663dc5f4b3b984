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
use crate::setup::qemu::{MIN_VERSION, Version};

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

/// A machine that a test image wants, and the versions of QEMU that have it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Which devices.
    pub variant: Variant,
    /// The oldest version.
    since: Version,
    /// The first version that has it no more.
    before: Option<Version>,
}

impl Wanted {
    const fn any(variant: Variant) -> Self {
        Self { variant, since: MIN_VERSION, before: None }
    }

    const fn since(variant: Variant, since: Version) -> Self {
        Self { variant, since, before: None }
    }

    /// Why this QEMU can't play it, if it can't.
    pub fn lacks(&self, have: Version) -> Option<String> {
        match self.before {
            _ if have < self.since => Some(format!("needs QEMU {} or newer", self.since)),
            Some(before) if have >= before => Some(format!("needs QEMU older than {before}")),
            _ => None,
        }
    }
}

/// The machines that a test image runs on, by its name; none are named for one that runs on
/// whatever the command line says.
pub fn wanted_by(image: &str) -> &'static [Wanted] {
    match image {
        "one_unit" => const { &[Wanted::any(Variant::MmioIommu)] },
        "bypass_off" => const { &[Wanted::any(Variant::BypassOff)] },
        "reserved" => {
            const {
                &[
                    Wanted {
                        variant: Variant::ReservedRegions,
                        since: MIN_VERSION,
                        before: Some(Version(8, 2)),
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
        Variant::MmioIommu => AARCH64_MMIO_IOMMU,
        Variant::BypassOff => AARCH64_BYPASS_OFF,
        Variant::ReservedRegions => AARCH64_RESERVED,
        Variant::ReservedRegionsJson => AARCH64_RESERVED_JSON,
        Variant::AwBits32 => AARCH64_32_BITS,
        Variant::AwBits39 => AARCH64_39_BITS,
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
const PCI_IOMMU_32: &[&str] = &["-device", "virtio-iommu-pci,addr=1,bus=pcie.0,aw-bits=32"];
const PCI_IOMMU_39: &[&str] = &["-device", "virtio-iommu-pci,addr=1,bus=pcie.0,aw-bits=39"];
const MMIO_IOMMU: &[&str] = &["-device", "virtio-iommu-device,primary-bus=px"];
/// Without a driver these let nothing pass; the others let everything pass.
#[rustfmt::skip]
const CLOSED_IOMMUS: &[&str] = &[
    "-device", "virtio-iommu-pci,addr=1,bus=pcie.0,boot-bypass=off",
    "-device", "virtio-iommu-device,primary-bus=px,boot-bypass=off",
];
/// On the first root bus, which the image must be told.
#[rustfmt::skip]
const LONE_MMIO_IOMMU: &[&str] = &[
    "-device", "virtio-iommu-device,primary-bus=pcie.0",
    "-append", "iommu.mmio=0x0a003e00:0",
];
/// A board with message-signalled interrupts gives the IOMMU a region of its own, and takes no
/// others; without them it takes ours, and no `edu`, which insists on messages. So the DMA engine
/// is a SCSI controller that runs scripts.
#[rustfmt::skip]
const NO_MESSAGES: &[&str] = &[
    "-machine", "gic-version=3,its=off",
    "-device", "lsi53c895a,bus=pcie.0,addr=2",
    "-device", "lsi53c895a,bus=pcie.0,addr=3",
];
/// One region that is never usable, and one for interrupts.
#[rustfmt::skip]
const RESERVING_IOMMU: &[&str] = &[
    "-device", "virtio-iommu-pci,addr=1,bus=pcie.0,len-reserved-regions=2,\
        reserved-regions[0]=0x8000000:0x80fffff:0,reserved-regions[1]=0xc000000:0xc0fffff:1",
];
#[rustfmt::skip]
const RESERVING_IOMMU_JSON: &[&str] = &[
    "-device", r#"{"driver":"virtio-iommu-pci","addr":"1","bus":"pcie.0","reserved-regions":["0x8000000:0x80fffff:0","0xc000000:0xc0fffff:1"]}"#,
];
/// The device tree does not tell which root bus an instance on MMIO serves, so we do:
/// `iommu.mmio=REGISTERS:BUS`. The first device takes the highest of the 32 slots.
const MMIO_BOOTARGS: &[&str] = &["-append", "iommu.mmio=0x0a003e00:10"];
/// Four DMA engines: two alone on the first root bus, and two behind a bridge to conventional PCI
/// that share one endpoint id.
#[rustfmt::skip]
const FOUR_EDUS: &[&str] = &[
    "-device", "edu,bus=pcie.0,addr=2,dma_mask=0xffffffffffffffff",
    "-device", "edu,bus=pcie.0,addr=3,dma_mask=0xffffffffffffffff",
    "-device", "pcie-pci-bridge,id=br,bus=pcie.0,addr=4",
    "-device", "edu,bus=br,addr=1,dma_mask=0xffffffffffffffff",
    "-device", "edu,bus=br,addr=2,dma_mask=0xffffffffffffffff",
];
/// One more, on the second root bus. An image that does not number the buses there must not have it:
/// the port's bus would keep the number 0, and QEMU's IOMMU would take it for the first root bus.
#[rustfmt::skip]
const FIFTH_EDU: &[&str] = &[
    "-device", "pcie-root-port,id=rp,bus=px,chassis=1",
    "-device", "edu,bus=rp,addr=0,dma_mask=0xffffffffffffffff",
];
options!(EDUS, EDUS_LEN, FOUR_EDUS, FIFTH_EDU);

options!(AARCH64_TWO_IOMMUS, TWO_LEN, PCI_IOMMU, MMIO_IOMMU, EDUS, MMIO_BOOTARGS);
options!(AARCH64_ONE_IOMMU, ONE_LEN, PCI_IOMMU, EDUS);
options!(AARCH64_LARGE_GRANULE, LARGE_LEN, COARSE_IOMMU, EDUS);
options!(AARCH64_MMIO_IOMMU, MMIO_LEN, LONE_MMIO_IOMMU, FOUR_EDUS);
options!(AARCH64_BYPASS_OFF, BYPASS_OFF_LEN, CLOSED_IOMMUS, EDUS, MMIO_BOOTARGS);
options!(AARCH64_RESERVED, RESERVED_LEN, NO_MESSAGES, RESERVING_IOMMU);
options!(AARCH64_RESERVED_JSON, RESERVED_JSON_LEN, NO_MESSAGES, RESERVING_IOMMU_JSON);
options!(AARCH64_32_BITS, LEN_32, PCI_IOMMU_32, MMIO_IOMMU, EDUS, MMIO_BOOTARGS);
options!(AARCH64_39_BITS, LEN_39, PCI_IOMMU_39, MMIO_IOMMU, EDUS, MMIO_BOOTARGS);
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
            let edus = if variant == Variant::MmioIommu { 4 } else { 5 };
            assert_eq!(line.matches("-device edu,").count(), edus, "{line}");
            line.matches("-device virtio-iommu-").count()
        };
        assert_eq!(count(Variant::TwoIommus), 2);
        assert_eq!(count(Variant::OneIommu), 1);
        assert_eq!(count(Variant::NoIommu), 0);
        assert_eq!(count(Variant::MmioIommu), 1);
        for variant in [Variant::BypassOff, Variant::AwBits32, Variant::AwBits39] {
            assert_eq!(count(variant), 2, "{variant:?}");
        }
    }

    #[test]
    fn a_variant_is_named_by_what_it_changes() {
        let line = |variant| line(Setting { variant, ..PLAIN });
        assert_eq!(line(Variant::BypassOff).matches("boot-bypass=off").count(), 2);
        assert!(line(Variant::AwBits32).contains("aw-bits=32"));
        assert!(line(Variant::AwBits39).contains("aw-bits=39"));
        assert!(line(Variant::MmioIommu).contains("-append iommu.mmio=0x0a003e00:0 "));
        let reserved = line(Variant::ReservedRegions);
        assert!(reserved.contains("len-reserved-regions=2,reserved-regions[0]=0x8"), "{reserved}");
        assert!(line(Variant::ReservedRegionsJson).contains(r#""reserved-regions":["0x8"#));
    }

    #[test]
    fn an_image_runs_on_the_machines_that_this_qemu_has() {
        let on = |image, version| {
            let fits = wanted_by(image).iter().filter(|wanted| wanted.lacks(version).is_none());
            fits.map(|wanted| wanted.variant).collect::<Vec<_>>()
        };
        assert_eq!(on("boot", MIN_VERSION), []);
        assert_eq!(on("one_unit", MIN_VERSION), [Variant::MmioIommu]);
        assert_eq!(on("narrow", Version(7, 2)), []);
        assert_eq!(on("narrow", Version(10, 0)), [Variant::AwBits32, Variant::AwBits39]);
        assert_eq!(on("reserved", Version(7, 2)), [Variant::ReservedRegions]);
        assert_eq!(on("reserved", Version(10, 0)), [Variant::ReservedRegionsJson]);
        let why = wanted_by("narrow").iter().find_map(|wanted| wanted.lacks(Version(7, 2)));
        assert_eq!(why.as_deref(), Some("needs QEMU 9.0 or newer"));
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
