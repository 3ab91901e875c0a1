#![no_main]

#[path = "../../src/fuzz/admin.rs"]
mod admin;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| admin::admin(bytes));
