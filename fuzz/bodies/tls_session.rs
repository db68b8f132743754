//! A shard behind TLS: arbitrary bytes, and a valid client's records, cut and damaged.

#[path = "fixtures.rs"]
pub(super) mod fixtures;

use super::Script;
use crate::machine::Machine;
use crate::peer::{framed, handshake};
use polycast::ws::Opcode;
use rustls::{ClientConfig, ClientConnection};
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
        let configs = CONFIGS.get_or_init(fixtures::clients);
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
    let mut machine = Machine::new(fixtures::config());
    let mut peers: Vec<Peer> = Vec::new();
    while let Some(op) = script.byte() {
        if peers.is_empty() || op & 15 == 0 && peers.len() < 4 {
            peers.push(Peer::new(op >> 4));
            machine.open_secure();
        }
        let at = usize::from(op >> 4) % peers.len();
        let peer = &mut peers[at];
        match op & 15 {
            // The bytes that it sends, whole or cut.
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
                let output = handshake(["/echo", "/app/app-key"][usize::from(op >> 4) % 2], "");
                let _ = peer.tls.writer().write_all(&output);
            }
            9 => {
                let len = usize::from(script.byte().unwrap_or(0)) * 100;
                let output = framed(Opcode::Binary, &vec![7; len]);
                let _ = peer.tls.writer().write_all(&output);
            }
            10 => {
                let _ = peer.tls.refresh_traffic_keys();
            }
            // The client's library asserts that it sends nothing after that, so it gets no more.
            11 => {
                peer.tls.send_close_notify();
                peer.broken = true;
            }
            12 => machine.eof(at),
            13 if op >> 4 == 15 => machine.shard.drain(),
            _ => machine.wait(250 * u64::from(op >> 4)),
        }
    }
    machine.end();
}
