//! The linker scripts of a boot image.

fn main() {
    for script in ["image.ld", "memory.ld", "defmt.x"] {
        println!("cargo:rustc-link-arg=-T{script}");
    }
    // Linked to run where it is loaded; some targets make position-independent programs.
    println!("cargo:rustc-link-arg=--no-pie");
    println!("cargo:rustc-link-arg=-n"); // no page alignment of sections: QEMU loads them as they are
}
