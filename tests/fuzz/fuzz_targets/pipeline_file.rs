#![no_main]

#[path = "../../src/fuzz/pipeline_file.rs"]
mod pipeline_file;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pipeline_file::pipeline_file(bytes));
