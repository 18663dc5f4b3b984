//! What the documentation shows is what there is.

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The lines of the blocks of one language.
fn blocks(text: &str, language: &str) -> String {
    let mut inside = false;
    let mut lines = String::new();
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(rest) => inside = !inside && rest == language,
            None if inside => lines.extend([line, "\n"]),
            None => {}
        }
    }
    lines
}

/// Whether a message of an image is what `format` prints, whatever stands for its `{...}`.
fn prints(format: &str, message: &str) -> bool {
    let mut rest = message;
    format.split('{').enumerate().all(|(n, part)| {
        let text = if n == 0 { part } else { part.split_once('}').map_or("", |(_, text)| text) };
        match rest.find(text) {
            Some(at) if n > 0 || at == 0 => {
                rest = &rest[at + text.len()..];
                true
            }
            _ => false,
        }
    })
}

#[test]
fn the_tutorial_is_the_example() {
    let tutorial = read("docs/tutorial.md");
    let example = read("examples/bare_metal/src/bin/rogue.rs");
    assert_eq!(blocks(&tutorial, "rust"), example);
    let shown = blocks(&tutorial, "console");
    let messages: Vec<_> = shown.lines().filter(|line| !line.starts_with('$')).collect();
    assert_eq!(messages.len(), 5, "one per step");
    let formats: Vec<_> = example.split('"').skip(1).step_by(2).collect();
    for message in messages {
        assert!(formats.iter().any(|format| prints(format, message)), "{message}");
    }
}

#[test]
fn a_message_is_compared_with_its_format() {
    assert!(prints("tried {=u32:#x} times", "tried 0x10 times"));
    assert!(!prints("tried {=u32:#x} times", "tried 0x10 tims"));
    assert!(!prints("tried", "it tried"));
}
