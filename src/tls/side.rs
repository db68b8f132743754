//! Processing and writing TLS records, for a connection of either side, server or client.

use super::TlsFailure;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, HandshakeKind};

/// The `rustls` connection of either side. Each call matches on the side.
pub(super) enum Conn {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// The result of processing records, beside plaintext.
#[derive(Default)]
pub(super) struct TlsOutcome {
    /// The number of bytes that were processed.
    pub(super) taken: usize,
    /// The peer has sent close_notify.
    pub(super) ended: bool,
    pub(super) failed: Option<TlsFailure>,
}

/// What to write as records: data, or close_notify.
#[derive(Clone, Copy)]
pub(super) enum Chunk<'w> {
    Plain(&'w [u8]),
    Close,
}

impl Conn {
    pub(super) fn common(&self) -> &CommonState {
        match self {
            Conn::Server(conn) => conn,
            Conn::Client(conn) => conn,
        }
    }

    pub(super) fn is_resumed(&self) -> bool {
        self.common().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Processes whole records. Appends the plaintext to `plain`, and records to be sent, such as
    /// those of the handshake, to `out`.
    pub(super) fn process(
        &mut self,
        bytes: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> TlsOutcome {
        match self {
            Conn::Server(conn) => process(conn, bytes, plain, out),
            Conn::Client(conn) => process(conn, bytes, plain, out),
        }
    }

    /// Writes `word` as records to `out`, with about `room` bytes; false if that is not possible.
    /// The bytes in `held` are processed first, and `ended` is set if they have a close_notify.
    pub(super) fn write(
        &mut self,
        word: Chunk<'_>,
        room: usize,
        held: &mut Vec<u8>,
        ended: &mut bool,
        out: &mut Vec<u8>,
    ) -> bool {
        match self {
            Conn::Server(conn) => write(conn, word, room, held, ended, out),
            Conn::Client(conn) => write(conn, word, room, held, ended, out),
        }
    }
}

/// The common methods of the server's and the client's connection, which are two types in `rustls`.
trait Side {
    type Data;

    fn records<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn wants_write(&self) -> bool;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn records<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn wants_write(&self) -> bool {
        CommonState::wants_write(self)
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn records<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn wants_write(&self) -> bool {
        CommonState::wants_write(self)
    }
}

fn process<S: Side>(
    conn: &mut S,
    bytes: &mut [u8],
    plain: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> TlsOutcome {
    let mut outcome = TlsOutcome::default();
    loop {
        let UnbufferedStatus { mut discard, state } = conn.records(&mut bytes[outcome.taken..]);
        let mut done = false;
        let mut failed = None;
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(Ok(record)) = traffic.next_record() {
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
            }
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out),
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => outcome.ended = true,
            Ok(_) => done = true,
            Err(error) => failed = Some(TlsFailure::Protocol(error)),
        }
        outcome.taken += discard;
        if failed.is_some() {
            write_alert(conn, out);
            outcome.failed = failed;
            return outcome;
        }
        if done {
            return outcome;
        }
    }
}

/// Appends to `out` the alert that reports to the peer why the connection has failed.
fn write_alert<S: Side>(conn: &mut S, out: &mut Vec<u8>) {
    while conn.wants_write() {
        match conn.records(&mut []).state {
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out),
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while traffic.next_record().is_some() {}
            }
            _ => return,
        }
    }
}

fn write<S: Side>(
    conn: &mut S,
    word: Chunk<'_>,
    mut room: usize,
    held: &mut Vec<u8>,
    ended: &mut bool,
    out: &mut Vec<u8>,
) -> bool {
    loop {
        let UnbufferedStatus { discard, state } = conn.records(held);
        match state {
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out),
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let from = out.len();
                out.resize(from + room, 0);
                let written = put(&mut traffic, word, &mut out[from..]);
                out.truncate(from + *written.as_ref().unwrap_or(&0));
                match written {
                    Ok(_) => return true,
                    Err(EncryptError::InsufficientSize(size)) if size.required_size > room => {
                        room = size.required_size;
                    }
                    Err(_) => return false,
                }
            }
            Ok(ConnectionState::PeerClosed) => *ended = true,
            _ => return false,
        }
        held.drain(..discard);
    }
}

fn put<Data>(
    traffic: &mut WriteTraffic<'_, Data>,
    word: Chunk<'_>,
    room: &mut [u8],
) -> Result<usize, EncryptError> {
    match word {
        Chunk::Plain(plain) => traffic.encrypt(plain, room),
        Chunk::Close => traffic.queue_close_notify(room),
    }
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, out: &mut Vec<u8>) {
    let from = out.len();
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        out.resize(from + size.required_size, 0);
        let written = data.encode(&mut out[from..]).unwrap_or(0);
        out.truncate(from + written);
    }
}
