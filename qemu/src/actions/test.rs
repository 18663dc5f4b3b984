//! `cargo qemu test`: the host tests, then every test image on every machine that it has to run on.

use std::process::ExitCode;

use super::{Show, Tool, exit};
use crate::cli::Variant;
use crate::decode::Image;
use crate::error::Error;
use crate::host_tests;
use crate::image::Which;
use crate::machine::{self, Machine, Setting, Wanted};
use crate::report::{self, Totals};
use crate::setup::qemu::{Qemu, Version};
use crate::setup::toolchain::Toolchain;
use crate::verdict::Verdict;

impl Tool {
    pub fn test(&self, filter: Option<&str>) -> Result<ExitCode, Error> {
        let machines = self.machines();
        for machine in &machines {
            self.setting(machine.variant()).check(machine)?;
        }
        // All of the set-up comes first: a run that can't be whole should not begin.
        let mut prepared = Vec::new();
        for machine in machines {
            prepared.push((machine, self.prepare(machine)?));
        }
        let mut totals = Totals::default();
        if self.common.arch.is_none() && filter.is_none() {
            self.progress.line("host tests");
            totals.add(host_tests::run(&self.root, &self.host.interrupt, &self.progress)?);
        }
        for (machine, (qemu, toolchain)) in prepared {
            self.progress.line(format_args!("\nboot tests on {}", machine.name));
            totals.add(self.test_machine(machine, &qemu, &toolchain, filter)?);
        }
        if totals == Totals::default() {
            let wanted = filter.unwrap_or_default();
            return Err(Error::Usage(format!("no boot test has `{wanted}` in its name")));
        }
        self.progress.line(format_args!("\n{totals}"));
        Ok(exit(totals.failed == 0))
    }

    /// Builds the test images of one architecture and boots them on each of its machines. Trouble with
    /// one of them is counted and the next one runs; only the user's interrupt ends the whole.
    fn test_machine(
        &self,
        machine: &Machine,
        qemu: &Qemu,
        toolchain: &Toolchain,
        filter: Option<&str>,
    ) -> Result<Totals, Error> {
        let mut totals = Totals::default();
        let paths = match self.build(Which::Tests, machine, toolchain) {
            Ok(paths) => paths,
            Err(error) => return self.failed(error),
        };
        let mut images = Vec::new();
        for path in paths {
            match Image::load(&path, &self.root) {
                Ok(image) => images.push(image),
                Err(error) => totals.add(self.failed(error)?),
            }
        }
        images.retain(|image| {
            filter.is_none_or(|filter| image.cases.iter().any(|case| case.contains(filter)))
        });
        if !images.is_empty() {
            for (variant, what) in machine.tested {
                self.progress.line(format_args!("{}: {what}", report::variant(*variant)));
            }
        }
        for image in &images {
            totals.add(self.test_image(image, machine, qemu, filter)?);
        }
        match self.test_refused(machine, qemu, toolchain, filter) {
            Ok(more) => totals.add(more),
            Err(error) => totals.add(self.failed(error)?),
        }
        Ok(totals)
    }

    /// Boots a test image on each machine that it has to run on. One that this QEMU can't play is
    /// shown as skipped; if it can play none, so are the cases.
    fn test_image(
        &self,
        image: &Image,
        machine: &Machine,
        qemu: &Qemu,
        filter: Option<&str>,
    ) -> Result<Totals, Error> {
        let mut totals = Totals::default();
        let mut was_booted = false;
        for one in self.wanted_by(image, machine) {
            let name = report::image_on(&image.name(), one.variant);
            if let Some(why) = one.lacks(machine, qemu.version) {
                self.progress.line(format_args!("image {name} ... skipped ({why})"));
                continue;
            }
            was_booted = true;
            let setting = Setting { variant: one.variant, ..self.setting(one.variant) };
            match self.boot_on(image, machine, qemu, Show::Details, setting) {
                Ok(judged) if image.expected().is_none() => {
                    let why = "holds no test; is it built with defmt-test?";
                    self.progress.line(format_args!("image {name}: FAILED: {why}"));
                    self.progress.line(format_args!("image {name}: {}", judged.verdict));
                    totals.failed += 1;
                }
                Ok(judged) => {
                    report::show(&self.progress, &name, &judged, filter);
                    totals.add(report::count(&judged, filter));
                }
                Err(error) => totals.add(self.failed(error)?),
            }
        }
        if !was_booted {
            let names = image.cases.iter();
            let chosen = names.filter(|name| filter.is_none_or(|filter| name.contains(filter)));
            totals.skipped += chosen.count() as u64;
        }
        Ok(totals)
    }

    /// The machines that a test image has to run on; one that was chosen, if the image asks for none.
    pub fn wanted_by(&self, image: &Image, machine: &Machine) -> Vec<Wanted> {
        match self.common.machine {
            Some(variant) if !machine::asks(&image.name()) => vec![Wanted::any(variant)],
            _ => machine.wanted_by(&image.name()),
        }
    }

    /// Tells of trouble and counts it; only the user's interrupt stays an error.
    fn failed(&self, error: Error) -> Result<Totals, Error> {
        if matches!(error, Error::Interrupted(_)) {
            return Err(error);
        }
        self.progress.line(format_args!("FAILED: {error}"));
        Ok(Totals { failed: 1, ..Totals::default() })
    }

    /// Boots the demo on machines that it must refuse, each with its message. A machine that this
    /// QEMU can't play is shown and counted as skipped.
    fn test_refused(
        &self,
        machine: &Machine,
        qemu: &Qemu,
        toolchain: &Toolchain,
        filter: Option<&str>,
    ) -> Result<Totals, Error> {
        let mut totals = Totals::default();
        let chosen = REFUSED.iter().filter(|case| filter.is_none_or(|f| case.name.contains(f)));
        let chosen: Vec<_> = chosen.collect();
        if chosen.is_empty() {
            return Ok(totals);
        }
        let images = self.build(Which::Demo, machine, toolchain)?;
        let path = images.first().ok_or_else(|| Error::Failed("cargo built no demo".into()))?;
        let image = Image::load(path, &self.root)?;
        for case in chosen {
            let (name, least) = (case.name, case.qemu);
            if qemu.version < least {
                self.progress.line(format_args!("{name} ... skipped (needs QEMU {least})"));
                totals.skipped += 1;
                continue;
            }
            let setting = Setting { variant: case.variant, ..self.setting(case.variant) };
            let verdict = self.boot_on(&image, machine, qemu, Show::Nothing, setting)?.verdict;
            match verdict {
                Verdict::Failed { message, .. } if message.contains(case.message) => {
                    self.progress.line(format_args!("{name} ... ok"));
                    totals.passed += 1;
                }
                other => {
                    self.progress.line(format_args!("{name} ... FAILED: {other}"));
                    totals.failed += 1;
                }
            }
        }
        Ok(totals)
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
