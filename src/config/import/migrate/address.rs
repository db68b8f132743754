//! Addresses of servers as soketi and sockudo write them.

/// The user and the password in an address; a user without a password may be a token.
pub(super) type AddressLogin = (String, Option<String>);

/// Reads an address with one of these schemes, or without a scheme, which means the first of them.
/// Returns the scheme, the host with its port, and the log-in.
pub(super) fn address<'a>(
    text: &'a str,
    schemes: &[&'a str],
    default_port: &str,
) -> Option<(&'a str, String, Option<AddressLogin>)> {
    let first = schemes.first().copied()?;
    let (scheme, rest) = text.split_once("://").unwrap_or((first, text));
    if !schemes.contains(&scheme) {
        return None;
    }
    let rest = rest.trim_end_matches('/');
    let (login, host) = match rest.rsplit_once('@') {
        Some((login, host)) => (Some(login), host),
        None => (None, rest),
    };
    if host.is_empty() || host.contains('/') {
        return None;
    }
    // The port follows the last colon, unless that is within the brackets of an IPv6 address.
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let port = if has_port { String::new() } else { format!(":{default_port}") };
    let decode = |text: &str| {
        let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
        decoded.map_or_else(|_| text.to_owned(), |it| it.into_owned())
    };
    let login = login.map(|login| match login.split_once(':') {
        Some((user, password)) => (decode(user), Some(decode(password))),
        None => (decode(login), None),
    });
    Some((scheme, format!("{host}{port}"), login))
}
