//! What arrives on `tools/<name>`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outpost_agent_fuzz::tool_is_defined(data));
