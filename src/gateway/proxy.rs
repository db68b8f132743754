//! The client side of the opening handshake (RFC 6455 section 4.1), for `proxy` routes: the request
//! to the upstream server, and the check of its response. This module does no I/O.

use super::token;
use crate::config::{GuardConfig, Proxy, Upstream};
use crate::crypto::{encode_base64, websocket_accept};
use crate::http::{Headers, NormalPath, Request, ResponseHead, push_field};
use crate::upstream::UpstreamFailure;
use std::net::IpAddr;

/// The parts of a client's request that are sent to each upstream that is tried for it.
#[derive(Debug)]
pub struct UpgradeQuery {
    /// The request target: path and query; see [`NormalPath::sent`].
    target: Box<str>,
    /// The offered subprotocols, in the client's order.
    protocols: Vec<Box<str>>,
    /// Header lines that are passed on or set, without `Host`.
    fields: Vec<u8>,
}

/// Where a client's request came from.
#[derive(Clone, Copy, Debug)]
pub struct Origination {
    /// The client's address.
    pub client: IpAddr,
    /// The address of the client, or of the proxy that has forwarded the request.
    pub sender: IpAddr,
    /// Whether the client uses TLS.
    pub secure: bool,
}

impl UpgradeQuery {
    /// Collects what is forwarded of `request`. A subprotocol that carries the token for one of
    /// `guards` is not forwarded.
    pub fn new(
        proxy: &Proxy,
        guards: &[GuardConfig],
        request: &Request<'_>,
        from: Origination,
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
            // A proxy in front of this server may have appended a field of its own to the client's,
            // so all values are joined.
            let mut chain: Vec<&str> = match passes(FORWARDED[0]) {
                true => request.header_values(FORWARDED[0]).collect(),
                false => Vec::new(),
            };
            let last = if chain.is_empty() { from.client } else { from.sender };
            let last = match last.is_unspecified() {
                true => "unknown".to_owned(), // A client on a Unix socket.
                false => last.to_canonical().to_string(),
            };
            chain.push(&last);
            let chain = chain.join(", ");
            let scheme = if from.secure { "https" } else { "http" };
            let ours = [Some(&*chain), Some(scheme), request.authority()];
            for (at, (name, ours)) in FORWARDED.into_iter().zip(ours).enumerate() {
                // A forwarded value comes from a proxy in front of this server, which knows what
                // the client asked for.
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

/// The request target that is forwarded: the path in the normal form by which the route was chosen,
/// and the query unchanged.
fn target(request: &Request<'_>) -> Box<str> {
    let path = NormalPath::new(request.path());
    let query = &request.target[request.path().len()..];
    format!("{}{query}", path.sent()).into()
}

/// Whether [`UpgradeQuery::new`] writes this field itself.
fn is_forwarding(name: &str, proxy: &Proxy) -> bool {
    proxy.forwarded && FORWARDED.iter().any(|it| it.eq_ignore_ascii_case(name))
}

fn push_bytes(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A handshake whose response has not come yet.
#[derive(Debug)]
pub struct UpstreamHandshake {
    /// The value that `Sec-WebSocket-Accept` must have.
    accept: [u8; 28],
    protocols: Vec<Box<str>>,
}

/// The result of checking the upstream's response.
#[derive(Debug, PartialEq, Eq)]
pub enum HandshakeOutcome {
    /// The WebSocket is open, with this subprotocol if the server chose one.
    Open(Option<Box<str>>),
    /// An interim response (1xx): another response follows.
    Interim,
    /// The handshake has failed.
    Failed(UpstreamFailure),
}

impl UpstreamHandshake {
    /// Begins a handshake with `upstream` and returns it with the bytes of the request. `nonce`,
    /// from which `Sec-WebSocket-Key` is made, must be unpredictable. The request target is that of
    /// `upstream`, or else the client's.
    pub fn new(
        proxy: &Proxy,
        upstream: &Upstream,
        upgrade_query: &UpgradeQuery,
        nonce: [u8; 16],
    ) -> (UpstreamHandshake, Vec<u8>) {
        let key = encode_base64(&nonce);
        let target = match upstream.target.expose() {
            "" => &upgrade_query.target,
            target => target,
        };
        let host = proxy.set_headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = host.map_or_else(|| upstream.authority(), |(_, host)| host.expose().to_owned());
        let mut out = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
        out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n");
        push_field(&mut out, "Sec-WebSocket-Version", "13");
        push_field(&mut out, "Sec-WebSocket-Key", &key);
        if !upgrade_query.protocols.is_empty() {
            push_field(&mut out, PROTOCOL, &upgrade_query.protocols.join(", "));
        }
        out.extend_from_slice(&upgrade_query.fields);
        out.extend_from_slice(b"\r\n");
        let protocols = upgrade_query.protocols.clone();
        (UpstreamHandshake { accept: websocket_accept(&key), protocols }, out)
    }

    /// Checks the head of the response, up to and including its blank line.
    pub fn judge(&self, head: &[u8]) -> HandshakeOutcome {
        let Some(answer) = ResponseHead::parse(head) else {
            return HandshakeOutcome::Failed(UpstreamFailure::InvalidReply(
                "the response is not HTTP/1.1",
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

    /// Checks the header fields of a 101 response (RFC 6455 section 4.1, from item 2 of the
    /// server's handshake on).
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
            return failed("Sec-WebSocket-Accept does not match the key");
        }
        // No extension was offered.
        if headers.tokens("Sec-WebSocket-Extensions").next().is_some() {
            return failed("the response has an extension that was not offered");
        }
        let mut chosen = headers.tokens(PROTOCOL);
        let protocol = chosen.next();
        let is_offered = |name: &str| self.protocols.iter().any(|it| **it == *name);
        if protocol.is_some_and(|name| !is_offered(name)) || chosen.next().is_some() {
            return failed("the response has a subprotocol that was not offered");
        }
        HandshakeOutcome::Open(protocol.map(Box::from))
    }
}

const PROTOCOL: &str = "Sec-WebSocket-Protocol";
/// The header fields that name the original client, scheme and host.
const FORWARDED: [&str; 3] = ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"];

#[cfg(test)]
mod tests;
