//! `tests/fuzz/reports.rs` under libFuzzer.
#![no_main]

#[path = "../../tests/fuzz/input.rs"]
mod input;
#[path = "../../tests/fuzz/reports.rs"]
mod reports;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| reports::run(bytes));
