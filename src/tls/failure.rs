//! Why a connection with TLS fails.

/// Why a connection has failed.
#[derive(Debug)]
pub enum TlsFailure {
    /// The first byte is an upper-case letter: the peer sent plain HTTP.
    Plain,
    /// The peer violated the protocol, or the two sides have no version, cipher suite or
    /// certificate in common. The peer gets an alert.
    Protocol(rustls::Error),
    /// An unfinished record or handshake message is longer than [`crate::limits::TLS_HELD_BYTES`].
    TooLong,
}
