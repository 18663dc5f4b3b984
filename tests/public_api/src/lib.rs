//! The public items of the library, one per line, from rustdoc's JSON.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The format of rustdoc's JSON that can be read: that of Rust 1.95, the oldest version that the
/// library supports.
pub const FORMAT: u64 = 57;

/// What a compiler says about the library.
pub enum Listed {
    /// Its public items.
    Items(String),
    /// The compiler writes this other format.
    OtherFormat(u64),
}

/// Lists the public items of the library with all features that add some.
///
/// # Errors
///
/// What went wrong, with what cargo printed.
pub fn list() -> Result<Listed, String> {
    let root = root();
    let target = env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let target = target.join("public-api");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(&root)
        .args(["rustdoc", "--quiet", "--package=iommu", "--lib", "--all-features"])
        .arg("--target-dir")
        .arg(&target)
        .args(["--", "-Zunstable-options", "--output-format=json"])
        .env("RUSTC_BOOTSTRAP", "1") // a stable compiler writes the JSON too, if it is told to
        .output()
        .map_err(|error| format!("cargo can't be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("rustdoc failed:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    let json = target.join("doc/iommu.json");
    let text = fs::read_to_string(&json).map_err(|error| format!("{}: {error}", json.display()))?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let format = value["format_version"].as_u64().unwrap_or_default();
    if format != FORMAT {
        return Ok(Listed::OtherFormat(format));
    }
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .map_err(|error| error.to_string())?;
    Ok(Listed::Items(api.items().map(|item| format!("{item}\n")).collect()))
}

/// The list that was last agreed on.
#[must_use]
pub fn agreed() -> PathBuf {
    root().join("tests/public_api/api.txt")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).into()
}
