//! The integration tests, in one binary so that it links once.

mod architecture;
mod bench;
mod certs;
mod cli;
mod compress;
mod config;
mod drain;
mod forged;
mod handshakes;
mod live;
mod machine;
mod net;
mod peer;
mod proxy;
mod proxy_stream;
mod replay;
mod rfc6455;
mod sim;
mod tls;
mod tls_client;
mod tls_files;
mod transcripts;
mod work;
mod zenith;
mod zenith_order;
mod zilliqa;
