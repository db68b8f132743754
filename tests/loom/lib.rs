//! The memory that cores share, alone, so that `tests/run loom` compiles only what its models need.

#[path = "../../src/mem/mod.rs"]
pub mod mem;
