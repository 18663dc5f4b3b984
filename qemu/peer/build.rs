//! Links an ordinary Linux program with the bare-metal targets: fixed addresses, no interpreter.

fn main() {
    println!("cargo:rustc-link-arg=--no-pie"); // some of these targets make position-independent programs
    println!("cargo:rustc-link-arg=--image-base=0x400000");
}
