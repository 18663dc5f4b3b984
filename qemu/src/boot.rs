//! Boots one image: one QEMU process, its limits, and the verdict.

use std::path::Path;
use std::time::Duration;

use crate::cmd::Cmd;
use crate::decode::{Image, Line};
use crate::disk::Disks;
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::machine::{self, Machine, Setting};
use crate::process::{self, Chunk, End, Next};
use crate::verdict::{Judged, Output, Story, Verdict};

/// What every boot of a run has in common.
pub struct Booter<'a> {
    /// The QEMU program.
    pub qemu: &'a Path,
    /// Which machine.
    pub machine: &'a Machine,
    /// How it is run.
    pub setting: Setting,
    /// What the image is given beside what tells it of the machine.
    pub arguments: &'a str,
    /// How long a boot may take.
    pub limit: Duration,
    /// The user's wish to stop.
    pub interrupt: &'a Interrupt,
}

impl Booter<'_> {
    /// Returns the command line for `image`.
    pub fn command_line(&self, image: &Image) -> Cmd {
        let Self { qemu, machine, setting, arguments, .. } = self;
        let disks = Disks::of(&image.name(), &image.path);
        machine::command_line(qemu, machine, *setting, &image.path, arguments)
            .args(disks.iter().flat_map(Disks::options))
    }

    /// Boots `image`, hands each message to `on_line`, and gives the verdict.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`], and [`Error::Io`] if QEMU could not be started. QEMU is gone when this
    /// returns, whatever it returns.
    pub fn boot(&self, image: &Image, on_line: &mut dyn FnMut(&Line)) -> Result<Judged, Error> {
        let mut story = Story::new(image.expected());
        if self.setting.has_one_iommu(self.machine) || self.arguments.contains("skip=") {
            story.allow_skips();
        }
        let mut decoder = image.decoder();
        if self.machine.has_firmware(self.setting.variant) {
            decoder.skip_text();
        }
        let mut bytes = 0;
        let cmd = self.command_line(image);
        let disks = Disks::of(&image.name(), &image.path);
        disks.as_ref().map_or(Ok(()), Disks::create)?;
        let end =
            process::supervise(&cmd, Some(self.limit), false, self.interrupt, &mut |chunk| {
                match chunk {
                    Chunk::Out(out) => {
                        bytes += out.len() as u64;
                        for line in decoder.feed(&out) {
                            story.line(&line);
                            on_line(&line);
                        }
                    }
                    Chunk::Err(err) => story.stderr(&err),
                }
                if story.has_panicked() { Next::EndWithin(AFTER_PANIC) } else { Next::Continue }
            })?;
        let end = match end {
            End::Code(status) => match self.machine.exit_code(status) {
                Some(code) => End::Code(code),
                None => {
                    story.ended_without_the_image(status);
                    end
                }
            },
            end => end,
        };
        let unfinished = decoder.unfinished();
        let output = Output { bytes, bad_frames: decoder.bad_frames(), unfinished };
        let mut judged = story.judge(end, self.limit, &image.cases, &output);
        if judged.verdict == Verdict::Passed
            && let Some(disks) = disks
            && let Some(message) = disks.fault()?
        {
            judged.verdict = Verdict::Failed { test: None, message };
        }
        Ok(judged)
    }
}

/// How long an image may take to exit after it panicked.
const AFTER_PANIC: Duration = Duration::from_secs(2);
