//! Drives Linux's type1 container from user space and measures each operation: the peer that
//! `cargo qemu bench --peer linux` boots, as the first and only program of a Linux kernel.
//!
//! It loads the modules that its archive brings ([`modules`]), gives the devices to vfio ([`devices`]),
//! and works ([`work`]). What it measured it writes to the console; where an operation begins and ends
//! it marks in QEMU's trace ([`series`]), so that the tool can count requests and notifies.
//!
//! Written from the user interface of Linux: numbers of system calls and requests, and structures. It
//! builds for the bare-metal targets of this workspace, so it needs no toolchain of its own.
#![no_std]
#![no_main]

mod console;
mod counter;
mod devices;
mod failure;
mod memory;
mod modules;
mod series;
mod start;
mod sys;
mod vfio;
mod work;

use core::ffi::CStr;

use failure::Failure;

/// Runs all of it, and tells how it went.
fn main() {
    match run() {
        Ok(()) => console::line(format_args!("done")),
        Err(failure) => console::line(format_args!("failed: {failure}")),
    }
    console::drain();
}

fn run() -> Result<(), Failure> {
    for (kind, at) in [(c"sysfs", c"/sys"), (c"proc", c"/proc"), (c"devtmpfs", c"/dev")] {
        sys::mount(kind, at).map_err(Failure::of("mount a file system of the kernel's"))?;
    }
    tell_kernel()?;
    modules::load()?;
    let groups = devices::give_to_vfio()?;
    work::all(&groups)
}

fn tell_kernel() -> Result<(), Failure> {
    const LEN: usize = 65;
    let mut names = [0; 6 * LEN];
    sys::names(&mut names).map_err(Failure::of("ask the kernel's version"))?;
    let release = CStr::from_bytes_until_nul(&names[2 * LEN..]).unwrap_or_default();
    console::line(format_args!("kernel {}", release.to_str().unwrap_or("?")));
    console::line(format_args!("tick_ns {}", counter::tick_ns()));
    Ok(())
}
