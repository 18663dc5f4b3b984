//! Puts the linker script and the memory map of the board where the linker of an image finds them.

use std::path::PathBuf;

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for script in ["image.ld", "memory.ld"] {
        std::fs::copy(script, out.join(script)).expect("OUT_DIR can be written");
        println!("cargo:rerun-if-changed={script}");
    }
    println!("cargo:rustc-link-search={}", out.display());
}
