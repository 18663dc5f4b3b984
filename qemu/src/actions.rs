//! The commands of the tool, each a short recipe over the other modules.

mod example;
mod mutants;
mod test;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::boot::Booter;
use crate::cli::{Action, Cli, Common, Variant};
use crate::decode::Image;
use crate::error::Error;
use crate::image::{self, Which};
use crate::interrupt::Interrupt;
use crate::load::Amount;
use crate::machine::{self, Machine, Setting};
use crate::process::{self, End};
use crate::progress::Progress;
use crate::report;
use crate::setup::host::RealHost;
use crate::setup::qemu::Qemu;
use crate::setup::toolchain::{self, Toolchain};
use crate::setup::{self, Options};
use crate::verdict::{Judged, Verdict};
use test::Asked;

/// Does what was asked; a bad verdict is exit status 1, not an error.
pub fn run(cli: Cli, interrupt: Interrupt) -> Result<ExitCode, Error> {
    let tool = Tool::new(cli.common, interrupt);
    match cli.action {
        None => tool.demo(),
        Some(Action::Test { filter, mutants: true, all, .. }) => {
            tool.mutants(filter.as_deref(), all)
        }
        Some(Action::Test { filter, long, .. }) => {
            tool.test(Asked { filter: filter.as_deref(), long })
        }
        Some(Action::Example { name }) => tool.examples(name.as_deref()),
        Some(Action::Bench(args)) => tool.bench(&args),
        Some(Action::Setup { check }) => tool.setup(check),
        Some(Action::Lint) => tool.lint(),
        Some(Action::Run { image, args }) => tool.run_image(&image, &args),
    }
}

/// What every command needs.
pub(crate) struct Tool {
    pub(crate) common: Common,
    pub(crate) host: RealHost,
    pub(crate) progress: Progress,
    pub(crate) root: PathBuf,
}

impl Tool {
    fn new(common: Common, interrupt: Interrupt) -> Self {
        let progress = Progress::new(common.verbose);
        Self { common, host: RealHost { interrupt }, progress, root: workspace() }
    }

    fn demo(&self) -> Result<ExitCode, Error> {
        let machine = self.machine();
        self.setting(machine.variant()).check(machine)?;
        let (qemu, toolchain) = self.prepare(machine)?;
        let images = self.build(Which::Demo, machine, &toolchain)?;
        let mut all_held = true;
        for path in images {
            let image = Image::load(&path, &self.root)?;
            let judged = self.boot(&image, machine, &qemu, Show::Story)?;
            self.progress.line(format_args!("demo on {}: {}", machine.name, judged.verdict));
            all_held &= judged.verdict == Verdict::Passed;
        }
        Ok(exit(all_held))
    }

    fn setup(&self, check: bool) -> Result<ExitCode, Error> {
        let machines = self.machines();
        let mut is_complete = true;
        for machine in machines {
            if !check {
                self.prepare(machine)?;
            }
            for item in setup::check(&self.host, machine, self.options())? {
                match item.state {
                    Ok(place) => self.progress.line(format_args!("{}: {place}", item.what)),
                    Err((why, command)) => {
                        is_complete = false;
                        self.progress.line(format_args!("{}: MISSING: {why}", item.what));
                        self.progress.line(format_args!("  to install it: {command}"));
                    }
                }
            }
        }
        Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(3) })
    }

    fn lint(&self) -> Result<ExitCode, Error> {
        let mut is_clean = true;
        for machine in self.machines() {
            let toolchain = setup::toolchain(&self.host, machine, self.options())?;
            toolchain::ensure_clippy(&self.host, &toolchain, self.common.no_setup)?;
            let clippy = || toolchain.cargo(machine.target, "clippy");
            let packages = [
                "--package=iommu-runtime",
                "--package=iommu-boot",
                "--package=iommu-examples",
                "--package=iommu-hobby-kernel",
            ];
            let own = machine.packages.iter().map(|package| format!("--package={package}"));
            let runs = [
                clippy().args(packages).args(["--lib", "--bins"]).args(own),
                clippy().args(["--package=iommu-boot", "--test=*"]),
                clippy().args(["--package=iommu-size", "--bins", "--all-features"]),
            ];
            for cmd in runs {
                let cmd = cmd.args(["--", "-D", "warnings"]);
                self.progress.command(&cmd);
                let end = process::lines(&cmd, &self.host.interrupt, &mut |line| {
                    self.progress.line(line);
                })?;
                is_clean &= end == End::Code(0);
            }
        }
        Ok(exit(is_clean))
    }

    fn run_image(&self, path: &Path, args: &[String]) -> Result<ExitCode, Error> {
        if !args.is_empty() {
            let args = args.join(" ");
            return Err(Error::Usage(format!(
                "an image takes no arguments, but was given: {args}"
            )));
        }
        let image = Image::load(path, &self.root)?;
        let machine = machine::of_elf(image.e_machine).ok_or_else(|| {
            Error::Usage(format!("{} is for a machine that can't be booted yet", path.display()))
        })?;
        self.setting(machine.variant()).check(machine)?;
        let qemu = setup::qemu(&self.host, machine, self.options())?;
        let wanted = self.wanted_by(&image, machine);
        let fits = wanted.iter().find(|one| one.lacks(machine, &qemu).is_none());
        let variant = fits.map_or(machine.variant(), |one| one.variant);
        let setting = Setting { variant, ..self.setting(variant) };
        let judged = self.boot_on(&image, machine, &qemu, Show::Story, setting)?;
        if judged.cases.is_empty() {
            self.progress.line(format_args!("{}: {}", image.name(), judged.verdict));
        } else {
            report::show(&self.progress, &image.name(), &judged, None);
            self.progress.line(report::count(&judged, None));
        }
        Ok(exit(judged.verdict == Verdict::Passed))
    }

    /// Returns the machines that were asked for: one that was chosen, or all. A QEMU that was chosen
    /// boots one of them.
    pub(crate) fn machines(&self) -> Vec<&'static Machine> {
        match (self.common.arch, &self.common.qemu) {
            (None, None) => machine::all().into(),
            _ => vec![self.machine()],
        }
    }

    /// Returns the machine that was asked for: by its name, by the QEMU that was chosen, or the
    /// default.
    fn machine(&self) -> &'static Machine {
        let of_qemu = || {
            let name = self.common.qemu.as_deref()?.file_name()?.to_str()?;
            machine::all().into_iter().find(|machine| machine.qemu == name)
        };
        match (self.common.arch, of_qemu()) {
            (None, Some(machine)) => machine,
            (arch, _) => machine::find(arch),
        }
    }

    pub(crate) fn prepare(&self, machine: &Machine) -> Result<(Qemu, Toolchain), Error> {
        let qemu = setup::qemu(&self.host, machine, self.options())?;
        let toolchain = setup::toolchain(&self.host, machine, self.options())?;
        self.progress.note(format_args!(
            "{}: QEMU {} at {}, {}",
            machine.name,
            qemu.version,
            qemu.path.display(),
            toolchain.describe()
        ));
        Ok((qemu, toolchain))
    }

    pub(crate) fn build(
        &self,
        which: Which,
        machine: &Machine,
        toolchain: &Toolchain,
    ) -> Result<Vec<PathBuf>, Error> {
        image::build(which, machine, toolchain, &self.host.interrupt, &self.progress)
    }

    fn boot(
        &self,
        image: &Image,
        machine: &Machine,
        qemu: &Qemu,
        show: Show,
    ) -> Result<Judged, Error> {
        self.boot_on(image, machine, qemu, show, self.setting(machine.variant()))
    }

    fn boot_on(
        &self,
        image: &Image,
        machine: &Machine,
        qemu: &Qemu,
        show: Show,
        setting: Setting,
    ) -> Result<Judged, Error> {
        self.boot_with(image, machine, qemu, show, setting, Amount::of(&image.name(), false))
    }

    fn boot_with(
        &self,
        image: &Image,
        machine: &Machine,
        qemu: &Qemu,
        show: Show,
        setting: Setting,
        Amount { arguments, limit }: Amount,
    ) -> Result<Judged, Error> {
        let limit = self.common.limit(limit);
        let (qemu, interrupt) = (&*qemu.path, &self.host.interrupt);
        self.watch(&Booter { qemu, machine, setting, arguments, limit, interrupt }, image, show)
    }

    /// Boots an image and shows what it says.
    fn watch(&self, booter: &Booter<'_>, image: &Image, show: Show) -> Result<Judged, Error> {
        self.progress.command(booter.command_line(image));
        self.progress.begin(&image.name(), image.expected().unwrap_or(0));
        let judged = booter.boot(image, &mut |line| {
            let is_case = crate::decode::announced_case(&line.text).is_some();
            if is_case {
                self.progress.advance();
            }
            // The report has a line of its own for each case.
            let is_detail = is_case || line.level.is_none();
            let is_wanted = show == Show::Story || (show == Show::Details && !is_detail);
            if is_wanted || self.progress.is_verbose() {
                self.progress.line(report::story_line(line, self.progress.is_verbose()));
            }
        });
        self.progress.end();
        judged
    }

    /// Returns how a machine is run; `variant` is the one without a choice.
    pub(crate) fn setting(&self, variant: Variant) -> Setting {
        let common = &self.common;
        let variant = common.machine.unwrap_or(variant);
        Setting { variant, accel: common.accel, icount: common.icount, fast_clock: false }
    }

    fn options(&self) -> Options<'_> {
        Options {
            qemu: self.common.qemu.as_deref(),
            no_setup: self.common.no_setup,
            root: &self.root,
        }
    }
}

/// Which messages of an image are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    /// All of them.
    Story,
    /// Log messages; prints are shown by the report, or with `--verbose`.
    Details,
    /// None, but with `--verbose`: the image is expected to fail.
    Nothing,
}

pub(crate) fn exit(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Returns the workspace: of the `cargo run` that started us, else the one that built us.
fn workspace() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let package = package.filter(|dir| dir.file_name() == built.file_name());
    package.as_deref().unwrap_or(built).parent().unwrap_or(Path::new(".")).to_owned()
}
