//! The command line: what can be asked.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Builds the images of this workspace, boots them in QEMU with a real virtio-iommu, and judges them.
///
/// Without a command it runs the demo: sets up what is missing, builds and boots the demo image, and
/// shows its story.
///
/// Exit status: 0 everything held; 1 something failed; 2 wrong usage; 3 a prerequisite is missing and
/// was not installed; 130 after Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "cargo qemu", bin_name = "cargo qemu", version)]
pub struct Cli {
    /// What to do; the demo if nothing is given.
    #[command(subcommand)]
    pub action: Option<Action>,
    /// Options of every command.
    #[command(flatten)]
    pub common: Common,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Run the host tests, then the boot tests; the last line is `N passed, M failed`.
    ///
    /// With --arch or FILTER only boot tests run.
    Test {
        /// Report only boot tests whose name contains this text.
        ///
        /// An image can't run a part of its cases, so every image that holds a matching case runs
        /// as a whole; only the matching cases are reported and counted. A matching case that did
        /// not run because an earlier one failed counts as failed.
        filter: Option<String>,
        /// Check the tests instead: break the library on purpose, one sabotage after the other, and
        /// report which boot case notices each.
        ///
        /// One build holds all sabotages; each boot turns one on. Exit status 1 if no case notices
        /// one. On aarch64 without --arch. FILTER chooses sabotages by their names.
        #[arg(long)]
        mutants: bool,
        /// With --mutants: go on after the first case that notices, and report all of them.
        #[arg(long, requires = "mutants")]
        all: bool,
        /// Give the image `load` the large numbers: 1 000 000 mappings in one domain, 1 048 576 cycles
        /// of map and unmap, 65 536 operations on each of two CPUs. Takes half a minute.
        ///
        /// Without it the numbers are a tenth and less. The limit of its boot is 1200 seconds instead
        /// of 120. `cargo qemu test --long --arch aarch64 load_` runs it alone.
        #[arg(long, conflicts_with = "mutants")]
        long: bool,
    },
    /// Boot the examples of `examples/bare_metal` and show what they tell.
    Example {
        /// Only the one with this name.
        name: Option<String>,
    },
    /// Count what every operation costs: instructions, requests and notifies, exact under -icount.
    ///
    /// Without --arch, on every architecture. Exit status 1 if --compare finds a cost that grew by
    /// more than 5 %. With --peer, what a user would pick instead stands beside it.
    Bench(BenchArgs),
    /// Find or install what is needed, and nothing else.
    Setup {
        /// Change nothing: list what is there, what is missing, and the command to install it.
        ///
        /// Exit status 3 if something is missing.
        #[arg(long)]
        check: bool,
    },
    /// Run clippy on the bare-metal packages; warnings are errors.
    Lint,
    /// Boot one image and judge it; cargo's runner for the bare-metal targets.
    #[command(hide = true)]
    Run {
        /// The ELF file.
        image: PathBuf,
        /// What cargo passes on to a test program. An image can't take arguments, so they are an error.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

/// What `cargo qemu bench` can be asked.
#[derive(Args, Clone, Debug, Default)]
pub struct BenchArgs {
    /// Write the results to this file, for machines.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Leave out what needs more than 10 000 mappings.
    #[arg(long)]
    pub quick: bool,
    /// Compare with the results of an earlier run; a cost that grew by more than 5 % fails.
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// Measure this as well, on the same machine in the same run. On aarch64 and x86_64.
    #[arg(long, value_enum)]
    pub peer: Option<Peer>,
    /// The kernel of the peer: a package of Debian's, to be given more than once where image and modules
    /// are two, or the folder of an unpacked one. Needs --arch, and no network.
    #[arg(long, value_name = "FILE", requires = "peer")]
    pub kernel: Vec<PathBuf>,
    /// Fetch the peer's kernel from this suite of Debian's.
    ///
    /// Without a choice it is that of the machine, or unstable if that has no driver for a virtio-iommu.
    #[arg(long, value_name = "NAME", requires = "peer", conflicts_with = "kernel")]
    pub suite: Option<String>,
    /// Compare with the committed baseline (benches/baseline), as CI does.
    #[arg(long, conflicts_with = "compare")]
    pub check: bool,
    /// Measure twice and fail if one count differs.
    #[arg(long)]
    pub twice: bool,
    /// Measure nothing: take the results of an earlier run.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["twice", "peer"])]
    pub from: Option<PathBuf>,
    /// Write an HTML page with plots to this folder, ours beside Linux.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Write the figures and plots of docs/performance.md anew.
    #[arg(long, conflicts_with = "quick")]
    pub update_docs: bool,
    /// Make the results the committed baseline.
    #[arg(long, conflicts_with_all = ["quick", "check"])]
    pub update_baseline: bool,
}

/// What we are measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// The type1 container of Linux with Linux's driver for a virtio-iommu.
    Linux,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Architecture to build and boot for. The default is aarch64 for the demo and the
    /// examples, and all for tests, set-up and lint.
    #[arg(long, global = true, value_enum)]
    pub arch: Option<Arch>,
    /// How QEMU runs guest code.
    ///
    /// A KVM inside a virtual machine may be much slower than `tcg`, so boots under `kvm` get ten times
    /// their limits.
    #[arg(long, global = true, value_enum, default_value_t = Accel::Tcg)]
    pub accel: Accel,
    /// The QEMU program to use; never installed, must be there.
    ///
    /// It boots one architecture: that of --arch, or else that of its name.
    #[arg(long, global = true, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
    /// Exact instruction counts (-icount shift=0); slower.
    #[arg(long, global = true)]
    pub icount: bool,
    /// Limit for each boot: 60 seconds without a choice, 120 for the image `load`, and 1200 for a
    /// benchmark or a long load; ten times that under `kvm`.
    #[arg(long, global = true, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: Option<u64>,
    /// Show every QEMU and cargo command line, and where each message comes from.
    #[arg(long, global = true)]
    pub verbose: bool,
    /// Install nothing: if something is missing, say so and exit with 3.
    #[arg(long, global = true)]
    pub no_setup: bool,
    /// Variant of the machine; the others are for tests of the images.
    #[arg(long, global = true, hide = true, value_enum)]
    pub machine: Option<Variant>,
}

impl Common {
    /// Returns the limit for each boot; without a choice, `default` seconds where guest code is
    /// translated, and more under a KVM.
    pub fn limit(&self, default: u64) -> Duration {
        Duration::from_secs(self.timeout.unwrap_or(default * self.accel.patience()))
    }
}

/// Architectures by the names that Rust uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// 64-bit Arm.
    Aarch64,
    /// 64-bit x86.
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit RISC-V.
    Riscv64,
}

/// How QEMU runs guest code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// Translated; works everywhere.
    Tcg,
    /// On the host's processor; host and guest must be of one architecture.
    Kvm,
}

impl Accel {
    /// By how much a boot may take longer. A limit only ends what hangs: a KVM that is itself inside a
    /// virtual machine can be slower than translation by more than an order of magnitude.
    fn patience(self) -> u64 {
        match self {
            Self::Tcg => 1,
            Self::Kvm => 10,
        }
    }
}

/// Variants of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Variant {
    /// What the benchmark runs on: one IOMMU, eight devices on the root bus, 4 GiB, and a second CPU
    /// where an image can start one.
    Bench,
    /// The same, with the request to measure at most 10 000 mappings.
    BenchQuick,
    /// As `bench`, for the load.
    Load,
    /// Two IOMMUs, each with its own root bus.
    TwoIommus,
    /// One IOMMU that serves all buses.
    OneIommu,
    /// No IOMMU: the images must notice.
    NoIommu,
    /// One IOMMU whose smallest mapping is larger than a page. QEMU 9.0 and newer.
    LargeGranule,
    /// One IOMMU on MMIO that serves the first root bus.
    MmioIommu,
    /// As `mmio-iommu`, in supervisor mode under the firmware that comes with QEMU. On riscv64.
    SupervisorMode,
    /// As `two-iommus`, but both block their devices from the start.
    BypassOff,
    /// One IOMMU on PCI with reserved regions of the user's, on a board without interrupt
    /// messages. In the words of QEMU before 8.2.
    ReservedRegions,
    /// The same in the words of newer ones.
    ReservedRegionsJson,
    /// As `two-iommus`, with addresses of 32 bits on PCI. QEMU 9.0 and newer.
    #[value(name = "aw-bits-32")]
    AwBits32,
    /// As `two-iommus`, with addresses of 39 bits on PCI. QEMU 9.0 and newer.
    #[value(name = "aw-bits-39")]
    AwBits39,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn kind(args: &[&str]) -> ErrorKind {
        Cli::try_parse_from([&["cargo qemu"], args].concat()).unwrap_err().kind()
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_usage_is_refused() {
        assert_eq!(kind(&["--no-such-option"]), ErrorKind::UnknownArgument);
        assert_eq!(kind(&["no-such-command"]), ErrorKind::InvalidSubcommand);
        assert_eq!(kind(&["--arch", "vax"]), ErrorKind::InvalidValue);
        assert_eq!(kind(&["--timeout", "0"]), ErrorKind::ValueValidation);
        assert_eq!(kind(&["test", "one", "two"]), ErrorKind::UnknownArgument);
        assert_eq!(kind(&["test", "--all"]), ErrorKind::MissingRequiredArgument);
        assert_eq!(kind(&["test", "--long", "--mutants"]), ErrorKind::ArgumentConflict);
    }

    #[test]
    fn a_limit_follows_the_accelerator_unless_it_was_chosen() {
        let limit = |args: &[&str]| {
            let cli = Cli::try_parse_from([&["cargo qemu"], args].concat()).expect("parses");
            cli.common.limit(60).as_secs()
        };
        assert_eq!((limit(&[]), limit(&["--accel", "kvm"])), (60, 600));
        assert_eq!(limit(&["--accel", "kvm", "--timeout", "5"]), 5);
    }

    #[test]
    fn options_work_before_and_after_the_command() {
        for args in [["--arch", "x86_64", "test"], ["test", "--arch", "x86_64"]] {
            let cli = Cli::try_parse_from([&["cargo qemu"], &args[..]].concat()).expect("parses");
            assert_eq!(cli.common.arch, Some(Arch::X86_64));
        }
    }
}
