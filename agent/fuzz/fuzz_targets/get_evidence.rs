//! What arrives on `get/evidence`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outpost_agent_fuzz::arrive("get/evidence", data));
