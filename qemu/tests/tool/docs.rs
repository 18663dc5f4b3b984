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

/// Lines without their indentation; empty ones don't count.
fn trimmed(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_porting_guide_shows_code_that_runs() {
    let guide = read("docs/porting.md");
    let code = read("examples/porting.rs") + &read("tests/firmware/main.rs");
    let code = trimmed(&code);
    let pieces: Vec<_> =
        guide.split("```rust\n").skip(1).map(|rest| rest.split("```").next()).collect();
    assert!(pieces.len() > 10, "{} pieces", pieces.len());
    for piece in pieces {
        let piece = trimmed(piece.expect("a block ends"));
        let found = code.windows(piece.len()).any(|lines| lines == piece);
        assert!(found && !piece.is_empty(), "not in the example: {piece:#?}");
    }
}

#[test]
fn a_message_is_compared_with_its_format() {
    assert!(prints("tried {=u32:#x} times", "tried 0x10 times"));
    assert!(!prints("tried {=u32:#x} times", "tried 0x10 tims"));
    assert!(!prints("tried", "it tried"));
}
