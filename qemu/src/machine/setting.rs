//! How a machine is run, and the command line that comes of it.

use std::env::consts;
use std::ffi::OsString;
use std::path::Path;

use super::Machine;
use crate::cli::{Accel, Variant};
use crate::cmd::Cmd;
use crate::error::Error;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{AARCH64, MIN_VERSION, RISCV64, Version, X86_64, all};

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
            let has_two_cpus = machine.name == "aarch64";
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
    fn every_machine_is_tested_with_what_it_has() {
        for machine in all() {
            assert_eq!(machine.variant(), machine.tested[0].0.variant);
            for (wanted, _) in machine.tested {
                let setting = Setting { variant: wanted.variant, ..PLAIN };
                assert!(setting.check_on(machine, "x86_64", false).is_ok());
            }
        }
    }
}
