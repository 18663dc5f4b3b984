//! `cargo qemu example`: the images of `examples/bare_metal` and `examples/hobby_kernel`, each on the
//! machine with the most IOMMUs.

use std::path::Path;
use std::process::ExitCode;

use super::{Show, Tool, exit};
use crate::decode::Image;
use crate::error::Error;
use crate::image::{self, Which};
use crate::machine::Machine;
use crate::report;
use crate::setup::qemu::Qemu;
use crate::setup::toolchain::Toolchain;
use crate::verdict::Verdict;

impl Tool {
    pub fn examples(&self, name: Option<&str>) -> Result<ExitCode, Error> {
        let machine = self.machine();
        self.setting(machine.richest()).check(machine)?;
        let (qemu, toolchain) = self.prepare(machine)?;
        let (mut count, mut all_held) = (0, true);
        let is_wanted = |one: &str| name.is_none_or(|name| name == one);
        self.boot_examples(machine, &qemu, &toolchain, Show::Story, is_wanted, |held| {
            count += 1;
            all_held &= held;
        })?;
        if count == 0 {
            let wanted = name.unwrap_or_default();
            return Err(Error::Usage(format!("there is no example `{wanted}`")));
        }
        Ok(exit(all_held))
    }

    /// Boots the examples that are wanted and tells `each` whether it held.
    pub(super) fn boot_examples(
        &self,
        machine: &Machine,
        qemu: &Qemu,
        toolchain: &Toolchain,
        show: Show,
        is_wanted: impl Fn(&str) -> bool,
        mut each: impl FnMut(bool),
    ) -> Result<(), Error> {
        let setting = self.setting(machine.richest());
        for which in [Which::Examples, Which::HobbyKernel] {
            if which == Which::HobbyKernel && !is_wanted("hobby_kernel") {
                continue;
            }
            for path in self.build(which, machine, toolchain)? {
                let image = Image::load(&path, &self.root)?;
                let name = image.name();
                if !is_wanted(&name) {
                    continue;
                }
                let verdict = self.boot_on(&image, machine, qemu, show, setting)?.verdict;
                let on = report::image_on(&name, setting.variant);
                self.progress.line(format_args!("example {on} ... {verdict}"));
                let is_lean = which != Which::HobbyKernel || self.has_no_heap(&path)?;
                each(verdict == Verdict::Passed && is_lean);
            }
        }
        Ok(())
    }

    /// Whether the hobby kernel's image has no global allocator.
    fn has_no_heap(&self, path: &Path) -> Result<bool, Error> {
        let symbol = image::allocator_symbol(path)?;
        if let Some(symbol) = &symbol {
            let path = path.display();
            self.progress.line(format_args!("FAILED: {path}: an allocator is linked: {symbol}"));
        }
        Ok(symbol.is_none())
    }
}
