//! The client's side of the opening handshake (RFC 6455 section 4.1): what a server behind a
//! `proxy` is asked, and what its answer is worth. Nothing here knows a connection.

use super::token;
use crate::config::{GuardConfig, Proxy, Upstream};
use crate::crypto::{encode_base64, websocket_accept};
use crate::http::{Headers, NormalPath, Request, ResponseHead, push_field};
use std::net::IpAddr;

/// What a client's request says to each server that is tried for it.
#[derive(Debug)]
pub struct UpgradeQuery {
    /// Path and query; see [`NormalPath::sent`].
    target: Box<str>,
    /// Subprotocols, in the order in which they were offered.
    protocols: Vec<Box<str>>,
    /// Header lines that go on or are set, but `Host`.
    fields: Vec<u8>,
}

impl UpgradeQuery {
    /// What goes on of `request`, which has come from `peer`. A subprotocol that carries the token
    /// for one of `guards` does not.
    pub fn new(
        proxy: &Proxy,
        guards: &[GuardConfig],
        request: &Request<'_>,
        peer: IpAddr,
        secure: bool,
    ) -> UpgradeQuery {
        let mut fields = Vec::new();
        let is_set = |name: &str| proxy.set_headers.keys().any(|it| it.eq_ignore_ascii_case(name));
        let passes = |name: &str| proxy.pass_headers.iter().any(|it| it.eq_ignore_ascii_case(name));
        for (name, value) in request.headers.iter() {
            if passes(name) && !is_forwarding(name, proxy) {
                push_bytes(&mut fields, name, value);
            }
        }
        for (name, value) in &proxy.set_headers {
            if !name.eq_ignore_ascii_case("host") {
                push_bytes(&mut fields, name, value.expose().as_bytes());
            }
        }
        if proxy.forwarded {
            let before = |name: &str| request.header(name).filter(|_| passes(name));
            // Whoever stands before us may have put a field of its own behind the client's.
            let mut chain: Vec<&str> = match passes(FORWARDED[0]) {
                true => request.header_values(FORWARDED[0]).collect(),
                false => Vec::new(),
            };
            let peer = peer.to_canonical().to_string();
            chain.push(&peer);
            let chain = chain.join(", ");
            let scheme = if secure { "https" } else { "http" };
            let ours = [Some(&*chain), Some(scheme), request.authority()];
            for (at, (name, ours)) in FORWARDED.into_iter().zip(ours).enumerate() {
                // Whoever is passed on stands before us, and knows better what was asked for.
                let value = if at == 0 { ours } else { before(name).or(ours) };
                if let Some(value) = value.filter(|_| !is_set(name)) {
                    push_field(&mut fields, name, value);
                }
            }
        }
        let carries = |name: &&str| {
            guards.iter().any(|guard| token::in_protocol(&guard.credentials, name).is_some())
        };
        let offered = request.headers.tokens(PROTOCOL).filter(|name| !carries(name));
        let protocols = offered.map(Box::from).collect();
        UpgradeQuery { target: target(request), protocols, fields }
    }
}

/// Path and query that go on: the path in the spelling by which the route was chosen, the query as
/// it came.
fn target(request: &Request<'_>) -> Box<str> {
    let path = NormalPath::new(request.path());
    let query = &request.target[request.path().len()..];
    format!("{}{query}", path.sent()).into()
}

/// Whether the field is one that [`UpgradeQuery::new`] writes itself.
fn is_forwarding(name: &str, proxy: &Proxy) -> bool {
    proxy.forwarded && FORWARDED.iter().any(|it| it.eq_ignore_ascii_case(name))
}

fn push_bytes(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A handshake under way.
#[derive(Debug)]
pub struct UpstreamHandshake {
    /// What `Sec-WebSocket-Accept` has to be.
    accept: [u8; 28],
    protocols: Vec<Box<str>>,
}

/// What an answer is.
#[derive(Debug, PartialEq, Eq)]
pub enum HandshakeOutcome {
    /// The WebSocket is open, with this subprotocol.
    Open(Option<Box<str>>),
    /// Another answer comes behind this one.
    Interim,
    /// It is not opened.
    Failed(UpstreamFailure),
}

/// Why there is no upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamFailure {
    /// The core has no place for a further connection.
    NoSlot,
    /// It has no address, or cannot be connected.
    Unreachable,
    /// It was not there in time; or it was, and has not answered in time.
    Late {
        /// Whether it was there.
        connected: bool,
    },
    /// It has answered with this status, and the challenge of a 401.
    Refused(u16, Option<Box<str>>),
    /// Its answer breaks the protocol, in this way; or it has ended the connection instead.
    InvalidReply(&'static str),
}

impl UpstreamFailure {
    /// The status of the answer to the client: what the application behind us says of the client
    /// and its request goes on, all else is about the server.
    pub fn status(&self) -> u16 {
        match self {
            UpstreamFailure::NoSlot => 503,
            UpstreamFailure::Late { .. } => 504,
            UpstreamFailure::Refused(status @ (401 | 403 | 404), _) => *status,
            UpstreamFailure::Unreachable
            | UpstreamFailure::Refused(..)
            | UpstreamFailure::InvalidReply(_) => 502,
        }
    }

    /// Whether another server may do better. What is below 500 is said of the client's request.
    pub fn may_be_tried_elsewhere(&self) -> bool {
        !matches!(self, UpstreamFailure::NoSlot | UpstreamFailure::Refused(..500, _))
    }

    /// Whether it is the server's failure, whatever it was asked.
    pub fn is_fault(&self) -> bool {
        !matches!(self, UpstreamFailure::NoSlot | UpstreamFailure::Refused(..502 | 505.., _))
    }

    /// Whether another address of the same server may do better.
    pub fn is_of_the_address(&self) -> bool {
        matches!(self, UpstreamFailure::Unreachable | UpstreamFailure::Late { connected: false })
    }

    /// What is wrong, in words for people.
    pub fn text(&self) -> &'static str {
        match self {
            UpstreamFailure::NoSlot => "no connection is left for the server behind this one",
            UpstreamFailure::Unreachable => "the server behind this one cannot be reached",
            UpstreamFailure::Late { .. } => "the server behind this one has not answered in time",
            UpstreamFailure::Refused(..) => "the server behind this one has refused the connection",
            UpstreamFailure::InvalidReply(_) => {
                "the server behind this one has not opened a WebSocket"
            }
        }
    }
}

impl UpstreamHandshake {
    /// Begins one with `upstream`, under a key that nobody can foresee: the request, and what its
    /// answer is judged by. The target is the upstream's, or the client's if that has none.
    pub fn new(
        proxy: &Proxy,
        upstream: &Upstream,
        asked: &UpgradeQuery,
        nonce: [u8; 16],
    ) -> (UpstreamHandshake, Vec<u8>) {
        let key = encode_base64(&nonce);
        let target = match upstream.target.expose() {
            "" => &asked.target,
            target => target,
        };
        let host = proxy.set_headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = host.map_or_else(|| upstream.authority(), |(_, host)| host.expose().to_owned());
        let mut out = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
        out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n");
        push_field(&mut out, "Sec-WebSocket-Version", "13");
        push_field(&mut out, "Sec-WebSocket-Key", &key);
        if !asked.protocols.is_empty() {
            push_field(&mut out, PROTOCOL, &asked.protocols.join(", "));
        }
        out.extend_from_slice(&asked.fields);
        out.extend_from_slice(b"\r\n");
        let protocols = asked.protocols.clone();
        (UpstreamHandshake { accept: websocket_accept(&key), protocols }, out)
    }

    /// Judges the head of an answer, which ends with its blank line.
    pub fn judge(&self, head: &[u8]) -> HandshakeOutcome {
        let Some(answer) = ResponseHead::parse(head) else {
            return HandshakeOutcome::Failed(UpstreamFailure::InvalidReply(
                "no answer of HTTP/1.1",
            ));
        };
        match answer.status {
            101 => self.judge_fields(&answer.headers),
            100..=199 => HandshakeOutcome::Interim,
            401 => {
                let challenge = answer.headers.first("WWW-Authenticate");
                let challenge = challenge.and_then(|it| str::from_utf8(it).ok());
                HandshakeOutcome::Failed(UpstreamFailure::Refused(401, challenge.map(Box::from)))
            }
            status => HandshakeOutcome::Failed(UpstreamFailure::Refused(status, None)),
        }
    }

    /// Section 4.1, the checks of the server's answer, from item 2 on.
    fn judge_fields(&self, headers: &Headers<'_>) -> HandshakeOutcome {
        let failed = |what| HandshakeOutcome::Failed(UpstreamFailure::InvalidReply(what));
        if !headers.has_token("Upgrade", "websocket") {
            return failed("Upgrade does not name websocket");
        }
        if !headers.has_token("Connection", "upgrade") {
            return failed("Connection does not name upgrade");
        }
        let mut accepts = headers.values("Sec-WebSocket-Accept");
        if accepts.next() != Some(&self.accept[..]) || accepts.next().is_some() {
            return failed("Sec-WebSocket-Accept is not that of the key");
        }
        // None was offered.
        if headers.tokens("Sec-WebSocket-Extensions").next().is_some() {
            return failed("an extension that was not offered");
        }
        let mut chosen = headers.tokens(PROTOCOL);
        let protocol = chosen.next();
        let is_offered = |name: &str| self.protocols.iter().any(|it| **it == *name);
        if protocol.is_some_and(|name| !is_offered(name)) || chosen.next().is_some() {
            return failed("a subprotocol that was not offered");
        }
        HandshakeOutcome::Open(protocol.map(Box::from))
    }
}

const PROTOCOL: &str = "Sec-WebSocket-Protocol";
/// What says on whose behalf a request is made.
const FORWARDED: [&str; 3] = ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"];

#[cfg(test)]
mod tests;
