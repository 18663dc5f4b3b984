//! Fails when a public item comes, goes or changes without the list being changed with it.
//!
//! A line that goes or changes is a breaking change: it belongs into the CHANGELOG, and into the
//! version. To agree on the new list: `AGREE=1 cargo test --package iommu-public-api`.

use std::collections::BTreeSet;
use std::{env, fs};

use iommu_public_api::{FORMAT, Listed, agreed, list};

#[test]
fn the_public_items_are_those_that_were_agreed_on() {
    let items = match list().unwrap() {
        Listed::Items(items) => items,
        Listed::OtherFormat(format) => {
            println!("skipped: this rustdoc writes format {format}, and {FORMAT} can be read");
            return;
        }
    };
    let path = agreed();
    if env::var_os("AGREE").is_some() {
        fs::write(&path, &items).unwrap();
    }
    let old = fs::read_to_string(&path).unwrap_or_default();
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (old.lines().collect(), items.lines().collect());
    assert!(new.len() > 500, "the library has more public items than {}", new.len());
    let gone: Vec<_> = old.difference(&new).map(|line| format!("- {line}")).collect();
    let came: Vec<_> = new.difference(&old).map(|line| format!("+ {line}")).collect();
    assert!(
        gone.is_empty() && came.is_empty(),
        "the public items changed:\n{}\n{}\nIf that is meant, say it in CHANGELOG.md, and agree with \
         `AGREE=1 cargo test --package iommu-public-api`",
        gone.join("\n"),
        came.join("\n")
    );
}

#[test]
fn every_public_type_has_its_place_beside_linux() {
    let page = agreed().ancestors().nth(3).map(|root| root.join("docs/linux-map.md"));
    let page = fs::read_to_string(page.expect("the workspace")).unwrap();
    let words: BTreeSet<_> = page.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let items = fs::read_to_string(agreed()).unwrap();
    let mut count = 0;
    for line in items.lines() {
        let line = line.replacen("pub unsafe ", "pub ", 1);
        let kinds = ["pub struct ", "pub enum ", "pub trait "];
        let Some(rest) = kinds.iter().find_map(|kind| line.strip_prefix(kind)) else { continue };
        let path = rest.split(['(', '<', ' ']).next().unwrap_or_default().trim_end_matches(':');
        let name = path.rsplit("::").next().unwrap_or_default();
        assert!(words.contains(name), "docs/linux-map.md does not name `{path}`");
        count += 1;
    }
    assert!(count > 100, "the list names more types than {count}");
}
