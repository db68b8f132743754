//! Replays every stored input of the fuzz targets, so that a crash once found does not return.

#[path = "../../fuzz/bodies/mod.rs"]
mod bodies;

use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = std::fs::read_dir(&folder).expect("a folder of seeds");
    let mut count = 0;
    for entry in entries {
        let path = entry.expect("an entry").path();
        println!("{}", path.display());
        run(&std::fs::read(path).expect("a readable seed"));
        count += 1;
    }
    assert!(count > 0, "{target} has seeds");
}

macro_rules! targets {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target), bodies::$target::run);
        })*
    };
}

bodies::every_target!(targets);
