//! The linker scripts of a boot image.

fn main() {
    for script in ["image.ld", "memory.ld", "defmt.x"] {
        println!("cargo:rustc-link-arg=-T{script}");
    }
    println!("cargo:rustc-link-arg=-n"); // no page alignment of sections: QEMU loads them as they are
}
