#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outpost_runtime_fuzz::read("sound", bytes));
