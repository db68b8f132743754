//! All fuzz targets in one program, which is built once; `FUZZ_TARGET` names the one that runs.

#![no_main]
#![allow(dead_code)]

#[path = "../../tests/it/bench.rs"]
mod bench;
#[path = "../bodies/mod.rs"]
mod bodies;
#[path = "../../tests/it/machine.rs"]
mod machine;
#[path = "../../tests/it/peer.rs"]
mod peer;

use std::sync::OnceLock;

macro_rules! by_name {
    ($($target:ident)*) => {
        fn body(name: &str) -> Option<fn(&[u8])> {
            match name {
                $(stringify!($target) => Some(bodies::$target::run),)*
                _ => None,
            }
        }
    };
}

bodies::every_target!(by_name);

static BODY: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let named = || {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        body(&name).unwrap_or_else(|| panic!("no target is named `{name}`"))
    };
    BODY.get_or_init(named)(data);
});
