//! The header fields in which proxies name the client of a request: `X-Forwarded-For` and
//! `X-Forwarded-Proto`, or `Forwarded` (RFC 7239).
//!
//! Each proxy appends the address from which it got the request, so only the last addresses were
//! written by proxies that are known. They are read from the end.

use crate::config::{ForwardedHeaders, Listener};
use crate::http::Request;
use std::net::{IpAddr, SocketAddr};

const FOR: &str = "x-forwarded-for";
const PROTO: &str = "x-forwarded-proto";
const FORWARDED: &str = "forwarded";
/// The node of a proxy that does not tell its client's address.
const UNKNOWN: &str = "unknown";

/// What the fields of a request say of its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardedClient {
    /// The client's address, with port 0 if only the address is known; `None` if no field has it.
    pub address: Option<SocketAddr>,
    /// Whether the client uses TLS, if a field says it.
    pub secure: Option<bool>,
}

/// A trusted proxy has sent a field that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the field by which a proxy names its client is malformed")]
pub struct MalformedForwarding;

/// Whether the request has a field that [`client`] reads.
pub fn is_present(listener: &Listener, request: &Request<'_>) -> bool {
    let names: &[&str] = match listener.forwarded {
        ForwardedHeaders::Off => &[],
        ForwardedHeaders::XForwarded => &[FOR, PROTO],
        ForwardedHeaders::Forwarded => &[FORWARDED],
    };
    names.iter().any(|name| request.headers.first(name).is_some())
}

/// The client of a request that comes from a trusted proxy. Several fields of one name are one list
/// (RFC 9110 section 5.3).
///
/// # Errors
/// A value that has to be read is malformed.
pub fn client(
    listener: &Listener,
    request: &Request<'_>,
) -> Result<ForwardedClient, MalformedForwarding> {
    match listener.forwarded {
        ForwardedHeaders::Off => Ok(ForwardedClient::default()),
        ForwardedHeaders::XForwarded => {
            let values = || request.headers.values(FOR);
            let nodes: Vec<_> = values().flat_map(|it| it.split(|&byte| byte == b',')).collect();
            let nodes = nodes.into_iter().rev().map(<[u8]>::trim_ascii);
            let nodes = nodes.filter(|it| !it.is_empty()).map(text);
            let address = walk(listener, nodes)?;
            let schemes = request.headers.values(PROTO).last();
            let last = schemes.and_then(|it| it.rsplit(|&byte| byte == b',').next());
            let secure = last.map(|it| text(it).and_then(is_secure)).transpose()?;
            Ok(ForwardedClient { address, secure })
        }
        ForwardedHeaders::Forwarded => {
            let mut elements = Vec::new();
            for value in request.headers.values(FORWARDED) {
                parse(text(value)?, &mut elements)?;
            }
            let nodes = elements.iter().rev().map(|it| it.node.as_deref().unwrap_or(UNKNOWN));
            let address = walk(listener, nodes.map(Ok))?;
            let proto = elements.last().and_then(|it| it.proto.as_deref());
            Ok(ForwardedClient { address, secure: proto.map(is_secure).transpose()? })
        }
    }
}

/// Reads addresses from the nearest proxy's on, until one is not a trusted proxy's.
fn walk<'n>(
    listener: &Listener,
    nodes: impl Iterator<Item = Result<&'n str, MalformedForwarding>>,
) -> Result<Option<SocketAddr>, MalformedForwarding> {
    let mut found = None;
    for node in nodes.take(listener.forwarded_hops.into()) {
        let Some(address) = address(node?)? else { break };
        found = Some(address);
        if !listener.trusts(address.ip()) {
            break;
        }
    }
    Ok(found)
}

/// The address of a node, with or without a port; `None` if the proxy does not tell it: `unknown`,
/// or a name that begins with `_`.
fn address(node: &str) -> Result<Option<SocketAddr>, MalformedForwarding> {
    let is_name = |it: u8| it.is_ascii_alphanumeric() || b"._-".contains(&it);
    if node.eq_ignore_ascii_case(UNKNOWN) || node.starts_with('_') && node.bytes().all(is_name) {
        return Ok(None);
    }
    let bare = node.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(node);
    let address = match (node.parse::<SocketAddr>(), bare.parse::<IpAddr>()) {
        (Ok(address), _) => SocketAddr::new(address.ip().to_canonical(), address.port()),
        (_, Ok(ip)) => SocketAddr::new(ip.to_canonical(), 0),
        _ => return Err(MalformedForwarding),
    };
    match address.ip().is_unspecified() {
        true => Err(MalformedForwarding),
        false => Ok(Some(address)),
    }
}

fn is_secure(scheme: &str) -> Result<bool, MalformedForwarding> {
    match scheme.trim().to_ascii_lowercase().as_str() {
        "https" | "wss" => Ok(true),
        "http" | "ws" => Ok(false),
        _ => Err(MalformedForwarding),
    }
}

fn text(value: &[u8]) -> Result<&str, MalformedForwarding> {
    str::from_utf8(value).map_err(|_| MalformedForwarding)
}

/// One element of `Forwarded`, which one proxy has written.
#[derive(Debug, Default)]
struct Element {
    node: Option<String>,
    proto: Option<String>,
}

/// Parses a value of `Forwarded`. A quoted string may contain the separators, so it must be closed:
/// otherwise a client could hide the elements of the proxies behind an open quote of its own.
fn parse(value: &str, elements: &mut Vec<Element>) -> Result<(), MalformedForwarding> {
    let (mut element, mut is_empty) = (Element::default(), true);
    let mut rest = value;
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        // Empty elements and parameters are allowed.
        if !rest.starts_with([',', ';']) && !rest.is_empty() {
            let (name, after) = rest.split_once('=').ok_or(MalformedForwarding)?;
            let (value, after) = value_of(after)?;
            let place = match name.to_ascii_lowercase().as_str() {
                "for" => Some(&mut element.node),
                "proto" => Some(&mut element.proto),
                name if name.bytes().all(crate::http::is_token_byte) => None,
                _ => return Err(MalformedForwarding),
            };
            if place.is_some_and(|place| place.replace(value).is_some()) {
                return Err(MalformedForwarding); // A name occurs at most once in an element.
            }
            rest = after.trim_start_matches([' ', '\t']);
            is_empty = false;
        }
        let separator = rest.chars().next();
        if separator != Some(';') && !std::mem::replace(&mut is_empty, true) {
            elements.push(std::mem::take(&mut element));
        }
        match separator {
            Some(',' | ';') => rest = &rest[1..],
            None => return Ok(()),
            Some(_) => return Err(MalformedForwarding),
        }
    }
}

/// The value of a parameter, a token or a quoted string, and what follows it. Unlike RFC 7239 asks,
/// `:`, `[` and `]` need no quotes.
fn value_of(text: &str) -> Result<(String, &str), MalformedForwarding> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ';', ' ', '\t', '"']).unwrap_or(text.len());
        return Ok((text[..end].to_owned(), &text[end..]));
    };
    let (mut value, mut is_escaped) = (String::new(), false);
    for (at, it) in quoted.char_indices() {
        match it {
            '"' if !is_escaped => return Ok((value, &quoted[at + 1..])),
            '\\' if !is_escaped => is_escaped = true,
            _ => {
                value.push(it);
                is_escaped = false;
            }
        }
    }
    Err(MalformedForwarding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadLimits, Reader, RequestEvent};

    /// The client by these fields, behind `hops` proxies with addresses in 10.0.0.0/8.
    fn found(
        kind: ForwardedHeaders,
        hops: u16,
        fields: &str,
    ) -> Result<(String, Option<bool>), MalformedForwarding> {
        let listener = Listener {
            forwarded: kind,
            forwarded_hops: hops,
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
            ..Listener::default()
        };
        let mut bytes = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n").into_bytes();
        let limits = HeadLimits { head_bytes: 4096, body_bytes: 0, ..HeadLimits::default() };
        match Reader::default().next(&limits, &mut bytes).1 {
            RequestEvent::Request(request) => client(&listener, &request).map(|it| {
                (it.address.map_or("-".to_owned(), |address| address.to_string()), it.secure)
            }),
            _ => panic!("{fields}"),
        }
    }

    fn check(kind: ForwardedHeaders, cases: &[(u16, &str, &str, Option<bool>)]) {
        for (hops, fields, address, secure) in cases {
            let fields: String = fields.split('|').map(|field| format!("{field}\r\n")).collect();
            let fields = if fields == "\r\n" { String::new() } else { fields };
            let found = found(kind, *hops, &fields);
            match *address {
                "malformed" => assert_eq!(found, Err(MalformedForwarding), "{fields}"),
                _ => assert_eq!(found, Ok(((*address).to_owned(), *secure)), "{fields}"),
            }
        }
    }

    #[test]
    fn forwarded_x_fields_are_read_from_the_end() {
        check(
            ForwardedHeaders::XForwarded,
            &[
                (1, "", "-", None),
                (1, "X-Forwarded-For: 192.0.2.1", "192.0.2.1:0", None),
                (1, "X-Forwarded-For: 6.6.6.6, 192.0.2.1", "192.0.2.1:0", None),
                (1, "X-Forwarded-For: 6.6.6.6|x-forwarded-for: 192.0.2.1", "192.0.2.1:0", None),
                (1, "X-Forwarded-For: 192.0.2.1, 10.0.0.1", "10.0.0.1:0", None),
                (2, "X-Forwarded-For: 192.0.2.1, 10.0.0.1", "192.0.2.1:0", None),
                (2, "X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.0.0.1", "192.0.2.1:0", None),
                (2, "X-Forwarded-For: 192.0.2.1|X-Forwarded-For: 10.0.0.1", "192.0.2.1:0", None),
                // An address that is not a trusted proxy's ends the walk.
                (3, "X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.0.0.1", "192.0.2.1:0", None),
                (9, "X-Forwarded-For: 10.0.0.2, 10.0.0.1", "10.0.0.2:0", None),
                (1, "X-Forwarded-For: , 192.0.2.1 ,,", "192.0.2.1:0", None),
                (1, "X-Forwarded-For: 192.0.2.1:81", "192.0.2.1:81", None),
                (1, "X-Forwarded-For: 2001:db8::1", "[2001:db8::1]:0", None),
                (1, "X-Forwarded-For: [2001:db8::1]", "[2001:db8::1]:0", None),
                (1, "X-Forwarded-For: [2001:db8::1]:81", "[2001:db8::1]:81", None),
                (1, "X-Forwarded-For: ::ffff:192.0.2.1", "192.0.2.1:0", None),
                (1, "X-Forwarded-For: unknown", "-", None),
                (2, "X-Forwarded-For: unknown, 10.0.0.1", "10.0.0.1:0", None),
                (1, "X-Forwarded-For: garbage, 192.0.2.1", "192.0.2.1:0", None),
                (1, "X-Forwarded-For: 192.0.2.1, garbage", "malformed", None),
                (1, "X-Forwarded-For: 192.0.2.1 10.0.0.1", "malformed", None),
                (1, "X-Forwarded-For: 0.0.0.0", "malformed", None),
                (1, "X-Forwarded-For: ::", "malformed", None),
                (1, "X-Forwarded-Proto: https", "-", Some(true)),
                (1, "X-Forwarded-Proto: HTTP", "-", Some(false)),
                (1, "X-Forwarded-Proto: https, http", "-", Some(false)),
                (1, "X-Forwarded-Proto: http|X-Forwarded-Proto: wss", "-", Some(true)),
                (1, "X-Forwarded-Proto: gopher", "malformed", None),
                (1, "Forwarded: for=6.6.6.6;proto=https", "-", None),
            ],
        );
    }

    #[test]
    fn forwarded_field_is_read_from_the_end() {
        check(
            ForwardedHeaders::Forwarded,
            &[
                (1, "", "-", None),
                (1, "Forwarded: for=192.0.2.1", "192.0.2.1:0", None),
                (1, "Forwarded: for=6.6.6.6, for=192.0.2.1;proto=https", "192.0.2.1:0", Some(true)),
                (1, "Forwarded: for=6.6.6.6|Forwarded: For=192.0.2.1", "192.0.2.1:0", None),
                (2, "Forwarded: for=192.0.2.1;proto=https, for=10.0.0.1", "192.0.2.1:0", None),
                (3, "Forwarded: for=6.6.6.6,for=192.0.2.1,for=10.0.0.1", "192.0.2.1:0", None),
                (1, "Forwarded: for=\"[2001:db8::1]:81\" ; by=10.0.0.1", "[2001:db8::1]:81", None),
                (1, "Forwarded: for=[2001:db8::1]", "[2001:db8::1]:0", None),
                (1, "Forwarded: for=192.0.2.1;host=\"a, for=6.6.6.6\"", "192.0.2.1:0", None),
                (1, "Forwarded: for=192.0.2.1;host=\"a\\\", for=6.6.6.6\"", "192.0.2.1:0", None),
                (1, "Forwarded: for=_hidden-1", "-", None),
                (1, "Forwarded: for=Unknown", "-", None),
                (1, "Forwarded: ;for=192.0.2.1;", "192.0.2.1:0", None),
                (1, "Forwarded: ,for=192.0.2.1;proto=http, ,", "192.0.2.1:0", Some(false)),
                (1, "Forwarded: for=6.6.6.6, by=10.0.0.1", "-", None),
                (1, "Forwarded: for=\"6.6.6.6, for=192.0.2.1", "malformed", None),
                (1, "Forwarded: for=192.0.2.1;for=6.6.6.6", "malformed", None),
                (1, "Forwarded: for=192.0.2.1 6.6.6.6", "malformed", None),
                (1, "Forwarded: for=\"192.0.2.1\"6.6.6.6", "malformed", None),
                (1, "Forwarded: 192.0.2.1", "malformed", None),
                (1, "Forwarded: f r=192.0.2.1", "malformed", None),
                (1, "Forwarded: for=192.0.2.1;proto=ftp", "malformed", None),
                (1, "X-Forwarded-For: 6.6.6.6", "-", None),
            ],
        );
        let fields = "Forwarded: for=\u{e9}\r\n";
        assert_eq!(found(ForwardedHeaders::Forwarded, 1, fields), Err(MalformedForwarding));
    }
}
