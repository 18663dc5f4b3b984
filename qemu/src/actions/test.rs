//! `cargo qemu test`: the host tests, then every test image on every machine that it has to run on.

use std::process::ExitCode;

use super::{Show, Tool, exit};
use crate::cli::Variant;
use crate::decode::Image;
use crate::error::Error;
use crate::host_tests;
use crate::image::Which;
use crate::load::Amount;
use crate::machine::{self, Machine, Setting, Wanted};
use crate::report::{self, Totals};
use crate::setup::qemu::{Qemu, Version};
use crate::setup::toolchain::Toolchain;
use crate::summary::Summary;
use crate::verdict::Verdict;

/// What was asked for.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Only cases whose name contains this.
    pub filter: Option<&'a str>,
    /// Whether the load is a long one.
    pub long: bool,
}

/// An architecture whose tests can run.
pub struct Ready {
    pub machine: &'static Machine,
    pub qemu: Qemu,
    pub toolchain: Toolchain,
}

impl Tool {
    pub fn test(&self, asked: Asked<'_>) -> Result<ExitCode, Error> {
        let filter = asked.filter;
        // All of the set-up comes first: a run that can't be whole should not begin.
        let ready = self.ready()?;
        let mut totals = Totals::default();
        if self.common.arch.is_none() && filter.is_none() {
            self.progress.line("host tests");
            totals.add(host_tests::run(&self.root, &self.host.interrupt, &self.progress)?);
        }
        let mut summaries = Vec::new();
        for ready in &ready {
            self.progress.line(format_args!("\nboot tests on {}", ready.machine.name));
            let mut summary = Summary::default();
            self.test_machine(ready, asked, &mut summary)?;
            totals.add(summary.totals);
            summaries.push((ready.machine.name, summary));
        }
        if totals == Totals::default() {
            let wanted = filter.unwrap_or_default();
            return Err(Error::Usage(format!("no boot test has `{wanted}` in its name")));
        }
        self.progress.line("");
        for (name, summary) in summaries {
            self.progress.line(format_args!("{name}: {summary}"));
        }
        self.progress.line(format_args!("\n{totals}"));
        Ok(exit(totals.failed == 0))
    }

    /// Finds or installs what the tests need on every architecture that was asked for.
    fn ready(&self) -> Result<Vec<Ready>, Error> {
        let machines = self.machines();
        for machine in &machines {
            self.setting(machine.variant()).check(machine)?;
        }
        let mut ready = Vec::new();
        for machine in machines {
            let (qemu, toolchain) = self.prepare(machine)?;
            ready.push(Ready { machine, qemu, toolchain });
        }
        Ok(ready)
    }

    /// Builds the test images of one architecture and boots them on each of its machines. Trouble with
    /// one of them is counted and the next one runs; only the user's interrupt ends the whole.
    fn test_machine(
        &self,
        ready: &Ready,
        asked: Asked<'_>,
        summary: &mut Summary,
    ) -> Result<(), Error> {
        let filter = asked.filter;
        let paths = match self.build(Which::Tests, ready.machine, &ready.toolchain) {
            Ok(paths) => paths,
            Err(error) => return self.failed(error, summary),
        };
        let mut images = Vec::new();
        for path in paths {
            match Image::load(&path, &self.root) {
                Ok(image) => images.push(image),
                Err(error) => self.failed(error, summary)?,
            }
        }
        images.retain(|image| {
            filter.is_none_or(|filter| image.cases.iter().any(|case| case.contains(filter)))
        });
        if !images.is_empty() {
            for (wanted, what) in ready.machine.tested {
                self.progress.line(format_args!("{}: {what}", report::variant(wanted.variant)));
            }
        }
        for image in &images {
            self.test_image(image, ready, asked, summary)?;
        }
        for done in
            [self.test_examples(ready, filter, summary), self.test_refused(ready, filter, summary)]
        {
            if let Err(error) = done {
                self.failed(error, summary)?;
            }
        }
        Ok(())
    }

    /// Boots the examples; each is a case.
    fn test_examples(
        &self,
        ready: &Ready,
        filter: Option<&str>,
        summary: &mut Summary,
    ) -> Result<(), Error> {
        let Ready { machine, qemu, toolchain } = ready;
        let is_wanted = |name: &str| filter.is_none_or(|filter| name.contains(filter));
        self.boot_examples(machine, qemu, toolchain, Show::Nothing, is_wanted, |held| {
            summary.add_case(held);
        })
    }

    /// Boots a test image on each machine that it has to run on. One that this QEMU can't play is
    /// shown as skipped; if it can play none, so are the cases.
    fn test_image(
        &self,
        image: &Image,
        ready: &Ready,
        asked: Asked<'_>,
        summary: &mut Summary,
    ) -> Result<(), Error> {
        let Ready { machine, qemu, .. } = ready;
        let Asked { filter, long } = asked;
        let amount = Amount::of(&image.name(), long);
        let (mut was_booted, mut lacks) = (false, None);
        for one in self.wanted_by(image, machine) {
            let name = report::image_on(&image.name(), one.variant);
            if let Some(why) = one.lacks(machine, qemu) {
                self.progress.line(format_args!("image {name} ... skipped ({why})"));
                lacks.get_or_insert(why);
                continue;
            }
            was_booted = true;
            let setting = Setting { variant: one.variant, ..self.setting(one.variant) };
            match self.boot_with(image, machine, qemu, Show::Details, setting, amount) {
                Ok(judged) if image.expected().is_none() => {
                    let why = "holds no test; is it built with defmt-test?";
                    self.progress.line(format_args!("image {name}: FAILED: {why}"));
                    self.progress.line(format_args!("image {name}: {}", judged.verdict));
                    summary.add_case(false);
                }
                Ok(judged) => {
                    report::show(&self.progress, &name, &judged, filter);
                    summary.add_image(&judged, filter);
                }
                Err(error) => self.failed(error, summary)?,
            }
        }
        if !was_booted {
            let names = image.cases.iter();
            let chosen = names.filter(|name| filter.is_none_or(|filter| name.contains(filter)));
            summary.add_skipped(&lacks.unwrap_or_default(), chosen.count() as u64);
        }
        Ok(())
    }

    /// The machines that a test image has to run on; one that was chosen, if the image asks for none.
    pub fn wanted_by(&self, image: &Image, machine: &Machine) -> Vec<Wanted> {
        match self.common.machine {
            Some(variant) if !machine::asks(&image.name()) => vec![Wanted::any(variant)],
            _ => machine.wanted_by(&image.name()),
        }
    }

    /// Tells of trouble and counts it; only the user's interrupt stays an error.
    fn failed(&self, error: Error, summary: &mut Summary) -> Result<(), Error> {
        if matches!(error, Error::Interrupted(_)) {
            return Err(error);
        }
        self.progress.line(format_args!("FAILED: {error}"));
        summary.add_case(false);
        Ok(())
    }

    /// Boots the demo on machines that it must refuse, each with its message. A machine that this
    /// QEMU can't play is shown and counted as skipped.
    fn test_refused(
        &self,
        ready: &Ready,
        filter: Option<&str>,
        summary: &mut Summary,
    ) -> Result<(), Error> {
        let Ready { machine, qemu, toolchain } = ready;
        let chosen = REFUSED.iter().filter(|case| filter.is_none_or(|f| case.name.contains(f)));
        let chosen: Vec<_> = chosen.collect();
        if chosen.is_empty() {
            return Ok(());
        }
        let images = self.build(Which::Demo, machine, toolchain)?;
        let path = images.first().ok_or_else(|| Error::Failed("cargo built no demo".into()))?;
        let image = Image::load(path, &self.root)?;
        for case in chosen {
            let (name, least) = (case.name, case.qemu);
            if qemu.version < least {
                let why = format!("needs QEMU {least} or newer");
                self.progress.line(format_args!("{name} ... skipped ({why})"));
                summary.add_skipped(&why, 1);
                continue;
            }
            let setting = Setting { variant: case.variant, ..self.setting(case.variant) };
            let verdict = self.boot_on(&image, machine, qemu, Show::Nothing, setting)?.verdict;
            match verdict {
                Verdict::Failed { message, .. } if message.contains(case.message) => {
                    self.progress.line(format_args!("{name} ... ok"));
                    summary.add_case(true);
                }
                other => {
                    self.progress.line(format_args!("{name} ... FAILED: {other}"));
                    summary.add_case(false);
                }
            }
        }
        Ok(())
    }
}

/// A machine that the images must refuse.
struct Refused {
    name: &'static str,
    variant: Variant,
    /// A part of what the image has to say.
    message: &'static str,
    /// The oldest QEMU that has such a machine.
    qemu: Version,
}

const REFUSED: [Refused; 2] = [
    Refused {
        name: "a_machine_without_an_iommu_is_refused",
        variant: Variant::NoIommu,
        message: "this machine has no virtio-iommu",
        qemu: Version(7, 2),
    },
    Refused {
        name: "an_iommu_with_a_larger_granule_than_a_page_is_refused",
        variant: Variant::LargeGranule,
        message: "GranuleTooLarge",
        qemu: Version(9, 0),
    },
];
