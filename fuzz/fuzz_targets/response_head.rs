#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cardea_router::fuzzing::response_head(data));
