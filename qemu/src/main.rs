//! `cargo qemu`: sets up what is missing, builds the bare-metal images, boots them under QEMU with a
//! real virtio-iommu, and judges what they did.
//!
//! A run travels through the modules like this: [`cli`] (what was asked), [`setup`] (what the machine
//! has), [`image`] (cargo builds the images), [`machine`] (the QEMU command line), [`boot`] (one QEMU
//! process with its limits), [`disk`] (the disks that some images get), [`decode`] (defmt frames to
//! text), [`verdict`] (what it means), [`report`] (what is counted and shown) and [`summary`] (what an
//! architecture came to). [`mod@bench`] counts what operations cost. [`process`] starts and ends every child.

mod actions;
mod bench;
mod boot;
mod cli;
mod cmd;
mod decode;
mod disk;
mod error;
mod host_tests;
mod image;
mod interrupt;
mod lifeline;
mod load;
mod machine;
mod process;
mod progress;
mod rebase;
mod report;
#[path = "../../src/sabotage.rs"]
mod sabotage;
mod setup;
mod summary;
#[cfg(test)]
mod testelf;
mod verdict;
mod wrapper;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    if let Some(cfg) = wrapper::asked() {
        return wrapper::run(&cfg);
    }
    let cli = cli::Cli::parse();
    let result = interrupt::Interrupt::install().and_then(|interrupt| actions::run(cli, interrupt));
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
