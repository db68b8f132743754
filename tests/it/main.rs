//! The integration tests, in one binary so that it links once.

mod acme;
mod architecture;
mod bench;
mod certs;
mod cli;
mod cluster;
mod cluster_room;
mod compress;
mod config;
mod cores;
mod drain;
mod environment;
mod event_ids;
mod forged;
mod front;
mod handshakes;
mod history;
mod links;
mod live;
mod machine;
mod memory;
mod net;
mod packaging;
mod peer;
mod proxy;
mod proxy_stream;
mod replay;
mod rfc6455;
mod schema;
#[path = "../keys/signer.rs"]
mod signer;
mod sim;
mod spelling;
mod tls;
mod tls_client;
mod tls_files;
mod tls_listed;
mod tls_revoked;
mod transcripts;
mod work;
mod zenith;
mod zenith_load;
mod zenith_order;
mod zilliqa;

use polycast::jwt::Algorithm;
