//! TLS 1.2 and 1.3 by `rustls`, as a filter between the bytes of a connection and its session.
//!
//! The unbuffered connection is used: records are decrypted where they were received, and written
//! straight into what is sent. The buffered one would copy both once more, and keep a buffer of
//! 4 KiB for each idle connection. Here an idle connection holds its keys and nothing else.
//!
//! The library reads the system's clock itself, for tickets and for the dates of certificates.

mod acceptor;
mod files;
mod holder;

pub use acceptor::{Acceptor, Mutual, Setup, Version};
pub use files::{Chain, Error, Pair, Roots, What, pem_chain, pkcs12_pair, roots};
pub use holder::Holder;

use crate::limits::{TLS_HELD_BYTES, TLS_RECORD_BYTES};
use crate::mem::Segment;
use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus,
};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Bytes that a record has beside its payload, at most: header, nonce, tag, type.
const RECORD_OVERHEAD: usize = 32;
/// Room for a key update that leaves with a record.
const KEY_UPDATE_BYTES: usize = 64;
/// The first byte of a TLS connection: a record with a handshake message (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// Who a client has proved to be.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    certificate: CertificateDer<'static>,
    fingerprint: [u8; 32],
}

impl Identity {
    fn new(certificate: &CertificateDer<'static>) -> Identity {
        let fingerprint = Sha256::digest(certificate).into();
        Identity { certificate: certificate.clone(), fingerprint }
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
pub struct Progress {
    /// The handshake has been completed by them.
    pub opened: bool,
    /// The peer has ended its side (close_notify); nothing comes after it.
    pub ended: bool,
    /// Why the connection is over, if it is.
    pub failed: Option<Failure>,
}

/// Why a connection is over.
#[derive(Debug)]
pub enum Failure {
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
    conn: UnbufferedServerConnection,
    /// Received and not finished: a part of a record, or of a handshake message.
    held: Vec<u8>,
    /// Records to be sent.
    out: Vec<u8>,
    stage: Stage,
    /// The peer has ended its side.
    ended: bool,
    identity: Option<Arc<Identity>>,
}

impl Filter {
    fn new(conn: UnbufferedServerConnection) -> Filter {
        let (held, out) = (Vec::new(), Vec::new());
        Filter { conn, held, out, stage: Stage::New, ended: false, identity: None }
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
        self.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Who the client has proved to be.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    /// Takes what was received; what it says is added to `plain`. `bytes` are changed in place.
    pub fn receive(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>) -> Progress {
        let mut progress = Progress::default();
        if self.stage == Stage::New
            && let Some(first) = bytes.first()
        {
            self.stage = Stage::Handshake;
            if *first != HANDSHAKE_RECORD && first.is_ascii_uppercase() {
                self.stage = Stage::Over;
                progress.failed = Some(Failure::Plain);
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
            progress.failed = Some(Failure::TooLong);
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
    fn process(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>, progress: &mut Progress) -> usize {
        let mut at = 0;
        loop {
            let status = self.conn.process_tls_records(&mut bytes[at..]);
            let UnbufferedStatus { mut discard, state } = status;
            let mut done = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.out),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => {
                    self.ended = true;
                    progress.ended = true;
                }
                Ok(_) => done = true,
                Err(error) => {
                    self.say_why();
                    progress.failed = Some(Failure::Protocol(error));
                    return at + discard;
                }
            }
            at += discard;
            if done {
                break;
            }
        }
        if self.stage == Stage::Handshake && !self.conn.is_handshaking() {
            self.stage = Stage::Open;
            progress.opened = true;
            let certificate = self.conn.peer_certificates().and_then(|chain| chain.first());
            self.identity = certificate.map(|it| Arc::new(Identity::new(it)));
        }
        at
    }

    /// Takes the alert out that tells the peer what it did wrong.
    fn say_why(&mut self) {
        while self.conn.wants_write() {
            match self.conn.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.out),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while traffic.next_record().is_some() {}
                }
                _ => return,
            }
        }
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
        self.write(room, |traffic, room| traffic.encrypt(plain, room))
    }

    /// Ends our side (close_notify), behind all that was sealed.
    pub fn end(&mut self) {
        if self.stage == Stage::Open {
            self.write(KEY_UPDATE_BYTES, |traffic, room| traffic.queue_close_notify(room));
        }
        self.stage = Stage::Over;
    }

    /// Lets `put` write into `room` bytes behind the records so far.
    fn write(
        &mut self,
        mut room: usize,
        mut put: impl FnMut(&mut Traffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> bool {
        if self.stage != Stage::Open {
            return false;
        }
        loop {
            let UnbufferedStatus { discard, state } = self.conn.process_tls_records(&mut self.held);
            let out = &mut self.out;
            match state {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let from = out.len();
                    out.resize(from + room, 0);
                    let written = put(&mut traffic, &mut out[from..]);
                    out.truncate(from + *written.as_ref().unwrap_or(&0));
                    match written {
                        Ok(_) => return true,
                        Err(EncryptError::InsufficientSize(size)) if size.required_size > room => {
                            room = size.required_size;
                        }
                        Err(_) => return false,
                    }
                }
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                _ => return false,
            }
            self.held.drain(..discard);
        }
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

type Traffic<'c> = rustls::unbuffered::WriteTraffic<'c, rustls::server::ServerConnectionData>;

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, out: &mut Vec<u8>) {
    let from = out.len();
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        out.resize(from + size.required_size, 0);
        let written = data.encode(&mut out[from..]).unwrap_or(0);
        out.truncate(from + written);
    }
}
