//! `tests/fuzz/firmware.rs` under libFuzzer.
#![no_main]

#[path = "../../tests/fuzz/firmware.rs"]
mod firmware;
#[path = "../../tests/fuzz/input.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| firmware::run(bytes));
