//! `cargo qemu bench`: what every operation costs, counted in the guest.
//!
//! The benchmark image prints one line per result ([`results::parse_line`]); [`ops`] knows what the
//! words mean and how much they may cost, [`mod@size`] adds how much code there is, [`table`] shows them, [`compare`] judges them against an
//! earlier run or the [`baseline`]. [`peer`] measures what a user would pick instead, and [`report`] puts
//! the two beside each other ([`beside`]) with [`plots`]. Instructions are exact under
//! `-icount shift=0`; wall time is shown and never judged.

mod baseline;
mod beside;
mod compare;
mod figures;
mod ops;
mod peer;
mod plots;
mod report;
mod results;
mod size;
mod table;

use std::process::ExitCode;
use std::time::Instant;

use crate::actions::{Tool, exit};
use crate::boot::Booter;
use crate::cli::{Accel, BenchArgs, Variant};
use crate::cmd::Cmd;
use crate::decode::Image;
use crate::error::Error;
use crate::image::Which;
use crate::machine::{Machine, Setting};
use crate::process;
use crate::setup::qemu::Qemu;
use crate::setup::toolchain::Toolchain;
use crate::verdict::Verdict;
use results::{Op, Results, Run};

/// How many seconds a benchmark may take without a choice.
pub(crate) const LIMIT: u64 = 1200;

impl Tool {
    /// Measures the machines that were asked for, and does with the results what was asked.
    pub(crate) fn bench(&self, args: &BenchArgs) -> Result<ExitCode, Error> {
        // What can't be read, or can't be, should not be found out after the work.
        let before = match &args.compare {
            Some(path) => Some(Results::load(path)?),
            None if args.check => Some(baseline::load(&self.root, &self.machines())?),
            None => None,
        };
        if self.common.accel == Accel::Kvm {
            return Err(Error::Usage(
                "instructions are counted in translated code: a benchmark needs --accel tcg".into(),
            ));
        }
        let (results, end) = match &args.from {
            Some(path) => (Results::load(path)?, Ok(())),
            None => {
                let mut runs = Vec::new();
                let end = self.measure_all(args, &mut runs);
                (Results::new(runs), end)
            }
        };
        // What was measured before something failed took its time too.
        if let Some(path) = args.json.as_ref().filter(|_| end.is_ok() || !results.runs.is_empty()) {
            results.save(path)?;
        }
        end?;
        if args.update_baseline {
            for path in baseline::save(&self.root, &results)? {
                self.progress.line(format_args!("written: {}", path.display()));
            }
        }
        if let Some(dir) = &args.report {
            report::write(&results, &self.root, dir)?;
            let page = dir.join("index.html");
            self.progress.line(format_args!("written: {}", page.display()));
        }
        if args.update_docs {
            report::document(&results, &self.root)?;
        }
        match before {
            Some(before) => Ok(exit(self.compare(&results, &before, args.quick)?)),
            None => Ok(ExitCode::SUCCESS),
        }
    }

    /// Measures one machine after the other, shows each, and adds it to `runs`.
    fn measure_all(&self, args: &BenchArgs, runs: &mut Vec<Run>) -> Result<(), Error> {
        let mut prepared = Vec::new();
        for machine in self.machines() {
            prepared.push((machine, self.prepare(machine)?));
        }
        let mut peers = self.peers(args, &prepared)?;
        for (machine, (qemu, toolchain)) in &prepared {
            let mut run = self.measure(machine, qemu, toolchain, args.quick)?;
            if args.twice {
                let again = self.measure(machine, qemu, toolchain, args.quick)?;
                if let Some(why) = compare::difference(&run, &again) {
                    return Err(Error::Failed(format!(
                        "two runs on {} differ: {why}",
                        machine.name
                    )));
                }
            }
            run.ops.extend(self.sizes(machine, toolchain, args.quick)?);
            if !args.quick {
                self.add_wall_time(&mut run, machine, qemu, toolchain)?;
            }
            table::lines(&run).iter().for_each(|line| self.progress.line(line));
            runs.push(run.clone());
            if let Some(peer) = peers.remove(machine.name) {
                let linux = peer.measure(&self.host.interrupt, &self.progress)?;
                peer::side(&run, &linux).iter().for_each(|line| self.progress.line(line));
                runs.extend(linux);
            }
        }
        Ok(())
    }

    /// Builds the benchmark image of one architecture and counts what it does.
    fn measure(
        &self,
        machine: &Machine,
        qemu: &Qemu,
        toolchain: &Toolchain,
        quick: bool,
    ) -> Result<Run, Error> {
        let variant = if quick { Variant::BenchQuick } else { Variant::Bench };
        let started = Instant::now();
        let mut ops = self.results(machine, qemu, toolchain, variant, true)?;
        // The clock of such a machine counts instructions too.
        ops.iter_mut().for_each(|op| op.wall_ns = None);
        self.progress.line(format_args!(
            "\nbenchmark on {}, QEMU {}: {} results in {:.0} s of wall time",
            machine.name,
            qemu.version,
            ops.len(),
            started.elapsed().as_secs_f64()
        ));
        Ok(Run {
            system: concat!("iommu ", env!("CARGO_PKG_VERSION")).into(),
            built: format!("{}, profile kernel", self.compiler(toolchain)?),
            arch: machine.name.into(),
            qemu: qemu.version.to_string(),
            ops,
        })
    }

    /// Boots once more with a clock that runs by itself, and adds what a person would wait.
    fn add_wall_time(
        &self,
        run: &mut Run,
        machine: &Machine,
        qemu: &Qemu,
        toolchain: &Toolchain,
    ) -> Result<(), Error> {
        let timed = self.results(machine, qemu, toolchain, Variant::BenchQuick, false)?;
        for op in timed {
            let same = |one: &&mut Op| one.op == op.op && one.provider == op.provider;
            if let Some(one) = run.ops.iter_mut().find(same) {
                one.wall_ns = op.wall_ns;
            }
        }
        Ok(())
    }

    /// Boots the image and returns what it told.
    fn results(
        &self,
        machine: &Machine,
        qemu: &Qemu,
        toolchain: &Toolchain,
        variant: Variant,
        icount: bool,
    ) -> Result<Vec<Op>, Error> {
        let images = self.build(Which::Bench, machine, toolchain)?;
        let path =
            images.first().ok_or_else(|| Error::Failed("cargo built no benchmark".into()))?;
        let image = Image::load(path, &self.root)?;
        let booter = Booter {
            qemu: &qemu.path,
            machine,
            setting: Setting { variant, icount, ..self.setting(variant) },
            arguments: "",
            limit: self.common.limit(LIMIT),
            interrupt: &self.host.interrupt,
        };
        self.progress.command(booter.command_line(&image));
        self.progress.begin(&format!("benchmark on {}", machine.name), 0);
        let mut ops: Vec<Op> = Vec::new();
        let mut wrong = None;
        let judged = booter.boot(&image, &mut |line| match results::parse_line(&line.text) {
            Some(Ok(op)) => {
                if self.progress.is_verbose() {
                    self.progress.note(format_args!("{} {:?}", op.name(), op.instructions));
                }
                ops.push(op);
            }
            Some(Err(why)) => wrong = Some(why),
            None => {}
        });
        self.progress.end();
        let verdict = judged?.verdict;
        if verdict != Verdict::Passed {
            return Err(Error::Failed(format!("benchmark on {}: {verdict}", machine.name)));
        }
        if let Some(why) = wrong {
            return Err(Error::Failed(format!(
                "a result on {} can't be read: {why}",
                machine.name
            )));
        }
        if ops.is_empty() {
            return Err(Error::Failed(format!("the benchmark on {} told nothing", machine.name)));
        }
        Ok(ops)
    }

    /// Returns the compiler that builds the image, as it calls itself.
    fn compiler(&self, toolchain: &Toolchain) -> Result<String, Error> {
        let mut version = String::new();
        let cmd: Cmd = toolchain.rustc_version();
        process::lines(&cmd, &self.host.interrupt, &mut |line| {
            if version.is_empty() {
                version = line.to_owned();
            }
        })?;
        Ok(version)
    }

    /// Shows what differs from an earlier run, and tells whether nothing grew too much.
    fn compare(&self, now: &Results, before: &Results, quick: bool) -> Result<bool, Error> {
        let mut is_good = true;
        let mut was_compared = false;
        for run in now.runs.iter().filter(|run| run.is_ours()) {
            let Some(old) = before.ours(&run.arch) else {
                self.progress.line(format_args!("{}: nothing to compare with", run.arch));
                continue;
            };
            was_compared = true;
            let told = compare::compare(run, old, quick);
            self.progress.line(format_args!(
                "\n{} against the earlier run: {} as before, {} differ, {} regressions of more than {} %",
                run.arch,
                told.same,
                told.lines.len(),
                told.regressions,
                compare::ALLOWED
            ));
            told.lines.iter().for_each(|line| self.progress.line(line));
            is_good &= told.regressions == 0;
        }
        if !was_compared {
            return Err(Error::Usage("the file to compare with has none of these machines".into()));
        }
        Ok(is_good)
    }
}
