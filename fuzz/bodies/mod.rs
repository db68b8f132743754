//! What each fuzz target does with its bytes. `tests/it/replay.rs` includes these, too, so that
//! every input in `fuzz/seeds` runs under the ordinary tests.

pub(crate) mod api_body;
pub(crate) mod certificate;
pub(crate) mod close;
pub(crate) mod cluster_entry;
pub(crate) mod codec_bson;
pub(crate) mod codec_json;
pub(crate) mod codec_msgpack;
pub(crate) mod config;
pub(crate) mod cost;
pub(crate) mod deflate_roundtrip;
pub(crate) mod frame;
pub(crate) mod http;
pub(crate) mod hub;
pub(crate) mod inflate;
pub(crate) mod jwt_token;
pub(crate) mod links;
pub(crate) mod mask;
pub(crate) mod message;
pub(crate) mod negotiate;
pub(crate) mod proxy;
pub(crate) mod pusher_message;
pub(crate) mod resume_message;
pub(crate) mod route;
pub(crate) mod schemas;
pub(crate) mod session;
pub(crate) mod session_compressed;
pub(crate) mod session_stream;
pub(crate) mod stream;
pub(crate) mod tls_session;
pub(crate) mod tls_upstream;
pub(crate) mod upgrade;
pub(crate) mod utf8;
mod vendors;
pub(crate) mod zenith_ingest;
pub(crate) mod zenith_message;
pub(crate) mod zilliqa_ingest;
pub(crate) mod zilliqa_query;

use polycast::codec::json::Scratch;
use polycast::codec::{DecodeLimits, Format, decode, encode};

/// Gives the names of all targets to a macro.
macro_rules! every_target {
    ($then:ident) => {
        $then! {
            mask frame message utf8 close negotiate inflate deflate_roundtrip http upgrade
            session session_compressed pusher_message api_body hub config tls_session
            codec_json codec_bson codec_msgpack zilliqa_query zilliqa_ingest zenith_message
            zenith_ingest jwt_token route certificate schemas stream session_stream proxy
            tls_upstream cost resume_message links cluster_entry
        }
    };
}
pub(crate) use every_target;

/// Operations by the byte.
pub(crate) struct Script<'a>(pub(crate) &'a [u8]);

impl<'a> Script<'a> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// At most `max` bytes.
    pub(crate) fn take(&mut self, max: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(max.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// `data` whole, and in pieces whose lengths follow from `seed`.
pub(crate) fn pieces(data: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut rng = fastrand::Rng::with_seed(seed.into());
    let max = [1, 2, 7, 64, 4096][rng.usize(0..5)];
    let mut rest = data;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rng.usize(1..=max).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// A value that is read in one format can be written in each, and is the same value there.
pub(crate) fn codec(format: Format, data: &[u8]) {
    // Writing must not make a document too large to be read again: base64 and escapes do.
    let limits = DecodeLimits { bytes: usize::MAX, ..DecodeLimits::default() };
    let mut scratch = Scratch::default();
    let mut read = |format, mut bytes: Vec<u8>| decode(format, &mut bytes, &limits, &mut scratch);
    let Ok(value) = read(format, data.to_vec()) else { return };
    for format in Format::ALL {
        let mut first = Vec::new();
        encode(format, &value, &mut first).expect("what was read can be written");
        let back = read(format, first.clone()).expect("what was written can be read");
        let mut second = Vec::new();
        encode(format, &back, &mut second).expect("what was read can be written");
        assert_eq!(first, second);
        assert!(format != Format::Json || back == value);
    }
}
