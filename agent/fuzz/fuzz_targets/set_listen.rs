//! What arrives on `set/listen`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outpost_agent_fuzz::arrive("set/listen", data));
