//! The header of the PROXY protocol, versions 1 and 2, read from the first bytes of a connection
//! however they are cut. The header itself is parsed by the crate `ppp`.

use crate::limits::PROXY_HEADER_BYTES;
use ppp::{v1, v2};
use std::net::{IpAddr, SocketAddr};

/// The first bytes of a header of version 1.
const V1: &[u8] = b"PROXY ";
/// The maximum length of a header of version 1, with its line end.
const V1_MAX: usize = 107;
/// The length of a header of version 2 up to its addresses. Its last two bytes are the length of
/// what follows.
const V2_START: usize = 16;
/// The bit of the TLV for TLS that says that the client uses TLS to the proxy.
const CLIENT_SSL: u8 = 1;

/// Reads a header. All bytes are kept until it is whole, or is none.
#[derive(Debug, Default)]
pub(super) struct HeaderReader {
    bytes: Vec<u8>,
}

/// What a header says of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StatedClient {
    /// The client's address; `None` if the header leaves the address of the connection itself.
    pub(super) address: Option<SocketAddr>,
    /// Whether the client uses TLS to the proxy, if the header says it.
    pub(super) secure: Option<bool>,
}

/// The result of reading further bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderRead {
    /// All bytes were taken, and the header is not whole.
    More,
    /// The header ends after this many of the bytes.
    Whole(usize, StatedClient),
    /// The connection does not begin with a header. These are all of its bytes up to now.
    Missing(Vec<u8>),
    /// The header violates the protocol, or is too long.
    Malformed,
}

impl HeaderReader {
    /// Heap bytes of the part that has arrived.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Reads bytes that follow those of the last call.
    pub(super) fn read(&mut self, bytes: &[u8]) -> HeaderRead {
        let mut at = 0;
        loop {
            let needed = match self.needed() {
                Ok(needed) => needed,
                Err(HeaderRead::Missing(mut all)) => {
                    all.extend_from_slice(&bytes[at..]);
                    return HeaderRead::Missing(all);
                }
                Err(HeaderRead::Whole(_, stated)) => return HeaderRead::Whole(at, stated),
                Err(decided) => return decided,
            };
            if at == bytes.len() {
                return HeaderRead::More;
            }
            let taken = (needed - self.bytes.len()).min(bytes.len() - at);
            self.bytes.extend_from_slice(&bytes[at..at + taken]);
            at += taken;
        }
    }

    /// The number of bytes, those that are kept included, after which more is known; or what is
    /// known.
    fn needed(&mut self) -> Result<usize, HeaderRead> {
        let has = self.bytes.as_slice();
        let begins = |signature: &[u8]| has.starts_with(signature) || signature.starts_with(has);
        if has.is_empty() {
            return Ok(1);
        }
        if begins(V1) {
            return match has.last() {
                Some(b'\n') => Err(parse_v1(has)),
                _ if has.len() == V1_MAX => Err(HeaderRead::Malformed),
                _ => Ok(has.len() + 1),
            };
        }
        if !begins(v2::PROTOCOL_PREFIX) {
            return Err(HeaderRead::Missing(std::mem::take(&mut self.bytes)));
        }
        let Some(length) = has.get(V2_START - 2..V2_START) else { return Ok(V2_START) };
        let whole = V2_START + usize::from(length[0]) * 256 + usize::from(length[1]);
        match whole {
            _ if whole > PROXY_HEADER_BYTES => Err(HeaderRead::Malformed),
            _ if has.len() == whole => Err(parse_v2(has)),
            _ => Ok(whole),
        }
    }
}

fn parse_v1(header: &[u8]) -> HeaderRead {
    let Ok(header) = v1::Header::try_from(header) else { return HeaderRead::Malformed };
    let address = match header.addresses {
        v1::Addresses::Tcp4(ip) => stated(ip.source_address, ip.source_port),
        v1::Addresses::Tcp6(ip) => stated(ip.source_address, ip.source_port),
        v1::Addresses::Unknown => None,
    };
    HeaderRead::Whole(0, StatedClient { address, secure: None })
}

fn parse_v2(header: &[u8]) -> HeaderRead {
    let Ok(header) = v2::Header::try_from(header) else { return HeaderRead::Malformed };
    if header.command == v2::Command::Local {
        return HeaderRead::Whole(0, StatedClient::default());
    }
    let address = match header.addresses {
        v2::Addresses::IPv4(ip) => stated(ip.source_address, ip.source_port),
        v2::Addresses::IPv6(ip) => stated(ip.source_address, ip.source_port),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
    };
    let mut secure = None;
    for tlv in header.tlvs() {
        let Ok(tlv) = tlv else { return HeaderRead::Malformed };
        if tlv.kind == v2::Type::SSL as u8 {
            secure = Some(tlv.value.first().is_some_and(|bits| bits & CLIENT_SSL != 0));
        }
    }
    HeaderRead::Whole(0, StatedClient { address, secure })
}

/// The client's address. The unspecified address says nothing.
fn stated(ip: impl Into<IpAddr>, port: u16) -> Option<SocketAddr> {
    let ip = ip.into().to_canonical();
    (!ip.is_unspecified()).then(|| SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of version 2 with this command, family and payload.
    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u16).to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &length, payload].concat()
    }

    const FOUR: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x9c, 0x40, 0, 80];

    fn address(text: &str) -> StatedClient {
        StatedClient { address: Some(text.parse().unwrap()), secure: None }
    }

    fn headers() -> Vec<(Vec<u8>, StatedClient)> {
        let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 16], &[0, 9, 0, 80]].concat();
        let tls = |bits: u8| [&FOUR[..], &[0x20, 0, 5, bits, 0, 0, 0, 0]].concat();
        let secure = |secure| StatedClient { secure: Some(secure), ..address("192.0.2.7:40000") };
        let nothing = StatedClient::default();
        let line = |text: &str| format!("PROXY {text}\r\n").into_bytes();
        vec![
            (line("TCP4 192.0.2.7 10.0.0.1 40000 80"), address("192.0.2.7:40000")),
            (line("TCP6 2001:db8::7 ::1 9 80"), address("[2001:db8::7]:9")),
            (line("UNKNOWN"), nothing),
            (line(&format!("UNKNOWN {}", "f".repeat(91))), nothing),
            (v2(1, 0x11, &FOUR), address("192.0.2.7:40000")),
            (v2(1, 0x21, &six), address("[2001:db8::7]:9")),
            (v2(1, 0x11, &tls(1)), secure(true)),
            (v2(1, 0x11, &tls(0)), secure(false)),
            (v2(0, 0x11, &FOUR), nothing),
            (v2(0, 0, &[]), nothing),
            (v2(1, 0, &[]), nothing),
            (v2(1, 0x31, &[b'a'; 216]), nothing),
            (v2(1, 0x11, &[&[0; 4], &FOUR[4..]].concat()), nothing),
        ]
    }

    #[test]
    fn proxy_header_is_read_whole_and_cut_at_every_byte() {
        for (header, expected) in headers() {
            let mut whole = header.clone();
            whole.extend_from_slice(b"GET / HTTP/1.1\r\n");
            for cut in 0..whole.len() {
                let mut reader = HeaderReader::default();
                let first = reader.read(&whole[..cut]);
                if cut >= header.len() {
                    assert_eq!(first, HeaderRead::Whole(header.len(), expected));
                    continue;
                }
                assert_eq!(first, HeaderRead::More, "{cut} of {header:?}");
                let rest = header.len() - cut;
                assert_eq!(reader.read(&whole[cut..]), HeaderRead::Whole(rest, expected));
            }
        }
    }

    #[test]
    fn proxy_header_that_is_missing_leaves_every_byte() {
        for text in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"PROPFIND / HTTP/1.1\r\n\r\n",
            b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00",
        ] {
            for cut in 0..text.len() {
                let mut reader = HeaderReader::default();
                let found = match reader.read(&text[..cut]) {
                    HeaderRead::More => reader.read(&text[cut..]),
                    HeaderRead::Missing(mut start) => {
                        start.extend_from_slice(&text[cut..]);
                        HeaderRead::Missing(start)
                    }
                    other => other,
                };
                assert_eq!(found, HeaderRead::Missing(text.to_vec()), "{cut}");
            }
        }
    }

    #[test]
    fn proxy_header_that_is_malformed_or_too_long_is_refused() {
        let long = |bytes: usize| v2(1, 0x11, &[&FOUR[..], &[4, 0, 0]].concat()).len() + bytes;
        let padded = |whole: usize| {
            let pad = whole - long(0);
            let tlv = [&[4][..], &(pad as u16).to_be_bytes(), &vec![0; pad]].concat();
            v2(1, 0x11, &[&FOUR[..], &tlv].concat())
        };
        let fits = padded(PROXY_HEADER_BYTES);
        let read = |bytes: &[u8]| HeaderReader::default().read(bytes);
        assert_eq!(read(&fits), HeaderRead::Whole(fits.len(), address("192.0.2.7:40000")));
        let line = |digits: usize| format!("PROXY UNKNOWN {}\r\n", "1".repeat(digits)).into_bytes();
        assert!(matches!(read(&line(V1_MAX - 16)), HeaderRead::Whole(V1_MAX, _)));
        let mut version = v2(1, 0x11, &FOUR);
        version[12] = 0x31;
        for bytes in [
            padded(PROXY_HEADER_BYTES + 1),
            line(V1_MAX - 15),
            version,
            v2(2, 0x11, &FOUR),
            v2(1, 0x11, &FOUR[..11]),
            v2(1, 0x11, &[&FOUR[..], &[0x20, 0, 9, 1]].concat()),
            b"PROXY \n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 80\n".to_vec(),
            b"PROXY TCP4 192.0.2.256 10.0.0.1 40000 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 65536\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 40000\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::7 ::1 9 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 80 more\r\n".to_vec(),
            b"PROXY \xff\xfe\r\n".to_vec(),
        ] {
            assert_eq!(read(&bytes), HeaderRead::Malformed, "{}", bytes.escape_ascii());
        }
    }
}
