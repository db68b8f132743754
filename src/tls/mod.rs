//! TLS 1.2 and 1.3 by `rustls`, as a filter between the bytes of a connection and its session, for
//! connections that are accepted and those that are made.
//!
//! The unbuffered connection is used: records are decrypted where they were received, and written
//! straight into what is sent. The buffered one would copy both once more, and keep a buffer of
//! 4 KiB for each idle connection. Here an idle connection holds its keys and nothing else.
//!
//! The library reads the system's clock itself, for tickets and for the dates of certificates.

mod acceptor;
mod connector;
mod files;
mod holder;
mod listed;
mod side;

pub use acceptor::{Acceptor, Mutual, Setup, TlsVersion};
pub use connector::{Connector, Offer};
pub use files::{
    CertificateChain, Error, FileKind, Pair, Roots, pem_chain, pkcs12_pair, pkcs12_roots, roots,
};
pub use holder::Holder;

use crate::limits::{TLS_HELD_BYTES, TLS_RECORD_BYTES};
use crate::mem::Segment;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use side::{Chunk, Conn};
use std::sync::Arc;

/// Bytes that a record has beside its payload, at most: header, nonce, tag, type.
const RECORD_OVERHEAD: usize = 32;
/// Room for a key update that leaves with a record.
const KEY_UPDATE_BYTES: usize = 64;
/// The first byte of a TLS connection: a record with a handshake message (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// Who a client has proved to be.
#[derive(Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    certificate: CertificateDer<'static>,
    fingerprint: [u8; 32],
}

impl PeerCertificate {
    fn new(certificate: &CertificateDer<'static>) -> PeerCertificate {
        let fingerprint = Sha256::digest(certificate).into();
        PeerCertificate { certificate: certificate.clone(), fingerprint }
    }

    /// Its certificate, in DER, verified by the listener's `client_ca`.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// SHA-256 of the certificate.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }
}

/// What came of received bytes, beside plaintext.
#[derive(Debug, Default)]
pub struct TlsProgress {
    /// The handshake has been completed by them.
    pub opened: bool,
    /// The peer has ended its side (close_notify); nothing comes after it.
    pub ended: bool,
    /// Why the connection is over, if it is.
    pub failed: Option<TlsFailure>,
}

/// Why a connection is over.
#[derive(Debug)]
pub enum TlsFailure {
    /// The peer does not speak TLS but plain HTTP, by its first byte.
    Plain,
    /// The peer broke the protocol, or there is nothing that both sides accept. It is told by an
    /// alert.
    Protocol(rustls::Error),
    /// What is not finished is longer than [`TLS_HELD_BYTES`].
    TooLong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was received.
    New,
    Handshake,
    Open,
    /// Our side has ended; nothing is read any more.
    Over,
}

/// One connection's TLS. See the module's documentation.
pub struct Filter {
    conn: Conn,
    /// Received and not finished: a part of a record, or of a handshake message.
    held: Vec<u8>,
    /// Records to be sent.
    out: Vec<u8>,
    stage: Stage,
    /// The peer has ended its side.
    ended: bool,
    identity: Option<Arc<PeerCertificate>>,
}

impl Filter {
    /// A client has the first word, and says it here.
    fn new(mut conn: Conn) -> Filter {
        let (held, mut out) = (Vec::new(), Vec::new());
        let mut stage = Stage::New;
        if let Conn::Client(_) = &conn {
            conn.process(&mut [], &mut Vec::new(), &mut out);
            stage = Stage::Handshake;
        }
        Filter { conn, held, out, stage, ended: false, identity: None }
    }

    /// Whether the handshake is not completed yet.
    pub fn is_handshaking(&self) -> bool {
        matches!(self.stage, Stage::New | Stage::Handshake)
    }

    /// Whether the peer has ended its side as TLS wants it.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the handshake went on from an earlier connection's.
    pub fn is_resumed(&self) -> bool {
        self.conn.is_resumed()
    }

    /// Who the client has proved to be, where the peer is one.
    pub fn identity(&self) -> Option<&Arc<PeerCertificate>> {
        self.identity.as_ref()
    }

    /// Takes what was received; what it says is added to `plain`. `bytes` are changed in place.
    pub fn receive(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>) -> TlsProgress {
        let mut progress = TlsProgress::default();
        if self.stage == Stage::New
            && let Some(first) = bytes.first()
        {
            self.stage = Stage::Handshake;
            if *first != HANDSHAKE_RECORD && first.is_ascii_uppercase() {
                self.stage = Stage::Over;
                progress.failed = Some(TlsFailure::Plain);
            }
        }
        if self.stage == Stage::Over || self.ended {
            return progress;
        }
        if self.held.is_empty() {
            let taken = self.process(bytes, plain, &mut progress);
            self.hold(&bytes[taken..]);
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(bytes);
            let taken = self.process(&mut held, plain, &mut progress);
            if taken == 0 {
                self.held = held;
            } else {
                self.hold(&held[taken..]);
            }
        }
        if self.held.len() > TLS_HELD_BYTES && progress.failed.is_none() {
            progress.failed = Some(TlsFailure::TooLong);
        }
        if progress.failed.is_some() {
            self.stage = Stage::Over;
        }
        if self.stage == Stage::Over || self.ended {
            self.held = Vec::new();
        }
        progress
    }

    /// Keeps the beginning of a record, with room for the rest of it.
    fn hold(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        let whole = match rest {
            [_, _, _, high, low, ..] => 5 + usize::from(u16::from_be_bytes([*high, *low])),
            _ => 5,
        };
        self.held.reserve_exact(whole.min(TLS_RECORD_BYTES + 512).max(rest.len()));
        self.held.extend_from_slice(rest);
    }

    /// Processes whole records and says how many bytes they were.
    fn process(
        &mut self,
        bytes: &mut [u8],
        plain: &mut Vec<u8>,
        progress: &mut TlsProgress,
    ) -> usize {
        let outcome = self.conn.process(bytes, plain, &mut self.out);
        self.ended |= outcome.ended;
        progress.ended |= outcome.ended;
        progress.failed = outcome.failed;
        let is_open = progress.failed.is_none() && !self.conn.common().is_handshaking();
        if self.stage == Stage::Handshake && is_open {
            self.stage = Stage::Open;
            progress.opened = true;
            if let Conn::Server(conn) = &self.conn {
                let certificate = conn.peer_certificates().and_then(|chain| chain.first());
                self.identity = certificate.map(|it| Arc::new(PeerCertificate::new(it)));
            }
        }
        outcome.taken
    }

    /// Makes records of `batch`, in its order; take them with [`Filter::take_records`]. Short
    /// segments are gathered in `scratch`, since a record costs more than a copy. False when the
    /// connection can carry no more.
    pub fn seal(&mut self, batch: &[Segment], scratch: &mut Vec<u8>) -> bool {
        let mut sealed = true;
        scratch.clear();
        for segment in batch {
            if scratch.len() + segment.len() > TLS_RECORD_BYTES && !scratch.is_empty() {
                sealed &= self.encrypt(scratch);
                scratch.clear();
            }
            if segment.len() >= TLS_RECORD_BYTES || batch.len() == 1 {
                sealed &= self.encrypt(segment);
            } else {
                scratch.extend_from_slice(segment);
            }
        }
        if !scratch.is_empty() {
            sealed &= self.encrypt(scratch);
        }
        sealed
    }

    fn encrypt(&mut self, plain: &[u8]) -> bool {
        let records = plain.len().div_ceil(TLS_RECORD_BYTES);
        let room = plain.len() + records * RECORD_OVERHEAD + KEY_UPDATE_BYTES;
        self.write(Chunk::Plain(plain), room)
    }

    /// Ends our side (close_notify), behind all that was sealed.
    pub fn end(&mut self) {
        if self.stage == Stage::Open {
            self.write(Chunk::Close, KEY_UPDATE_BYTES);
        }
        self.stage = Stage::Over;
    }

    /// Writes records behind those so far; they take about `room` bytes.
    fn write(&mut self, word: Chunk<'_>, room: usize) -> bool {
        let Filter { conn, held, out, ended, .. } = self;
        self.stage == Stage::Open && conn.write(word, room, held, ended, out)
    }

    /// Says something to a peer that does not speak TLS.
    pub fn say_plainly(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Whether records wait to be sent.
    pub fn has_records(&self) -> bool {
        !self.out.is_empty()
    }

    /// Takes the records out that wait to be sent.
    pub fn take_records(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}
