//! The integration tests, in one binary so that it links once.

mod cli;
mod config;
mod machine;
mod peer;
mod replay;
mod sim;
mod transcripts;
