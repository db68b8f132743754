//! The handshake: subprotocol and format, protocol version, and the client's token.

use super::directory::{Principal, TokenOwner};
use super::sign_in;
use crate::codec::value::Format;
use crate::config::GuardKind;
use crate::dialect::{Env, Opening, Rejection};
use crate::http::query::{self, PlusSign};
use std::borrow::Cow;

/// The subprotocols, which are case-sensitive, and their formats.
const PROTOCOLS: [(&str, Format); 3] = [
    ("ZenithJson", Format::Json),
    ("ZenithBson", Format::Bson),
    ("ZenithMsgPack", Format::MsgPack),
];

/// The protocol version of a connection that names none.
const NEWEST: &str = "2.0";
/// The maximum bytes of a version.
const VERSION_BYTES: usize = 16;

/// The first offered subprotocol that is supported; `Ok(None)` if none is offered.
///
/// # Errors
/// 400: subprotocols are offered and none is supported.
pub(super) fn protocol<'a>(opening: &Opening<'a>) -> Result<Option<&'a str>, Rejection> {
    let mut any = false;
    for offered in opening.headers.tokens("sec-websocket-protocol") {
        any = true;
        if PROTOCOLS.iter().any(|(name, _)| *name == offered) {
            return Ok(Some(offered));
        }
    }
    if any || opening.headers.first("sec-websocket-protocol").is_some() {
        return Err(refused(400, "none of ZenithJson, ZenithBson, ZenithMsgPack is offered"));
    }
    Ok(None)
}

/// The format of the negotiated subprotocol; JSON if there is none.
pub(super) fn format(opening: &Opening<'_>) -> Format {
    let name = protocol(opening).ok().flatten();
    let known = PROTOCOLS.iter().find(|(known, _)| Some(*known) == name);
    known.map_or(Format::Json, |(_, format)| *format)
}

/// The protocol version of the connection, at least 1.1 and below 3.
///
/// # Errors
/// 400: the version is invalid or not supported.
pub(super) fn version<'a>(opening: &Opening<'a>) -> Result<Cow<'a, str>, Rejection> {
    let Some(version) = query::get(opening.query, "version") else {
        return Ok(Cow::Borrowed(NEWEST));
    };
    let version = query::decode(version, PlusSign::Literal);
    if let Some(version) = version.filter(|version| is_supported(version)) {
        return Ok(version);
    }
    Err(refused(400, "version must be 1.1 to 2.x"))
}

fn is_supported(version: &str) -> bool {
    let number = |part: &str| {
        let plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if plain { part.parse::<u32>().ok() } else { None }
    };
    let mut parts = version.split('.');
    let Some(major) = parts.next().and_then(number) else { return false };
    let minor = match parts.next() {
        Some(part) => match number(part) {
            Some(minor) => minor,
            None => return false,
        },
        None => 0,
    };
    version.len() <= VERSION_BYTES
        && parts.all(|part| number(part).is_some())
        && (major == 2 || major == 1 && minor >= 1)
}

/// Checks the request's bearer token, and counts a wrong one. If a guard of the route reads the
/// `Authorization` field, this function counts none.
///
/// # Errors
/// 403: the token is unknown. 429: too many wrong tokens came from this address.
pub(super) fn check_bearer(env: &Env, opening: &Opening<'_>) -> Result<(), Rejection> {
    let guarded = opening.route.guarded.keys().any(|name| reads_bearer(env, name));
    if opening.headers.first("authorization").is_none() || guarded {
        return bearer(env, opening).map(|_| ());
    }
    let Opening { conn, peer, now, .. } = *opening;
    if sign_in::is_refused(env, conn, peer, now) {
        return Err(refused(429, "too many wrong tokens from this address"));
    }
    bearer(env, opening).map(|_| ()).inspect_err(|_| sign_in::note_wrong(env, conn, peer, now))
}

/// The owner of the request's bearer token, with the token; on a guarded route, the user of the
/// guard's claims if no own token is given. `None` if the request is anonymous.
///
/// # Errors
/// 403: the token is unknown.
pub(super) fn bearer(
    env: &Env,
    opening: &Opening<'_>,
) -> Result<Option<(TokenOwner, String)>, Rejection> {
    let field = opening.headers.first("authorization");
    let token = field.and_then(|it| str::from_utf8(it).ok()).and_then(credentials);
    if let Some((found, token)) = token.and_then(|it| Some((env.zenith.token(it)?, it))) {
        return Ok(Some((found, token.to_owned())));
    }
    // A token that no guard has checked and that is not configured is wrong.
    if field.is_some() && !opening.route.guarded.keys().any(|name| reads_bearer(env, name)) {
        return Err(refused(403, "the token is not known"));
    }
    let guard = opening.route.guarded.keys().next();
    let principal =
        opening.claims.zip(guard).and_then(|(it, guard)| Principal::of_claims(guard, it));
    Ok(principal.map(|it| (TokenOwner::Principal(it), token.unwrap_or_default().to_owned())))
}

/// Whether a guard reads its token from the `Authorization` field.
fn reads_bearer(env: &Env, name: &str) -> bool {
    let guard = env.config.guards.iter().find(|guard| guard.name == name);
    guard.is_some_and(|guard| {
        let mut fields = guard.credentials.headers.keys();
        guard.kind == GuardKind::Jwt && fields.any(|it| it.eq_ignore_ascii_case("authorization"))
    })
}

/// The bearer token of an `Authorization` header field (RFC 6750 section 2.1).
pub(super) fn credentials(field: &str) -> Option<&str> {
    let (scheme, token) = field.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn refused(status: u16, text: &'static str) -> Rejection {
    Rejection { status, text: Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zenith_versions_from_1_1_to_2() {
        for version in ["1.1", "1.6", "1.5.4", "1.99", "2.0", "2", "2.12"] {
            assert!(is_supported(version), "{version}");
        }
        let bad = ["", "1", "1.0", "0.9", "3", "3.0", "x", "2.x", "-1.1", "1.", ".1", "2.0.", "+2"];
        for version in bad {
            assert!(!is_supported(version), "{version}");
        }
        assert!(is_supported("2.0000000000000") && !is_supported("2.00000000000000000"));
    }
}
