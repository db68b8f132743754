//! The client's end of TLS: arbitrary bytes, and a server's records, cut and damaged.

use super::Script;
use super::tls_session::fixtures;
use polycast::mem::Segment;
use polycast::tls::{Acceptor, Connector, Filter, Offer, TlsVersion, roots};
use std::path::Path;
use std::sync::OnceLock;

fn ends() -> Option<(Filter, Filter)> {
    static ENDS: OnceLock<(Connector, Acceptor)> = OnceLock::new();
    let (connector, acceptor) = ENDS.get_or_init(|| {
        let roots = roots(Path::new(&fixtures::file("ca.pem"))).expect("a root");
        let offer = Offer { roots: Some(roots), pair: None, min_version: TlsVersion::V12 };
        let acceptor = fixtures::config().listeners[0].tls.acceptor().expect("a setup");
        (Connector::new(offer).expect("a connector"), acceptor.expect("an acceptor"))
    });
    Some((connector.connect("localhost")?, acceptor.accept()?))
}

pub(crate) fn run(data: &[u8]) {
    let mut script = Script(data);
    let Some((mut client, mut server)) = ends() else { return };
    let (mut plain, mut scratch, mut failed) = (Vec::new(), Vec::new(), false);
    while let Some(op) = script.byte() {
        let mut received = match op & 7 {
            0 | 1 => {
                server.receive(&mut client.take_records(), &mut Vec::new());
                server.take_records()
            }
            2 => {
                let mut records = server.take_records();
                let at = script.byte().map_or(0, usize::from);
                if let Some(byte) = records.get_mut(at) {
                    *byte ^= op >> 3;
                }
                records
            }
            3 => script.take((op >> 3).into()).to_vec(),
            4 => {
                server.seal(&[Segment::Own(vec![b'x'; 1 << (op >> 4)])], &mut scratch);
                server.take_records()
            }
            5 => {
                client.seal(&[Segment::Own(vec![b'y'; 1 << (op >> 4)])], &mut scratch);
                continue;
            }
            6 => {
                client.end();
                continue;
            }
            _ => {
                server.end();
                server.take_records()
            }
        };
        let every = 1 + usize::from(op >> 3) * 7;
        for piece in received.chunks_mut(every) {
            let before = plain.len();
            let progress = client.receive(piece, &mut plain);
            // Bytes after a failure are discarded.
            assert!(!failed || plain.len() == before && progress.failed.is_none());
            failed |= progress.failed.is_some();
        }
    }
}
