//! The table of known lies names its tests; each of them must be there.

use std::fs;
use std::path::Path;
use std::string::String;

/// The text of every source below `folder`.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_test_that_the_table_of_lies_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Ok(table) = fs::read_to_string(root.join("docs/devices.md")) else { return };
    let mut code = String::new();
    for folder in ["src", "tests"] {
        sources(&root.join(folder), &mut code);
    }
    let mut named = 0;
    for row in table.lines().filter(|line| line.starts_with('|')) {
        let Some(last) = row.trim_end_matches(['|', ' ']).rsplit(" | ").next() else { continue };
        for name in last.split('`').skip(1).step_by(2).filter(|name| !name.ends_with(".rs")) {
            named += 1;
            assert!(code.contains(&std::format!("fn {name}(")), "{name} is named, and not there");
        }
    }
    assert!(named > 50, "{named} names: the table was not understood");
}
