//! `tests/fuzz/ring.rs` under libFuzzer.
#![no_main]

#[path = "../../tests/fuzz/input.rs"]
mod input;
#[path = "../../tests/fuzz/ring.rs"]
mod ring;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ring::run(bytes));
