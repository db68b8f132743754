//! The `polycast` command.
fn main() {}
