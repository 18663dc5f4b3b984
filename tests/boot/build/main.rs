//! The linker scripts of a boot image, and the functions of the matrix of refused DMA.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

#[path = "../build.rs"]
mod link;

fn main() {
    link::main();
    println!("cargo:rerun-if-changed=build"); // the table is a dependency, which cargo knows
    println!("cargo:rerun-if-changed=build.rs");
    let out = env::var("OUT_DIR").expect("cargo says where");
    fs::write(Path::new(&out).join("matrix.rs"), matrix()).expect("it can be written");
}

/// The harness wants a function per case, and only here can a name be made of two.
fn matrix() -> String {
    let mut cases = String::new();
    for (situation, kind) in iommu_cases::matrix::rows() {
        let name = situation.name;
        write!(
            cases,
            "#[test] fn {name}_{kind}(stand: &mut Stand) {{
                stand.run({name:?}, Kind::{kind:?});
            }}\n"
        )
        .expect("a string takes all");
    }
    format!(
        "#[defmt_test::tests]
        mod cases {{
            use iommu_boot::stand::Stand;
            use iommu_cases::matrix::Kind;

            #[init]
            fn start() -> Stand {{
                Stand::start()
            }}

            #[teardown]
            fn end() {{
                iommu_boot::tally::report();
            }}

            {cases}
        }}\n"
    )
}
