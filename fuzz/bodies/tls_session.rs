//! A shard behind TLS: arbitrary bytes, and a valid client's records, cut and damaged.

use super::Script;
use crate::machine::Machine;
use crate::peer::{framed, handshake};
use polycast::config::{Config, Format, Overrides};
use polycast::ws::Opcode;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, version};
use std::io::{Read, Write};
use std::sync::{Arc, OnceLock};

/// One client at one end of a wire.
struct Peer {
    tls: ClientConnection,
    broken: bool,
}

impl Peer {
    fn new(version: u8) -> Peer {
        static CONFIGS: OnceLock<[Arc<ClientConfig>; 2]> = OnceLock::new();
        let configs = CONFIGS.get_or_init(clients);
        let config = configs[usize::from(version) % 2].clone();
        let name = "localhost".try_into().expect("a name");
        let tls = ClientConnection::new(config, name).expect("a client");
        Peer { tls, broken: false }
    }

    /// What it sends next.
    fn records(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() && self.tls.write_tls(&mut bytes).is_ok() {}
        bytes
    }

    fn hear(&mut self, mut got: &[u8]) {
        while !got.is_empty() && !self.broken {
            self.broken = self.tls.read_tls(&mut got).is_err()
                || self.tls.process_new_packets().is_err()
                || self
                    .tls
                    .reader()
                    .read_to_end(&mut Vec::new())
                    .is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock);
        }
    }
}

pub(crate) fn run(data: &[u8]) {
    let mut script = Script(data);
    let mut machine = Machine::new(config());
    let mut peers: Vec<Peer> = Vec::new();
    while let Some(op) = script.byte() {
        if peers.is_empty() || op & 15 == 0 && peers.len() < 4 {
            peers.push(Peer::new(op >> 4));
            machine.open_secure();
        }
        let at = usize::from(op >> 4) % peers.len();
        let peer = &mut peers[at];
        match op & 15 {
            // What it has to say, whole or cut.
            1..6 => {
                let records = peer.records();
                let cut = usize::from(script.byte().unwrap_or(0)) % (records.len() + 1);
                machine.receive(at, &records[..cut]);
                machine.receive(at, &records[cut..]);
                let got = std::mem::take(&mut machine.wire(at).raw);
                peer.hear(&got);
            }
            // The same, with one byte changed.
            6 => {
                let mut records = peer.records();
                let (place, mask) = (script.byte().unwrap_or(0), script.byte().unwrap_or(1));
                let place = usize::from(place) % records.len().max(1);
                if let Some(byte) = records.get_mut(place) {
                    *byte ^= mask;
                }
                machine.receive(at, &records);
            }
            7 => {
                let len = usize::from(script.byte().unwrap_or(0));
                machine.receive(at, script.take(len));
            }
            8 => {
                let said = handshake(["/echo", "/app/app-key"][usize::from(op >> 4) % 2], "");
                let _ = peer.tls.writer().write_all(&said);
            }
            9 => {
                let len = usize::from(script.byte().unwrap_or(0)) * 100;
                let said = framed(Opcode::Binary, &vec![7; len]);
                let _ = peer.tls.writer().write_all(&said);
            }
            10 => {
                let _ = peer.tls.refresh_traffic_keys();
            }
            11 => peer.tls.send_close_notify(),
            12 => machine.eof(at),
            13 if op >> 4 == 15 => machine.shard.drain(),
            _ => machine.wait(250 * u64::from(op >> 4)),
        }
    }
    machine.end();
}

const CA: &[u8] = include_bytes!("../../tests/fixtures/ca.pem");

/// A configuration with one listener, whose certificate is a fixture.
fn config() -> Config {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let folder = folder.replace("/fuzz/tests/", "/tests/");
    let pair = format!("{{ cert = '{folder}/localhost.pem', key = '{folder}/localhost.key' }}");
    let text = format!(
        "[[listeners]]\naddress = '127.0.0.1:0'\ntls.certificates = [{pair}]\n\
         [[apps]]\nid = '1'\nkey = 'app-key'\nsecret = 'app-secret'\n\
         [timeouts]\nhandshake_ms = 3000\nhead_ms = 3000\nclose_ms = 2000\n"
    );
    let config = Config::parse_with(&text, Format::Toml, "test", &|_| None);
    config.and_then(|config| config.with(Overrides::default())).expect("a configuration")
}

/// Clients of TLS 1.2 and of TLS 1.3 that trust the fixtures.
fn clients() -> [Arc<ClientConfig>; 2] {
    [&version::TLS12, &version::TLS13].map(|version| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(CA).expect("a certificate")).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[version]).expect("a version");
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    })
}
