//! The integration tests, in one binary so that it links once.

mod cli;
mod config;
mod live;
mod net;
