#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| iothub_connector_fuzz::downlink_url(data));
