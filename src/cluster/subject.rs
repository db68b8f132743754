//! Names of channels as tokens of subjects.
//!
//! Of two different channels the subjects differ, and a subject has no wildcard and a fixed number
//! of tokens, whatever bytes the names have.

use crate::crypto::sha256;
use crate::hub::CountedKind;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::sync::Arc;

/// The longest token that is a name; a longer one is replaced by its digest.
const TOKEN_BYTES: usize = 512;
/// The first byte of a digest. It is escaped in names.
const DIGEST: char = '~';

/// The subject to which entries of a channel are sent, for the cluster `name`.
pub fn of_channel(name: &str, app: &str, channel: &str) -> String {
    format!("{name}.i.{}.{}", token(app), token(channel))
}

/// The subject of the entries about a node.
pub fn of_node(name: &str, node: u64) -> String {
    format!("{name}.i.+n.{node:016x}")
}

/// The subject of what all nodes have reserved of the connections of an application, of which the
/// id is given.
pub fn of_reservations(name: &str, app: &str) -> String {
    format!("{name}.i.+l.{}", token(app))
}

/// The subject of the question for the numbers of subscribers of an application, of which the id is
/// given, or of what nodes that read them say.
pub fn of_counting(name: &str, (app, kind): (&str, CountedKind), is_reads: bool) -> String {
    let reads = if is_reads { ".+r" } else { "" };
    match kind {
        CountedKind::Unleased => format!("{name}.i.+c.{}", token(app)),
        kind => format!("{name}.i.+c.{}.{}{reads}", token(app), kind_token(kind)),
    }
}

/// The subject of what a core of a node says of the numbers of subscribers of an application.
pub fn of_counted(name: &str, node: u64, (app, kind): (&str, CountedKind), core: u16) -> String {
    format!("{}.{}.{}.{core}", of_state(name, node), token(app), kind_token(kind))
}

/// A token that is no name, because a plus sign is escaped in names.
fn kind_token(kind: CountedKind) -> &'static str {
    match kind {
        CountedKind::Unleased => "+",
        CountedKind::Totals => "+t",
        CountedKind::ByView => "+v",
    }
}

/// The subject of entries by which the speed of the engine is measured.
pub fn of_probes(name: &str) -> String {
    format!("{name}.i.+d")
}

/// The subject of entries that are the first ones after a time in which nothing was stored.
pub fn of_first_entries(name: &str) -> String {
    format!("{name}.i.+f")
}

/// The first tokens of the subjects of a node's state.
pub fn of_state(name: &str, node: u64) -> String {
    format!("{name}.i.+s.{node:016x}")
}

/// The subject of a state of a node in a channel, of which the application's id and the name are
/// given: of the user or, without one, of the number of subscribers.
pub fn of_state_in(
    name: &str,
    node: u64,
    (app, channel): (&str, &str),
    user: Option<&Arc<str>>,
) -> String {
    // A plus sign is escaped in names.
    let key = user.map_or("+".to_owned(), |user| token(user));
    format!("{}.{}.{}.{key}", of_state(name, node), token(app), token(channel))
}

/// The subject of what a node says of a miss in a channel, of which the application's id and the
/// name are given.
pub fn of_miss(name: &str, node: u64, (app, channel): (&str, &str)) -> String {
    // A plus sign is escaped in names.
    format!("{}.{}.{}.+m", of_state(name, node), token(app), token(channel))
}

/// The subject of a piece of the picture of a channel, of which the application's id and the name
/// are given.
pub fn of_picture(name: &str, (app, channel): (&str, &str), index: u32) -> String {
    format!("{name}.i.+p.{}.{}.{index}", token(app), token(channel))
}

/// The subjects of all entries.
pub fn of_all(name: &str) -> String {
    format!("{name}.i.>")
}

/// The name as one token of a subject.
pub fn token(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => out.push(char::from(byte)),
            b'-' | b'_' | b'=' | b'@' | b',' | b';' | b'#' | b'!' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    match out.len() {
        // No name is empty, but an empty token would be an invalid subject.
        0 => "%".to_owned(),
        1..=TOKEN_BYTES => out,
        _ => format!("{DIGEST}{}", URL_SAFE_NO_PAD.encode(sha256(&[name.as_bytes()]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The name of a token that is not a digest.
    fn name(token: &str) -> Option<String> {
        let mut bytes = Vec::new();
        let mut rest = token.as_bytes();
        while let [first, tail @ ..] = rest {
            if *first != b'%' {
                bytes.push(*first);
                rest = tail;
                continue;
            }
            let digits = tail.get(..2)?;
            bytes.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
            rest = &tail[2..];
        }
        String::from_utf8(bytes).ok()
    }

    proptest! {
        #[test]
        fn cluster_subject_token_leads_back_to_its_name(text in "\\PC{1,40}") {
            let token = token(&text);
            prop_assert_eq!(name(&token), Some(text));
            let is_special = token.contains(['.', '*', '>', ' ', '\t', '\r', '\n', '{', '}', '~']);
            prop_assert!(!is_special && token.is_ascii());
        }
    }

    #[test]
    fn cluster_subject_token_is_a_digest_above_its_bound() {
        assert_eq!(token(&"a".repeat(512)), "a".repeat(512));
        let long = token(&"a".repeat(513));
        assert!(long.starts_with('~') && long.len() == 44, "{long}");
        assert_ne!(long, token(&"b".repeat(513)));
        // Escaping makes it longer.
        assert_eq!(token(&".".repeat(170)).len(), 510);
        assert!(token(&".".repeat(171)).starts_with('~'));
        assert_eq!(token(""), "%");
    }

    #[test]
    fn cluster_subject_has_the_tokens_of_its_channel() {
        assert_eq!(of_channel("p", "1", "private-a.b"), "p.i.1.private-a%2Eb");
        assert_eq!(of_node("p", 0xab), "p.i.+n.00000000000000ab");
        assert_eq!(of_state("p", u64::MAX), "p.i.+s.ffffffffffffffff");
        assert_eq!(token("+n"), "%2Bn", "no application has the subjects of nodes");
        assert_eq!(of_reservations("p", "a.b"), "p.i.+l.a%2Eb");
        assert_eq!(of_picture("p", ("@zenith", "M\0S!a"), 3), "p.i.+p.@zenith.M%00S!a.3");
        for (kind, question, core) in [
            (CountedKind::Unleased, "p.i.+c.a%2Eb", "p.i.+s.000000000000000a.1.+.3"),
            (CountedKind::Totals, "p.i.+c.a%2Eb.+t", "p.i.+s.000000000000000a.1.+t.3"),
            (CountedKind::ByView, "p.i.+c.a%2Eb.+v", "p.i.+s.000000000000000a.1.+v.3"),
        ] {
            assert_eq!(of_counting("p", ("a.b", kind), false), question);
            assert_eq!(of_counted("p", 10, ("1", kind), 3), core);
        }
        let reads = of_counting("p", ("a.b", CountedKind::Totals), true);
        assert_eq!(reads, "p.i.+c.a%2Eb.+t.+r");
        assert_eq!(of_miss("p", 10, ("1", "a.b")), "p.i.+s.000000000000000a.1.a%2Eb.+m");
        assert_eq!(of_all("p"), "p.i.>");
        let state = |user: Option<&str>| {
            of_state_in("p", 10, ("1", "presence-a"), user.map(Arc::from).as_ref())
        };
        assert_eq!(state(None), "p.i.+s.000000000000000a.1.presence-a.+");
        assert_eq!(state(Some("+")), "p.i.+s.000000000000000a.1.presence-a.%2B");
        assert_eq!(token("#server-to-user-a*"), "#server-to-user-a%2A");
    }
}
