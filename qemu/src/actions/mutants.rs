//! `cargo qemu test --mutants`: who tests the tests? The library is broken on purpose, and some boot
//! case has to notice.
//!
//! One build of the test images has every sabotage of `src/sabotage.rs` compiled in, all of them off.
//! The control boots each image so, and must pass. Then each sabotage is turned on by an argument, and
//! the images boot until a case fails. The clock of the machine runs with its instructions, so that
//! neither the host's load nor the 100 ms of a transfer count.

use std::process::ExitCode;

use super::test::Ready;
use super::{Show, Tool, exit};
use crate::boot::Booter;
use crate::decode::Image;
use crate::error::Error;
use crate::image::Which;
use crate::load;
use crate::machine::Setting;
use crate::report;
use crate::sabotage;
use crate::verdict::{Judged, Outcome, Verdict};

/// The `cfg` that compiles the sabotages in.
const CFG: &str = "iommu_sabotage";
/// How many seconds a boot may take. A hang counts as noticed, a slow host must not.
const LIMIT: u64 = 300;
/// The image with the whole table of cases: it notices most, so it boots first.
const FIRST: &str = "boot";

/// A case that noticed, and what it said.
struct Noticed {
    case: String,
    how: String,
}

impl Tool {
    /// Runs the check on one architecture, for the sabotages whose name contains `filter`.
    pub fn mutants(&self, filter: Option<&str>, all: bool) -> Result<ExitCode, Error> {
        let chosen: Vec<_> = sabotage::ALL
            .iter()
            .map(|(_, name, what)| (*name, *what))
            .filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter)))
            .collect();
        if chosen.is_empty() {
            let wanted = filter.unwrap_or_default();
            return Err(Error::Usage(format!("no sabotage has `{wanted}` in its name")));
        }
        let machine = self.machine();
        self.setting(machine.variant()).check(machine)?;
        let (qemu, toolchain) = self.prepare(machine)?;
        let ready = Ready { machine, qemu, toolchain: toolchain.with_cfg(CFG) };
        let mut images = Vec::new();
        for path in self.build(Which::Tests, machine, &ready.toolchain)? {
            images.push(Image::load(&path, &self.root)?);
        }
        images.retain(|image| self.place(&ready, image).is_some());
        images.sort_by_key(|image| {
            (image.name() != FIRST, image.name() == load::IMAGE, image.name()) // that one is slow
        });
        self.progress.line(format_args!("mutation check on {}", machine.name));
        for image in &images {
            let judged = self.boot_broken(&ready, image, None, &[])?;
            if judged.verdict != Verdict::Passed {
                let verdict = judged.verdict;
                let why = "fails without a sabotage, so it can't tell anything";
                return Err(Error::Failed(format!("image {} {why}: {verdict}", image.name())));
            }
            self.progress.line(format_args!("control: image {} passes", image.name()));
        }
        let mut survivors = 0;
        for (name, what) in &chosen {
            let noticed = self.who_notices(&ready, &images, name, all)?;
            let Some(first) = noticed.first() else {
                survivors += 1;
                self.progress.line(format_args!("{name} ({what}): FAILED: no case notices"));
                continue;
            };
            let how = &first.how;
            self.progress.line(format_args!("{name} ({what}): {}: {how}", names(&noticed)));
        }
        let caught = chosen.len() - survivors;
        self.progress.line(format_args!("\n{caught} sabotages noticed, {survivors} not"));
        Ok(exit(survivors == 0))
    }

    /// The cases that notice a sabotage: the first one, or all that can be found.
    fn who_notices(
        &self,
        ready: &Ready,
        images: &[Image],
        name: &'static str,
        all: bool,
    ) -> Result<Vec<Noticed>, Error> {
        let mut noticed = Vec::new();
        for image in images {
            // An image ends with its first failure. So that the next case is heard as well, it boots
            // again without the one before; only cases of the table can be left out.
            let mut left_out: Vec<String> = Vec::new();
            while let Some((case, how)) =
                failure(self.boot_broken(ready, image, Some(name), &left_out)?)?
            {
                noticed.push(Noticed { case: format!("{}::{case}", image.name()), how });
                if !all {
                    return Ok(noticed);
                }
                if image.name() != FIRST || left_out.contains(&case) {
                    break;
                }
                left_out.push(case);
            }
        }
        Ok(noticed)
    }

    /// The machine that an image is booted on: the first of those that it wants and this QEMU has.
    fn place(&self, ready: &Ready, image: &Image) -> Option<Setting> {
        let wanted = self.wanted_by(image, ready.machine);
        let lacks = |one: &crate::machine::Wanted| one.lacks(ready.machine, &ready.qemu);
        let variant = wanted.iter().find(|one| lacks(one).is_none())?.variant;
        Some(Setting { variant, fast_clock: true, ..self.setting(variant) })
    }

    fn boot_broken(
        &self,
        ready: &Ready,
        image: &Image,
        sabotage: Option<&str>,
        left_out: &[String],
    ) -> Result<Judged, Error> {
        let Ready { machine, qemu, .. } = ready;
        let Some(setting) = self.place(ready, image) else {
            return Err(Error::Failed(format!("no machine plays {}", image.name())));
        };
        let mut arguments = sabotage.map_or_else(String::new, |name| format!("sabotage={name}"));
        if !left_out.is_empty() {
            arguments += &format!(" skip={}", left_out.join(","));
        }
        let booter = Booter {
            qemu: &qemu.path,
            machine,
            setting,
            arguments: &arguments,
            limit: self.common.limit(LIMIT),
            interrupt: &self.host.interrupt,
        };
        let judged = self.watch(&booter, image, Show::Nothing)?;
        if judged.sabotage.as_deref() != sabotage {
            let said = judged.sabotage.as_deref().unwrap_or("no sabotage");
            let why = format!("image {} was to run with {arguments} and says {said}", image.name());
            return Err(Error::Failed(format!("{why}: {}", judged.verdict)));
        }
        Ok(judged)
    }
}

/// The case that a broken image failed in, and what it said. A QEMU that dies noticed nothing.
fn failure(judged: Judged) -> Result<Option<(String, String)>, Error> {
    match &judged.verdict {
        Verdict::Passed => return Ok(None),
        Verdict::QemuDied { .. } => return Err(Error::Failed(judged.verdict.to_string())),
        _ => {}
    }
    let failed = judged.cases.iter().find(|case| matches!(case.outcome, Outcome::Failed(_)));
    let case = failed.map_or("before its first case", |case| &case.name).to_owned();
    let how = match judged.verdict {
        Verdict::Failed { message, .. } | Verdict::Panicked { message, .. } => message,
        other => other.to_string(),
    };
    Ok(Some((case, report::first_words(&how))))
}

fn names(noticed: &[Noticed]) -> String {
    noticed.iter().map(|one| one.case.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sabotage_has_a_name_of_its_own_that_an_argument_can_carry() {
        let mut names: Vec<_> = sabotage::ALL.iter().map(|(_, name, _)| *name).collect();
        assert!(names.len() >= 15);
        let is_plain = |name: &&str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        assert!(names.iter().all(is_plain), "{names:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), sabotage::ALL.len());
    }
}
