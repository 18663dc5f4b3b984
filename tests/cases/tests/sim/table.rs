//! The table itself: names, and that the boot image takes all of it.

use std::collections::BTreeSet;

use iommu_cases::CASES;

#[test]
fn names_are_unique() {
    let names: BTreeSet<_> = CASES.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), CASES.len());
}

/// Each harness makes its functions from the list. This looks that nobody put a copy in its place.
#[test]
fn the_boot_images_take_the_list() {
    let harness = include_str!("../../../boot/tests/boot.rs");
    let list = r#"include!("../../cases/src/list.rs");"#;
    assert!(harness.contains(list), "the functions are made from the list");
    for part in ["$first(state", "$second(state"] {
        assert!(harness.contains(part), "both parts of it");
    }
    for case in CASES {
        let own = format!("fn {}(", case.name);
        assert!(!harness.contains(&own), "{} is in the list, and in the image again", case.name);
    }
}
