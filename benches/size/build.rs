//! Links an ordinary program with the bare-metal targets: fixed addresses, and nothing that is not
//! reached from its entry.

fn main() {
    println!("cargo:rustc-link-arg=--no-pie"); // some of these targets make position-independent programs
    println!("cargo:rustc-link-arg=--gc-sections");
}
