#![no_main]
#![allow(dead_code)]

#[path = "../bodies/mod.rs"]
mod bodies;
#[path = "../../tests/it/machine.rs"]
mod machine;
#[path = "../../tests/it/peer.rs"]
mod peer;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::jwt_token::run(data));
