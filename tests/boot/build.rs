//! The linker scripts of a boot image.

/// The whole script of a package without test images.
pub fn main() {
    for script in ["image.ld", "memory.ld"] {
        println!("cargo:rustc-link-arg=-T{script}");
    }
    // On riscv64 the image's own script has what this one has.
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch != "riscv64") {
        println!("cargo:rustc-link-arg=-Tdefmt.x");
    }
    // Linked to run where it is loaded; some targets make position-independent programs.
    println!("cargo:rustc-link-arg=--no-pie");
    println!("cargo:rustc-link-arg=-n"); // no page alignment of sections: QEMU loads them as they are
}
