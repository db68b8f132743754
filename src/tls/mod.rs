//! TLS 1.2 and 1.3 by `rustls`, as a filter between the socket's bytes and the session, for
//! accepted connections and for connections to upstream servers.
//!
//! It uses the unbuffered API of `rustls`: records are decrypted in the receive buffer, and
//! encrypted records are written directly to the bytes to be sent. The buffered API would copy both
//! once more, and keep a buffer of 4 KiB for each idle connection. Here an idle connection holds
//! only its TLS state.
//!
//! `rustls` reads the system's clock itself, for session tickets and for the validity of
//! certificates.

mod acceptor;
mod certified;
mod connector;
mod failure;
mod files;
mod holder;
mod issued;
mod listed;
#[cfg_attr(not(feature = "pkcs12"), path = "pkcs12/absent.rs")]
mod pkcs12;
mod revocation;
mod side;
mod store;

pub use acceptor::{Acceptor, Mutual, Setup, TlsVersion};
pub use connector::{Connector, Offer};
pub use failure::TlsFailure;
pub use files::{CertificateChain, Error, FileKind, Pair, Roots, pem_chain, roots};
pub use holder::Holder;
pub use issued::{IssuedCertificate, IssuedCertificates, IssuedNames};
pub use pkcs12::{pkcs12_pair, pkcs12_roots};
pub use store::CertificateStore;

use crate::limits::{TLS_HELD_BYTES, TLS_RECORD_BYTES};
use crate::mem::Segment;
use issued::CHALLENGE_PROTOCOL;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use side::{Chunk, Conn};
use std::sync::Arc;

/// The maximum overhead of a record in bytes: header, nonce, tag and type.
const RECORD_OVERHEAD: usize = 32;
/// Bytes of room for a key update or an alert that is sent with a record.
const KEY_UPDATE_BYTES: usize = 64;
/// The first byte of a TLS connection: content type handshake (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// A client's verified certificate.
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

    /// The certificate in DER; it was verified by the listener's `client_ca`.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// SHA-256 of the certificate in DER.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }
}

/// The result of received bytes, beside plaintext.
#[derive(Debug, Default)]
pub struct TlsProgress {
    /// These bytes have completed the handshake.
    pub opened: bool,
    /// The peer has sent close_notify; nothing comes after it.
    pub ended: bool,
    /// Why the connection has failed, if it has.
    pub failed: Option<TlsFailure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing has been received yet.
    New,
    Handshake,
    Open,
    /// This side has sent close_notify, or the connection has failed; nothing more is read.
    Over,
}

/// The TLS state of one connection. See the module's documentation.
pub struct Filter {
    conn: Conn,
    /// Received bytes that are not processed yet: a part of a record or of a handshake message.
    held: Vec<u8>,
    /// Records that wait to be sent.
    out: Vec<u8>,
    stage: Stage,
    /// The peer has sent close_notify.
    ended: bool,
    identity: Option<Arc<PeerCertificate>>,
}

impl Filter {
    /// Makes the filter of a connection. For a client, the ClientHello is written at once.
    fn new(mut conn: Conn) -> Filter {
        let (held, mut out) = (Vec::new(), Vec::new());
        let mut stage = Stage::New;
        if let Conn::Client(_) = &conn {
            conn.process(&mut [], &mut Vec::new(), &mut out);
            stage = Stage::Handshake;
        }
        Filter { conn, held, out, stage, ended: false, identity: None }
    }

    /// Whether the handshake is not complete.
    pub fn is_handshaking(&self) -> bool {
        matches!(self.stage, Stage::New | Stage::Handshake)
    }

    /// Whether the peer has sent close_notify.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the handshake resumed a session of an earlier connection.
    pub fn is_resumed(&self) -> bool {
        self.conn.is_resumed()
    }

    /// The client's verified certificate, if this is the server's side and the client has shown
    /// one.
    pub fn identity(&self) -> Option<&Arc<PeerCertificate>> {
        self.identity.as_ref()
    }

    /// Processes received bytes, which are decrypted in place, and appends the plaintext to
    /// `plain`.
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

    /// Keeps the beginning of a record, in a buffer with room for all of it.
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

    /// Processes whole records and returns how many bytes they had.
    fn process(
        &mut self,
        bytes: &mut [u8],
        plain: &mut Vec<u8>,
        progress: &mut TlsProgress,
    ) -> usize {
        let plain_bytes = plain.len();
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
                if conn.alpn_protocol() == Some(CHALLENGE_PROTOCOL) {
                    // RFC 8737 section 3: nothing is exchanged after the handshake.
                    plain.truncate(plain_bytes);
                    (self.ended, progress.ended) = (true, true);
                    self.end();
                }
            }
        }
        outcome.taken
    }

    /// Encrypts `batch` into records, in its order; take them with [`Filter::take_records`]. Short
    /// segments are first copied together into `scratch`, because a record costs more than a copy.
    /// False if the records could not be written: the connection is not open, or can send no more.
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

    /// Writes close_notify after all records so far, and reads nothing more.
    pub fn end(&mut self) {
        if self.stage == Stage::Open {
            self.write(Chunk::Close, KEY_UPDATE_BYTES);
        }
        self.stage = Stage::Over;
    }

    /// Writes records after those that wait; `room` is their estimated length in bytes.
    fn write(&mut self, word: Chunk<'_>, room: usize) -> bool {
        let Filter { conn, held, out, ended, .. } = self;
        self.stage == Stage::Open && conn.write(word, room, held, ended, out)
    }

    /// Sends bytes without encryption, to a peer that does not use TLS.
    pub fn write_plain_alert(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Whether records wait to be sent.
    pub fn has_records(&self) -> bool {
        !self.out.is_empty()
    }

    /// Takes the records that wait to be sent.
    pub fn take_records(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}
