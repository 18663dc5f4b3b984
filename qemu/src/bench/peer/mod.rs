//! `cargo qemu bench --peer linux`: what a user would pick instead, measured on the same machine: the
//! type1 container of Linux, with Linux's driver for the virtio-iommu.
//!
//! A run goes like this: [`kernel`] (Debian's, fetched by [`packages`] or given), [`modules`] (those it
//! needs, in order), [`archive`] (with the program of `qemu/peer`), [`run`] (one boot per [`Setup`]),
//! [`told`] with [`trace`] (what the program and QEMU say), and [`mod@side`] (both systems side by side).
//!
//! Numbers of instructions are the program's: a whole system call each. Requests and notifies are
//! counted by QEMU.

mod archive;
mod command;
mod kernel;
mod modules;
mod packages;
mod row;
mod run;
mod side;
mod told;
mod trace;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

pub use self::side::lines as side;

use self::archive::Archive;
use self::kernel::Kernel;
use self::row::{Row, Setup};
use self::run::Boot;
use super::results::Run;
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::setup::qemu::Qemu;

/// What is needed to measure Linux on one machine.
pub struct Peer {
    row: &'static Row,
    qemu: Qemu,
    kernel: Kernel,
    /// The program of `qemu/peer`, built.
    program: PathBuf,
    /// Where the first file system is written.
    folder: PathBuf,
    /// Leaves out what needs more than 10 000 mappings.
    quick: bool,
    /// How long a boot may take.
    limit: Duration,
}

impl Peer {
    /// Boots the kernel twice: as the distribution ships it, and lean.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if not all could be measured.
    pub fn measure(&self, interrupt: &Interrupt, progress: &Progress) -> Result<[Run; 2], Error> {
        let archive = self.write_archive()?;
        let boot = |setup| {
            let (row, image, limit) = (self.row, &*self.kernel.image, self.limit);
            let (qemu, archive) = (&self.qemu, &*archive);
            Boot { qemu, row, setup, image, archive, limit }.run(interrupt, progress)
        };
        progress.note(format_args!(
            "{}: booting Linux {} twice; that takes minutes",
            self.row.name, self.kernel.release
        ));
        Ok([boot(Setup::Default)?, boot(Setup::Lean)?])
    }

    /// Writes the first file system: the program, modules, and a list of them.
    fn write_archive(&self) -> Result<PathBuf, Error> {
        let program = fs::read(&self.program)
            .map_err(Error::io(format!("read {}", self.program.display())))?;
        let mut archive = Archive::default();
        // Where the program mounts file systems it makes folders by itself.
        archive.folder("modules");
        let mut list = String::new();
        for module in self.kernel.modules.in_order(&MODULES)? {
            let name = format!("modules/{}.ko", module.name);
            let parameters = match &*module.name {
                TYPE1 => self.row.type1_parameters,
                _ => "",
            };
            list += &format!("/{name} {parameters}\n");
            archive.file(&name, &module.bytes);
        }
        archive.file("modules/list", list.as_bytes());
        if self.quick {
            archive.file("quick", &[]);
        }
        archive.program("init", &program);
        let path = self.folder.join("first.cpio");
        fs::create_dir_all(&self.folder)
            .and_then(|()| fs::write(&path, archive.finish()))
            .map_err(Error::io(format!("write {}", path.display())))?;
        Ok(path)
    }
}

/// What Linux needs to drive the machine, as far as it is not a part of the kernel.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_iommu", TYPE1, "vfio_pci"];
const TYPE1: &str = "vfio_iommu_type1";
