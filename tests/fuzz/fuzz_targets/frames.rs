#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wasmflow_fuzz::frames::frames(bytes));
