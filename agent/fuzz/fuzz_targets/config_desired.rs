//! What arrives on `config/desired`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outpost_agent_fuzz::desired(data));
