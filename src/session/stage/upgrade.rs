//! The server's side of the opening handshake (RFC 6455 section 4.2).

use crate::crypto::{decode_base64, websocket_accept};
use crate::http::{Connection, Headers, HttpVersion, Request, Response};
use crate::http::{is_token_byte, push_field, push_status};

/// A handshake that was checked and can be accepted.
#[derive(Debug)]
pub struct Upgrade<'r> {
    accept: [u8; 28],
    headers: &'r Headers<'r>,
}

impl<'r> Upgrade<'r> {
    /// The value of `Sec-WebSocket-Accept`.
    pub fn accept_key(&self) -> &str {
        // Base64 is ASCII.
        str::from_utf8(&self.accept).unwrap_or_default()
    }

    /// The subprotocols that the client offers, in its order of preference: tokens, each once.
    pub fn protocols(&self) -> impl Iterator<Item = &'r str> {
        self.headers.tokens(PROTOCOL)
    }

    /// The values of `Sec-WebSocket-Extensions` as sent, in order. A value that is not UTF-8 is
    /// replaced by a character that is not valid in the field either.
    pub fn extensions(&self) -> impl Iterator<Item = &'r str> {
        self.headers.values(EXTENSIONS).map(|value| str::from_utf8(value).unwrap_or("\u{fffd}"))
    }

    /// The origin of the page that opens the connection. Browsers always send it.
    pub fn origin(&self) -> Option<&'r str> {
        self.headers.first("Origin").and_then(|value| str::from_utf8(value).ok())
    }
}

/// Why a handshake is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeRefusal {
    /// Section 4.2.1, item 1: the method is GET.
    #[error("a WebSocket handshake is a GET")]
    Method,
    /// Section 4.2.1, item 1: the version is HTTP/1.1 or later.
    #[error("a WebSocket handshake needs HTTP/1.1")]
    Version,
    /// Section 4.2.1, item 3: `Upgrade` names `websocket`.
    #[error("the Upgrade field must name websocket")]
    Upgrade,
    /// Section 4.2.1, item 4: `Connection` names `upgrade`.
    #[error("the Connection field must name upgrade")]
    Connection,
    /// Section 4.2.1, item 6: `Sec-WebSocket-Version` is missing or occurs more than once.
    #[error("exactly one Sec-WebSocket-Version is required")]
    NoSocketVersion,
    /// Section 4.4: a version other than 13, the only one that is supported.
    #[error("Sec-WebSocket-Version must be 13")]
    SocketVersion,
    /// Section 4.2.1, item 5: there must be exactly one key, the base64 of 16 bytes.
    #[error("exactly one Sec-WebSocket-Key of 16 bytes in base64 is required")]
    Key,
    /// Section 4.1, item 10: subprotocols are tokens, and each occurs once.
    #[error("Sec-WebSocket-Protocol must be a list of different tokens")]
    Protocols,
    /// A handshake must not have a body.
    #[error("a WebSocket handshake has no body")]
    Body,
}

impl UpgradeRefusal {
    /// The status code of the response.
    pub fn status(self) -> u16 {
        match self {
            UpgradeRefusal::SocketVersion => 426,
            _ => 400,
        }
    }

    /// Writes the whole response, with a line of text that names the error. The connection closes
    /// after it.
    pub fn respond(self, out: &mut Vec<u8>) {
        let headers: &[(&str, &str)] = match self {
            // RFC 9110 section 7.8: a sender of `Upgrade` also names it in `Connection`.
            UpgradeRefusal::SocketVersion => {
                &[("Connection", "Upgrade"), ("Upgrade", "websocket"), (VERSION, "13")]
            }
            _ => &[],
        };
        Response::text(self.status(), &format!("{self}\n"))
            .headers(headers)
            .connection(Connection::Close)
            .push(out);
    }
}

/// Whether `request` asks for a WebSocket: its `Upgrade` field names `websocket`.
pub fn wanted(request: &Request<'_>) -> bool {
    request.headers.has_token("Upgrade", "websocket")
}

/// Checks the handshake. `Host` was checked when the head was read (RFC 9112 section 3.2).
///
/// # Errors
/// The first rule of section 4.2.1 that `request` breaks.
pub fn check<'r>(request: &'r Request<'_>) -> Result<Upgrade<'r>, UpgradeRefusal> {
    let headers = &request.headers;
    if request.method != "GET" {
        return Err(UpgradeRefusal::Method);
    }
    if request.version < HttpVersion::Http11 {
        return Err(UpgradeRefusal::Version);
    }
    if !wanted(request) {
        return Err(UpgradeRefusal::Upgrade);
    }
    if !headers.has_token("Connection", "upgrade") {
        return Err(UpgradeRefusal::Connection);
    }
    match only(headers, VERSION) {
        Some(b"13") => {}
        Some(_) => return Err(UpgradeRefusal::SocketVersion),
        None => return Err(UpgradeRefusal::NoSocketVersion),
    }
    let key = only(headers, KEY).filter(|key| is_key(key)).ok_or(UpgradeRefusal::Key)?;
    let key = str::from_utf8(key).map_err(|_| UpgradeRefusal::Key)?;
    if !are_tokens_once(headers) {
        return Err(UpgradeRefusal::Protocols);
    }
    if !request.body.is_empty() {
        return Err(UpgradeRefusal::Body);
    }
    Ok(Upgrade { accept: websocket_accept(key), headers })
}

/// Writes the 101 response with the chosen subprotocol and extensions (section 4.2.2).
pub fn accept(
    out: &mut Vec<u8>,
    upgrade: &Upgrade<'_>,
    protocol: Option<&str>,
    extensions: Option<&str>,
) {
    begin(out, upgrade);
    finish(out, protocol, extensions);
}

/// Writes the part of the 101 response that does not depend on the subprotocol and the extensions.
pub(super) fn begin(out: &mut Vec<u8>, upgrade: &Upgrade<'_>) {
    push_status(out, 101);
    out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n");
    push_field(out, "Sec-WebSocket-Accept", upgrade.accept_key());
}

/// Writes the rest of the 101 response.
pub(super) fn finish(out: &mut Vec<u8>, protocol: Option<&str>, extensions: Option<&str>) {
    if let Some(protocol) = protocol {
        push_field(out, PROTOCOL, protocol);
    }
    if let Some(extensions) = extensions {
        push_field(out, EXTENSIONS, extensions);
    }
    out.extend_from_slice(b"\r\n");
}

/// The value of a field that occurs exactly once.
fn only<'a>(headers: &Headers<'a>, name: &str) -> Option<&'a [u8]> {
    let mut values = headers.values(name);
    values.next().filter(|_| values.next().is_none())
}

/// Whether `text` is strict base64 of 16 bytes.
fn is_key(text: &[u8]) -> bool {
    let mut key = [0; 16];
    text.len() == 24 && decode_base64(text, &mut key) == Some(16)
}

/// Whether the offered subprotocols are tokens (RFC 9110 section 5.6.2) and none occurs twice.
fn are_tokens_once(headers: &Headers<'_>) -> bool {
    let mut seen = [""; MAX_PROTOCOLS];
    for (at, token) in headers.tokens(PROTOCOL).enumerate() {
        let is_new = !seen[..at.min(MAX_PROTOCOLS)].contains(&token);
        let is_token = !token.is_empty() && token.bytes().all(is_token_byte);
        if at == MAX_PROTOCOLS || !is_new || !is_token {
            return false;
        }
        seen[at] = token;
    }
    true
}

const EXTENSIONS: &str = "Sec-WebSocket-Extensions";
const KEY: &str = "Sec-WebSocket-Key";
const PROTOCOL: &str = "Sec-WebSocket-Protocol";
const VERSION: &str = "Sec-WebSocket-Version";
/// The maximum number of subprotocols in one offer. Clients name a handful, and each is compared
/// with all before it.
const MAX_PROTOCOLS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadLimits, Reader, RequestEvent};

    /// The handshake of RFC 6455 section 1.2.
    const SAMPLE: &str = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Origin: http://example.com\r\nSec-WebSocket-Protocol: chat, superchat\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";
    const KEY_LINE: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    fn with_request<T>(text: &str, run: impl FnOnce(&Request<'_>) -> T) -> T {
        let (mut reader, mut input) = (Reader::new(), text.as_bytes().to_vec());
        match reader.next(&HeadLimits::default(), &mut input) {
            (_, RequestEvent::Request(request)) => run(&request),
            (_, event) => panic!("{event:?} of {text}"),
        }
    }

    /// Checks `SAMPLE` with `from` replaced by `to`.
    fn check_sample(from: &str, to: &str, want: Option<UpgradeRefusal>) {
        assert!(SAMPLE.contains(from), "{from}");
        let text = SAMPLE.replace(from, to);
        let got = with_request(&text, |request| check(request).err());
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn s1_3_sample_handshake() {
        let out = with_request(SAMPLE, |request| {
            assert!(wanted(request));
            let upgrade = check(request).unwrap();
            assert_eq!(upgrade.protocols().collect::<Vec<_>>(), ["chat", "superchat"]);
            assert_eq!(upgrade.extensions().count(), 0);
            assert_eq!(upgrade.origin(), Some("http://example.com"));
            let mut out = Vec::new();
            accept(&mut out, &upgrade, Some("chat"), None);
            out
        });
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
             Sec-WebSocket-Protocol: chat\r\n\r\n"
        );
    }

    #[test]
    fn upgrade_answer_names_the_chosen_extensions() {
        let offers = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x\r\n\
            sec-websocket-extensions: y\r\n";
        let text = SAMPLE.replace(KEY_LINE, &format!("{KEY_LINE}{offers}"));
        with_request(&text, |request| {
            let upgrade = check(request).unwrap();
            let got: Vec<_> = upgrade.extensions().collect();
            assert_eq!(got, ["permessage-deflate; client_max_window_bits, x", "y"]);
            let mut out = Vec::new();
            accept(&mut out, &upgrade, None, Some("permessage-deflate"));
            let out = String::from_utf8(out).unwrap();
            let end = "=\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
            assert!(out.ends_with(end), "{out}");
            assert!(!out.contains("Protocol:"), "{out}");
        });
    }

    #[test]
    fn s4_2_1_accepted_upgrades() {
        for (from, to) in [
            ("Upgrade: websocket", "upgrade: WebSocket"),
            ("Upgrade: websocket", "Upgrade: h2c, websocket"),
            ("Connection: Upgrade", "connection: keep-alive, UPGRADE"),
            ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: upgrade"),
            (KEY_LINE, "Sec-WebSocket-Key:   AAAAAAAAAAAAAAAAAAAAAA==  \r\n"),
            ("Sec-WebSocket-Protocol: chat, superchat\r\n", ""),
            ("chat, superchat", ""),
            ("chat, superchat", ",a,,b.c"),
            ("chat, superchat", "a, A"),
            ("Origin: http://example.com\r\n", ""),
            ("Version: 13\r\n", "Version: 13\r\nContent-Length: 0\r\n"),
        ] {
            check_sample(from, to, None);
        }
    }

    #[test]
    fn s4_2_1_refused_methods_upgrades_and_versions() {
        for (from, to, want) in [
            ("GET", "POST", UpgradeRefusal::Method),
            ("GET", "get", UpgradeRefusal::Method),
            ("HTTP/1.1", "HTTP/1.0", UpgradeRefusal::Version),
            ("Upgrade: websocket\r\n", "", UpgradeRefusal::Upgrade),
            ("Upgrade: websocket", "Upgrade: websockets", UpgradeRefusal::Upgrade),
            ("Upgrade: websocket", "Upgrade: web socket", UpgradeRefusal::Upgrade),
            ("Connection: Upgrade\r\n", "", UpgradeRefusal::Connection),
            ("Connection: Upgrade", "Connection: keep-alive", UpgradeRefusal::Connection),
            ("Sec-WebSocket-Version: 13\r\n", "", UpgradeRefusal::NoSocketVersion),
            (
                "Version: 13",
                "Version: 13\r\nSec-WebSocket-Version: 13",
                UpgradeRefusal::NoSocketVersion,
            ),
            ("Version: 13", "Version: 8", UpgradeRefusal::SocketVersion),
            ("Version: 13", "Version: 013", UpgradeRefusal::SocketVersion),
            ("Version: 13", "Version: 13, 8", UpgradeRefusal::SocketVersion),
            ("Version: 13", "Version:", UpgradeRefusal::SocketVersion),
        ] {
            check_sample(from, to, Some(want));
        }
    }

    #[test]
    fn s4_2_1_refused_keys_protocols_and_bodies() {
        let twice = format!("{KEY_LINE}{KEY_LINE}");
        for (from, to, want) in [
            (KEY_LINE, "", UpgradeRefusal::Key),
            (KEY_LINE, &twice, UpgradeRefusal::Key),
            ("dGhlIHNhbXBsZSBub25jZQ==", "", UpgradeRefusal::Key),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", UpgradeRefusal::Key),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j", UpgradeRefusal::Key),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQA=", UpgradeRefusal::Key),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZR==", UpgradeRefusal::Key),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQAA", UpgradeRefusal::Key),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNh XBsZSBub25jZQ==", UpgradeRefusal::Key),
            ("chat, superchat", "chat, chat", UpgradeRefusal::Protocols),
            ("chat, superchat", "chat\r\nSec-WebSocket-Protocol: chat", UpgradeRefusal::Protocols),
            ("chat, superchat", "chat/1", UpgradeRefusal::Protocols),
            ("chat, superchat", "two words", UpgradeRefusal::Protocols),
            ("chat, superchat", "é", UpgradeRefusal::Protocols),
            ("13\r\n\r\n", "13\r\nContent-Length: 1\r\n\r\nx", UpgradeRefusal::Body),
        ] {
            check_sample(from, to, Some(want));
        }
    }

    #[test]
    fn upgrade_bounds_the_number_of_subprotocols() {
        let offer = |count| (0..count).map(|n| format!("p{n}")).collect::<Vec<_>>().join(",");
        check_sample("chat, superchat", &offer(MAX_PROTOCOLS), None);
        let refusal = Some(UpgradeRefusal::Protocols);
        check_sample("chat, superchat", &offer(MAX_PROTOCOLS + 1), refusal);
    }

    #[test]
    fn upgrade_is_not_wanted_by_a_plain_request() {
        with_request("GET / HTTP/1.1\r\nHost: h\r\n\r\n", |request| assert!(!wanted(request)));
        let other = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\n\r\n";
        with_request(other, |request| assert!(!wanted(request)));
    }

    #[test]
    fn upgrade_refusals_are_whole_responses() {
        for (refusal, first, more) in [
            (UpgradeRefusal::Method, "HTTP/1.1 400 Bad Request", ""),
            (
                UpgradeRefusal::SocketVersion,
                "HTTP/1.1 426 Upgrade Required",
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            ),
            (UpgradeRefusal::Key, "HTTP/1.1 400 Bad Request", ""),
        ] {
            let mut out = Vec::new();
            refusal.respond(&mut out);
            let body = format!("{refusal}\n");
            let want = format!(
                "{first}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
                 {more}Connection: close\r\n\r\n{body}",
                body.len()
            );
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }
}
