//! The rows: one architecture each. A new architecture is a new row, a new kind of machine is a new
//! arm in each.

use super::lines::*;
use super::{Machine, Wanted};
use crate::cli::Variant;
use crate::setup::qemu::Version;

pub static AARCH64: Machine = Machine {
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
            Variant::Bench | Variant::Load => {
                &[VIRT, TWO_CPUS, BENCH_CONSOLE, GIC_3, BENCH_IOMMU, BENCH_EDUS]
            }
            Variant::BenchQuick => {
                &[VIRT, TWO_CPUS, BENCH_CONSOLE, GIC_3, BENCH_IOMMU, BENCH_EDUS, QUICK_ARGUMENTS]
            }
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

pub static X86_64: Machine = Machine {
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

pub static RISCV64: Machine = Machine {
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
