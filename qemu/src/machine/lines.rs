//! Lists of QEMU's options, the pieces of which the rows make their command lines. Data only.

pub const VIRT: &[&str] = &["-M", "virt", "-semihosting"];
pub const Q35: &[&str] = &["-M", "q35", "-device", DEBUG_EXIT];
pub const MICROVM: &[&str] = &["-M", "microvm,pcie=on", "-device", DEBUG_EXIT];
/// Without firmware the board starts at the beginning of RAM, wherever the image lies: there, two
/// instructions (`auipc t0, 0x200`, `jr t0`) lead to the image, 2 MiB above.
#[rustfmt::skip]
pub const RISCV_VIRT: &[&str] = &[
    "-M", "virt", "-bios", "none",
    "-device", "loader,addr=0x80000000,data=0x0002806700200297,data-len=8",
];
/// The firmware that comes with QEMU, OpenSBI, starts the image in supervisor mode.
pub const RISCV_VIRT_FIRMWARE: &[&str] = &["-M", "virt", "-bios", "default"];
pub const DEBUG_EXIT: &str = "isa-debug-exit,iobase=0xf4,iosize=4";
/// Memory, and the console as all there is beside the devices that are named.
pub const CONSOLE: &[&str] =
    &["-m", "256", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"];
/// The same with memory for a million mappings.
pub const BENCH_CONSOLE: &[&str] =
    &["-m", "4G", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"];
pub const TWO_CPUS: &[&str] = &["-smp", "2"];
pub const GIC_3: &[&str] = &["-machine", "gic-version=3"];
#[rustfmt::skip] // one option with its value per line
pub const MMIO: &[&str] = &[
    // virtio-mmio starts in legacy mode, and then the IOMMU never answers.
    "-global", "virtio-mmio.force-legacy=false",
    // Takes QEMU's event loop out of the completion of requests over MMIO.
    "-global", "virtio-mmio.ioeventfd=off",
];
/// A second root bus. It takes bridges only, hence `PX_PORT`.
pub const PXB: &[&str] = &["-device", "pxb-pcie,id=px,bus=pcie.0,bus_nr=10,addr=5"];
pub const PX_PORT: &[&str] = &["-device", "pcie-root-port,id=rp,bus=px,chassis=1"];

/// The same on the first root bus.
pub const ROOT_PORT: &[&str] = &["-device", "pcie-root-port,id=rp,bus=pcie.0,addr=5,chassis=1"];

pub const PCI_IOMMU: &[&str] = &["-device", "virtio-iommu-pci,addr=1,bus=pcie.0"];
pub const COARSE_IOMMU: &[&str] = &["-device", "virtio-iommu-pci,addr=1,bus=pcie.0,granule=64k"];
pub const ROOT_IOMMU: &[&str] = &["-device", "virtio-iommu-device,primary-bus=pcie.0"];
pub const COARSE_ROOT_IOMMU: &[&str] =
    &["-device", "virtio-iommu-device,primary-bus=pcie.0,granule=64k"];
pub const PX_IOMMU: &[&str] = &["-device", "virtio-iommu-device,primary-bus=px"];

/// Without a driver these let nothing pass; the others let everything pass.
pub const CLOSED_IOMMU: &[&str] =
    &["-device", "virtio-iommu-pci,addr=1,bus=pcie.0,boot-bypass=off"];
pub const CLOSED_ROOT_IOMMU: &[&str] =
    &["-device", "virtio-iommu-device,primary-bus=pcie.0,boot-bypass=off"];
pub const CLOSED_PX_IOMMU: &[&str] =
    &["-device", "virtio-iommu-device,primary-bus=px,boot-bypass=off"];

pub const PCI_IOMMU_32: &[&str] = &["-device", "virtio-iommu-pci,addr=1,bus=pcie.0,aw-bits=32"];
pub const PCI_IOMMU_39: &[&str] = &["-device", "virtio-iommu-pci,addr=1,bus=pcie.0,aw-bits=39"];
pub const ROOT_IOMMU_32: &[&str] =
    &["-device", "virtio-iommu-device,primary-bus=pcie.0,aw-bits=32"];
pub const ROOT_IOMMU_39: &[&str] =
    &["-device", "virtio-iommu-device,primary-bus=pcie.0,aw-bits=39"];

/// A board with message-signalled interrupts gives the IOMMU a region of its own, and takes no
/// others; without them it takes ours, and no `edu`, which insists on messages. So the DMA engine
/// is a SCSI controller that runs scripts.
pub const NO_MESSAGES: &[&str] = &["-machine", "gic-version=3,its=off"];
#[rustfmt::skip]
pub const SCRIPTS: &[&str] = &[
    "-device", "lsi53c895a,bus=pcie.0,addr=2",
    "-device", "lsi53c895a,bus=pcie.0,addr=3",
];
/// One region that is never usable, and one for interrupts.
#[rustfmt::skip]
pub const RESERVING_IOMMU: &[&str] = &[
    "-device", "virtio-iommu-pci,addr=1,bus=pcie.0,len-reserved-regions=2,\
        reserved-regions[0]=0x8000000:0x80fffff:0,reserved-regions[1]=0xc000000:0xc0fffff:1",
];
#[rustfmt::skip]
pub const RESERVING_IOMMU_JSON: &[&str] = &[
    "-device", r#"{"driver":"virtio-iommu-pci","addr":"1","bus":"pcie.0","reserved-regions":["0x8000000:0x80fffff:0","0xc000000:0xc0fffff:1"]}"#,
];

/// No firmware tells which root bus an instance on MMIO serves, so we do: `iommu.mmio=REGISTERS:BUS`.
/// The first device takes the highest slot.
pub const VIRT_ARGUMENTS: &[&str] = &["-append", "iommu.mmio=0x0a003e00:10"];
pub const VIRT_ROOT_ARGUMENTS: &[&str] = &["-append", "iommu.mmio=0x0a003e00:0"];
pub const RISCV_ARGUMENTS: &[&str] = &["-append", "iommu.mmio=0x10008000:0"];
pub const QUICK_ARGUMENTS: &[&str] = &["-append", "bench.most=10000"];
pub const RISCV_QUICK_ARGUMENTS: &[&str] = &["-append", "iommu.mmio=0x10008000:0 bench.most=10000"];
/// The tables of microvm have no MCFG, so we tell where configuration space is, too.
pub const MICROVM_ARGUMENTS: &[&str] =
    &["-append", "pci.ecam=0xe0000000 iommu.mmio=0xfeb02e00:0 iommu.mmio=0xfeb02c00:10"];

/// Five DMA engines: two alone on the first root bus, two behind a bridge to conventional PCI that
/// share one endpoint id, and one behind the port `rp`.
#[rustfmt::skip]
pub const EDUS: &[&str] = &[
    "-device", "edu,bus=pcie.0,addr=2,dma_mask=0xffffffffffffffff",
    "-device", "edu,bus=pcie.0,addr=3,dma_mask=0xffffffffffffffff",
    "-device", "pcie-pci-bridge,id=br,bus=pcie.0,addr=4",
    "-device", "edu,bus=br,addr=1,dma_mask=0xffffffffffffffff",
    "-device", "edu,bus=br,addr=2,dma_mask=0xffffffffffffffff",
    "-device", "edu,bus=rp,addr=0,dma_mask=0xffffffffffffffff",
];

/// What is measured has the devices at the places that they have for Linux, which it is compared
/// with: one IOMMU, and eight groups.
pub const BENCH_IOMMU: &[&str] = &["-device", "virtio-iommu-pci,addr=0x2"];
#[rustfmt::skip]
pub const BENCH_EDUS: &[&str] = &[
    "-device", "edu,addr=0x4", "-device", "edu,addr=0x5", "-device", "edu,addr=0x6",
    "-device", "edu,addr=0x7", "-device", "edu,addr=0x8", "-device", "edu,addr=0x9",
    "-device", "edu,addr=0xa", "-device", "edu,addr=0xb",
];
