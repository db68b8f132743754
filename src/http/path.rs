//! Normalises request paths, so that the router and the server that serves a request interpret the
//! path in the same way.
//!
//! `/%61dmin`, `//admin`, `/./admin` and `/a/../admin` are different texts from `/admin`, but most
//! servers treat them as the same path. If a guard compared only the text, such a path would bypass
//! it.
//!
//! ```text
//! as received -> escapes of unreserved characters decoded -> empty and dot segments removed
//!             -> `sent` -> escapes of other visible characters decoded -> `matched`
//! ```

use std::borrow::Cow;

/// A path in normal form: the form that is sent to servers, and the form that routes match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormalPath<'p> {
    sent: Cow<'p, str>,
    /// The path that routes match, if it differs from `sent`.
    matched: Option<String>,
    is_ambiguous: bool,
}

impl<'p> NormalPath<'p> {
    /// Normalises a path, which begins with `/` and has no query (RFC 3986 sections 5.2.4 and
    /// 6.2.2; runs of `/` become one).
    pub fn new(path: &'p str) -> NormalPath<'p> {
        if is_normal(path) {
            let sent = Cow::Borrowed(path);
            return NormalPath { sent, matched: None, is_ambiguous: false };
        }
        let (decoded, is_malformed) = decode(path, is_unreserved);
        let sent = without_dots(&decoded);
        // Escapes of `/`, `\`, `%`, `?` and `#` stay, because the decoded characters would be taken
        // for delimiters.
        let visible = |byte: u8| byte.is_ascii_graphic() && !b"/\\%?#".contains(&byte);
        let matched = decode(&sent, visible).0;
        NormalPath {
            is_ambiguous: is_malformed || is_ambiguous(&sent),
            matched: Some(matched).filter(|it| *it != sent),
            sent: if sent == path { Cow::Borrowed(path) } else { Cow::Owned(sent) },
        }
    }

    /// The path that is sent to a server. [`NormalPath::matched`] is this path with the escapes of
    /// visible ASCII characters decoded, except those of delimiters.
    pub fn sent(&self) -> &str {
        &self.sent
    }

    /// The path with which the patterns of routes are compared.
    pub fn matched(&self) -> &str {
        self.matched.as_deref().unwrap_or(&self.sent)
    }

    /// Whether servers may interpret the path in different ways: it has `\`, `;`, `#` or a control
    /// character, an escape of `/`, `\`, `;` or a control character, or a `%` without two digits,
    /// or its decoded bytes are not UTF-8.
    pub fn is_ambiguous(&self) -> bool {
        self.is_ambiguous
    }
}

/// Whether the path has only characters and segments that normalisation never changes. Decides this
/// without a copy.
fn is_normal(path: &str) -> bool {
    let mut before = 0;
    let mut is_plain = |byte: u8| {
        let starts_segment = before == b'/' && (byte == b'/' || byte == b'.');
        before = byte;
        byte.is_ascii_graphic() && !b"%\\;#".contains(&byte) && !starts_segment
    };
    path.starts_with('/') && path.bytes().all(&mut is_plain)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Returns the text with the escapes of those ASCII bytes decoded for which `decodes` is true, and
/// with the digits of the other escapes in upper case. Also returns whether the text has a `%`
/// without two digits.
fn decode(text: &str, decodes: impl Fn(u8) -> bool) -> (String, bool) {
    let (mut out, mut is_malformed) = (String::with_capacity(text.len()), false);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        match escape(after) {
            Some(byte) if byte.is_ascii() && decodes(byte) => out.push(byte.into()),
            Some(_) => {
                out.push('%');
                out.push_str(&after[..2].to_ascii_uppercase());
            }
            None => {
                (is_malformed, rest) = (true, after);
                out.push('%');
                continue;
            }
        }
        rest = &after[2..];
    }
    out.push_str(rest);
    (out, is_malformed)
}

/// The byte that the two hexadecimal digits at the start of `text` encode.
fn escape(text: &str) -> Option<u8> {
    let [high, low, ..] = text.as_bytes() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

/// The path without empty segments, `.` segments and `..` segments. Each `..` also removes the
/// segment before it. The result keeps a `/` at the end.
fn without_dots(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_with_slash = false;
    for segment in path.split('/') {
        ends_with_slash = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len() + 1);
    for segment in &segments {
        out.push('/');
        out.push_str(segment);
    }
    if ends_with_slash || out.is_empty() {
        out.push('/');
    }
    out
}

fn is_ambiguous(sent: &str) -> bool {
    if sent.contains(['\\', ';', '#']) || sent.contains(char::is_control) {
        return true;
    }
    let escapes = sent.split('%').skip(1).filter_map(escape);
    let splits = |byte: u8| matches!(byte, b'/' | b'\\' | b';') || byte.is_ascii_control();
    escapes.into_iter().any(splits)
        || percent_encoding::percent_decode_str(sent).decode_utf8().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_spellings_of_one_path() {
        for (path, sent, matched) in [
            ("/", "/", "/"),
            ("/admin/x", "/admin/x", "/admin/x"),
            ("/%61dmin/%78", "/admin/x", "/admin/x"),
            ("//admin///x", "/admin/x", "/admin/x"),
            ("/./admin/./x", "/admin/x", "/admin/x"),
            ("/a/../admin/x", "/admin/x", "/admin/x"),
            ("/a/b/../../admin/x", "/admin/x", "/admin/x"),
            ("/../../admin/x", "/admin/x", "/admin/x"),
            ("/public/%2e%2e/admin/x", "/admin/x", "/admin/x"),
            ("/public/%2E./admin/x", "/admin/x", "/admin/x"),
            ("/public//../admin/x", "/admin/x", "/admin/x"),
            ("/admin/", "/admin/", "/admin/"),
            ("/admin/x/..", "/admin/", "/admin/"),
            ("/admin/.", "/admin/", "/admin/"),
            ("/admin//", "/admin/", "/admin/"),
            ("/..", "/", "/"),
            ("/%2E%2E", "/", "/"),
            ("/.well-known/x", "/.well-known/x", "/.well-known/x"),
            ("/a..b/...", "/a..b/...", "/a..b/..."),
            ("/%7euser", "/~user", "/~user"),
            ("/a%40b/%3ac%2c", "/a%40b/%3Ac%2C", "/a@b/:c,"),
            ("/a%25%32%66", "/a%252f", "/a%252f"),
            ("/%252e%252e/x", "/%252e%252e/x", "/%252e%252e/x"),
            ("/caf%c3%a9", "/caf%C3%A9", "/caf%C3%A9"),
            ("/a%20b%3Fc%23", "/a%20b%3Fc%23", "/a%20b%3Fc%23"),
        ] {
            let path_read = NormalPath::new(path);
            assert_eq!((path_read.sent(), path_read.matched()), (sent, matched), "{path}");
            assert!(!path_read.is_ambiguous(), "{path}");
            // Normalising the path again changes nothing.
            assert_eq!(NormalPath::new(sent).sent(), sent, "{path}");
        }
    }

    #[test]
    fn path_spellings_that_servers_read_differently() {
        for path in [
            "/admin%2Fx",
            "/admin%2fx",
            "/admin%5Cx",
            "/admin%5cx",
            "/admin\\x",
            "/admin%00",
            "/admin%0a",
            "/admin%7F",
            "/admin;a=b/x",
            "/public/..;/admin/x",
            "/admin#",
            "/%zz",
            "/a%",
            "/a%4",
            "/%u002f",
            "/%c0%af",
            "/%ff",
            "/%\u{e9}1",
            "/a%3Bb",
        ] {
            assert!(NormalPath::new(path).is_ambiguous(), "{path}");
        }
        for path in ["/%25", "/a=b&c", "/'()*+,:@!$", "/%E2%82%AC", "/\u{e9}", "/%3F%23"] {
            assert!(!NormalPath::new(path).is_ambiguous(), "{path}");
        }
    }
}
