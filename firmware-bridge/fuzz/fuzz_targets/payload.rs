#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outpost_firmware_bridge_fuzz::payload(bytes));
