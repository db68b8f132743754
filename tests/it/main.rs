//! The integration tests, in one binary so that it links once.

mod cli;
mod config;
mod house;
mod rfc6455;
mod machine;
mod peer;
mod replay;
mod sim;
mod transcripts;
