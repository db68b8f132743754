//! Query strings: `k=v` pairs as sent, and their percent-decoding.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// What a `+` stands for, which differs between forms and URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlusSign {
    /// A space (`application/x-www-form-urlencoded`).
    Space,
    /// Itself (RFC 3986).
    Literal,
}

/// The pairs of `query` as sent, in order. A part without `=` has an empty value; empty parts are
/// skipped.
pub fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> + Clone {
    let mut rest = query;
    let parts = std::iter::from_fn(move || {
        let (part, after) = cut(rest, b'&').unwrap_or((rest, ""));
        let is_more = !rest.is_empty();
        rest = after;
        is_more.then_some(part)
    });
    parts.filter(|part| !part.is_empty()).map(|part| cut(part, b'=').unwrap_or((part, "")))
}

/// The text before and after the first `separator`, which is ASCII. `split_once` does not use the
/// processor's vector instructions.
fn cut(text: &str, separator: u8) -> Option<(&str, &str)> {
    let at = memchr::memchr(separator, text.as_bytes())?;
    Some((&text[..at], &text[at + 1..]))
}

/// The first value of `name`, as sent. `name` is compared with the keys as sent.
pub fn get<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    pairs(query).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// Appends the bytes that `text` stands for. A `%` without two digits stands for itself.
pub fn decode_into(out: &mut Vec<u8>, text: &[u8], plus: PlusSign) {
    let is_plain = |&byte: &u8| byte != b'%' && (byte != b'+' || plus == PlusSign::Literal);
    if text.iter().all(is_plain) {
        return out.extend_from_slice(text);
    }
    match plus {
        PlusSign::Literal => out.extend(percent_decode(text)),
        // `+` is replaced before decoding, because `%2B` is a plus sign.
        PlusSign::Space => {
            for (at, word) in text.split(|&byte| byte == b'+').enumerate() {
                if at > 0 {
                    out.push(b' ');
                }
                out.extend(percent_decode(word));
            }
        }
    }
}

/// Decodes `text`; borrowed if nothing has to change. `None` if the result is not UTF-8.
pub fn decode(text: &str, plus: PlusSign) -> Option<Cow<'_, str>> {
    if memchr::memchr2(b'%', b'+', text.as_bytes()).is_none() {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    decode_into(&mut out, text.as_bytes(), plus);
    String::from_utf8(out).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_pairs_are_as_sent() {
        let cases: [(&str, &[(&str, &str)]); 6] = [
            ("", &[]),
            ("&&", &[]),
            ("a=1", &[("a", "1")]),
            ("a=1&b&c=&=d", &[("a", "1"), ("b", ""), ("c", ""), ("", "d")]),
            ("a=b=c&a=%26", &[("a", "b=c"), ("a", "%26")]),
            ("channels[]=a&channels%5B%5D=b", &[("channels[]", "a"), ("channels%5B%5D", "b")]),
        ];
        for (query, want) in cases {
            assert_eq!(pairs(query).collect::<Vec<_>>(), want, "{query}");
        }
        assert_eq!(get("a=1&b=2&b=3", "b"), Some("2"));
        assert_eq!(get("a=1", "b"), None);
    }

    #[test]
    fn query_decoding() {
        for (text, plus, want) in [
            ("", PlusSign::Space, Some("")),
            ("plain", PlusSign::Space, Some("plain")),
            ("a+b%2Bc", PlusSign::Space, Some("a b+c")),
            ("a+b%2Bc", PlusSign::Literal, Some("a+b+c")),
            ("%41%7a%C3%ab", PlusSign::Literal, Some("Azë")),
            ("%", PlusSign::Literal, Some("%")),
            ("%4", PlusSign::Space, Some("%4")),
            ("%zz%41", PlusSign::Space, Some("%zzA")),
            ("%2541", PlusSign::Space, Some("%41")),
            ("%ff", PlusSign::Space, None),
        ] {
            assert_eq!(decode(text, plus).as_deref(), want, "{text}");
        }
    }
}
