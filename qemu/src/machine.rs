//! The machines: for each architecture a row with its target, its QEMU and its command lines.
//!
//! Data first; one function joins the pieces. A new architecture is a new row, a new kind of machine is
//! a new list of options.

use std::env::consts;
use std::ffi::OsString;
use std::path::Path;

use crate::cli::{Accel, Arch, Variant};
use crate::cmd::Cmd;
use crate::error::Error;
use crate::load;
use crate::setup::qemu::{MIN_VERSION, Qemu, Version};

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
        let own = own_machines(image);
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

/// A machine that a test image wants, and the versions of QEMU that have it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Which devices.
    pub variant: Variant,
    /// The oldest version.
    since: Version,
    /// The first version that has it no more.
    before: Option<Version>,
    /// The only image that is run on it; none: each.
    only: Option<&'static str>,
}

impl Wanted {
    /// One that every version has.
    pub const fn any(variant: Variant) -> Self {
        Self { variant, since: MIN_VERSION, before: None, only: None }
    }

    const fn since(variant: Variant, since: Version) -> Self {
        Self { variant, since, before: None, only: None }
    }

    const fn only(variant: Variant, image: &'static str) -> Self {
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
fn own_machines(image: &str) -> &'static [Wanted] {
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

/// How a machine is run, apart from its image.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Which devices.
    pub variant: Variant,
    /// How guest code runs.
    pub accel: Accel,
    /// Whether instructions are counted.
    pub icount: bool,
    /// Whether the clock of the machine runs with its instructions, and fast: what a device takes
    /// 100 ms for is done after 400 000 of them. Nothing depends on the host's speed then.
    pub fast_clock: bool,
}

impl Setting {
    /// Refuses what can't work on this host.
    pub fn check(&self, machine: &Machine) -> Result<(), Error> {
        self.check_on(machine, consts::ARCH, Path::new("/dev/kvm").exists())
    }

    /// Tells whether the machine has one IOMMU, so that cases that need two are skipped.
    pub fn has_one_iommu(&self, machine: &Machine) -> bool {
        let options = (machine.options)(self.variant).unwrap_or_default();
        options.iter().copied().flatten().filter(|option| is_iommu(option)).count() == 1
    }

    fn check_on(&self, machine: &Machine, host: &str, has_kvm: bool) -> Result<(), Error> {
        if (machine.options)(self.variant).is_none() {
            return Err(Error::Usage(format!("there is no such machine for {}", machine.name)));
        }
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

fn is_iommu(option: &str) -> bool {
    option.contains("virtio-iommu-")
}

/// Returns the command line that boots `image`, which is given `arguments` beside those that tell it
/// of the machine.
pub fn command_line(
    qemu: &Path,
    machine: &Machine,
    setting: Setting,
    image: &Path,
    arguments: &str,
) -> Cmd {
    let cpu: &[&str] = match setting.accel {
        Accel::Tcg => &["-accel", "tcg", "-cpu", machine.cpu],
        Accel::Kvm => &["-accel", "kvm", "-cpu", machine.kvm_cpu],
    };
    let icount: &[&str] = match setting {
        Setting { icount: true, .. } => &["-icount", "shift=0"],
        Setting { fast_clock: true, accel: Accel::Tcg, .. } => &["-icount", "shift=8"],
        _ => &[],
    };
    let options = (machine.options)(setting.variant).unwrap_or_default();
    let mut line: Vec<String> = options.iter().copied().flatten().map(|o| (*o).into()).collect();
    if !arguments.is_empty() {
        // QEMU takes the last `-append` alone.
        match line.iter().position(|option| option == "-append") {
            Some(at) => line[at + 1] += &format!(" {arguments}"),
            None => line.extend(["-append".into(), arguments.into()]),
        }
    }
    Cmd::new(qemu).args(line).args(cpu).args(icount).args([OsString::from("-kernel"), image.into()])
}

static AARCH64: Machine = Machine {
    name: "aarch64",
    target: "aarch64-unknown-none",
    packages: &["iommu-aarch64", "iommu-peer"],
    qemu: "qemu-system-aarch64",
    qemu_package: "qemu-system-arm",
    firmware: None,
    tested: &[
        (Wanted::any(Variant::TwoIommus), "virt, one IOMMU on PCI and one on MMIO"),
        (Wanted::any(Variant::MmioIommu), "virt, one IOMMU on MMIO"),
    ],
    options: |variant| {
        Some(match variant {
            Variant::SupervisorMode => return None,
            Variant::Bench => &[VIRT, BENCH_CONSOLE, GIC_3, BENCH_IOMMU, BENCH_EDUS],
            Variant::BenchQuick => {
                &[VIRT, BENCH_CONSOLE, GIC_3, BENCH_IOMMU, BENCH_EDUS, QUICK_ARGUMENTS]
            }
            Variant::Load => &[VIRT, TWO_CPUS, BENCH_CONSOLE, GIC_3, BENCH_IOMMU, BENCH_EDUS],
            Variant::TwoIommus => {
                &[VIRT, CONSOLE, MMIO, PXB, PCI_IOMMU, PX_IOMMU, PX_PORT, EDUS, VIRT_ARGUMENTS]
            }
            Variant::OneIommu => &[VIRT, CONSOLE, MMIO, PCI_IOMMU, ROOT_PORT, EDUS],
            Variant::NoIommu => &[VIRT, CONSOLE, MMIO, ROOT_PORT, EDUS],
            Variant::LargeGranule => &[VIRT, CONSOLE, MMIO, COARSE_IOMMU, ROOT_PORT, EDUS],
            Variant::MmioIommu => {
                &[VIRT, CONSOLE, MMIO, ROOT_IOMMU, ROOT_PORT, EDUS, VIRT_ROOT_ARGUMENTS]
            }
            Variant::BypassOff => &[
                VIRT,
                CONSOLE,
                MMIO,
                PXB,
                CLOSED_IOMMU,
                CLOSED_PX_IOMMU,
                PX_PORT,
                EDUS,
                VIRT_ARGUMENTS,
            ],
            Variant::ReservedRegions => &[VIRT, NO_MESSAGES, CONSOLE, RESERVING_IOMMU, SCRIPTS],
            Variant::ReservedRegionsJson => {
                &[VIRT, NO_MESSAGES, CONSOLE, RESERVING_IOMMU_JSON, SCRIPTS]
            }
            Variant::AwBits32 => {
                &[VIRT, CONSOLE, MMIO, PXB, PCI_IOMMU_32, PX_IOMMU, PX_PORT, EDUS, VIRT_ARGUMENTS]
            }
            Variant::AwBits39 => {
                &[VIRT, CONSOLE, MMIO, PXB, PCI_IOMMU_39, PX_IOMMU, PX_PORT, EDUS, VIRT_ARGUMENTS]
            }
        })
    },
    cpu: "cortex-a72",
    kvm_cpu: "host",
    exit_code: Some,
};

static X86_64: Machine = Machine {
    name: "x86_64",
    target: "x86_64-unknown-none",
    packages: &["iommu-x86_64", "iommu-harness", "iommu-peer"],
    qemu: "qemu-system-x86_64",
    qemu_package: "qemu-system-x86",
    firmware: None,
    // QEMU refuses a second virtio-iommu-pci on a PC, and q35 has no bus for one on MMIO. microvm has,
    // and no other.
    tested: &[
        (Wanted::any(Variant::OneIommu), "q35, one IOMMU on PCI"),
        (Wanted::any(Variant::TwoIommus), "microvm, two IOMMUs on MMIO"),
    ],
    options: |variant| match variant {
        Variant::TwoIommus => Some(&[
            MICROVM,
            CONSOLE,
            MMIO,
            PXB,
            ROOT_IOMMU,
            PX_IOMMU,
            PX_PORT,
            EDUS,
            MICROVM_ARGUMENTS,
        ]),
        Variant::Bench | Variant::Load => Some(&[Q35, BENCH_CONSOLE, BENCH_IOMMU, BENCH_EDUS]),
        Variant::BenchQuick => {
            Some(&[Q35, BENCH_CONSOLE, BENCH_IOMMU, BENCH_EDUS, QUICK_ARGUMENTS])
        }
        Variant::OneIommu => Some(&[Q35, CONSOLE, PXB, PCI_IOMMU, PX_PORT, EDUS]),
        Variant::NoIommu => Some(&[Q35, CONSOLE, PXB, PX_PORT, EDUS]),
        Variant::LargeGranule => Some(&[Q35, CONSOLE, PXB, COARSE_IOMMU, PX_PORT, EDUS]),
        Variant::BypassOff => Some(&[
            MICROVM,
            CONSOLE,
            MMIO,
            PXB,
            CLOSED_ROOT_IOMMU,
            CLOSED_PX_IOMMU,
            PX_PORT,
            EDUS,
            MICROVM_ARGUMENTS,
        ]),
        Variant::AwBits32 => Some(&[
            MICROVM,
            CONSOLE,
            MMIO,
            PXB,
            ROOT_IOMMU_32,
            PX_IOMMU,
            PX_PORT,
            EDUS,
            MICROVM_ARGUMENTS,
        ]),
        Variant::AwBits39 => Some(&[
            MICROVM,
            CONSOLE,
            MMIO,
            PXB,
            ROOT_IOMMU_39,
            PX_IOMMU,
            PX_PORT,
            EDUS,
            MICROVM_ARGUMENTS,
        ]),
        // A PC has a region of its own for interrupt messages, and then takes no others.
        Variant::MmioIommu
        | Variant::ReservedRegions
        | Variant::ReservedRegionsJson
        | Variant::SupervisorMode => None,
    },
    cpu: "qemu64",
    // A KVM inside a virtual machine may refuse to set what tells the CPU's flaws; QEMU then aborts.
    kvm_cpu: "host,-arch-capabilities",
    exit_code: debug_exit,
};

static RISCV64: Machine = Machine {
    name: "riscv64",
    target: "riscv64gc-unknown-none-elf",
    packages: &["iommu-riscv64", "iommu-harness"],
    qemu: "qemu-system-riscv64",
    qemu_package: "qemu-system-misc",
    firmware: Some(("opensbi-riscv64-generic-fw_dynamic.bin", &["qemu-system-data", "opensbi"])),
    // QEMU 7.2 refuses a virtio-iommu-pci here, 10.0 takes one; between the two nobody has looked. There
    // is no bridge to a second root bus.
    tested: &[
        (Wanted::any(Variant::MmioIommu), "virt in machine mode, one IOMMU on MMIO"),
        (
            Wanted::since(Variant::OneIommu, Version(10, 0)),
            "virt in machine mode, one IOMMU on PCI; QEMU 10.0 and newer",
        ),
        (
            Wanted::only(Variant::SupervisorMode, "boot"),
            "virt in supervisor mode under OpenSBI, one IOMMU on MMIO; for the image `boot`",
        ),
    ],
    options: |variant| match variant {
        Variant::Bench | Variant::Load => {
            Some(&[RISCV_VIRT, BENCH_CONSOLE, MMIO, ROOT_IOMMU, BENCH_EDUS, RISCV_ARGUMENTS])
        }
        Variant::BenchQuick => {
            Some(&[RISCV_VIRT, BENCH_CONSOLE, MMIO, ROOT_IOMMU, BENCH_EDUS, RISCV_QUICK_ARGUMENTS])
        }
        Variant::MmioIommu => {
            Some(&[RISCV_VIRT, CONSOLE, MMIO, ROOT_IOMMU, ROOT_PORT, EDUS, RISCV_ARGUMENTS])
        }
        Variant::NoIommu => Some(&[RISCV_VIRT, CONSOLE, MMIO, ROOT_PORT, EDUS]),
        Variant::LargeGranule => {
            Some(&[RISCV_VIRT, CONSOLE, MMIO, COARSE_ROOT_IOMMU, ROOT_PORT, EDUS, RISCV_ARGUMENTS])
        }
        Variant::BypassOff => {
            Some(&[RISCV_VIRT, CONSOLE, MMIO, CLOSED_ROOT_IOMMU, ROOT_PORT, EDUS, RISCV_ARGUMENTS])
        }
        Variant::AwBits32 => {
            Some(&[RISCV_VIRT, CONSOLE, MMIO, ROOT_IOMMU_32, ROOT_PORT, EDUS, RISCV_ARGUMENTS])
        }
        Variant::AwBits39 => {
            Some(&[RISCV_VIRT, CONSOLE, MMIO, ROOT_IOMMU_39, ROOT_PORT, EDUS, RISCV_ARGUMENTS])
        }
        Variant::SupervisorMode => Some(&[
            RISCV_VIRT_FIRMWARE,
            CONSOLE,
            MMIO,
            ROOT_IOMMU,
            ROOT_PORT,
            EDUS,
            RISCV_ARGUMENTS,
        ]),
        Variant::OneIommu => Some(&[RISCV_VIRT, CONSOLE, MMIO, PCI_IOMMU, ROOT_PORT, EDUS]),
        // Regions of the user's are for an IOMMU on PCI.
        Variant::TwoIommus | Variant::ReservedRegions | Variant::ReservedRegionsJson => None,
    },
    cpu: "rv64",
    kvm_cpu: "host",
    exit_code: Some,
};

/// What `isa-debug-exit` makes of a value is twice the value plus one. 0x10 stands for success. QEMU's
/// own errors end with 1; 0 is a reset or power-down, as after a triple fault.
fn debug_exit(status: i32) -> Option<i32> {
    match status {
        0x21 => Some(0),
        3.. if status % 2 == 1 => Some(status / 2),
        _ => None,
    }
}

const VIRT: &[&str] = &["-M", "virt", "-semihosting"];
const Q35: &[&str] = &["-M", "q35", "-device", DEBUG_EXIT];
const MICROVM: &[&str] = &["-M", "microvm,pcie=on", "-device", DEBUG_EXIT];
/// Without firmware the board starts at the beginning of RAM, wherever the image lies: there, two
/// instructions (`auipc t0, 0x200`, `jr t0`) lead to the image, 2 MiB above.
#[rustfmt::skip]
const RISCV_VIRT: &[&str] = &[
    "-M", "virt", "-bios", "none",
    "-device", "loader,addr=0x80000000,data=0x0002806700200297,data-len=8",
];
/// The firmware that comes with QEMU, OpenSBI, starts the image in supervisor mode.
const RISCV_VIRT_FIRMWARE: &[&str] = &["-M", "virt", "-bios", "default"];
const DEBUG_EXIT: &str = "isa-debug-exit,iobase=0xf4,iosize=4";
/// Memory, and the console as all there is beside the devices that are named.
const CONSOLE: &[&str] =
    &["-m", "256", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"];
/// The same with memory for a million mappings.
const BENCH_CONSOLE: &[&str] =
    &["-m", "4G", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"];
const TWO_CPUS: &[&str] = &["-smp", "2"];
const GIC_3: &[&str] = &["-machine", "gic-version=3"];
#[rustfmt::skip] // one option with its value per line
const MMIO: &[&str] = &[
    // virtio-mmio starts in legacy mode, and then the IOMMU never answers.
    "-global", "virtio-mmio.force-legacy=false",
    // Takes QEMU's event loop out of the completion of requests over MMIO.
    "-global", "virtio-mmio.ioeventfd=off",
];
/// A second root bus. It takes bridges only, hence `PX_PORT`.
const PXB: &[&str] = &["-device", "pxb-pcie,id=px,bus=pcie.0,bus_nr=10,addr=5"];
const PX_PORT: &[&str] = &["-device", "pcie-root-port,id=rp,bus=px,chassis=1"];

/// The same on the first root bus.
const ROOT_PORT: &[&str] = &["-device", "pcie-root-port,id=rp,bus=pcie.0,addr=5,chassis=1"];

const PCI_IOMMU: &[&str] = &["-device", "virtio-iommu-pci,addr=1,bus=pcie.0"];
const COARSE_IOMMU: &[&str] = &["-device", "virtio-iommu-pci,addr=1,bus=pcie.0,granule=64k"];
const ROOT_IOMMU: &[&str] = &["-device", "virtio-iommu-device,primary-bus=pcie.0"];
const COARSE_ROOT_IOMMU: &[&str] =
    &["-device", "virtio-iommu-device,primary-bus=pcie.0,granule=64k"];
const PX_IOMMU: &[&str] = &["-device", "virtio-iommu-device,primary-bus=px"];

/// Without a driver these let nothing pass; the others let everything pass.
const CLOSED_IOMMU: &[&str] = &["-device", "virtio-iommu-pci,addr=1,bus=pcie.0,boot-bypass=off"];
const CLOSED_ROOT_IOMMU: &[&str] =
    &["-device", "virtio-iommu-device,primary-bus=pcie.0,boot-bypass=off"];
const CLOSED_PX_IOMMU: &[&str] = &["-device", "virtio-iommu-device,primary-bus=px,boot-bypass=off"];

const PCI_IOMMU_32: &[&str] = &["-device", "virtio-iommu-pci,addr=1,bus=pcie.0,aw-bits=32"];
const PCI_IOMMU_39: &[&str] = &["-device", "virtio-iommu-pci,addr=1,bus=pcie.0,aw-bits=39"];
const ROOT_IOMMU_32: &[&str] = &["-device", "virtio-iommu-device,primary-bus=pcie.0,aw-bits=32"];
const ROOT_IOMMU_39: &[&str] = &["-device", "virtio-iommu-device,primary-bus=pcie.0,aw-bits=39"];

/// A board with message-signalled interrupts gives the IOMMU a region of its own, and takes no
/// others; without them it takes ours, and no `edu`, which insists on messages. So the DMA engine
/// is a SCSI controller that runs scripts.
const NO_MESSAGES: &[&str] = &["-machine", "gic-version=3,its=off"];
#[rustfmt::skip]
const SCRIPTS: &[&str] = &[
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

/// No firmware tells which root bus an instance on MMIO serves, so we do: `iommu.mmio=REGISTERS:BUS`.
/// The first device takes the highest slot.
const VIRT_ARGUMENTS: &[&str] = &["-append", "iommu.mmio=0x0a003e00:10"];
const VIRT_ROOT_ARGUMENTS: &[&str] = &["-append", "iommu.mmio=0x0a003e00:0"];
const RISCV_ARGUMENTS: &[&str] = &["-append", "iommu.mmio=0x10008000:0"];
const QUICK_ARGUMENTS: &[&str] = &["-append", "bench.most=10000"];
const RISCV_QUICK_ARGUMENTS: &[&str] = &["-append", "iommu.mmio=0x10008000:0 bench.most=10000"];
/// The tables of microvm have no MCFG, so we tell where configuration space is, too.
const MICROVM_ARGUMENTS: &[&str] =
    &["-append", "pci.ecam=0xe0000000 iommu.mmio=0xfeb02e00:0 iommu.mmio=0xfeb02c00:10"];

/// Five DMA engines: two alone on the first root bus, two behind a bridge to conventional PCI that
/// share one endpoint id, and one behind the port `rp`.
#[rustfmt::skip]
const EDUS: &[&str] = &[
    "-device", "edu,bus=pcie.0,addr=2,dma_mask=0xffffffffffffffff",
    "-device", "edu,bus=pcie.0,addr=3,dma_mask=0xffffffffffffffff",
    "-device", "pcie-pci-bridge,id=br,bus=pcie.0,addr=4",
    "-device", "edu,bus=br,addr=1,dma_mask=0xffffffffffffffff",
    "-device", "edu,bus=br,addr=2,dma_mask=0xffffffffffffffff",
    "-device", "edu,bus=rp,addr=0,dma_mask=0xffffffffffffffff",
];

/// What is measured has the devices at the places that they have for Linux, which it is compared
/// with: one IOMMU, and eight groups.
const BENCH_IOMMU: &[&str] = &["-device", "virtio-iommu-pci,addr=0x2"];
#[rustfmt::skip]
const BENCH_EDUS: &[&str] = &[
    "-device", "edu,addr=0x4", "-device", "edu,addr=0x5", "-device", "edu,addr=0x6",
    "-device", "edu,addr=0x7", "-device", "edu,addr=0x8", "-device", "edu,addr=0x9",
    "-device", "edu,addr=0xa", "-device", "edu,addr=0xb",
];

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Setting = Setting {
        variant: Variant::TwoIommus,
        accel: Accel::Tcg,
        icount: false,
        fast_clock: false,
    };

    fn line(setting: Setting) -> String {
        line_with(&AARCH64, setting, "")
    }

    fn line_with(machine: &Machine, setting: Setting, arguments: &str) -> String {
        let (qemu, image) = (Path::new("qemu"), Path::new("image.elf"));
        command_line(qemu, machine, setting, image, arguments).to_string()
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

    #[test]
    fn only_an_instance_on_mmio_is_announced() {
        let announced = |variant| line(Setting { variant, ..PLAIN }).contains("iommu.mmio=");
        assert!(announced(Variant::TwoIommus));
        assert!(!announced(Variant::OneIommu));
        assert!(!announced(Variant::NoIommu));
    }

    #[test]
    fn a_pc_with_two_iommus_is_another_board() {
        let rows = [
            (Variant::TwoIommus, 2, "microvm"),
            (Variant::OneIommu, 1, "q35"),
            (Variant::NoIommu, 0, "q35"),
        ];
        for (variant, count, board) in rows {
            let setting = Setting { variant, ..PLAIN };
            let line = line_with(&X86_64, setting, "");
            assert_eq!(line.matches("-device virtio-iommu-").count(), count, "{line}");
            assert_eq!(line.matches("iommu.mmio=").count(), if count == 2 { 2 } else { 0 });
            assert!(line.contains(board), "{line}");
            assert_eq!(setting.has_one_iommu(&X86_64), count == 1);
        }
    }

    #[test]
    fn every_machine_is_tested_with_what_it_has() {
        for machine in all() {
            assert_eq!(machine.variant(), machine.tested[0].0.variant);
            for (wanted, _) in machine.tested {
                let setting = Setting { variant: wanted.variant, ..PLAIN };
                assert!(setting.check_on(machine, "x86_64", false).is_ok());
            }
        }
    }

    #[test]
    fn firmware_starts_one_machine_and_the_image_the_others() {
        for variant in [Variant::MmioIommu, Variant::OneIommu, Variant::SupervisorMode] {
            let line = line_with(&RISCV64, Setting { variant, ..PLAIN }, "");
            let has_firmware = variant == Variant::SupervisorMode;
            assert_eq!(RISCV64.has_firmware(variant), has_firmware);
            assert_eq!(line.contains("-bios default"), has_firmware, "{line}");
            assert_eq!(line.contains("-device loader,addr=0x80000000,"), !has_firmware, "{line}");
            assert_eq!(line.contains("iommu.mmio="), variant != Variant::OneIommu, "{line}");
            assert!(Setting { variant, ..PLAIN }.has_one_iommu(&RISCV64));
        }
        assert_eq!(RISCV64.whole_since(), Version(10, 0));
        assert_eq!(AARCH64.whole_since(), MIN_VERSION);
    }

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
    fn a_machine_that_is_not_there_is_wrong_usage() {
        let error = PLAIN.check_on(&RISCV64, "x86_64", false).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn what_is_measured_runs_on_the_machine_that_linux_is_measured_on() {
        let variants = [Variant::Bench, Variant::BenchQuick, Variant::Load];
        for (machine, variant) in all().into_iter().flat_map(|one| variants.map(|v| (one, v))) {
            let setting = Setting { variant, icount: true, ..PLAIN };
            let line = line_with(machine, setting, "");
            assert_eq!(line.matches("-device edu,addr=0x").count(), 8, "{line}");
            assert!(setting.has_one_iommu(machine), "{line}");
            assert_eq!(line.contains("bench.most=10000"), variant == Variant::BenchQuick);
            let has_two_cpus = machine.name == "aarch64" && variant == Variant::Load;
            assert_eq!(line.contains("-smp 2"), has_two_cpus, "{line}");
            assert_eq!(line.contains("iommu.mmio="), machine.name == "riscv64");
            assert!(line.contains("-m 4G") && line.contains("-icount shift=0"), "{line}");
        }
    }

    #[test]
    fn icount_and_kvm_change_the_line() {
        assert!(!line(PLAIN).contains("-icount"));
        assert!(line(Setting { icount: true, ..PLAIN }).contains("-icount shift=0"));
        let fast = Setting { fast_clock: true, ..PLAIN };
        assert!(line(fast).contains("-icount shift=8"));
        assert!(!line(Setting { accel: Accel::Kvm, ..fast }).contains("-icount"));
        assert!(line(Setting { accel: Accel::Kvm, ..PLAIN }).contains("-accel kvm -cpu host"));
    }

    #[test]
    fn arguments_join_those_that_tell_of_the_machine() {
        let both = line_with(&AARCH64, PLAIN, "sabotage=x");
        assert!(both.contains("-append 'iommu.mmio=0x0a003e00:10 sabotage=x'"), "{both}");
        let one = Setting { variant: Variant::OneIommu, ..PLAIN };
        assert!(line_with(&AARCH64, one, "sabotage=x").contains("-append sabotage=x "));
        assert!(!line(one).contains("-append"));
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
    fn aarch64_is_the_default_and_every_architecture_is_there() {
        let names = [Arch::Aarch64, Arch::X86_64, Arch::Riscv64].map(|arch| find(Some(arch)).name);
        assert_eq!(names, all().map(|machine| machine.name));
        assert_eq!(find(None).name, "aarch64");
    }
}
