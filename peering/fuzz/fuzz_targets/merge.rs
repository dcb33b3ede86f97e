#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peering_fuzz::merge::merge(data));
